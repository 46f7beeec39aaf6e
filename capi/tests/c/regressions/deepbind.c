/* Plugins that are loaded with RTLD_DEEPBIND, as PHP loads its extensions. The arguments are the paths of plugins. */
#include "../check.h"

static void *load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_DEEPBIND);
    CHECK_FOR(library != NULL, "%s", dlerror());
    return library;
}

static void use(void *library)
{
    int (*allocate_and_free)(void) = (int (*)(void))dlsym(library, "allocate_and_free");
    CHECK(allocate_and_free != NULL && allocate_and_free() == 47);
}

static void deeply_bound_plugin_frees_what_the_c_library_allocates(void)
{
    use(load(arguments[0]));
}

/* The name has no folder: it is found by the RUNPATH of the library that asks for it. */
static void plugin_is_found_by_the_callers_path(void)
{
    CHECK(dlopen("libdeep_inner.so", RTLD_NOW | RTLD_DEEPBIND) == NULL);
    CHECK(strstr(dlerror(), "libdeep_inner.so") != NULL);
    void *outer = load(arguments[0]);
    void *(*load_beside)(const char *, int) = (void *(*)(const char *, int))dlsym(outer, "load_beside");
    CHECK(load_beside != NULL);
    /* The other flags are as they were. */
    CHECK(load_beside("libdeep_inner.so", RTLD_NOW | RTLD_NOLOAD | RTLD_DEEPBIND) == NULL);
    void *inner = load_beside("libdeep_inner.so", RTLD_NOW | RTLD_DEEPBIND);
    CHECK_FOR(inner != NULL, "%s", dlerror());
    use(inner);
    CHECK(dlopen(NULL, RTLD_NOW) != NULL);
}

static void errors_are_told(void)
{
    CHECK(dlopen("/nowhere/libnothing.so", RTLD_LAZY | RTLD_DEEPBIND) == NULL);
    const char *error = dlerror();
    CHECK(error != NULL && strstr(error, "/nowhere/libnothing.so") != NULL && dlerror() == NULL);
}

MAIN(SCENARIO(deeply_bound_plugin_frees_what_the_c_library_allocates), SCENARIO(plugin_is_found_by_the_callers_path),
     SCENARIO(errors_are_told))
