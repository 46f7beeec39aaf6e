/* A C program that loads a C++ library so that nobody else sees its names. argv: scenario, the library. */
#include "check.h"

static void *library;

static int call(const char *name)
{
    int (*function)(void) = (int (*)(void))dlsym(library, name);
    CHECK_FOR(function != NULL, "%s", dlerror());
    return function();
}

static void load(void)
{
    library = dlopen(arguments[0], RTLD_NOW | RTLD_LOCAL);
    CHECK_FOR(library != NULL, "%s", dlerror());
    /* What the test is about: the C++ library is not to be seen here. */
    CHECK(dlsym(RTLD_DEFAULT, "_ZSt15get_new_handlerv") == NULL);
}

static void plugin_catches_bad_alloc(void)
{
    load();
    CHECK(call("plugin_catches_bad_alloc"));
}

static void plugin_calls_handler(void)
{
    load();
    CHECK(call("plugin_calls_handler"));
}

static void plugin_nothrow_calls_handler(void)
{
    load();
    CHECK(call("plugin_nothrow_calls_handler"));
}

static void plugin_nothrow_returns_null(void)
{
    load();
    CHECK(call("plugin_nothrow_returns_null"));
}

static void plugin_is_loaded_again_and_again(void)
{
    for (int count = 0; count < 20; count++) {
        load();
        char *(*block)(size_t) = (char *(*)(size_t))dlsym(library, "plugin_block");
        char *kept_one = block(100), *kept_two = block(5 << 20);
        ((void (*)(char *))dlsym(library, "plugin_free"))(block(1000));
        CHECK(call("plugin_catches_bad_alloc"));
        CHECK(dlclose(library) == 0);
        kept_one[99] = kept_two[(5 << 20) - 1] = 1;
        free(kept_one);
        free(kept_two);
    }
}

MAIN(SCENARIO(plugin_catches_bad_alloc), SCENARIO(plugin_calls_handler), SCENARIO(plugin_nothrow_calls_handler),
     SCENARIO(plugin_nothrow_returns_null), SCENARIO(plugin_is_loaded_again_and_again))
