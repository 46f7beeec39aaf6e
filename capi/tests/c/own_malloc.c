/* A program with an allocator of its own: it is used, by the program and by the C library, and nothing of ours gets a
 * block of it. With FORWARDS it is one that counts, and asks the next. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>

static size_t mallocs, frees;

#ifdef FORWARDS
static char early[4096];
static size_t early_used;

static void *next(const char *name)
{
    static __thread int inside;
    if (inside)
        return NULL;
    inside = 1;
    void *function = dlsym(RTLD_NEXT, name);
    inside = 0;
    CHECK_FOR(function != NULL, "%s", name);
    return function;
}

void *malloc(size_t size)
{
    void *(*function)(size_t) = (void *(*)(size_t))next("malloc");
    if (function == NULL)
        return early + (early_used += (size + 15) / 16 * 16) - (size + 15) / 16 * 16;
    __atomic_add_fetch(&mallocs, 1, __ATOMIC_RELAXED);
    return function(size);
}

void free(void *block)
{
    if (block == NULL || ((char *)block >= early && (char *)block < early + sizeof early))
        return;
    __atomic_add_fetch(&frees, 1, __ATOMIC_RELAXED);
    ((void (*)(void *))next("free"))(block);
}
#else
static char arena[64 << 20] __attribute__((aligned(64)));
static size_t used;

static void *own(size_t size, size_t align)
{
    size_t from, at;
    do {
        from = __atomic_load_n(&used, __ATOMIC_RELAXED);
        at = (from + 16 + align - 1) / align * align;
        if (size > sizeof arena || at + size > sizeof arena) {
            errno = ENOMEM;
            return NULL;
        }
    } while (!__atomic_compare_exchange_n(&used, &from, at + size, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    __atomic_add_fetch(&mallocs, 1, __ATOMIC_RELAXED);
    ((size_t *)(arena + at))[-1] = size;
    return arena + at;
}

static void expect_own(void *block)
{
    CHECK((char *)block > arena && (char *)block < arena + sizeof arena);
}

void *malloc(size_t size) { return own(size, 16); }
void *calloc(size_t count, size_t size) { return own(count * size, 16); }
void *memalign(size_t align, size_t size) { return own(size, align); }
void *aligned_alloc(size_t align, size_t size) { return own(size, align); }
size_t malloc_usable_size(void *block) { return block == NULL ? 0 : ((size_t *)block)[-1]; }

int posix_memalign(void **block, size_t align, size_t size)
{
    *block = own(size, align);
    return *block == NULL ? ENOMEM : 0;
}

void free(void *block)
{
    if (block == NULL)
        return;
    expect_own(block);
    __atomic_add_fetch(&frees, 1, __ATOMIC_RELAXED);
}

void *realloc(void *block, size_t size)
{
    void *new = own(size, 16);
    if (block != NULL && new != NULL) {
        expect_own(block);
        memcpy(new, block, malloc_usable_size(block) < size ? malloc_usable_size(block) : size);
    }
    return new;
}
#endif

static void *thread(void *argument)
{
    for (int count = 0; count < 1000; count++)
        free(kept(malloc(100)));
    return argument;
}

static void own_malloc_is_used(void)
{
    size_t before = mallocs, freed = frees;
    for (int count = 0; count < 1000; count++)
        free(kept(malloc(1000)));
    CHECK(mallocs == before + 1000 && frees == freed + 1000);
}

static void own_malloc_serves_the_c_library(void)
{
    size_t before = mallocs;
    free(kept(strdup("some text")));
    CHECK(mallocs == before + 1);
    FILE *file = fopen("/proc/self/maps", "r");
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, file) > 0)
        ;
    free(line);
    fclose(file);
    void *self = dlopen(NULL, RTLD_NOW);
    CHECK(self != NULL && dlclose(self) == 0);
}

static void own_malloc_serves_threads(void)
{
    pthread_t threads[8];
    for (int count = 0; count < 8; count++)
        CHECK(pthread_create(threads + count, NULL, thread, NULL) == 0);
    for (int count = 0; count < 8; count++)
        CHECK(pthread_join(threads[count], NULL) == 0);
    CHECK(mallocs >= 8000 && frees >= 8000);
}

static void aligned_blocks_are_freed_by_own_free(void)
{
    for (int count = 0; count < 100; count++) {
        void *block = NULL;
        CHECK(posix_memalign(&block, 64, 1000) == 0 && is_aligned(block, 64));
        free(block);
        free(kept(realloc(kept(calloc(10, 10)), 5000)));
    }
}

MAIN(SCENARIO(own_malloc_is_used), SCENARIO(own_malloc_serves_the_c_library), SCENARIO(own_malloc_serves_threads),
     SCENARIO(aligned_blocks_are_freed_by_own_free))
