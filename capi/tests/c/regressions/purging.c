/* Who gives memory back, and that it is given back whatever else the program does. What is never given back, and what
 * does not end, is a hang. The caller sets a short delay. */
#include "../heap.h"

static void *filled(size_t bytes)
{
    void *block = malloc(bytes);
    CHECK(block != NULL);
    mark(block, bytes, 1);
    return block;
}

static void check_that_memory_is_given_back(void)
{
    void *large = filled(100 * MIB);
    free_list(small_blocks(20 * MIB));
    free(large);
    /* A program with one thread gives back on its way. */
    while (now().resident > 16 * MIB || now().dirty > 16 * MIB) {
        free_list(small_blocks(MIB));
        wait_a_moment();
    }
}

/* Much is freed again and again, but the heap is small. */
static void small_heap_has_no_thread(void)
{
    begin_second_thread();
    for (int round = 0; round < 100; round++) {
        void *large = filled(10 * MIB);
        free_list(small_blocks(10 * MIB));
        free(large);
        CHECK(threads() == 2);
        wait_a_moment();
    }
}

static void thread_comes_and_goes_with_a_large_heap(void)
{
    begin_second_thread();
    for (int round = 0; round < 3; round++) {
        void **list = small_blocks(40 * MIB);
        CHECK_FOR(threads() == 3, "%d in round %d", threads(), round);
        free_list(list);
        while (threads() != 2)
            wait_a_moment();
    }
}

static void at_end(void)
{
    /* As much stack as an ordinary thread has to spare. */
    char room[600 << 10];
    memset(room, 1, sizeof room);
    kept(room);
    use_memory();
    say("end\n");
}

/* Says by 1 that it has a cache, and by 2 that it has seen the allocator's thread. */
static void *ends_soon(void *says)
{
    free(kept(malloc(100)));
    __atomic_store_n((int *)says, 1, __ATOMIC_RELEASE);
    while (threads() != 3)
        wait_a_moment();
    __atomic_store_n((int *)says, 2, __ATOMIC_RELEASE);
    return NULL;
}

/* The program's last threads are gone while the allocator's is there. */
static void main_thread_leaves_a_large_heap(void)
{
    CHECK(atexit(at_end) == 0);
    static int said;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, ends_soon, &said) == 0 && pthread_detach(thread) == 0);
    while (__atomic_load_n(&said, __ATOMIC_ACQUIRE) == 0)
        wait_a_moment();
    do
        kept(small_blocks(4 * MIB));
    while (__atomic_load_n(&said, __ATOMIC_ACQUIRE) == 1 && now().live < 1000 * MIB);
    CHECK(now().live < 1000 * MIB);
    pthread_exit(NULL);
}

/* Has the main thread ended? It stays in the list, as a zombie. */
static int main_thread_is_gone(void)
{
    char text[200] = "";
    FILE *file = fopen("/proc/self/stat", "r");
    CHECK(file != NULL && fgets(text, sizeof text, file) != NULL);
    fclose(file);
    return strstr(text, ") Z ") != NULL;
}

static void *makes_heap_large(void *argument)
{
    while (!main_thread_is_gone())
        wait_a_moment();
    void *large = filled(64 * MIB);
    kept(small_blocks(40 * MIB));
    free(large);
    return argument;
}

/* The last thread is another, and the main thread is gone before the heap is large. */
static void last_thread_leaves_a_large_heap(void)
{
    CHECK(atexit(at_end) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, makes_heap_large, NULL) == 0 && pthread_detach(thread) == 0);
    pthread_exit(NULL);
}

static int stops;

/* Takes what there is, and frees it: much is purged. */
static void *churns(void *argument)
{
    enum { BLOCKS = 10000 };
    static __thread char *blocks[BLOCKS];
    while (!__atomic_load_n(&stops, __ATOMIC_RELAXED)) {
        for (int index = 0; index < BLOCKS; index++) {
            if ((blocks[index] = malloc(4000)) != NULL)
                blocks[index][0] = 1;
        }
        for (int index = 0; index < BLOCKS; index++)
            free(blocks[index]);
    }
    return argument;
}

/* More than the hard limit leaves. */
static void *allocates_although_cancelled(void *argument)
{
    CHECK(pthread_cancel(pthread_self()) == 0);
    for (int count = 0; count < 20; count++)
        free(kept(malloc(150 * MIB)));
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    return argument;
}

static void *forks_although_cancelled(void *argument)
{
    CHECK(pthread_cancel(pthread_self()) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    wait_for(child);
    return argument;
}

static void expect_not_cancelled(void *(*run)(void *), int count)
{
    pthread_t others[2];
    for (int index = 0; index < 2; index++)
        CHECK(pthread_create(others + index, NULL, churns, NULL) == 0);
    for (int round = 0; round < count; round++) {
        pthread_t thread;
        void *result = NULL;
        CHECK(pthread_create(&thread, NULL, run, &stops) == 0 && pthread_join(thread, &result) == 0);
        CHECK_FOR(result == &stops, "cancelled in round %d", round);
    }
    __atomic_store_n(&stops, 1, __ATOMIC_RELAXED);
    for (int index = 0; index < 2; index++)
        CHECK(pthread_join(others[index], NULL) == 0);
    check_that_memory_is_given_back();
}

static void malloc_is_no_cancellation_point(void)
{
    expect_not_cancelled(allocates_although_cancelled, 200);
}

static void fork_is_no_cancellation_point(void)
{
    expect_not_cancelled(forks_although_cancelled, 300);
}

/* The child is another process in the same memory: a thread that it started would end with it. */
static pid_t allocate_in_vfork_child(void *volatile *taken, int count, const char *program)
{
    pid_t child = vfork();
    if (child == 0) {
        for (int index = 0; index < count; index++)
            taken[index] = malloc((size_t)11000 + (size_t)index * 900);
        execl(program, program, (char *)NULL);
        _exit(0);
    }
    return child;
}

/* The child of a fork has no thread yet, although its heap is large. */
static void malloc_in_vfork_child_does_not_stop_the_parent(void)
{
    void **list = small_blocks(45 * MIB);
    pid_t forked = fork();
    CHECK(forked >= 0);
    if (forked != 0) {
        wait_for(forked);
        return;
    }
    begin_second_thread();
    for (int round = 0; round < 6; round++) {
        void *volatile taken[20];
        wait_for(allocate_in_vfork_child(taken, 20, round % 2 ? "/bin/true" : "/nonexistent"));
        for (int index = 0; index < 20; index++)
            free(taken[index]);
    }
    free_list(list);
    check_that_memory_is_given_back();
    _exit(0);
}

/* In the child of a thread that never called malloc, nothing is known of the process yet. */
static void *forks_before_its_first_malloc(void *argument)
{
    pid_t forked = fork();
    CHECK(forked >= 0);
    if (forked != 0) {
        wait_for(forked);
        return argument;
    }
    void *volatile taken[1];
    wait_for(allocate_in_vfork_child(taken, 1, "/nonexistent"));
    begin_second_thread();
    begin_second_thread();
    kept(small_blocks(40 * MIB));
    CHECK_FOR(threads() == 4, "%d", threads());
    _exit(0);
}

static void first_malloc_in_vfork_child_does_not_stop_the_parent(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, forks_before_its_first_malloc, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

MAIN(SCENARIO(small_heap_has_no_thread), SCENARIO(thread_comes_and_goes_with_a_large_heap),
     SCENARIO(main_thread_leaves_a_large_heap), SCENARIO(last_thread_leaves_a_large_heap),
     SCENARIO(malloc_is_no_cancellation_point), SCENARIO(fork_is_no_cancellation_point),
     SCENARIO(malloc_in_vfork_child_does_not_stop_the_parent),
     SCENARIO(first_malloc_in_vfork_child_does_not_stop_the_parent))
