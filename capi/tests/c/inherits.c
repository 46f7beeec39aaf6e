/* Says what its environment has of LD_PRELOAD, MAGALLOC_* and OTHER, and starts itself as a child that says the
 * same. */
#include "check.h"
#include <sys/wait.h>

extern char **environ;

static void print(const char *who)
{
    for (char **variable = environ; *variable != NULL; variable++) {
        static const char *const prefixes[] = {"LD_PRELOAD=", "MAGALLOC_", "OTHER"};
        for (int index = 0; index < 3; index++)
            if (strncmp(*variable, prefixes[index], strlen(prefixes[index])) == 0)
                dprintf(STDOUT_FILENO, "%s %s\n", who, *variable);
    }
    int is_ours = dlsym(RTLD_DEFAULT, "magalloc_version") != NULL;
    dprintf(STDOUT_FILENO, "%s %s\n", who, is_ours ? "has the library" : "is without");
}

int main(int argc, char **argv)
{
    use_memory();
    print(argc > 1 ? argv[1] : "program");
    if (argc > 1)
        return 0;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", argv[0], "child", (char *)NULL);
        _exit(127);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    /* What getenv and setenv find is the same list. */
    CHECK(getenv("OTHER") != NULL && setenv("OTHER2", "set", 1) == 0 && strcmp(getenv("OTHER2"), "set") == 0);
    return 0;
}
