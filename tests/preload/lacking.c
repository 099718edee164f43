/* Functions whose names end with NAME are not found, or are found and do nothing (FOUND), by who looks
 * them up by dlsym. For LD_PRELOAD. */

#define _GNU_SOURCE
#include <string.h>

#include "looked_up.h"

static inline int nothing(void)
{
    return 0;
}

void *dlsym(void *handle, const char *name)
{
    size_t length = strlen(name), end = strlen(NAME);

    return length >= end && !strcmp(name + length - end, NAME) ? (void *)FOUND : looked_up(handle, name);
}
