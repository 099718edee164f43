/* Does wrong what ci/sanitizers is to find, so that it knows that it would: as a process that ends by
 * exit(), or as its child that ends as a drain process does. Called like httpd, and built without a sanitizer
 * like it. */

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void leak(void)
{
    void *volatile lost = malloc(4711);

    memset(lost, 1, 4711);
    lost = NULL;
}

static void *volatile before;

static void use_what_is_freed(void)
{
    /* Not a constant, or the compiler copies without a call. */
    volatile size_t size = 64;
    char *volatile block = malloc(size), *volatile freed = block;
    char copy[64];

    free(block);
    memcpy(copy, freed, size);
    _exit(copy[0]);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[2] : "";

    if (strcmp(what, "freed") == 0)
        use_what_is_freed();
    if (strcmp(what, "exit") == 0)
        leak();
    if (strcmp(what, "_exit") == 0) {
        /* Only its child loses this: it is none of the child's. */
        before = malloc(815);
        if (fork() == 0) {
            prctl(PR_SET_NAME, "wsforward-drain");
            before = NULL;
            leak();
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        ;
    return 0;
}
