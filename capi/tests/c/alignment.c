/* aligned_alloc, memalign, posix_memalign, valloc, pvalloc. */
#include "check.h"
#include <malloc.h>

#define ALIGN_MAX ((size_t)1 << 30)

/* The first and the last byte can be written, and what is usable is at least what was asked for. */
static void use(void *block, size_t size, size_t align)
{
    CHECK_FOR(block != NULL && is_aligned(block, align), "%zu at %zu: %p", size, align, block);
    size_t usable = malloc_usable_size(block);
    CHECK_FOR(usable >= size, "%zu at %zu: %zu", size, align, usable);
    unsigned char *bytes = (unsigned char *)block;
    if (usable != 0)
        bytes[0] = 1, bytes[usable - 1] = 2;
}

static void every_alignment_up_to_1_gib_is_served(void)
{
    for (size_t align = 8; align <= ALIGN_MAX; align *= 2) {
        size_t sizes[] = {0, 1, 8, 100, align / 2, align - 1, align, align + 1, align * 2, 3 * align + 5, 50000};
        for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
            size_t size = sizes[index];
            void *one = aligned_alloc(align, size), *two = memalign(align, size), *three = NULL;
            CHECK(posix_memalign(&three, align, size) == 0);
            use(one, size, align), use(two, size, align), use(three, size, align);
            CHECK(one != two && two != three && one != three);
            free(one), free(two), free(three);
        }
    }
}

/* Many live at once, of all small sizes, filled to the end. */
static void small_sizes_at_small_alignments_are_kept(void)
{
    enum { COUNT = 3000 };
    static void *blocks[COUNT];
    for (size_t align = 8; align <= 4096; align *= 2) {
        for (size_t size = 0; size < COUNT; size++) {
            if (size % 2)
                blocks[size] = aligned_alloc(align, size);
            else
                CHECK(posix_memalign(blocks + size, align, size) == 0);
            use(blocks[size], size, align);
            fill(blocks[size], malloc_usable_size(blocks[size]), size);
        }
        for (size_t size = 0; size < COUNT; size++) {
            CHECK_FOR(is_filled(blocks[size], malloc_usable_size(blocks[size]), size), "%zu at %zu", size, align);
            free(blocks[size]);
        }
    }
}

static const size_t no_power[] = {0, 3, 5, 6, 7, 12, 24, 48, 100, 4095, 4097, SIZE_MAX, SIZE_MAX / 2, SIZE_MAX - 7};
#define NO_POWER_COUNT (sizeof no_power / sizeof *no_power)

static void aligned_alloc_of_no_power_of_two_is_invalid(void)
{
    for (size_t index = 0; index < NO_POWER_COUNT; index++) {
        errno = 0;
        CHECK_FOR(aligned_alloc(hidden(no_power[index]), 64) == NULL && errno == EINVAL, "%zu", no_power[index]);
    }
    for (size_t align = 1; align <= 4; align *= 2) {
        void *block = aligned_alloc(align, 10);
        CHECK(block != NULL && is_aligned(block, 16));
        free(block);
    }
}

static void posix_memalign_failure_sets_errno_and_nothing_else(void)
{
    void *const before = (void *)(uintptr_t)0x1234;
    void *block = before;
    static const size_t too_short[] = {1, 2, 4};
    errno = 9999;
    for (size_t index = 0; index < NO_POWER_COUNT; index++)
        CHECK_FOR(posix_memalign(&block, hidden(no_power[index]), 64) == EINVAL, "%zu", no_power[index]);
    for (size_t index = 0; index < sizeof too_short / sizeof *too_short; index++)
        CHECK_FOR(posix_memalign(&block, hidden(too_short[index]), 64) == EINVAL, "%zu", too_short[index]);
    CHECK(block == before && errno == 9999);
    static const size_t sizes[] = {SIZE_MAX, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX, (size_t)1 << 47, SIZE_MAX - 100};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++)
        for (size_t align = 8; align <= ALIGN_MAX; align *= 2)
            CHECK_FOR(posix_memalign(&block, align, hidden(sizes[index])) == ENOMEM, "%zu", sizes[index]);
    CHECK(block == before && errno == ENOMEM);
    errno = 9999;
    CHECK(posix_memalign(&block, 64, 64) == 0 && block != before && errno == 9999);
    free(block);
}

static void memalign_takes_next_power_of_two(void)
{
    static const size_t aligns[][2] = {{0, 16}, {1, 16}, {3, 16}, {17, 32}, {48, 64}, {1000, 1024}, {70000, 131072}};
    for (size_t index = 0; index < sizeof aligns / sizeof *aligns; index++)
        for (int count = 0; count < 20; count++)
            use(memalign(aligns[index][0], 500), 500, aligns[index][1]);
    errno = 0;
    CHECK(memalign(hidden(SIZE_MAX / 2 + 2), 8) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(memalign(hidden(SIZE_MAX), 8) == NULL && errno == EINVAL);
}

static void alignment_beyond_1_gib_is_refused(void)
{
    for (size_t align = ALIGN_MAX * 2; align != 0; align *= 2) {
        errno = 0;
        CHECK(aligned_alloc(hidden(align), 8) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(memalign(hidden(align), 8) == NULL && errno == ENOMEM);
        void *block = NULL;
        errno = 0;
        CHECK(posix_memalign(&block, hidden(align), 8) == ENOMEM && block == NULL && errno == ENOMEM);
    }
}

static void valloc_and_pvalloc_give_pages(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t size = 0; size < 300000; size += 1 + size / 3) {
        void *one = valloc(size), *two = pvalloc(size);
        size_t whole = (size + page - 1) / page * page;
        use(one, size, page), use(two, whole, page);
        fill(two, whole, size);
        free(one), free(two);
    }
    for (size_t below = 0; below < 2 * page; below += 511) {
        errno = 0;
        CHECK(pvalloc(hidden(SIZE_MAX - below)) == NULL && errno == ENOMEM);
    }
}

MAIN(SCENARIO(every_alignment_up_to_1_gib_is_served), SCENARIO(small_sizes_at_small_alignments_are_kept),
     SCENARIO(aligned_alloc_of_no_power_of_two_is_invalid), SCENARIO(posix_memalign_failure_sets_errno_and_nothing_else),
     SCENARIO(memalign_takes_next_power_of_two), SCENARIO(alignment_beyond_1_gib_is_refused),
     SCENARIO(valloc_and_pvalloc_give_pages))
