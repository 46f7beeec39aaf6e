/* What is written to standard error by the library, where that does not go well. */
#include "../check.h"
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>

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
     SCENARIO(malloc_stats_is_no_cancellation_point))
