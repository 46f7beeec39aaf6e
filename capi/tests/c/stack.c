/* How deep calls of the allocator go below their caller: each runs on a painted stack, in a process of its own.
 *
 * usage: stack BOUND     prints a line for each; exits with 1 if one needs more than BOUND bytes */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { STACK_BYTES = 256 << 10, PAINT = 0xa5, BLOCKS = 20000, SMALL = 40000 };

/* Shared with the child, which may end by a signal. */
static unsigned char *stack;
static struct {
    uintptr_t caller;
    size_t depth; /* 0 until the work has returned */
} *seen;

static void *blocks[BLOCKS];
static void *small[SMALL];

static void wait_a_moment(void)
{
    struct timespec moment = {0, 20000000};
    nanosleep(&moment, NULL);
}

/* Work has the caller's frame; what it calls beside the allocator is measured, too. */
#define WORK __attribute__((noinline)) static void

WORK first_malloc(void)
{
    kept(malloc(100));
}

WORK first_calloc_aligned(void)
{
    kept(calloc(10, 100));
    kept(aligned_alloc(4096, 100));
}

WORK refills_and_flushes(void)
{
    for (int round = 0; round < 3; round++) {
        for (int index = 0; index < BLOCKS; index++)
            blocks[index] = malloc((size_t)index * 13 % 40000 + 1);
        for (int index = 0; index < BLOCKS; index++)
            free(blocks[(index * 7919) % BLOCKS]);
    }
}

WORK large_blocks_move(void)
{
    char *block = malloc(5 << 20);
    block = realloc(block, 50 << 20);
    block[49 << 20] = 1;
    void *other = kept(malloc(100));
    block = realloc(block, 150 << 20);
    free(kept(block));
    free(other);
}

WORK small_blocks_grow(void)
{
    char *block = NULL;
    for (size_t size = 1; size < 3 << 20; size += size / 2 + 1)
        block = kept(realloc(block, size));
    free(block);
}

/* Half of many pages are free, for longer than the delay, and more become so. */
WORK purges_on_the_way(void)
{
    for (int index = 0; index < SMALL; index++)
        if (index / 100 % 2)
            free(small[index]);
    for (int round = 0; round < 20; round++) {
        for (int index = 0; index < 2000; index++)
            blocks[index] = malloc(200);
        for (int index = 0; index < 2000; index++)
            free(blocks[index]);
        wait_a_moment();
    }
}

WORK trims(void)
{
    for (int index = 0; index < SMALL; index++)
        if (index / 100 % 2)
            free(small[index]);
    malloc_trim(0);
}

WORK no_memory_is_left(void)
{
    kept(malloc((size_t)1 << 62));
    kept(malloc((size_t)1 << 44));
    void *block = NULL;
    if (posix_memalign(&block, 1 << 20, 100) == 0)
        free(kept(block));
}

WORK frees_small_twice(void)
{
    void *block = kept(malloc(100));
    free(block);
    free(block);
    for (int index = 0; index < 3000; index++)
        free(kept(malloc(100)));
    malloc_trim(0);
}

WORK frees_large_twice(void)
{
    void *block = kept(malloc(100000));
    free(block);
    free(block);
}

WORK frees_what_is_no_block(void)
{
    free((char *)kept(malloc(100000)) + 16384);
}

static const struct {
    const char *name;
    void (*work)(void);
    int aborts;
} works[] = {
    {"first malloc", first_malloc, 0},
    {"first calloc and aligned_alloc", first_calloc_aligned, 0},
    {"refills and flushes", refills_and_flushes, 0},
    {"large blocks move", large_blocks_move, 0},
    {"small blocks grow", small_blocks_grow, 0},
    {"purges on the way", purges_on_the_way, 0},
    {"malloc_trim", trims, 0},
    {"no memory is left", no_memory_is_left, 0},
    {"frees a small block twice", frees_small_twice, 1},
    {"frees a large block twice", frees_large_twice, 1},
    {"frees what is no block", frees_what_is_no_block, 1},
};

static size_t depth(void)
{
    uintptr_t lowest = (uintptr_t)stack;
    while (*(unsigned char *)lowest == PAINT)
        lowest++;
    return seen->caller - lowest;
}

static void *on_painted_stack(void *work)
{
    seen->caller = (uintptr_t)__builtin_frame_address(0);
    /* What the thread's beginning has used is painted again, but for memset's own. */
    memset(stack, PAINT, seen->caller - (uintptr_t)stack - 256);
    ((void (*)(void))work)();
    seen->depth = depth();
    return NULL;
}

static size_t depth_of(void (*work)(void), int aborts)
{
    seen->depth = 0;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (aborts)
            close(STDERR_FILENO);
        pthread_attr_t attributes;
        pthread_t thread;
        CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, STACK_BYTES) == 0);
        CHECK(pthread_create(&thread, &attributes, on_painted_stack, (void *)work) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_FOR(aborts ? WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT : status == 0, "%#x", (unsigned)status);
    return aborts ? depth() : seen->depth;
}

int main(int count, char **values)
{
    CHECK(count == 2);
    size_t bound = (size_t)atol(values[1]);
    int access = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS, failed = 0;
    stack = mmap(NULL, STACK_BYTES, access, flags, -1, 0);
    seen = mmap(NULL, sizeof *seen, access, flags, -1, 0);
    CHECK(stack != MAP_FAILED && seen != MAP_FAILED);
    for (int index = 0; index < SMALL; index++) {
        small[index] = malloc(1000);
        mark(small[index], 1000, 1);
    }
    mark(kept(malloc(64 << 20)), 64 << 20, 1);
    for (size_t index = 0; index < sizeof works / sizeof *works; index++) {
        size_t bytes = depth_of(works[index].work, works[index].aborts);
        printf("%6zu bytes: %s\n", bytes, works[index].name);
        failed |= bytes > bound;
    }
    return failed;
}
