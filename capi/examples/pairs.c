/* Allocates and frees 64 bytes, again and again: what an instruction counter looks at. usage: pairs COUNT */
#include <stdlib.h>

int main(int argc, char **argv) {
    long count = argc > 1 ? atol(argv[1]) : 1;
    for (long pair = 0; pair < count; pair++) {
        /* Volatile, so that the compiler leaves the pair in. */
        void *volatile block = malloc(64);
        free(block);
    }
    return 0;
}
