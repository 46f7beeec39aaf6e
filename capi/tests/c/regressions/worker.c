/* The allocator's own thread: beside programs with threads only, in nobody's way, and not the last of a process. What is
 * wrong is mostly a hang. The caller sets a short delay. */
#include "../heap.h"
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

/* Much is freed of a large heap, and the slow path is taken. */
static void work(void)
{
    free_list(small_blocks(4 * MIB));
}

/* Heaps are large in all scenarios. */
static void make_heap_large(void)
{
    kept(small_blocks(40 * MIB));
}

/* Until the allocator's thread is there, beside those of the program. */
static void work_until_there_are(int count)
{
    while (threads() != count) {
        work();
        wait_a_moment();
    }
}

/* A new user namespace is refused to a process of several threads, with EINVAL. */
static void program_of_one_thread_stays_one(void)
{
    make_heap_large();
    for (int round = 0; round < 30; round++) {
        work();
        CHECK(threads() == 1);
        wait_a_moment();
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            work();
            CHECK_FOR(unshare(CLONE_NEWUSER) == 0 || errno != EINVAL, "round %d", round);
            _exit(0);
        }
        wait_for(child);
    }
    /* And gives back what it does not need, on its way. */
    void **list = small_blocks(200 * MIB);
    free_list(list);
    while (now().resident > 100 * MIB) {
        work();
        wait_a_moment();
    }
}

static int ends;

static void *until_told(void *argument)
{
    free(kept(malloc(100)));
    while (!__atomic_load_n(&ends, __ATOMIC_RELAXED))
        wait_a_moment();
    return argument;
}

static void thread_leaves_with_the_programs_last_but_one(void)
{
    make_heap_large();
    for (int round = 0; round < 3; round++) {
        __atomic_store_n(&ends, 0, __ATOMIC_RELAXED);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, until_told, NULL) == 0);
        work_until_there_are(3);
        __atomic_store_n(&ends, 1, __ATOMIC_RELAXED);
        CHECK(pthread_join(thread, NULL) == 0);
        /* Also while there is always something to purge. */
        work_until_there_are(1);
    }
}

static void *leaves_by_a_system_call(void *argument)
{
    free(kept(malloc(100)));
    syscall(SYS_exit, 0);
    return argument;
}

static pthread_key_t key;

/* The last round that there is: nobody is told of this thread's end. */
static void begins_late(void *round)
{
    if ((uintptr_t)round < 4)
        CHECK(pthread_setspecific(key, (void *)((uintptr_t)round + 1)) == 0);
    else
        free(kept(malloc(100)));
}

static void *is_late(void *argument)
{
    CHECK(pthread_setspecific(key, (void *)1) == 0);
    return argument;
}

static void begin_threads(void *(*run)(void *), int count)
{
    for (int index = 0; index < count; index++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, run, NULL) == 0 && pthread_detach(thread) == 0);
    }
    while (threads() > 2)
        wait_a_moment();
}

static void begin_threads_that_vanish(void)
{
    CHECK(pthread_key_create(&key, begins_late) == 0);
    make_heap_large();
    begin_threads(leaves_by_a_system_call, 20);
    begin_threads(is_late, 20);
}

static void process_of_vanished_threads_ends(void)
{
    begin_threads_that_vanish();
    work();
    say("end\n");
    pthread_exit(NULL);
}

static void vanished_threads_leave_no_caches(void)
{
    begin_threads_that_vanish();
    while (now().threads != 1) {
        work();
        wait_a_moment();
    }
}

/* Says that it goes on, while its own tracer holds each of the allocator's threads that ends. */
static void traced(int pipe)
{
    make_heap_large();
    for (int round = 0; round < 4; round++) {
        __atomic_store_n(&ends, 0, __ATOMIC_RELAXED);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, until_told, NULL) == 0);
        for (int count = 0; count < 60; count++) {
            work();
            wait_a_moment();
        }
        __atomic_store_n(&ends, 1, __ATOMIC_RELAXED);
        CHECK(pthread_join(thread, NULL) == 0);
        for (int count = 0; count < 60; count++) {
            work();
            wait_a_moment();
        }
    }
    CHECK(write(pipe, "x", 1) == 1);
    _exit(0);
}

static int is_allocators(pid_t thread)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", thread);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        CHECK(fgets(name, sizeof name, file) != NULL);
        fclose(file);
    }
    return strcmp(name, "magalloc\n") == 0;
}

static void malloc_does_not_wait_for_a_stopped_thread(void)
{
    int ends_of_pipe[2], status, held = 0;
    CHECK(pipe(ends_of_pipe) == 0 && fcntl(ends_of_pipe[0], F_SETFL, O_NONBLOCK) == 0);
    pid_t child = fork(), stopped[100];
    CHECK(child >= 0);
    if (child == 0) {
        raise(SIGSTOP);
        traced(ends_of_pipe[1]);
    }
    CHECK(waitpid(child, &status, WUNTRACED) == child);
    if (ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXIT) != 0) {
        kill(child, SIGKILL);
        say("skipped\n");
        return;
    }
    kill(child, SIGCONT);
    char done;
    while (read(ends_of_pipe[0], &done, 1) != 1) {
        pid_t thread = waitpid(-1, &status, __WALL | WNOHANG);
        if (thread <= 0) {
            wait_a_moment();
            continue;
        }
        int event = status >> 16, signal = WSTOPSIG(status);
        if (event == PTRACE_EVENT_EXIT && is_allocators(thread) && held < 100)
            stopped[held++] = thread;
        else if (WIFSTOPPED(status))
            ptrace(PTRACE_CONT, thread, 0, event || signal == SIGTRAP || signal == SIGSTOP || signal == SIGCONT ? 0 : signal);
    }
    CHECK(held > 0);
    kill(child, SIGKILL);
    for (int index = 0; index < held; index++)
        ptrace(PTRACE_CONT, stopped[index], 0, 0);
}

/* Not told of its birth by the C library. */
static void child_of_bare_clone_gives_back(void)
{
    make_heap_large();
    begin_second_thread();
    work_until_there_are(3);
    void *large = malloc(200 * MIB);
    mark(large, 200 * MIB, 1);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    CHECK(child >= 0);
    if (child == 0) {
        free(large);
        while (now().resident > 100 * MIB) {
            work();
            wait_a_moment();
        }
        CHECK(threads() == 1);
        /* And its thread lives on when there are others. */
        begin_second_thread();
        for (int round = 0; round < 300; round++) {
            work();
            wait_a_moment();
        }
        _exit(0);
    }
    wait_for(child);
}

static void forks_in_handler(int signal)
{
    int error = errno;
    (void)signal;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    int status;
    if (child > 0)
        waitpid(child, &status, 0);
    errno = error;
}

/* glibc takes locks around forks of a process that it takes for one of several threads. */
static void fork_in_a_handler_amid_a_fork_works(void)
{
    make_heap_large();
    struct sigaction action = {.sa_handler = forks_in_handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    for (int round = 0; round < 500; round++) {
        if (round % 50 == 0)
            work();
        /* Once: a fork is begun anew after each signal, and on a busy machine would never end. */
        struct itimerval soon = {{0, 0}, {0, 10 + round * 7 % 800}};
        CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(0);
        int status;
        while (waitpid(child, &status, 0) != child)
            CHECK(errno == EINTR);
    }
}

/* There is no address space for a stack, and later there is. */
static void refused_thread_is_asked_for_again(void)
{
    /* What is mapped stays so, and is enough for all that comes. */
    free(kept(malloc(200 * MIB)));
    begin_second_thread();
    void *large = malloc(30 * MIB);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    struct rlimit tight = {1 * MIB, limit.rlim_max};
    CHECK(setrlimit(RLIMIT_AS, &tight) == 0);
    make_heap_large();
    work();
    CHECK(threads() == 2);
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    work_until_there_are(3);
    free(large);
}

MAIN(SCENARIO(program_of_one_thread_stays_one), SCENARIO(thread_leaves_with_the_programs_last_but_one),
     SCENARIO(process_of_vanished_threads_ends), SCENARIO(vanished_threads_leave_no_caches),
     SCENARIO(malloc_does_not_wait_for_a_stopped_thread), SCENARIO(child_of_bare_clone_gives_back),
     SCENARIO(fork_in_a_handler_amid_a_fork_works), SCENARIO(refused_thread_is_asked_for_again))
