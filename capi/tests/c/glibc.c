/* What glibc has beyond C and POSIX, and what magalloc.h declares. */
#include "heap.h"
#include <limits.h>
#include <malloc.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

int __posix_memalign(void **, size_t, size_t);

static void usable_size_of_null_is_zero(void)
{
    CHECK(malloc_usable_size(NULL) == 0);
}

/* Bytes of this process in memory. */
static size_t resident(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%*d %ld", &pages) == 1);
    fclose(file);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void malloc_trim_gives_memory_back(void)
{
    free(malloc(1));
    malloc_trim(0);
    size_t before = resident();
    void *block = malloc(64 << 20);
    mark(block, 64 << 20, 1);
    CHECK(resident() > before + (60 << 20));
    free(block);
    CHECK(malloc_trim(0) == 1);
    CHECK(malloc_trim(0) == 0);
    CHECK(resident() < before + (8 << 20));
}

static void mallinfo_counts_blocks(void)
{
    struct mallinfo2 before = mallinfo2();
    void *block = malloc(64 << 20);
    struct mallinfo2 with = mallinfo2();
    CHECK(with.hblkhd >= before.hblkhd + (64 << 20) && with.hblkhd < before.hblkhd + (66 << 20));
    CHECK(with.hblks == before.hblks + 1);
    /* It is in no other figure. */
    CHECK(with.uordblks < before.uordblks + (1 << 20) && with.arena < before.arena + (8 << 20));
    CHECK(mallinfo().hblkhd == (int)mallinfo2().hblkhd);
    free(block);
    CHECK(mallinfo2().hblkhd == before.hblkhd && mallinfo2().hblks == before.hblks);
    CHECK(mallinfo2().fordblks >= 1 << 20);
}

static void mallinfo_counts_free_blocks(void)
{
    enum { BLOCKS = 20000, BYTES = 100 };
    static void *blocks[BLOCKS];
    for (size_t index = 0; index < BLOCKS; index++)
        CHECK((blocks[index] = malloc(BYTES)) != NULL);
    struct mallinfo2 before = mallinfo2();
    CHECK(before.ordblks > 0 && before.uordblks >= (size_t)BLOCKS * BYTES);
    /* Every other one, so that no slab and no span becomes free. */
    for (size_t index = 0; index < BLOCKS; index += 2)
        free(blocks[index]);
    struct mallinfo2 after = mallinfo2();
    size_t cached = after.fsmblks / BYTES;
    CHECK_FOR(after.ordblks + cached >= before.ordblks + BLOCKS / 2, "%zu, %zu, %zu", before.ordblks, after.ordblks,
              cached);
    CHECK(after.ordblks > before.ordblks);
    CHECK(mallinfo().ordblks == (int)after.ordblks);
}

static void mallinfo_ends_at_int_max(void)
{
    void *block = malloc((size_t)5 << 30);
    CHECK(block != NULL);
    CHECK(mallinfo2().hblkhd >= (size_t)5 << 30);
    CHECK(mallinfo().hblkhd == INT_MAX);
    free(block);
}

static void mallopt_takes_parameters_of_glibc(void)
{
    static const int parameters[] = {M_MXFAST,         M_TRIM_THRESHOLD, M_TOP_PAD,   M_MMAP_THRESHOLD, M_MMAP_MAX,
                                     M_CHECK_ACTION,   M_PERTURB,        M_ARENA_TEST, M_ARENA_MAX};
    for (size_t index = 0; index < sizeof parameters / sizeof *parameters; index++)
        CHECK_FOR(mallopt(parameters[index], 1) == 1, "%d", parameters[index]);
    use_memory();
}

/* What these write is looked at by the caller. */
static void malloc_stats_writes(void)
{
    kept(malloc(5 << 20));
    use_memory();
    malloc_stats();
}

static void malloc_info_writes(void)
{
    kept(malloc(5 << 20));
    use_memory();
    CHECK(malloc_info(0, stdout) == 0);
}

static void malloc_info_into_memory_is_complete(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    CHECK(malloc_info(0, stream) == 0);
    fclose(stream);
    CHECK(size > 100 && strncmp(text, "<malloc version=\"", 17) == 0);
    CHECK(strcmp(text + size - 10, "</malloc>\n") == 0);
    free(text);
}

static void malloc_info_options_are_refused(void)
{
    CHECK(malloc_info(1, stdout) == EINVAL && malloc_info(-1, stdout) == EINVAL);
}

/* The functions by these names are of the same family. */
static void libc_names_are_the_same_functions(void)
{
    void *(*libc_malloc)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "__libc_malloc");
    void *(*libc_calloc)(size_t, size_t) = (void *(*)(size_t, size_t))dlsym(RTLD_DEFAULT, "__libc_calloc");
    void *(*libc_realloc)(void *, size_t) = (void *(*)(void *, size_t))dlsym(RTLD_DEFAULT, "__libc_realloc");
    void (*libc_free)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "__libc_free");
    void *(*libc_memalign)(size_t, size_t) = (void *(*)(size_t, size_t))dlsym(RTLD_DEFAULT, "__libc_memalign");
    void *(*libc_valloc)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "__libc_valloc");
    void *(*libc_pvalloc)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "__libc_pvalloc");
    CHECK(libc_malloc && libc_calloc && libc_realloc && libc_free && libc_memalign && libc_valloc && libc_pvalloc);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t size = 1; size < 200000; size *= 3) {
        void *blocks[] = {libc_malloc(size),         libc_calloc(1, size), libc_realloc(NULL, size),
                          libc_memalign(512, size),  libc_valloc(size),    libc_pvalloc(size), NULL};
        CHECK(FUNCTION(__posix_memalign)(blocks + 6, 256, size) == 0);
        CHECK(is_zero(blocks[1], size) && is_aligned(blocks[3], 512));
        CHECK(is_aligned(blocks[4], page) && is_aligned(blocks[5], page) && is_aligned(blocks[6], 256));
        for (size_t index = 0; index < sizeof blocks / sizeof *blocks; index++) {
            CHECK_FOR(FUNCTION(magalloc_owns)(blocks[index]), "%zu", index);
            free(blocks[index]);
        }
        libc_free(malloc(size));
        libc_free(libc_realloc(malloc(size), size * 2));
    }
}

static void stats_follow_the_program(void)
{
    free(malloc(1));
    struct magalloc_stats before = now();
    void *block = malloc(64 << 20);
    mark(block, 64 << 20, 1);
    struct magalloc_stats with = now();
    CHECK(with.live >= before.live + (64 << 20) && with.live < before.live + (65 << 20));
    CHECK(with.large_blocks == before.large_blocks + 1);
    CHECK(with.resident >= before.resident + (60 << 20) && with.held >= with.live && with.held_peak >= with.held);
    CHECK(with.mapped >= with.committed && with.committed >= with.held && with.threads == 1 && with.os_calls > 0);
    free(block);
    struct magalloc_stats after = now();
    /* A program with one thread keeps little of what it frees. */
    CHECK(after.live < before.live + (1 << 20) && after.dirty <= 4 << 20 && after.held_peak >= with.held);
    FUNCTION(magalloc_purge_all)();
    CHECK(now().dirty == 0 && now().resident < 8 << 20 && now().purges > before.purges);
}

/* As snprintf does, into room of any size. */
static void stats_are_text(void)
{
    static char text[32 << 10], part[100];
    free(malloc(1));
    size_t length = FUNCTION(magalloc_stats_json)(text, sizeof text);
    CHECK(length == strlen(text) && strncmp(text, "{\"live\":", 8) == 0 && strcmp(text + length - 2, "]}") == 0);
    CHECK(strstr(text, "\"disabled\":0,\"classes\":[{\"block\":8,") != NULL);
    CHECK(FUNCTION(magalloc_stats_json)(NULL, 0) > sizeof part);
    memset(part, 'x', sizeof part);
    CHECK(FUNCTION(magalloc_stats_json)(part, 10) > sizeof part);
    CHECK(memcmp(part, text, 9) == 0 && part[9] == 0 && part[10] == 'x');
    length = FUNCTION(magalloc_stats_metrics)(text, sizeof text);
    CHECK(length == strlen(text) && strstr(text, "# TYPE magalloc_live_bytes gauge\n") != NULL);
    CHECK(strstr(text, "\nmagalloc_class_live_bytes{block=\"8\"} ") != NULL && text[length - 1] == '\n');
}

/* A program that was compiled with an older header, or a newer one. */
static void stats_of_other_sizes_are_served(void)
{
    struct {
        struct magalloc_stats stats;
        uint64_t beyond[4];
    } room;
    free(kept(malloc(1)));
    memset(&room, 0xee, sizeof room);
    CHECK(FUNCTION(magalloc_stats)(&room.stats, sizeof room) == sizeof room.stats);
    CHECK(room.stats.mapped != 0 && room.beyond[0] == 0xeeeeeeeeeeeeeeee);
    memset(&room, 0xee, sizeof room);
    CHECK(FUNCTION(magalloc_stats)(&room.stats, 16) == 16);
    CHECK(room.stats.mapped != 0xeeeeeeeeeeeeeeee && room.stats.committed != 0xeeeeeeeeeeeeeeee);
    CHECK(room.stats.live == 0xeeeeeeeeeeeeeeee);
    CHECK(FUNCTION(magalloc_stats)(&room.stats, 0) == 0 && room.stats.live == 0xeeeeeeeeeeeeeeee);
}

static void flush_thread_empties_the_cache(void)
{
    void *blocks[1000];
    for (int count = 0; count < 1000; count++)
        blocks[count] = malloc(64);
    for (int count = 0; count < 1000; count++)
        free(blocks[count]);
    CHECK(now().cached > 1000);
    FUNCTION(magalloc_flush_thread)();
    CHECK(now().cached == 0);
    use_memory();
}

static void owns_tells_blocks_from_others(void)
{
    int local = 0;
    static int global;
    CHECK(!FUNCTION(magalloc_owns)(NULL) && !FUNCTION(magalloc_owns)(&local) && !FUNCTION(magalloc_owns)(&global));
    CHECK(!FUNCTION(magalloc_owns)((void *)(uintptr_t)SIZE_MAX) && !FUNCTION(magalloc_owns)((void *)(uintptr_t)64));
    for (size_t size = 0; size < (32u << 20); size += 1 + size / 2) {
        char *block = (char *)malloc(size);
        CHECK(FUNCTION(magalloc_owns)(block) == 1 && FUNCTION(magalloc_owns)(block + size / 2) == 1);
        free(block);
    }
}

static void version_is_that_of_the_package(void)
{
    CHECK_FOR(strcmp(FUNCTION(magalloc_version)(), VERSION) == 0, "%s", FUNCTION(magalloc_version)());
}

MAIN(SCENARIO(usable_size_of_null_is_zero), SCENARIO(malloc_trim_gives_memory_back), SCENARIO(mallinfo_counts_blocks),
     SCENARIO(mallinfo_counts_free_blocks),
     SCENARIO(mallinfo_ends_at_int_max), SCENARIO(mallopt_takes_parameters_of_glibc), SCENARIO(malloc_stats_writes),
     SCENARIO(malloc_info_writes), SCENARIO(malloc_info_into_memory_is_complete),
     SCENARIO(malloc_info_options_are_refused), SCENARIO(libc_names_are_the_same_functions),
     SCENARIO(stats_follow_the_program), SCENARIO(stats_are_text), SCENARIO(stats_of_other_sizes_are_served),
     SCENARIO(flush_thread_empties_the_cache), SCENARIO(owns_tells_blocks_from_others),
     SCENARIO(version_is_that_of_the_package))
