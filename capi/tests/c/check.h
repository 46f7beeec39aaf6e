/* What the test programs have in common. A program is a table of scenarios; its argument says which one to run. It is
 * silent and exits with 0 where all is as expected; else it names the line and exits with 1. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Says what is wrong, without allocating, and ends the process. */
__attribute__((format(printf, 3, 4), noreturn, unused)) static void fail(const char *file, int line,
                                                                         const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "%s:%d: %s (errno %d)\n", file, line, text, errno);
    _exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, "%s", #condition))
/* The same, with figures. */
#define CHECK_FOR(condition, ...) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition ": " __VA_ARGS__))

/* A function that the C library may not have: where nothing is linked, it is found at run time. */
#ifdef PRELOADED
__attribute__((unused)) static void *found(const char *name)
{
    void *function = dlsym(RTLD_DEFAULT, name);
    CHECK_FOR(function != NULL, "%s", name);
    return function;
}
#define FUNCTION(name) ((__typeof__(&name))found(#name))
#else
#define FUNCTION(name) (&name)
#endif

/* A value that the compiler knows nothing of. */
__attribute__((unused)) static size_t hidden(size_t value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}

/* Makes the compiler believe that the block is used. */
__attribute__((unused)) static void *kept(void *block)
{
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

__attribute__((unused)) static int is_aligned(const void *block, size_t align)
{
    return (uintptr_t)block % align == 0;
}

/* The byte at an offset of a block that was filled with a seed. */
__attribute__((unused)) static unsigned char pattern(size_t seed, size_t offset)
{
    return (unsigned char)((seed * 2654435761u + offset * 40503u + (offset >> 8)) >> 7);
}

__attribute__((unused)) static void fill(void *block, size_t size, size_t seed)
{
    for (size_t offset = 0; offset < size; offset++)
        ((unsigned char *)block)[offset] = pattern(seed, offset);
}

__attribute__((unused)) static int is_filled(const void *block, size_t size, size_t seed)
{
    for (size_t offset = 0; offset < size; offset++)
        if (((const unsigned char *)block)[offset] != pattern(seed, offset))
            return 0;
    return 1;
}

__attribute__((unused)) static int is_zero(const void *block, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)block;
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* Marks a byte in each page, for blocks that are too long to fill. */
__attribute__((unused)) static void mark(void *block, size_t size, size_t seed)
{
    for (size_t offset = 0; offset < size; offset += 4096)
        ((unsigned char *)block)[offset] = pattern(seed, offset);
    if (size != 0)
        ((unsigned char *)block)[size - 1] = pattern(seed, size - 1);
}

__attribute__((unused)) static int is_marked(const void *block, size_t size, size_t seed)
{
    for (size_t offset = 0; offset < size; offset += 4096)
        if (((const unsigned char *)block)[offset] != pattern(seed, offset))
            return 0;
    return 1;
}

/* A write that no buffer holds up. */
__attribute__((unused)) static void say(const char *text)
{
    CHECK(write(STDOUT_FILENO, text, strlen(text)) == (ssize_t)strlen(text));
}

/* Without allocating, which would be a reason to purge. */
__attribute__((unused)) static int threads(void)
{
    char text[4096] = "";
    int file = open("/proc/self/status", O_RDONLY);
    CHECK(file >= 0 && read(file, text, sizeof text - 1) > 0 && close(file) == 0);
    const char *count = strstr(text, "\nThreads:");
    CHECK(count != NULL);
    return atoi(count + strlen("\nThreads:"));
}

__attribute__((unused)) static void *sleeps_with_a_cache(void *begun)
{
    free(kept(malloc(100)));
    __atomic_store_n((int *)begun, 1, __ATOMIC_RELEASE);
    for (;;)
        pause();
    return NULL;
}

/* A second thread of the program: it has a cache, and sleeps until the process ends. */
__attribute__((unused)) static void begin_second_thread(void)
{
    static int begun;
    __atomic_store_n(&begun, 0, __ATOMIC_RELAXED);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, sleeps_with_a_cache, &begun) == 0 && pthread_detach(thread) == 0);
    while (!__atomic_load_n(&begun, __ATOMIC_ACQUIRE))
        usleep(1000);
}

/* Small and large blocks, filled, freed but for some small ones. */
__attribute__((unused)) static void use_memory(void)
{
    static const size_t sizes[] = {1, 8, 64, 1000, 30000, 100000, 5 << 20};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        void *blocks[20];
        for (size_t count = 0; count < 20; count++) {
            CHECK((blocks[count] = malloc(sizes[index])) != NULL);
            mark(blocks[count], sizes[index], count);
        }
        for (size_t count = 0; count < 20; count++) {
            CHECK(is_marked(blocks[count], sizes[index], count));
            if (count != 7 || sizes[index] > 30000)
                free(blocks[count]);
        }
    }
}

struct scenario {
    const char *name;
    void (*run)(void);
};

/* The rest of the command line. */
__attribute__((unused)) static char **arguments;

__attribute__((unused)) static int run_scenario(const struct scenario *scenarios, size_t count, int argc, char **argv)
{
    CHECK(argc >= 2);
    arguments = argv + 2;
    for (size_t index = 0; index < count; index++) {
        if (strcmp(scenarios[index].name, argv[1]) == 0) {
            scenarios[index].run();
            return 0;
        }
    }
    fail(__FILE__, __LINE__, "no scenario %s", argv[1]);
}

#define SCENARIO(function) {#function, function}
#define MAIN(...)                                                                                                     \
    int main(int argc, char **argv)                                                                                   \
    {                                                                                                                 \
        static const struct scenario scenarios[] = {__VA_ARGS__};                                                     \
        return run_scenario(scenarios, sizeof scenarios / sizeof *scenarios, argc, argv);                             \
    }

#endif
