/* malloc called by the C library and its loader amid what a thread's start needs: with their locks held, or with their
 * lists half changed. */
#include "../heap.h"
#include <pthread.h>
#include <sched.h>

enum { MODULES = 75, FIRST_COUNT = 55, LAST_COUNT = 70, HANDLERS = 60 };

/* The copy of `module.c` of that number, in the folder that is the argument. */
static void *load(int number)
{
    char path[1000];
    snprintf(path, sizeof path, "%s/libmodule%d.so", arguments[0], number);
    void *library = dlopen(path, RTLD_NOW);
    CHECK_FOR(library != NULL, "%s", dlerror());
    return library;
}

static void *uses_last_module(void *library)
{
    int *(*number_of_thread)(void) = (int *(*)(void))dlsym(library, "number_of_thread");
    CHECK(number_of_thread != NULL && *number_of_thread() == 80);
    return NULL;
}

/* The child of a fork has no thread of the allocator's. The list of modules grows somewhere beyond the 60th, and what
 * the loader then allocates is of a size that nobody has asked for before. */
static void libraries_are_loaded_in_children_of_a_large_process(void)
{
    mark(kept(malloc(64 << 20)), 64 << 20, 1);
    for (int count = 1; count < FIRST_COUNT; count++)
        load(count);
    for (int count = FIRST_COUNT; count <= LAST_COUNT; count++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            void *library = NULL;
            for (int number = count; number <= MODULES; number++)
                library = load(number);
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, uses_last_module, library) == 0 && pthread_join(thread, NULL) == 0);
            _exit(0);
        }
        wait_for(child);
        load(count);
    }
}

static int calls;

static void handler(void)
{
    calls++;
}

/* Fewer than 49 need no memory; the list then grows with its lock held. */
static void prepare_many_forks(void)
{
    for (int count = 0; count < HANDLERS; count++)
        CHECK(pthread_atfork(handler, handler, handler) == 0);
}

static void fork_with_handlers(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        use_memory();
        CHECK_FOR(calls == 2 * HANDLERS, "%d", calls);
        _exit(0);
    }
    wait_for(child);
    CHECK_FOR(calls == 2 * HANDLERS, "%d", calls);
}

static void many_fork_handlers_before_any_malloc_work(void)
{
    prepare_many_forks();
    fork_with_handlers();
    use_memory();
}

/* The same before main. */
__attribute__((constructor)) static void at_load(void)
{
    if (getenv("FORK_HANDLERS_AT_LOAD") != NULL)
        prepare_many_forks();
}

static void many_fork_handlers_in_a_constructor_work(void)
{
    fork_with_handlers();
    use_memory();
}

static __thread char large_data[400 << 10];

static void *touches_data(void *argument)
{
    memset(kept(large_data), 1, sizeof large_data);
    return argument;
}

/* Each of these copies the default attributes, and so the affinity, with their lock held. */
static void use_default_attributes(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, touches_data, NULL) == 0 && pthread_join(thread, NULL) == 0);
    pthread_attr_t attributes;
    CHECK(pthread_getattr_default_np(&attributes) == 0);
    CHECK(pthread_attr_destroy(&attributes) == 0);
}

/* The default attributes decide whether a stack has room for 400 KiB of thread-local data. The child of a fork has no
 * thread of the allocator's. Blocks as long as the copy are kept, so it is the copy that finds the cache empty. */
static void default_attributes_with_affinity_work_in_a_large_process(void)
{
    pthread_attr_t attributes;
    cpu_set_t set;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setaffinity_np(&attributes, sizeof set, &set) == 0);
    CHECK(pthread_setattr_default_np(&attributes) == 0);
    mark(kept(malloc(64 << 20)), 64 << 20, 1);
    for (int count = 0; count < 100; count++)
        use_default_attributes();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (int count = 0; count < 2000; count++) {
            use_default_attributes();
            kept(malloc(sizeof set));
        }
        _exit(0);
    }
    wait_for(child);
}

static void nothing_is_allocated(void)
{
}

MAIN(SCENARIO(libraries_are_loaded_in_children_of_a_large_process),
     SCENARIO(many_fork_handlers_before_any_malloc_work), SCENARIO(many_fork_handlers_in_a_constructor_work),
     SCENARIO(default_attributes_with_affinity_work_in_a_large_process), SCENARIO(nothing_is_allocated))
