/* What test programs ask of the heap, and do with it. */
#ifndef HEAP_H
#define HEAP_H

#include "check.h"
#include "magalloc.h"
#include <sys/wait.h>
#include <time.h>

#define MIB ((size_t)1 << 20)

__attribute__((unused)) static struct magalloc_stats now(void)
{
    struct magalloc_stats stats;
    memset(&stats, 0xff, sizeof stats);
    CHECK(FUNCTION(magalloc_stats)(&stats, sizeof stats) == sizeof stats);
    return stats;
}

__attribute__((unused)) static void wait_a_moment(void)
{
    struct timespec moment = {0, 10000000};
    nanosleep(&moment, NULL);
}

/* Until a child has ended, with 0. */
__attribute__((unused)) static void wait_for(pid_t child)
{
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_FOR(status == 0, "%#x", (unsigned)status);
}

/* A list of blocks of 1000 bytes. */
__attribute__((unused)) static void **small_blocks(size_t bytes)
{
    void **list = NULL;
    for (size_t used = 0; used < bytes; used += 1000) {
        void **block = malloc(1000);
        CHECK(block != NULL);
        *block = list;
        list = block;
    }
    return list;
}

__attribute__((unused)) static void free_list(void **list)
{
    while (list != NULL) {
        void **block = list;
        list = *block;
        free(block);
    }
}

#endif
