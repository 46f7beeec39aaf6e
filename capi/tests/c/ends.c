/* The end of a process and of threads, in every way that there is. What is said is looked at by the caller. */
#include "check.h"
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static void *early[3];

static void take_early(void)
{
    early[0] = malloc(10), early[1] = malloc(1000), early[2] = malloc(5 << 20);
    for (int index = 0; index < 3; index++)
        CHECK(early[index] != NULL);
    mark(early[2], 5 << 20, 1);
    use_memory();
}

static void free_early(void)
{
    CHECK(is_marked(early[2], 5 << 20, 1));
    for (int index = 0; index < 3; index++)
        free(early[index]);
    use_memory();
}

static void second_handler(void)
{
    use_memory();
    say("second\n");
}

static void first_handler(void)
{
    free_early();
    CHECK(atexit(second_handler) == 0);
    say("first\n");
}

static void handlers_are_served(void)
{
    take_early();
    CHECK(atexit(first_handler) == 0);
    say("main\n");
}

static void exit_in_main_is_served(void)
{
    handlers_are_served();
    exit(7);
}

static void late_handler(void *argument)
{
    (void)argument;
    free_early();
    say("late\n");
}

int __cxa_atexit(void (*)(void *), void *, void *);

/* Run after all handlers; what is registered here runs after the destructors of all libraries. */
__attribute__((destructor)) static void at_fini(void)
{
    if (early[0] != NULL && arguments != NULL && arguments[-1][0] == 'c') {
        use_memory();
        say("fini\n");
        CHECK(__cxa_atexit(late_handler, NULL, NULL) == 0);
    }
}

static void calls_after_all_handlers_are_served(void)
{
    take_early();
}

static void stdio_buffers_are_written_at_the_end(void)
{
    static const size_t sizes[] = {4096, 1 << 20};
    setvbuf(stdout, malloc(sizes[1]), _IOFBF, sizes[1]);
    for (int number = 0; number < 9000; number++)
        printf("number %d\n", number);
}

static void *busy(void *argument)
{
    for (;;) {
        static const size_t sizes[] = {10, 100, 1000, 50000, 2 << 20};
        for (int index = 0; index < 5; index++) {
            char *block = malloc(sizes[index]);
            if (block != NULL)
                block[0] = 1;
            free(kept(block));
        }
    }
    return argument;
}

static void start(void *(*run)(void *), int count)
{
    while (count-- > 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, run, NULL) == 0 && pthread_detach(thread) == 0);
    }
}

static void *exit_now(void *argument)
{
    use_memory();
    exit(8);
    return argument;
}

static void exit_in_other_thread_keeps_its_code(void)
{
    take_early();
    CHECK(atexit(first_handler) == 0);
    start(busy, 3);
    start(exit_now, 1);
    for (;;)
        pause();
}

static void return_among_busy_threads_is_clean(void)
{
    start(busy, 4);
    use_memory();
}

static void *last_thread(void *argument)
{
    usleep(50000);
    free_early();
    say("last\n");
    return argument;
}

static void process_lives_as_long_as_its_last_thread(void)
{
    take_early();
    CHECK(atexit(second_handler) == 0);
    start(last_thread, 1);
    pthread_exit(NULL);
}

static void quick_handler(void)
{
    free_early();
    say("quick\n");
}

static void quick_exit_is_served(void)
{
    take_early();
    start(busy, 2);
    CHECK(at_quick_exit(quick_handler) == 0 && atexit(second_handler) == 0);
    quick_exit(9);
}

static void underscore_exit_ends_at_once(void)
{
    take_early();
    start(busy, 2);
    CHECK(atexit(second_handler) == 0);
    _exit(10);
}

static void abort_ends_by_its_signal(void)
{
    take_early();
    start(busy, 2);
    abort();
}

/* Thread-specific data whose destructors allocate and free, and put new data there, as long as anybody asks. */
static pthread_key_t keys[20];
static int destroyed;

static void destroy(void *data)
{
    for (size_t size = 8; size < 3000000; size *= 5)
        free(kept(malloc(size)));
    CHECK(is_filled(data, 500, 6));
    free(data);
    int number = __atomic_add_fetch(&destroyed, 1, __ATOMIC_RELAXED);
    void *more = malloc(500);
    fill(more, 500, 6);
    if (pthread_setspecific(keys[number % 20], more) != 0)
        free(more);
}

static void *with_keys(void *argument)
{
    for (int index = 0; index < 20; index++) {
        void *data = malloc(500);
        fill(data, 500, 6);
        CHECK(pthread_setspecific(keys[index], data) == 0);
    }
    if (argument != NULL)
        pthread_exit(argument);
    return NULL;
}

/* Threads begin and end while others do. */
static void *starts_threads_with_keys(void *argument)
{
    for (int round = 0; round < 50; round++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, with_keys, round % 2 ? argument : NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    return NULL;
}

static void key_destructors_allocate_and_free(void)
{
    /* Some before the allocator has its own key, and some after. */
    for (int index = 0; index < 20; index++) {
        CHECK(pthread_key_create(keys + index, destroy) == 0);
        if (index == 9)
            use_memory();
    }
    pthread_t threads[8];
    for (int index = 0; index < 8; index++)
        CHECK(pthread_create(threads + index, NULL, starts_threads_with_keys, keys) == 0);
    for (int index = 0; index < 8; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
    CHECK_FOR(destroyed >= 8 * 50 * 20 * 2, "%d", destroyed);
}

static void *on_small_stack(void *argument)
{
    use_memory();
    free(kept(realloc(kept(calloc(1000, 1000)), 20 << 20)));
    if (argument != NULL)
        exit(11);
    return NULL;
}

static void smallest_stacks_are_enough(void)
{
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN) == 0);
    for (int round = 0; round <= 20; round++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, &attributes, on_small_stack, round == 20 ? keys : NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
}

static void *cancelled(void *argument)
{
    free(kept(malloc(100)));
    for (;;) {
        void *block = malloc(100);
        pthread_cleanup_push(free, block);
        pthread_testcancel();
        pthread_cleanup_pop(1);
    }
    return argument;
}

static void cancelled_threads_leave_nothing_locked(void)
{
    for (int round = 0; round < 200; round++) {
        pthread_t threads[2];
        for (int index = 0; index < 2; index++)
            CHECK(pthread_create(threads + index, NULL, cancelled, NULL) == 0);
        use_memory();
        for (int index = 0; index < 2; index++) {
            CHECK(pthread_cancel(threads[index]) == 0);
            CHECK(pthread_join(threads[index], NULL) == 0);
        }
    }
}

static void expect_exit(pid_t child, int code)
{
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_FOR(WIFEXITED(status) && WEXITSTATUS(status) == code, "%#x", (unsigned)status);
}

static char *const command[] = {(char *)"sh", (char *)"-c", (char *)"echo started; exit 3", NULL};

static void vfork_and_exec_work_among_threads(void)
{
    start(busy, 3);
    for (int count = 0; count < 50; count++) {
        void *block = malloc(1000);
        pid_t child = vfork();
        if (child == 0) {
            execv("/bin/sh", command);
            _exit(127);
        }
        free(block);
        expect_exit(child, 3);
    }
}

static void posix_spawn_works_among_threads(void)
{
    start(busy, 3);
    for (int count = 0; count < 50; count++) {
        pid_t child = 0;
        CHECK(posix_spawnp(&child, "sh", NULL, NULL, command, environ) == 0);
        expect_exit(child, 3);
    }
    for (int count = 0; count < 10; count++) {
        CHECK(WEXITSTATUS(system("exit 5")) == 5);
        FILE *pipe = popen("echo piped", "r");
        char line[20];
        CHECK(pipe != NULL && fgets(line, sizeof line, pipe) != NULL && strcmp(line, "piped\n") == 0);
        CHECK(pclose(pipe) == 0);
    }
}

static volatile sig_atomic_t signalled;

static void on_signal(int number)
{
    (void)number;
    signalled = 1;
}

/* Signals interrupt what the allocator waits in; the program's own are not lost. */
static void signals_are_not_swallowed(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    start(busy, 2);
    for (int count = 0; count < 200; count++) {
        signalled = 0;
        CHECK(kill(getpid(), SIGUSR1) == 0);
        while (!signalled)
            free(kept(malloc(1 << 20)));
    }
}

MAIN(SCENARIO(handlers_are_served), SCENARIO(exit_in_main_is_served), SCENARIO(calls_after_all_handlers_are_served),
     SCENARIO(stdio_buffers_are_written_at_the_end), SCENARIO(exit_in_other_thread_keeps_its_code),
     SCENARIO(return_among_busy_threads_is_clean), SCENARIO(process_lives_as_long_as_its_last_thread),
     SCENARIO(quick_exit_is_served), SCENARIO(underscore_exit_ends_at_once), SCENARIO(abort_ends_by_its_signal),
     SCENARIO(key_destructors_allocate_and_free), SCENARIO(smallest_stacks_are_enough),
     SCENARIO(cancelled_threads_leave_nothing_locked), SCENARIO(vfork_and_exec_work_among_threads),
     SCENARIO(posix_spawn_works_among_threads), SCENARIO(signals_are_not_swallowed))
