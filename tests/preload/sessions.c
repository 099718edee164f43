/* Ends a process that uses an SSL to which nobody has a reference any more: memory that was freed
 * does not show that by itself. For LD_PRELOAD: mod_ssl makes and frees its sessions here, and who looks
 * OpenSSL's functions up by dlsym is given these. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include "looked_up.h"

#define MOST 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct session {
    const void *ssl;
    int references;
} sessions[MOST];

/* One more reference, or one less. `begins`: the first. */
static void count(const void *ssl, int change, int begins)
{
    struct session *found = NULL;

    pthread_mutex_lock(&lock);
    for (int i = 0; !found && i < MOST; i++)
        if (sessions[i].ssl == ssl)
            found = &sessions[i];
    /* Memory that an SSL had may be another's. */
    for (int i = 0; begins && !found && i < MOST; i++)
        if (!sessions[i].references)
            found = &sessions[i];
    if (found && begins)
        *found = (struct session){ssl, 1};
    else if (found && (found->references += change) < 0)
        abort();
    pthread_mutex_unlock(&lock);
}

static void check(const void *ssl)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST; i++)
        if (sessions[i].ssl == ssl && !sessions[i].references)
            abort();
    pthread_mutex_unlock(&lock);
}

void *SSL_new(void *context)
{
    void *(*real)(void *) = (void *(*)(void *))looked_up(RTLD_NEXT, "SSL_new");
    void *ssl = real(context);

    if (ssl)
        count(ssl, 0, 1);
    return ssl;
}

int SSL_up_ref(void *ssl)
{
    int (*real)(void *) = (int (*)(void *))looked_up(RTLD_NEXT, "SSL_up_ref");

    count(ssl, 1, 0);
    return real(ssl);
}

void SSL_free(void *ssl)
{
    void (*real)(void *) = (void (*)(void *))looked_up(RTLD_NEXT, "SSL_free");

    if (ssl)
        count(ssl, -1, 0);
    real(ssl);
}

/* What is called on sessions of connections that are httpd's. */
#define CHECKED(type, name, parameters, arguments)                 \
    static type(*real_##name) parameters;                          \
    static type checked_##name parameters                          \
    {                                                              \
        check(ssl);                                                \
        return real_##name arguments;                              \
    }

CHECKED(long, SSL_ctrl, (void *ssl, int command, long number, void *pointer), (ssl, command, number, pointer))
CHECKED(int, SSL_shutdown, (void *ssl), (ssl))
CHECKED(int, SSL_is_init_finished, (const void *ssl), (ssl))
CHECKED(int, SSL_get_shutdown, (const void *ssl), (ssl))
CHECKED(void, SSL_set_quiet_shutdown, (void *ssl, int mode), (ssl, mode))
CHECKED(void, SSL_set_shutdown, (void *ssl, int mode), (ssl, mode))

void *dlsym(void *handle, const char *name)
{
    void *found = looked_up(handle, name);

#define IS(one) (found && is_same(name, #one))
#define USE(one) if (IS(one)) { *(void **)&real_##one = found; return (void *)checked_##one; }
    if (IS(SSL_up_ref))
        return (void *)SSL_up_ref;
    if (IS(SSL_free))
        return (void *)SSL_free;
    USE(SSL_ctrl)
    USE(SSL_shutdown)
    USE(SSL_is_init_finished)
    USE(SSL_get_shutdown)
    USE(SSL_set_quiet_shutdown)
    USE(SSL_set_shutdown)
    return found;
}
