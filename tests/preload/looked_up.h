/* The C library's dlsym, for those that have one of their own. */

#include <dlfcn.h>

static void *looked_up(void *handle, const char *name)
{
    static const char *const versions[] = {"GLIBC_2.34", "GLIBC_2.17", "GLIBC_2.2.5"};
    void *(*real)(void *, const char *) = 0;

    for (int i = 0; !real && i < 3; i++)
        *(void **)&real = dlvsym(RTLD_NEXT, "dlsym", versions[i]);
    return real(handle, name);
}

/* Whether both are the same. Not strcmp, which AddressSanitizer has, and has not yet when it looks up its first names. */
static int is_same(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}
