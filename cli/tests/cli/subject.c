/* The program that the tests start: does what its first argument says. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Volatile: a compiler leaves out what nobody looks at. */
static void *volatile blocks[1000];

static void *exit_from_thread(void *code) {
    exit(atoi(code));
}

/* The number of the signal and a line end, by calls that a handler may make. */
static void tell(int signal) {
    char text[] = {'0' + signal / 10, '0' + signal % 10, '\n'};
    ssize_t written = write(STDOUT_FILENO, text, sizeof text);
    (void)written;
    if (signal == SIGTERM)
        _exit(7);
}

static int listen(void) {
    for (int signal = 1; signal < NSIG; signal++)
        if (signal != SIGCONT && signal != SIGTSTP)
            sigaction(signal, &(struct sigaction){.sa_handler = tell}, NULL);
    printf("%d\n", getpid());
    fflush(stdout);
    for (;;)
        pause();
}

/* Starts itself twice, one after the other. */
static int start_children(const char *self) {
    for (int child = 0; child < 2; child++) {
        pid_t pid = fork();
        if (pid == 0) {
            execl(self, "child", "exit", "0", (char *)NULL);
            _exit(127);
        }
        waitpid(pid, NULL, 0);
    }
    return 0;
}

/* Prints the lines of a file that have a text in them. */
static int search(const char *path, const char *text) {
    char line[8192];
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strstr(line, text))
            fputs(line, stdout);
    return 0;
}

int main(int count, char **arguments) {
    const char *action = arguments[1];
    const char *value = count > 2 ? arguments[2] : "";
    for (int block = 0; block < 1000; block++)
        blocks[block] = malloc(64);
    if (!strcmp(action, "exit"))
        exit(atoi(value));
    if (!strcmp(action, "leave"))
        _exit(atoi(value));
    if (!strcmp(action, "kill"))
        raise(atoi(value));
    if (!strcmp(action, "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, exit_from_thread, (void *)value);
        pthread_join(thread, NULL);
    }
    if (!strcmp(action, "listen"))
        return listen();
    if (!strcmp(action, "children"))
        return start_children(arguments[0]);
    if (!strcmp(action, "search"))
        return search(value, arguments[3]);
    if (!strcmp(action, "variable"))
        return puts(getenv(value) ? getenv(value) : "(unset)") < 0;
    return 99;
}
