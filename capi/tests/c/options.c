/* What options of the environment do. The caller sets them. */
#include "heap.h"
#include <malloc.h>
#include <sys/auxv.h>

/* Large and small blocks, written and freed: `bytes` of each. */
static void make_dirty(size_t bytes)
{
    void *large = malloc(bytes);
    CHECK(large != NULL);
    mark(large, bytes, 1);
    void **list = NULL;
    for (size_t used = 0; used < bytes; used += 1000) {
        void **block = malloc(1000);
        CHECK(block != NULL);
        *block = list;
        list = block;
    }
    while (list != NULL) {
        void **block = list;
        list = *block;
        free(block);
    }
    free(large);
}

static void does_its_work(void)
{
    use_memory();
    say("done\n");
}

/* A hang, and so the end by force, if it is never given back. A program with one thread would have to call malloc. */
static void dirty_memory_is_given_back_soon(void)
{
    begin_second_thread();
    make_dirty(64 * MIB);
    while (now().resident > 16 * MIB || now().dirty > 16 * MIB)
        wait_a_moment();
}

/* The child of a fork has no background thread, and gets one. */
static void child_gives_dirty_memory_back_soon(void)
{
    begin_second_thread();
    while (threads() == 2)
        make_dirty(64 * MIB);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dirty_memory_is_given_back_soon();
        exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void dirty_memory_is_kept(void)
{
    make_dirty(64 * MIB);
    for (int count = 0; count < 150; count++)
        wait_a_moment();
    CHECK_FOR(now().resident > 60 * MIB && now().dirty > 60 * MIB, "%zu", (size_t)now().resident);
}

static void cache_is_small(void)
{
    make_dirty(32 * MIB);
    CHECK_FOR(now().cached < 256 << 10, "%zu", (size_t)now().cached);
}

static void cache_is_large(void)
{
    for (int count = 0; count < 20; count++)
        make_dirty(8 * MIB);
    CHECK_FOR(now().cached > 128 << 10, "%zu", (size_t)now().cached);
}

static void background_thread_comes(void)
{
    begin_second_thread();
    while (threads() == 2)
        make_dirty(64 * MIB);
}

/* By each function: blocks of 10 KiB that are dirty afterwards, while no other function is called but free. */
static void comes_by(void *(*allocate)(size_t size))
{
    enum { BLOCKS = 8192 };
    static void *blocks[BLOCKS];
    begin_second_thread();
    CHECK(threads() == 2);
    do {
        for (int index = 0; index < BLOCKS; index++)
            CHECK((blocks[index] = allocate(10 << 10)) != NULL);
        for (int index = 0; index < BLOCKS; index++)
            free(blocks[index]);
    } while (threads() == 2);
}

static void *by_calloc(size_t size)
{
    return calloc(size / 8, 8);
}

static void *by_realloc(size_t size)
{
    return realloc(NULL, size);
}

static void *by_aligned_alloc(size_t size)
{
    return aligned_alloc(64, size);
}

static void *by_memalign(size_t size)
{
    return memalign(32, size);
}

static void *by_posix_memalign(size_t size)
{
    void *block = NULL;
    CHECK(posix_memalign(&block, 128, size) == 0);
    return block;
}

static void *by_pvalloc(size_t size)
{
    return pvalloc(size);
}

static void background_thread_comes_by_calloc(void)
{
    comes_by(by_calloc);
}

static void background_thread_comes_by_realloc(void)
{
    comes_by(by_realloc);
}

static void background_thread_comes_by_aligned_alloc(void)
{
    comes_by(by_aligned_alloc);
}

static void background_thread_comes_by_memalign(void)
{
    comes_by(by_memalign);
}

static void background_thread_comes_by_posix_memalign(void)
{
    comes_by(by_posix_memalign);
}

static void background_thread_comes_by_valloc(void)
{
    comes_by(valloc);
}

static void background_thread_comes_by_pvalloc(void)
{
    comes_by(by_pvalloc);
}

static void background_thread_never_comes(void)
{
    begin_second_thread();
    for (int count = 0; count < 20; count++) {
        make_dirty(64 * MIB);
        wait_a_moment();
        CHECK(threads() == 2);
    }
}

/* With 64 MiB. */
static void hard_limit_refuses(void)
{
    errno = 0;
    CHECK(malloc(65 * MIB) == NULL && errno == ENOMEM);
    void *large = malloc(40 * MIB);
    CHECK(large != NULL && malloc(40 * MIB) == NULL);
    void **list = NULL, **block;
    size_t count = 0;
    while ((block = malloc(1000)) != NULL) {
        *block = list;
        list = block;
        CHECK(++count < 64 * MIB / 1000);
    }
    CHECK(errno == ENOMEM && count > 15000);
    while (list != NULL) {
        block = list;
        list = *block;
        free(block);
    }
    free(large);
    CHECK((large = malloc(50 * MIB)) != NULL);
    free(large);
}

/* Says which flags the kernel has for the heap's mappings. */
static void huge_pages_are_as_advised(void)
{
    char *block = malloc(32 * MIB);
    block[0] = 1;
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[1024];
    int inside = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx", &from, &to) == 2)
            inside = from <= (uintptr_t)block && (uintptr_t)block < to;
        if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            fclose(file);
            say(strstr(line, " hg") != NULL ? "huge\n" : strstr(line, " nh") != NULL ? "not huge\n" : "system\n");
            return;
        }
    }
    CHECK(0);
}

static void *in_thread(void *argument)
{
    use_memory();
    void *block = malloc(1000);
    CHECK(!FUNCTION(magalloc_owns)(block));
    free(argument);
    return block;
}

/* With MAGALLOC_DISABLE=1: nothing is ours. */
static void disabled_allocator_owns_nothing(void)
{
    for (size_t size = 0; size < 100 * MIB; size += 1 + size / 2) {
        void *blocks[8] = {malloc(size),         calloc(1, size), realloc(NULL, size), aligned_alloc(64, size),
                           memalign(4096, size), valloc(size),    pvalloc(size),       NULL};
        CHECK(posix_memalign(blocks + 7, 1 << 16, size) == 0);
        CHECK(is_aligned(blocks[0], size > 8 ? 16 : 8) && is_zero(blocks[1], size) && is_aligned(blocks[3], 64));
        CHECK(is_aligned(blocks[4], 4096) && is_aligned(blocks[5], 4096) && is_aligned(blocks[7], 1 << 16));
        for (int index = 0; index < 8; index++) {
            CHECK_FOR(blocks[index] != NULL && !FUNCTION(magalloc_owns)(blocks[index]), "%zu by %d", size, index);
            size_t usable = malloc_usable_size(blocks[index]);
            CHECK_FOR(usable >= size, "%zu of %zu by %d", usable, size, index);
            mark(blocks[index], usable, size);
            size_t more = size * 2 + 10;
            CHECK((blocks[index] = realloc(blocks[index], more)) != NULL);
            CHECK_FOR(!FUNCTION(magalloc_owns)(blocks[index]) && is_marked(blocks[index], size, size), "%zu", size);
            mark(blocks[index], more, size + 1);
            CHECK((blocks[index] = realloc(blocks[index], size / 2 + 1)) != NULL);
            CHECK(size < 2 || is_marked(blocks[index], size / 2, size + 1));
            free(blocks[index]);
        }
    }
    errno = 0;
    CHECK(malloc(hidden(SIZE_MAX)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(realloc(NULL, hidden(PTRDIFF_MAX)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(aligned_alloc(3, 3) == NULL && errno == EINVAL);
    CHECK(malloc_usable_size(NULL) == 0);
    free(NULL);
    for (int count = 0; count < 50; count++) {
        pthread_t thread;
        void *block = NULL;
        CHECK(pthread_create(&thread, NULL, in_thread, malloc(100)) == 0 && pthread_join(thread, &block) == 0);
        free(block);
    }
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        use_memory();
        exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    FUNCTION(magalloc_flush_thread)();
    FUNCTION(magalloc_purge_all)();
    malloc_trim(0);
}

/* Says how it was started. */
static void secure_process_ignores_options(void)
{
    if (getauxval(AT_SECURE) == 0)
        say("not secure\n");
    CHECK(FUNCTION(magalloc_owns)(kept(malloc(10))));
    use_memory();
}

MAIN(SCENARIO(does_its_work), SCENARIO(dirty_memory_is_given_back_soon), SCENARIO(child_gives_dirty_memory_back_soon),
     SCENARIO(dirty_memory_is_kept), SCENARIO(cache_is_small), SCENARIO(cache_is_large),
     SCENARIO(background_thread_comes), SCENARIO(background_thread_comes_by_calloc),
     SCENARIO(background_thread_comes_by_realloc), SCENARIO(background_thread_comes_by_aligned_alloc),
     SCENARIO(background_thread_comes_by_memalign), SCENARIO(background_thread_comes_by_posix_memalign),
     SCENARIO(background_thread_comes_by_valloc), SCENARIO(background_thread_comes_by_pvalloc),
     SCENARIO(background_thread_never_comes), SCENARIO(hard_limit_refuses),
     SCENARIO(huge_pages_are_as_advised), SCENARIO(disabled_allocator_owns_nothing),
     SCENARIO(secure_process_ignores_options))
