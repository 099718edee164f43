/* Is preloaded into httpd, together with AddressSanitizer's runtime: see ci/sanitizers.
 *
 * The runtime looks for leaks where a process ends by exit(). A drain process ends by _exit(): this
 * has it look there too. And it notes who was looked at, so that a run can show it. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void __asan_init(void);
int __lsan_do_recoverable_leak_check(void);

/* A copy: a drain process has no environment, and what was one is written over. */
static char notes[4096];

static void note(const char *how)
{
    char line[64], name[16] = "?";
    int file = open(notes, O_WRONLY | O_APPEND | O_CLOEXEC);

    if (file < 0) /* There is none, or not in this process's root. */
        return;
    prctl(PR_GET_NAME, name);
    /* In one write(2), which no other process's is mixed with. */
    if (write(file, line, snprintf(line, sizeof line, "%ld %s %s\n", (long)getpid(), name, how)) < 0)
        abort();
    close(file);
}

static void exited(void)
{
    note("exit");
}

/* Before anything of httpd runs, but for what the C library does at its start. */
__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WSF_LEAKS_NOTED");

    if (path && strlen(path) < sizeof notes)
        strcpy(notes, path);
    /* Not for what httpd starts: logs' programs, and the one that finds the names of functions. */
    unsetenv("LD_PRELOAD");
    /* Handlers run in reverse: the note comes after the look for leaks. */
    atexit(exited);
    __asan_init();
}

static int is_drain(void)
{
    char name[16] = "";

    return prctl(PR_GET_NAME, name) == 0 && strcmp(name, "wsforward-drain") == 0;
}

void _exit(int status)
{
    if (is_drain()) {
        __lsan_do_recoverable_leak_check();
        note("_exit");
    }
    for (;;)
        syscall(SYS_exit_group, status);
}
