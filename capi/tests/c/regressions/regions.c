/* A heap of several small regions: the caller limits the address space before the program starts, so that no region
 * of the preferred size can be had. */
#include "../check.h"
#include "magalloc.h"
#include <malloc.h>

#define SLOTS ((size_t)60000)
#define ROUNDS 300000

static unsigned char *blocks[SLOTS];
static size_t sizes[SLOTS];
static unsigned state = 1;

static unsigned chance(void)
{
    return (state = state * 1664525u + 1013904223u) >> 8;
}

/* Mostly small ones, a few of the longest size classes, and a few large blocks. */
static size_t any_size(void)
{
    unsigned number = chance() % 4096;
    return 1 + chance() % (number < 4 ? 300000 : number < 40 ? 30000 : number < 2000 ? 4000 : 200);
}

static size_t mapped(void)
{
    struct magalloc_stats stats;
    CHECK(FUNCTION(magalloc_stats)(&stats, sizeof stats) == sizeof stats);
    return stats.mapped;
}

static void take(size_t slot)
{
    sizes[slot] = any_size();
    CHECK_FOR((blocks[slot] = malloc(sizes[slot])) != NULL, "%zu", sizes[slot]);
    mark(blocks[slot], sizes[slot], slot);
}

static void look_at(size_t slot)
{
    CHECK_FOR(is_marked(blocks[slot], sizes[slot], slot), "slot %zu of %zu bytes", slot, sizes[slot]);
}

static void take_all(void)
{
    size_t before = 0;
    for (size_t slot = 0; slot < SLOTS; slot++) {
        take(slot);
        if (slot == 0)
            before = mapped();
    }
    CHECK_FOR(mapped() > before, "%zu bytes are in one region", before);
}

static void free_all(void)
{
    for (size_t slot = 0; slot < SLOTS; slot++) {
        look_at(slot);
        free(blocks[slot]);
    }
}

/* Frees one at a time, of any region: the block goes into a magazine that has room, and comes back from there. */
static void blocks_of_several_regions_are_kept(void)
{
    take_all();
    for (int round = 0; round < ROUNDS; round++) {
        size_t slot = chance() % SLOTS;
        look_at(slot);
        free(blocks[slot]);
        take(slot);
    }
    free_all();
}

/* The functions that ask for a block's size. */
static void blocks_of_several_regions_are_resized(void)
{
    take_all();
    for (int round = 0; round < ROUNDS; round++) {
        size_t slot = chance() % SLOTS, size = any_size(), usable = malloc_usable_size(blocks[slot]);
        look_at(slot);
        /* Large blocks are whole granules of 64 KiB. */
        CHECK_FOR(usable >= sizes[slot] && usable < sizes[slot] * 2 + 65536, "%zu, %zu", usable, sizes[slot]);
        /* What is beyond may be used, too. */
        memset(blocks[slot] + sizes[slot], 0xee, usable - sizes[slot]);
        size_t kept_bytes = size < sizes[slot] ? size : sizes[slot];
        unsigned char *block = realloc(blocks[slot], size);
        CHECK_FOR(block != NULL, "%zu", size);
        for (size_t offset = 0; offset < kept_bytes; offset += 4096)
            CHECK_FOR(block[offset] == pattern(slot, offset), "slot %zu from %zu to %zu", slot, sizes[slot], size);
        blocks[slot] = block, sizes[slot] = size;
        mark(block, size, slot);
    }
    free_all();
}

MAIN(SCENARIO(blocks_of_several_regions_are_kept), SCENARIO(blocks_of_several_regions_are_resized))
