/* malloc, calloc, realloc, free: C, POSIX, BSD. */
#include "check.h"
#include "magalloc.h"
#include <malloc.h>
#include <sys/mman.h>

void *reallocf(void *, size_t);
void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);
void cfree(void *);

#define SMALL_MAX 40000
static const size_t large[] = {40001,    65535,    65536,    65537,    100000,    262144,    1 << 20,   (1 << 20) + 1,
                               3000000,  4 << 20,  4194305,  16 << 20, 33554431,  64 << 20,  100000000};
#define LARGE_COUNT (sizeof large / sizeof *large)

static const size_t too_much[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX,           SIZE_MAX - 1,      SIZE_MAX - 15,
                                  SIZE_MAX - 4095,         SIZE_MAX - 65535,   SIZE_MAX / 2 + 17, PTRDIFF_MAX,
                                  (size_t)PTRDIFF_MAX - 15, (size_t)1 << 62,   (size_t)1 << 48,   (size_t)1 << 47};
#define TOO_MUCH_COUNT (sizeof too_much / sizeof *too_much)

/* Classes are at most a quarter apart; beyond them, blocks are granules. */
static size_t usable_max(size_t size)
{
    return size <= 32768 ? size + size / 4 + 24 : (size + 65535) / 65536 * 65536;
}

/* Blocks of all sizes, with the 200 before still live. */
static void all_sizes_are_aligned_writable_and_kept(void)
{
    enum { LIVE = 200 };
    static unsigned char *blocks[LIVE];
    static size_t usable[LIVE];
    for (size_t size = 0; size <= SMALL_MAX + LIVE; size++) {
        size_t slot = size % LIVE;
        if (blocks[slot] != NULL) {
            CHECK_FOR(is_filled(blocks[slot], usable[slot], size - LIVE), "%zu", size - LIVE);
            free(blocks[slot]);
            blocks[slot] = NULL;
        }
        if (size > SMALL_MAX)
            continue;
        CHECK((blocks[slot] = malloc(size)) != NULL);
        CHECK_FOR(is_aligned(blocks[slot], size > 8 ? 16 : 8), "%zu", size);
        usable[slot] = malloc_usable_size(blocks[slot]);
        CHECK_FOR(usable[slot] >= size && usable[slot] <= usable_max(size), "%zu", size);
        fill(blocks[slot], usable[slot], size);
    }
}

static void large_sizes_are_aligned_writable_and_kept(void)
{
    void *blocks[LARGE_COUNT];
    size_t usable[LARGE_COUNT];
    for (size_t index = 0; index < LARGE_COUNT; index++) {
        CHECK((blocks[index] = malloc(large[index])) != NULL);
        CHECK(is_aligned(blocks[index], 16));
        usable[index] = malloc_usable_size(blocks[index]);
        CHECK_FOR(usable[index] >= large[index] && usable[index] <= usable_max(large[index]), "%zu", large[index]);
        mark(blocks[index], usable[index], index);
    }
    for (size_t index = 0; index < LARGE_COUNT; index++) {
        CHECK_FOR(is_marked(blocks[index], usable[index], index), "%zu", large[index]);
        free(blocks[index]);
    }
    /* More than memory: what is not touched costs nothing. */
    unsigned char *huge = malloc((size_t)8 << 30);
    CHECK(huge != NULL);
    huge[0] = huge[((size_t)8 << 30) - 1] = 1;
    free(huge);
}

static void size_zero_gives_blocks_of_their_own(void)
{
    enum { KINDS = 9, COUNT = 100 };
    static void *blocks[KINDS * COUNT];
    for (size_t index = 0; index < COUNT; index++) {
        void **block = blocks + index * KINDS;
        block[0] = malloc(0);
        block[1] = calloc(0, 0);
        block[2] = calloc(0, 8);
        block[3] = calloc(hidden(SIZE_MAX), 0);
        block[4] = realloc(NULL, 0);
        block[5] = aligned_alloc(64, 0);
        block[6] = memalign(128, 0);
        CHECK(posix_memalign(block + 7, 256, 0) == 0);
        block[8] = valloc(0);
    }
    for (size_t one = 0; one < KINDS * COUNT; one++) {
        CHECK_FOR(blocks[one] != NULL, "%zu", one % KINDS);
        for (size_t other = 0; other < one; other++)
            CHECK_FOR(blocks[one] != blocks[other], "%zu %zu", one % KINDS, other % KINDS);
    }
    for (size_t one = 0; one < KINDS * COUNT; one++)
        free(blocks[one]);
}

static void calloc_after_dirty_blocks_is_zero(void)
{
    enum { COUNT = 64 };
    void *blocks[COUNT];
    for (int round = 0; round < 3; round++) {
        for (size_t size = 1; size <= (64u << 20); size += size / 3 + 1) {
            size_t count = size < 100000 ? COUNT : size < (4 << 20) ? 4 : 1;
            for (size_t index = 0; index < count; index++) {
                CHECK((blocks[index] = malloc(size)) != NULL);
                memset(blocks[index], 0xff, malloc_usable_size(blocks[index]));
            }
            for (size_t index = 0; index < count; index++)
                free(blocks[index]);
            for (size_t index = 0; index < count; index++) {
                CHECK((blocks[index] = calloc(index % 2 ? 1 : size, index % 2 ? size : 1)) != NULL);
                CHECK_FOR(is_zero(blocks[index], size), "%zu", size);
                memset(blocks[index], 0xff, size);
            }
            for (size_t index = 0; index < count; index++)
                free(blocks[index]);
        }
        FUNCTION(magalloc_purge_all)();
    }
}

static void calloc_overflow_fails(void)
{
    static const size_t factors[][2] = {{SIZE_MAX, 2},       {2, SIZE_MAX},          {SIZE_MAX / 2 + 1, 2},
                                        {SIZE_MAX / 3, 4},   {SIZE_MAX, SIZE_MAX},   {(size_t)1 << 32, (size_t)1 << 32},
                                        {((size_t)1 << 32) + 1, (size_t)1 << 32}};
    for (size_t index = 0; index < sizeof factors / sizeof *factors; index++) {
        errno = 0;
        CHECK(calloc(hidden(factors[index][0]), hidden(factors[index][1])) == NULL && errno == ENOMEM);
    }
}

static void too_much_is_refused_with_enomem(void)
{
    void *block = malloc(100);
    fill(block, 100, 1);
    void *span = malloc(1 << 20);
    mark(span, 1 << 20, 2);
    for (size_t index = 0; index < TOO_MUCH_COUNT; index++) {
        size_t size = hidden(too_much[index]);
#define REFUSED(call) (errno = 0, CHECK_FOR((call) == NULL && errno == ENOMEM, "%zu", size))
        REFUSED(malloc(size));
        REFUSED(calloc(size, 1));
        REFUSED(calloc(1, size));
        REFUSED(realloc(NULL, size));
        REFUSED(realloc(block, size));
        REFUSED(realloc(span, size));
        REFUSED(reallocarray(block, size, 1));
        REFUSED(reallocarray(span, 1, size));
        REFUSED(FUNCTION(reallocf)(NULL, size));
        REFUSED(aligned_alloc(16, size));
        REFUSED(aligned_alloc(1 << 20, size));
        REFUSED(memalign(64, size));
        REFUSED(valloc(size));
        REFUSED(pvalloc(size));
    }
    CHECK(is_filled(block, 100, 1) && is_marked(span, 1 << 20, 2));
    free(block);
    free(span);
}

static void realloc_of_null_is_malloc(void)
{
    for (size_t size = 0; size < 100000; size += 1 + size / 2) {
        void *block = realloc(NULL, size);
        CHECK(block != NULL && malloc_usable_size(block) >= size);
        memset(block, 1, size);
        free(block);
    }
}

/* Bytes that the program has. */
static uint64_t live(void)
{
    struct magalloc_stats stats;
    CHECK(FUNCTION(magalloc_stats)(&stats, sizeof stats) == sizeof stats);
    return stats.live;
}

static void realloc_to_zero_frees(void)
{
    errno = 77;
    CHECK(realloc(malloc(10), 0) == NULL && errno == 77);
    uint64_t before = live();
    void *block = malloc(64 << 20);
    CHECK(live() >= before + (64 << 20));
    CHECK(realloc(block, 0) == NULL);
    CHECK(live() < before + (1 << 20));
    block = malloc(64 << 20);
    CHECK(reallocarray(block, 0, 5) == NULL);
    CHECK(live() < before + (1 << 20));
}

/* From each size to each. */
static void realloc_keeps_contents(void)
{
    static const size_t sizes[] = {1,     7,     8,     9,      16,     17,     100,     128,    1000,    1024,    4000,
                                   4096,  5000,  20000, 32768,  32769,  40000,  65536,   70000,  200000,  1 << 20,
                                   (1 << 20) + 1, 3 << 20, 5 << 20, 20 << 20};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    for (size_t from = 0; from < COUNT; from++) {
        for (size_t to = 0; to < COUNT; to++) {
            size_t kept_bytes = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            unsigned char *block = malloc(sizes[from]);
            fill(block, sizes[from], from);
            block = to % 2 ? realloc(block, sizes[to]) : reallocarray(block, 1, sizes[to]);
            CHECK(block != NULL && is_aligned(block, sizes[to] > 8 ? 16 : 8));
            CHECK_FOR(malloc_usable_size(block) >= sizes[to], "%zu to %zu", sizes[from], sizes[to]);
            CHECK_FOR(is_filled(block, kept_bytes, from), "%zu to %zu", sizes[from], sizes[to]);
            fill(block, malloc_usable_size(block), to);
            free(block);
        }
    }
}

static void realloc_step_by_step_keeps_contents(void)
{
    char *small = NULL;
    for (size_t size = 1; size < 70000; size++) {
        CHECK((small = realloc(small, size)) != NULL);
        small[size - 1] = (char)pattern(5, size - 1);
        if (size % 997 == 0)
            CHECK(is_filled(small, size, 5));
    }
    CHECK(is_filled(small, 69999, 5));
    for (size_t size = 69999; size > 0; size -= 1 + size / 100) {
        CHECK((small = realloc(small, size)) != NULL);
        CHECK(is_filled(small, size, 5));
    }
    free(small);
    /* Large ones, with something behind that is in the way. */
    void *span = malloc(1 << 20);
    mark(span, 1 << 20, 9);
    for (size_t size = 1 << 20; size <= (512u << 20); size *= 2) {
        void *obstacle = malloc(100000);
        CHECK((span = realloc(span, 2 * size)) != NULL);
        CHECK_FOR(is_marked(span, size, 9), "%zu", size);
        mark(span, 2 * size, 9);
        free(obstacle);
    }
    for (size_t size = 512u << 20; size > 100; size = size / 3 + 1) {
        CHECK((span = realloc(span, size)) != NULL);
        CHECK_FOR(is_marked(span, size, 9), "%zu", size);
    }
    free(span);
}

/* What lies beyond a shrunk block comes back. */
static void realloc_to_less_gives_back(void)
{
    uint64_t before = live();
    void *block = malloc(256 << 20);
    CHECK((block = realloc(block, 1000)) != NULL);
    CHECK(live() < before + (2 << 20));
    free(block);
}

static void realloc_of_aligned_block_keeps_contents(void)
{
    for (size_t align = 8; align <= (1 << 22); align *= 2) {
        for (size_t size = 1; size < (2 << 20); size = size * 5 + 3) {
            void *block = memalign(align, size);
            mark(block, size, align);
            CHECK((block = realloc(block, size * 3)) != NULL);
            CHECK_FOR(is_marked(block, size, align), "%zu at %zu", size, align);
            CHECK((block = realloc(block, size / 2 + 1)) != NULL);
            CHECK_FOR(((unsigned char *)block)[0] == pattern(align, 0), "%zu at %zu", size, align);
            free(block);
        }
    }
}

static void reallocarray_overflow_keeps_block(void)
{
    void *block = malloc(50);
    fill(block, 50, 3);
    errno = 0;
    CHECK(reallocarray(block, hidden(SIZE_MAX / 2), hidden(3)) == NULL && errno == ENOMEM);
    CHECK(is_filled(block, 50, 3));
    CHECK((block = reallocarray(block, 50, 1000)) != NULL);
    CHECK(is_filled(block, 50, 3) && malloc_usable_size(block) >= 50000);
    free(block);
}

static void reallocf_frees_where_it_fails(void)
{
    uint64_t before = live();
    void *block = malloc(64 << 20);
    errno = 0;
    CHECK(FUNCTION(reallocf)(block, hidden(SIZE_MAX)) == NULL && errno == ENOMEM);
    CHECK(live() < before + (1 << 20));
    block = FUNCTION(reallocf)(NULL, 100);
    fill(block, 100, 4);
    CHECK((block = FUNCTION(reallocf)(block, 200000)) != NULL && is_filled(block, 100, 4));
    CHECK(FUNCTION(reallocf)(block, 0) == NULL);
    CHECK(live() < before + (1 << 20));
}

static void free_by_all_names_frees(void)
{
    for (int count = 0; count < 100000; count++) {
        FUNCTION(free_sized)(kept(malloc(1000)), 1000);
        FUNCTION(free_aligned_sized)(kept(aligned_alloc(256, 1024)), 256, 1024);
#ifdef PRELOADED
        ((void (*)(void *))found("cfree"))(kept(malloc(1000)));
#else
        cfree(kept(malloc(1000)));
#endif
    }
    for (int count = 0; count < 100; count++) {
        FUNCTION(free_sized)(kept(malloc(10 << 20)), 10 << 20);
        FUNCTION(free_aligned_sized)(kept(aligned_alloc(1 << 21, 10 << 20)), 1 << 21, 10 << 20);
    }
    CHECK(live() < 20 << 20);
    free(NULL);
    FUNCTION(free_sized)(NULL, 0);
    FUNCTION(free_aligned_sized)(NULL, 16, 0);
}

/* Small and large blocks, also where the kernel refuses to take pages back: they are locked. */
static void free_keeps_errno(void)
{
    enum { COUNT = 100000 };
    static void *blocks[COUNT];
    for (int locked = 0; locked < 2; locked++) {
        if (locked && mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
            break;
        for (size_t round = 0; round < 40; round++) {
            size_t size = round < LARGE_COUNT ? large[round] : 8u << (round % 14);
            size_t count = size > 10000 ? 4 : COUNT / (1 + size / 256);
            for (size_t index = 0; index < count; index++) {
                CHECK((blocks[index] = malloc(size)) != NULL);
                *(char *)blocks[index] = 1;
            }
            for (size_t index = 0; index < count; index++) {
                errno = 12345;
                free(blocks[index]);
                CHECK_FOR(errno == 12345, "%zu", size);
            }
            errno = 54321;
            FUNCTION(magalloc_purge_all)();
            CHECK(errno == 54321);
        }
    }
}

static void success_keeps_errno(void)
{
    for (size_t size = 0; size < (128u << 20); size += 1 + size / 2) {
        errno = 4711;
        void *one = malloc(size), *two = calloc(1, size), *three = realloc(malloc(5), size + 1), *four = valloc(size);
        CHECK_FOR(errno == 4711, "%zu", size);
        CHECK(one != NULL && two != NULL && three != NULL && four != NULL);
        free(one), free(two), free(three), free(four);
        CHECK_FOR(errno == 4711, "%zu", size);
    }
}

MAIN(SCENARIO(all_sizes_are_aligned_writable_and_kept), SCENARIO(large_sizes_are_aligned_writable_and_kept),
     SCENARIO(size_zero_gives_blocks_of_their_own), SCENARIO(calloc_after_dirty_blocks_is_zero),
     SCENARIO(calloc_overflow_fails), SCENARIO(too_much_is_refused_with_enomem), SCENARIO(realloc_of_null_is_malloc),
     SCENARIO(realloc_to_zero_frees), SCENARIO(realloc_keeps_contents), SCENARIO(realloc_step_by_step_keeps_contents),
     SCENARIO(realloc_to_less_gives_back), SCENARIO(realloc_of_aligned_block_keeps_contents),
     SCENARIO(reallocarray_overflow_keeps_block), SCENARIO(reallocf_frees_where_it_fails),
     SCENARIO(free_by_all_names_frees), SCENARIO(free_keeps_errno), SCENARIO(success_keeps_errno))
