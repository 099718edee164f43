/* Is preloaded into httpd, together with AddressSanitizer's runtime: see ci/sanitizers.
 *
 * The runtime looks for leaks where a process ends by exit(). A drain process ends by _exit(): this
 * has it look there too. And it notes who was looked at, so that a run can show it. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void __asan_init(void);
void __lsan_ignore_object(const void *block);
/* Of the runtime's own, C++: they are in the same library. */
void each_block(void (*call)(unsigned long block, void *data), void *data) __asm__("_ZN6__lsan12ForEachChunkEPFvmPvES0_");
void lock_blocks(void) __asm__("_ZN6__lsan13LockAllocatorEv");
void unlock_blocks(void) __asm__("_ZN6__lsan15UnlockAllocatorEv");
unsigned long begin_of(unsigned long block) __asm__("_ZN6__lsan12GetUserBeginEm");
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

struct blocks { size_t count, room; unsigned long *all; };

static void add(unsigned long block, void *data)
{
    struct blocks *blocks = data;

    if (blocks->count < blocks->room)
        blocks->all[blocks->count] = begin_of(block);
    blocks->count++;
}

/* A forked process has a copy of all memory, and none of the threads that knew where. What it did not allocate
 * is its parent's to give up. */
static void forked(void)
{
    struct blocks blocks = {0};
    size_t i;

    lock_blocks();
    each_block(add, &blocks);
    unlock_blocks();
    /* Not malloc: there would be more. */
    blocks.room = blocks.count;
    blocks.all = mmap(NULL, blocks.room * sizeof *blocks.all + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (blocks.all == MAP_FAILED)
        abort();
    blocks.count = 0;
    lock_blocks();
    each_block(add, &blocks);
    unlock_blocks();
    for (i = 0; i < blocks.room; i++)
        __lsan_ignore_object((void *)blocks.all[i]);
    munmap(blocks.all, blocks.room * sizeof *blocks.all + 1);
}

static int is_drain(void)
{
    char name[16] = "";

    return prctl(PR_GET_NAME, name) == 0 && strcmp(name, "wsforward-drain") == 0;
}

/* Its tunnels are the forked process's from here on: see tests/harness/reports.py. */
static void has_forked(void)
{
    note("forked");
}

static void exited(void)
{
    note("exit");
}

/* Asks the runtime before it looks. prefork's children end within the handler of SIGTERM or SIGHUP, in the middle of
 * whatever they do, and may give nothing up there: they are as good as killed. */
int __lsan_is_turned_off(void)
{
    sigset_t blocked;

    return pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 &&
           (sigismember(&blocked, SIGTERM) == 1 || sigismember(&blocked, SIGHUP) == 1) && !is_drain();
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
    pthread_atfork(NULL, has_forked, forked);
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
