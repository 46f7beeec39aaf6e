/* magalloc: a thread-caching, lock-free memory allocator.
 *
 * The standard functions (malloc, free, ...) are declared in <stdlib.h> and <malloc.h>; a program that links or preloads
 * libmagalloc uses them as ever. This header declares what is beyond. All functions may be called by any thread at
 * any time, but none of them, nor malloc or free, in a signal handler that may have interrupted one: a block that the
 * handler keeps or frees may then be given out twice. */
#ifndef MAGALLOC_H
#define MAGALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the allocator holds and has done. Sizes in bytes. Later versions add fields at the end. */
struct magalloc_stats {
    uint64_t mapped;       /* address space that is mapped */
    uint64_t committed;    /* memory that may be touched; falls with blocks from 1 GiB on only */
    uint64_t live;         /* blocks that the program has */
    uint64_t cached;       /* free blocks in thread caches */
    uint64_t free;         /* free blocks in slabs, and free spans */
    uint64_t dirty;        /* part of free: spans not given back to the kernel yet */
    uint64_t unusable;     /* ends of slabs */
    uint64_t metadata;     /* the allocator's own */
    uint64_t resident;     /* at most so much of the heap is in memory */
    uint64_t held;         /* spans in use, and free ones not given back */
    uint64_t held_peak;    /* the most that was ever held */
    uint64_t slabs;        /* a count */
    uint64_t large_blocks; /* a count */
    uint64_t threads;      /* that have a cache */
    uint64_t refills;      /* times that blocks went from slabs to a thread cache */
    uint64_t flushes;      /* and back */
    uint64_t os_calls;     /* calls of the operating system for memory */
    uint64_t purges;       /* those of them that gave pages back */
    uint64_t large;        /* part of live: large blocks */
    uint64_t free_blocks;  /* in slabs, and one for all free spans: a count */
    uint64_t allocations;  /* blocks ever allocated, an estimate */
    uint64_t slow_calls;   /* of malloc and free, that a loaded magazine could not serve */
    uint64_t steals;       /* magazines taken from other threads' caches */
    uint64_t purged;       /* bytes of address space whose pages went back */
};

/* Writes the first `size` bytes of the statistics to `stats` and returns how many that were; pass sizeof *stats.
 * Takes about a microsecond for each thread with a cache, whatever the heap holds, and holds up nobody. */
size_t magalloc_stats(struct magalloc_stats *stats, size_t size);

/* The same as text, with the figures of each size class: one JSON object; or metrics in the format that Prometheus reads
 * (text/plain; version=0.0.4). As snprintf does, they write at most `size` bytes, the last of them a zero, and return how
 * many the whole text has without that. 32 KiB are enough. Nothing is allocated. */
size_t magalloc_stats_json(char *text, size_t size);
size_t magalloc_stats_metrics(char *text, size_t size);

/* Empties the calling thread's cache: for a thread that is about to be idle. */
void magalloc_flush_thread(void);

/* Gives every page that is neither live nor at another thread's hand back to the kernel, at once. */
void magalloc_purge_all(void);

/* Turns the checking of every free on (1) or off (0), for all threads: a block that is freed twice, or an address where no
 * block begins, then ends the process at once with a line. A call takes some 100 ns meanwhile. As MAGALLOC_CHECK_FREES=1
 * from the start. Returns 1, or 0 where nothing was changed: it was so already, another mode is on, or the process is
 * about to end. */
int magalloc_set_checking(int on);

/* Changes an option while the program runs, by its name without MAGALLOC_, to a value as in the environment:
 * PURGE_DELAY_MS, DIRTY_BYTES_MAX, CACHE_BYTES_MAX, SOFT_LIMIT, HARD_LIMIT, CHECK_FREES or COUNTING. 0, or ENOENT for a
 * name that is none, EINVAL for a value that it cannot have, EPERM where it cannot be changed (now). */
int magalloc_set_option(const char *name, const char *value);

/* What holds of such an option: bytes, milliseconds, 0 or 1; UINT64_MAX is no limit. Returns 0, or ENOENT. */
int magalloc_get_option(const char *name, uint64_t *value);

/* 1 if the address is in memory of this allocator, else 0. */
int magalloc_owns(const void *address);

/* "MAJOR.MINOR.PATCH". */
const char *magalloc_version(void);

#ifdef __cplusplus
}
#endif

#endif
