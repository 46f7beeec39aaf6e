/* What a service does with memory: it fills some, is idle, uses it again, and asks how much there is. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 60000, BYTES = 1000, ROUNDS = 3, IDLE_STEPS = 8, IDLE_US = 200000 };

static void *blocks[BLOCKS];

static void *block(size_t bytes)
{
    void *made = malloc(bytes);
    if (made == NULL)
        exit(1);
    return memset(made, 1, bytes);
}

static void *work(void *argument)
{
    for (int round = 0; round < ROUNDS; round++) {
        for (int index = 0; index < BLOCKS; index++)
            blocks[index] = block(BYTES);
        for (int index = 0; index < BLOCKS; index++)
            if (index % 3 != 0) {
                free(blocks[index]);
                blocks[index] = NULL;
            }
        for (int step = 0; step < IDLE_STEPS; step++) {
            usleep(IDLE_US);
            for (int count = 0; count < 100; count++)
                free(block(37 * (size_t)count + 1));
        }
        for (int index = 0; index < BLOCKS; index++)
            free(blocks[index]);
        printf("round %d\n", round);
    }
    void *long_one = block(8 << 20);
    long_one = realloc(long_one, 40 << 20);
    memset(long_one, 2, 40 << 20);
    long_one = realloc(long_one, 1 << 20);
    free(long_one);
    return argument;
}

int main(void)
{
    work(NULL);
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0 || pthread_join(thread, NULL) != 0)
        return 1;
    struct mallinfo2 figures = mallinfo2();
    malloc_trim(0);
    puts(figures.uordblks != 0 ? "figures" : "none");
    return 0;
}
