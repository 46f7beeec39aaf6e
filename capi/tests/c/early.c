/* A library whose constructor and destructor allocate and free. It checks what it was given back. */
#include "check.h"
#include <malloc.h>

static void *blocks[4];

__attribute__((constructor)) static void at_load(void)
{
    blocks[0] = malloc(10), blocks[1] = calloc(100, 10), blocks[2] = memalign(4096, 10000), blocks[3] = malloc(5 << 20);
    for (int index = 0; index < 4; index++)
        CHECK(blocks[index] != NULL);
    CHECK(is_zero(blocks[1], 1000) && is_aligned(blocks[2], 4096));
    fill(blocks[1], 1000, 2);
    mark(blocks[3], 5 << 20, 3);
    free(kept(malloc(1000)));
    use_memory();
    char *word = getenv("EARLY_SAYS");
    if (word != NULL)
        say(word);
}

__attribute__((destructor)) static void at_unload(void)
{
    use_memory();
    CHECK(is_filled(blocks[1], 1000, 2) && is_marked(blocks[3], 5 << 20, 3));
    for (int index = 0; index < 4; index++)
        free(blocks[index]);
    free(kept(malloc(1000)));
    char *word = getenv("EARLY_SAYS");
    if (word != NULL)
        say(word);
}

/* For who loads it. */
void *early_block(int index)
{
    return blocks[index];
}
