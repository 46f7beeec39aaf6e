/* Forks while other threads allocate. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>

enum { FORKS = 1000, BUSY = 4, SLOTS = 64 };

static void *volatile slots[SLOTS];

static unsigned next(unsigned *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

/* Blocks of all sizes; what one thread leaves in a slot, another frees. */
static void churn(unsigned seed, int rounds)
{
    for (int round = 0; round != rounds; round++) {
        unsigned chance = next(&seed);
        size_t size = (chance >> 8) % ((chance & 0xf0) ? 2000 : 300000);
        char *block = malloc(size);
        CHECK(block != NULL);
        memset(block, (int)seed, size < 100 ? size : 100);
        free(__atomic_exchange_n(&slots[chance % SLOTS], block, __ATOMIC_ACQ_REL));
    }
}

static void *busy(void *seed)
{
    churn((unsigned)(uintptr_t)seed, -1);
    return NULL;
}

static void *briefly(void *seed)
{
    churn((unsigned)(uintptr_t)seed, 300);
    return NULL;
}

static void start_busy(void)
{
    for (uintptr_t seed = 1; seed <= BUSY; seed++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, busy, (void *)seed) == 0 && pthread_detach(thread) == 0);
    }
}

/* What a child does: it frees what it has inherited, and has threads of its own. */
static void child(int number, void *inherited)
{
    CHECK(is_filled(inherited, 3000, 8));
    free(inherited);
    churn((unsigned)number, 300);
    if (number % 2 == 0) {
        pthread_t threads[3];
        for (uintptr_t seed = 0; seed < 3; seed++)
            CHECK(pthread_create(threads + seed, NULL, briefly, (void *)(seed + (uintptr_t)number)) == 0);
        churn((unsigned)number + 7, 300);
        for (int index = 0; index < 3; index++)
            CHECK(pthread_join(threads[index], NULL) == 0);
    }
    if (number % 10 == 0) {
        pid_t grandchild = fork();
        CHECK(grandchild >= 0);
        if (grandchild == 0) {
            churn((unsigned)number, 300);
            exit(0);
        }
        int status = -1;
        CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0);
    }
    if (number % 3 == 0)
        _exit(0);
    exit(0);
}

static void fork_repeatedly(int forks)
{
    for (int number = 0; number < forks; number++) {
        void *block = malloc(3000);
        fill(block, 3000, 8);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            child(number, block);
        free(block);
        int status = -1;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK_FOR(status == 0, "fork %d: status %#x", number, (unsigned)status);
    }
}

static void thousand_forks_among_threads_work(void)
{
    start_busy();
    fork_repeatedly(FORKS);
}

static void *forking(void *argument)
{
    fork_repeatedly(100);
    return argument;
}

static void forks_of_many_threads_at_once_work(void)
{
    start_busy();
    pthread_t threads[4];
    for (int index = 0; index < 4; index++)
        CHECK(pthread_create(threads + index, NULL, forking, NULL) == 0);
    for (int index = 0; index < 4; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
}

/* The child is the only thread before the program has any other, too. */
static void fork_at_first_call_works(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    use_memory();
    if (pid != 0) {
        int status = -1;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
}

/* What a child gives back and takes anew, generation after generation. */
static void generations_of_forks_work(void)
{
    for (int depth = 0; depth < 40; depth++) {
        use_memory();
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid != 0) {
            int status = -1;
            CHECK(waitpid(pid, &status, 0) == pid && status == 0);
            return;
        }
    }
}

MAIN(SCENARIO(thousand_forks_among_threads_work), SCENARIO(forks_of_many_threads_at_once_work),
     SCENARIO(fork_at_first_call_works), SCENARIO(generations_of_forks_work))
