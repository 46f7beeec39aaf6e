/* Runs a program with systemd's filters of system calls, as SystemCallFilter= sets them: what is called beyond the first
 * list, or is in the others, ends the process.
 *
 * usage: filtered ALLOWED.list [DENIED.list]... -- PROGRAM [ARGUMENT]... */
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void expect(int condition, const char *what)
{
    if (!condition) {
        perror(what);
        exit(99);
    }
}

/* Calls `with` for each name in a file. Lines that begin with # are none. */
static void for_each(const char *path, void (*with)(int call))
{
    static char line[4096];
    FILE *file = fopen(path, "r");
    expect(file != NULL, path);
    while (fgets(line, sizeof line, file) != NULL) {
        if (line[0] == '#')
            continue;
        for (char *name = strtok(line, " \n"); name != NULL; name = strtok(NULL, " \n")) {
            int call = seccomp_syscall_resolve_name(name);
            /* Names of other processors. */
            if (call >= 0)
                with(call);
        }
    }
    fclose(file);
}

enum { CALLS_MAX = 2000 };
static char is_allowed[CALLS_MAX];

static void allow(int call)
{
    is_allowed[call % CALLS_MAX] = 1;
}

static void deny(int call)
{
    is_allowed[call % CALLS_MAX] = 0;
}

int main(int argc, char **argv)
{
    int next = 1;
    for (; next < argc && strcmp(argv[next], "--") != 0; next++)
        for_each(argv[next], next == 1 ? allow : deny);
    errno = EINVAL;
    expect(next > 1 && next + 1 < argc, "usage");
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    expect(filter != NULL, "filter");
    for (int call = 0; call < CALLS_MAX; call++)
        if (is_allowed[call])
            expect(seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0, "rule");
    expect(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && seccomp_load(filter) == 0, "load");
    execv(argv[next + 1], argv + next + 1);
    expect(0, argv[next + 1]);
}
