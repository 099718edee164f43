/* A wall clock that is set forwards and backwards, for the processes that have this in LD_PRELOAD and
 * for no others. The file that WSF_SOAK_CLOCK names holds by how many nanoseconds it is wrong, as
 * eight bytes that may change at any time. What waits until an instant of the wall clock waits for as
 * long as it would have: the kernel knows nothing of the change. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
/* No clock since boot shows so many seconds: an instant beyond it is one of the wall clock. */
#define WALL 1000000000LL

static const volatile long long *wrong_by;
static int (*get)(clockid_t, struct timespec *);
static int (*cond_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*mutex_lock)(pthread_mutex_t *, const struct timespec *);
static int (*semaphore_wait)(sem_t *, const struct timespec *);

static void *real(const char *name, const char *version)
{
    void *found = dlvsym(RTLD_NEXT, name, version);
    return found ? found : dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("WSF_SOAK_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = MAP_FAILED;

    get = real("clock_gettime", "GLIBC_2.17");
    cond_wait = real("pthread_cond_timedwait", "GLIBC_2.3.2");
    mutex_lock = real("pthread_mutex_timedlock", "GLIBC_2.34");
    semaphore_wait = real("sem_timedwait", "GLIBC_2.34");
    if (file >= 0) {
        mapped = mmap(NULL, sizeof *wrong_by, PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }
    if (mapped != MAP_FAILED)
        wrong_by = mapped;
}

static void add(struct timespec *at, long long nanoseconds)
{
    at->tv_sec += nanoseconds / SECOND;
    at->tv_nsec += nanoseconds % SECOND;
    if (at->tv_nsec < 0) {
        at->tv_sec -= 1;
        at->tv_nsec += SECOND;
    } else if (at->tv_nsec >= SECOND) {
        at->tv_sec += 1;
        at->tv_nsec -= SECOND;
    }
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    /* Constructors of others may come before ours. */
    int done = get ? get(id, at) : (int)syscall(SYS_clock_gettime, id, at);

    if (done == 0 && wrong_by && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        add(at, *wrong_by);
    return done;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

/* The same instant as the kernel knows it. */
static struct timespec kernels(const struct timespec *until)
{
    struct timespec at = *until;

    if (wrong_by && at.tv_sec > WALL)
        add(&at, -*wrong_by);
    return at;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
    struct timespec at = kernels(until);

    return cond_wait(cond, mutex, &at);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
    struct timespec at = kernels(until);

    return mutex_lock(mutex, &at);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec at = kernels(until);

    return semaphore_wait(semaphore, &at);
}
