/* What is written to standard error by the library, where that does not go well. */
#include "../check.h"
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

/* Makes standard error a pipe that nobody reads. */
static void close_standard_error(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
}

static sigset_t pipe_signal(void)
{
    sigset_t set;
    CHECK(sigemptyset(&set) == 0 && sigaddset(&set, SIGPIPE) == 0);
    return set;
}

static int is_pending(void)
{
    sigset_t pending;
    CHECK(sigpending(&pending) == 0);
    return sigismember(&pending, SIGPIPE);
}

/* The program ends by SIGABRT, as it would with somebody to read the line. */
static void report_into_closed_pipe_aborts(void)
{
    void *block = malloc(200000);
    close_standard_error();
    free(block);
    free(kept(block));
}

/* Starts the program anew, with a line to come at the beginning. */
static void start_with_a_line(const char *scenario)
{
    CHECK(setenv("MAGALLOC_NO_SUCH_OPTION", "1", 1) == 0);
    execl("/proc/self/exe", "again", scenario, NULL);
    CHECK(!"started");
}

static void line_into_closed_pipe_lets_the_program_live(void)
{
    close_standard_error();
    start_with_a_line("nothing_happens");
}

static void nothing_happens(void)
{
    use_memory();
    CHECK(!is_pending());
}

/* A signal that the program holds back is no more pending after the line than before. */
static void line_into_closed_pipe_raises_no_held_signal(void)
{
    sigset_t set = pipe_signal();
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    line_into_closed_pipe_lets_the_program_live();
}

static void line_into_closed_pipe_keeps_a_held_signal(void)
{
    sigset_t set = pipe_signal();
    close_standard_error();
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && raise(SIGPIPE) == 0 && is_pending());
    start_with_a_line("signal_is_held");
}

static void signal_is_held(void)
{
    sigset_t held;
    CHECK(sigprocmask(SIG_BLOCK, NULL, &held) == 0 && sigismember(&held, SIGPIPE) && is_pending());
}

static void nothing(int signal)
{
    (void)signal;
}

/* Ends by a report, while standard error has no room for it and signals come. */
static void report_among_signals(int pipe_end)
{
    CHECK(dup2(pipe_end, STDERR_FILENO) == STDERR_FILENO && close(pipe_end) == 0);
    CHECK(fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK) == 0);
    while (write(STDERR_FILENO, ".", 1) == 1)
        ;
    CHECK(fcntl(STDERR_FILENO, F_SETFL, 0) == 0);
    struct sigaction action = {.sa_handler = nothing};
    struct itimerval often = {{0, 10000}, {0, 10000}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    void *block = malloc(200000);
    free(block);
    free(kept(block));
}

/* A signal handler that interrupts system calls loses no line. */
static void line_waits_for_room_among_signals(void)
{
    static char text[1 << 16];
    int ends[2], status;
    CHECK(pipe(ends) == 0 && fcntl(ends[1], F_SETPIPE_SZ, 4096) > 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        report_among_signals(ends[1]);
        _exit(0);
    }
    CHECK(close(ends[1]) == 0 && usleep(200000) == 0);
    size_t len = 0;
    for (ssize_t more; (more = read(ends[0], text + len, sizeof text - 1 - len)) > 0; len += (size_t)more)
        ;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK_FOR(strstr(text, "magalloc: ") != NULL && text[len - 1] == '\n', "%zu bytes", len);
}

static int has_written;

static void *writes_cancelled(void *argument)
{
    CHECK(pthread_cancel(pthread_self()) == 0);
    malloc_stats();
    has_written = 1;
    pthread_testcancel();
    CHECK(!"cancelled here");
    return argument;
}

static void malloc_stats_is_no_cancellation_point(void)
{
    int nowhere = open("/dev/null", O_WRONLY);
    int before = dup(STDERR_FILENO);
    CHECK(nowhere >= 0 && before >= 0 && dup2(nowhere, STDERR_FILENO) == STDERR_FILENO);
    pthread_t thread;
    void *result;
    CHECK(pthread_create(&thread, NULL, writes_cancelled, NULL) == 0 && pthread_join(thread, &result) == 0);
    CHECK(dup2(before, STDERR_FILENO) == STDERR_FILENO);
    CHECK(result == PTHREAD_CANCELED && has_written);
}

MAIN(SCENARIO(report_into_closed_pipe_aborts), SCENARIO(line_into_closed_pipe_lets_the_program_live),
     SCENARIO(nothing_happens), SCENARIO(line_into_closed_pipe_raises_no_held_signal),
     SCENARIO(line_into_closed_pipe_keeps_a_held_signal), SCENARIO(signal_is_held),
     SCENARIO(line_waits_for_room_among_signals), SCENARIO(malloc_stats_is_no_cancellation_point))
