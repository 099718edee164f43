/* Functions whose names end with NAME are not found, or are found and do nothing (FOUND), by who looks
 * them up by dlsym. For LD_PRELOAD. */

#define _GNU_SOURCE

#include "looked_up.h"

static inline int nothing(void)
{
    return 0;
}

void *dlsym(void *handle, const char *name)
{
    const char *end = name;

    while (*end && !is_same(end, NAME))
        end++;
    return *end ? (void *)FOUND : looked_up(handle, name);
}
