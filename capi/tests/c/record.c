/* Leaves records at its end, and at those of its children. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>

static void one_record(void)
{
    use_memory();
    kept(malloc(5 << 20));
}

static void forked_records(void)
{
    use_memory();
    for (int count = 0; count < 8; count++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            use_memory();
            exit(0);
        }
    }
    int status = -1;
    while (wait(&status) > 0)
        CHECK(status == 0);
}

static void ends_without_record(void)
{
    use_memory();
    _exit(0);
}

MAIN(SCENARIO(one_record), SCENARIO(forked_records), SCENARIO(ends_without_record))
