/* Loads libraries, and unloads them. argv: scenario, library. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>

static void destructor_of_unloaded_library_frees(void)
{
    for (int count = 0; count < 50; count++) {
        void *library = dlopen(arguments[0], count % 2 ? RTLD_LAZY | RTLD_LOCAL : RTLD_NOW | RTLD_GLOBAL);
        CHECK_FOR(library != NULL, "%s", dlerror());
        use_memory();
        CHECK(dlclose(library) == 0);
        CHECK_FOR(dlopen(arguments[0], RTLD_LAZY | RTLD_NOLOAD) == NULL, "it is gone");
    }
}

static void *in_thread(void *argument)
{
    destructor_of_unloaded_library_frees();
    return argument;
}

static void library_is_unloaded_in_a_thread(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

static void library_that_stays_frees_at_the_end(void)
{
    CHECK(dlopen(arguments[0], RTLD_NOW | RTLD_LOCAL) != NULL);
    say("main\n");
}

/* This one is libmagalloc.so itself, in a program that has glibc's functions. */
static void library_itself_stays_loaded(void)
{
    for (int count = 0; count < 5; count++) {
        void *library = dlopen(arguments[0], RTLD_NOW | RTLD_LOCAL);
        CHECK_FOR(library != NULL, "%s", dlerror());
        void *(*its_malloc)(size_t) = (void *(*)(size_t))dlsym(library, "malloc");
        void *(*its_realloc)(void *, size_t) = (void *(*)(void *, size_t))dlsym(library, "realloc");
        void (*its_free)(void *) = (void (*)(void *))dlsym(library, "free");
        int (*its_owns)(const void *) = (int (*)(const void *))dlsym(library, "magalloc_owns");
        CHECK(its_malloc && its_realloc && its_free && its_owns);
        void *block = its_malloc(1000), *large = its_malloc(5 << 20), *others = malloc(1000);
        CHECK(its_owns(block) && its_owns(large) && !its_owns(others));
        fill(block, 1000, 1);
        mark(large, 5 << 20, 2);
        CHECK(dlclose(library) == 0);
        /* Its memory and its code are still there. */
        CHECK(is_filled(block, 1000, 1) && is_marked(large, 5 << 20, 2));
        block = its_realloc(block, 100000);
        CHECK(is_filled(block, 1000, 1));
        its_free(block);
        its_free(large);
        free(others);
        CHECK(dlopen(arguments[0], RTLD_LAZY | RTLD_NOLOAD) != NULL);
    }
}

static void *load_itself(void *argument)
{
    library_itself_stays_loaded();
    return argument;
}

static void library_itself_serves_threads_from_before(void)
{
    pthread_t threads[4];
    for (int index = 0; index < 4; index++)
        CHECK(pthread_create(threads + index, NULL, load_itself, NULL) == 0);
    for (int index = 0; index < 4; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
}

MAIN(SCENARIO(destructor_of_unloaded_library_frees), SCENARIO(library_is_unloaded_in_a_thread),
     SCENARIO(library_that_stays_frees_at_the_end), SCENARIO(library_itself_stays_loaded),
     SCENARIO(library_itself_serves_threads_from_before))
