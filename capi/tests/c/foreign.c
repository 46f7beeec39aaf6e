/* Addresses that no function of this allocator gave, and blocks that are freed twice. Each says the address first. */
#include "check.h"
#include "magalloc.h"
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *said(void *address)
{
    char text[32];
    snprintf(text, sizeof text, "%p\n", address);
    say(text);
    return kept(address);
}

static void *mapping(void)
{
    void *mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapped != MAP_FAILED);
    free(kept(malloc(1)));
    return mapped;
}

static void free_of_stack(void)
{
    char local[100] __attribute__((aligned(16))) = "contents";
    free(said(local));
    CHECK(strcmp(local, "contents") == 0);
}

static void free_of_stack_as_first_call(void)
{
    char local[100] __attribute__((aligned(16)));
    free(kept(local));
}

static void free_of_mapping(void)
{
    char *mapped = mapping();
    mapped[0] = 7;
    free(said(mapped));
    CHECK(mapped[0] == 7);
}

static void realloc_of_mapping(void)
{
    char *mapped = mapping();
    mapped[0] = 7;
    CHECK(realloc(said(mapped), 100) == NULL);
    CHECK(mapped[0] == 7);
}

static void usable_size_of_mapping(void)
{
    CHECK(malloc_usable_size(said(mapping())) == 0);
}

static void free_inside_mapped_block(void)
{
    char *block = malloc(1100 << 20);
    free(said(block + (100 << 20)));
}

static void free_of_mapped_block_twice(void)
{
    char *block = malloc(1100 << 20);
    free(said(block));
    free(kept(block));
}

static void free_inside_large_block(void)
{
    char *block = malloc(5 << 20);
    free(said(block + (1 << 20)));
}

static void free_inside_first_granule_of_large_block(void)
{
    char *block = malloc(5 << 20);
    free(said(block + 16));
}

static void free_of_large_block_twice(void)
{
    void *block = malloc(5 << 20);
    free(block);
    free(said(block));
}

static void realloc_of_freed_large_block(void)
{
    void *block = malloc(5 << 20);
    free(block);
    CHECK(realloc(said(block), 100) == NULL);
}

static void free_inside_small_block(void)
{
    char *block = malloc(1000);
    free(said(block + 16));
    for (int count = 0; count < 100000; count++)
        free(kept(malloc(1000)));
    malloc_trim(0);
}

static void free_of_small_block_twice(void)
{
    void *block = malloc(1000);
    free(said(block));
    free(block);
}

/* Noticed when both copies leave the cache. */
static void free_of_small_block_twice_around_another(void)
{
    void *block = malloc(1000), *other = malloc(1000);
    free(said(block));
    free(other);
    free(block);
    malloc_trim(0);
}

/* Noticed at once where frees are checked. */
static void free_of_small_block_twice_checked(void)
{
    void *block = malloc(1000), *other = malloc(1000);
    /* Their slab stays. */
    kept(malloc(1000));
    CHECK(FUNCTION(magalloc_set_checking)(1) == 1 && FUNCTION(magalloc_set_checking)(1) == 0);
    CHECK(FUNCTION(magalloc_set_checking)(0) == 1 && FUNCTION(magalloc_set_checking)(1) == 1);
    free(said(block));
    free(other);
    free(block);
    _exit(0);
}

static void free_inside_small_block_checked(void)
{
    CHECK(FUNCTION(magalloc_set_checking)(1) == 1);
    free(said((char *)malloc(1000) + 16));
    _exit(0);
}

/* Whatever the cache is like: the last of so many blocks. Those who are asked end quietly. */
static void free_of_small_block_twice_at_any_fill(void)
{
    enum { MOST = 400 };
    void *blocks[MOST];
    for (int index = 0; index < MOST; index++)
        blocks[index] = kept(malloc(1000));
    for (int freed = 1; freed <= MOST; freed++) {
        free(blocks[freed - 1]);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            CHECK(freopen("/dev/null", "w", stderr) != NULL);
            free(blocks[freed - 1]);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
    free(said(blocks[MOST - 1]));
}

/* A block that is freed, had again and freed again, and two that are freed in turn: nothing is wrong with it. */
static void frees_that_are_right(void)
{
    for (int round = 0; round < 5000; round++) {
        void *block = kept(malloc(1000)), *other = kept(malloc(1000));
        free(block);
        free(other);
        block = kept(realloc(kept(malloc(900)), 1000));
        free(block);
        free(NULL);
    }
    say("right\n");
}

MAIN(SCENARIO(free_of_stack), SCENARIO(free_of_stack_as_first_call), SCENARIO(free_of_mapping),
     SCENARIO(realloc_of_mapping), SCENARIO(usable_size_of_mapping), SCENARIO(free_inside_large_block),
     SCENARIO(free_inside_first_granule_of_large_block), SCENARIO(free_of_large_block_twice),
     SCENARIO(realloc_of_freed_large_block), SCENARIO(free_inside_small_block), SCENARIO(free_of_small_block_twice),
     SCENARIO(free_of_small_block_twice_around_another), SCENARIO(free_of_small_block_twice_at_any_fill),
     SCENARIO(frees_that_are_right), SCENARIO(free_of_small_block_twice_checked),
     SCENARIO(free_inside_small_block_checked),
     SCENARIO(free_inside_mapped_block), SCENARIO(free_of_mapped_block_twice))
