/* Which threads have a cache: what begins late, ends late, or was not prepared for. */
#include "../heap.h"
#include <fcntl.h>
#include <pthread.h>

static int may_end;

static void *does_nothing(void *argument)
{
    while (!__atomic_load_n(&may_end, __ATOMIC_ACQUIRE))
        wait_a_moment();
    return argument;
}

/* A thousand detached threads that call nothing: the C library frees what it had for them while they end, after all
 * key destructors. So many at a time that it does not keep their stacks. */
static void run_thousand_threads(void)
{
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, 8 << 20) == 0);
    int before = threads();
    for (int round = 0; round < 20; round++) {
        __atomic_store_n(&may_end, 0, __ATOMIC_RELEASE);
        for (int count = 0; count < 50; count++) {
            pthread_t thread;
            CHECK(pthread_create(&thread, &attributes, does_nothing, NULL) == 0);
        }
        __atomic_store_n(&may_end, 1, __ATOMIC_RELEASE);
        while (threads() > before)
            wait_a_moment();
    }
}

static void threads_that_never_allocate_leave_no_caches(void)
{
    free(kept(malloc(10)));
    run_thousand_threads();
    CHECK_FOR(now().threads <= 5, "%d caches", (int)now().threads);
}

static void at_end(void)
{
    use_memory();
    say("end\n");
}

/* Nothing of the allocator's waits for caches that nobody has. */
static void process_of_detached_threads_ends_with_its_main_thread(void)
{
    CHECK(atexit(at_end) == 0);
    run_thousand_threads();
    pthread_exit(NULL);
}

static void large_process_of_detached_threads_ends_with_its_main_thread(void)
{
    CHECK(atexit(at_end) == 0);
    mark(kept(malloc(64 << 20)), 64 << 20, 1);
    run_thousand_threads();
    use_memory();
    pthread_exit(NULL);
}

static pthread_key_t key;

/* The first call of the thread is in the second round of key destructors. */
static void allocate_in_second_round(void *round)
{
    if (round == &may_end) {
        CHECK(pthread_setspecific(key, &key) == 0);
        return;
    }
    free(kept(malloc(100)));
    free(kept(malloc(3000)));
}

static void *sets_key(void *argument)
{
    CHECK(pthread_setspecific(key, &may_end) == 0);
    return argument;
}

static void threads_that_begin_in_key_destructors_leave_no_caches(void)
{
    free(kept(malloc(10)));
    CHECK(pthread_key_create(&key, allocate_in_second_round) == 0);
    for (int count = 0; count < 200; count++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, sets_key, NULL) == 0 && pthread_join(thread, NULL) == 0);
    }
    CHECK_FOR(now().threads <= 2, "%d caches", (int)now().threads);
}

static void *has_cache(void *argument)
{
    uint64_t before = now().threads;
    free(kept(malloc(100)));
    CHECK_FOR(now().threads == before + 1 && now().cached > 0, "%d caches", (int)now().threads);
    return argument;
}

/* The allocator has its key already. */
static void threads_have_caches_where_all_keys_are_taken(void)
{
    pthread_key_t last;
    int keys = 0;
    while (pthread_key_create(&last, NULL) == 0)
        keys++;
    CHECK_FOR(keys > 100, "%d keys", keys);
    has_cache(NULL);
    for (int count = 0; count < 10; count++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, has_cache, NULL) == 0 && pthread_join(thread, NULL) == 0);
    }
    CHECK_FOR(now().threads <= 2, "%d caches", (int)now().threads);
}

MAIN(SCENARIO(threads_that_never_allocate_leave_no_caches),
     SCENARIO(process_of_detached_threads_ends_with_its_main_thread),
     SCENARIO(large_process_of_detached_threads_ends_with_its_main_thread),
     SCENARIO(threads_that_begin_in_key_destructors_leave_no_caches),
     SCENARIO(threads_have_caches_where_all_keys_are_taken))
