/* A library that frees what the C library has allocated, and has plugins of its own beside it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int allocate_and_free(void);
void *load_beside(const char *name, int flags);

/* The length of a text that the C library allocates. Its malloc is the program's; this library's free may be another. */
int allocate_and_free(void)
{
    char *text = NULL;
    int length = asprintf(&text, "%d and more text than has room in a small block", 42);
    char *copy = strdup(text);
    free(text);
    free(copy);
    free(realloc(strdup("short"), 3000));
    return length;
}

/* Not a tail call: the caller of dlopen is to be this library, by whose RUNPATH the loader looks. */
void *load_beside(const char *name, int flags)
{
    void *volatile library = dlopen(name, flags);
    return library;
}
