/* Operator new in a process without any C++ library: there is nothing to throw. */
#include "check.h"

void *_Znwm(size_t);
void _ZdlPv(void *);
void *_ZnwmRKSt9nothrow_t(size_t, const void *);
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t, size_t, const void *);

static void new_without_cpp_serves(void)
{
    void *block = FUNCTION(_Znwm)(100);
    CHECK(block != NULL);
    FUNCTION(_ZdlPv)(block);
}

static void new_without_cpp_ends_the_process(void)
{
    FUNCTION(_Znwm)(hidden(SIZE_MAX));
}

static void nothrow_without_cpp_returns_null(void)
{
    const char nothrow = 0;
    CHECK(FUNCTION(_ZnwmRKSt9nothrow_t)(100, &nothrow) != NULL);
    CHECK(FUNCTION(_ZnwmRKSt9nothrow_t)(hidden(PTRDIFF_MAX), &nothrow) == NULL);
    CHECK(FUNCTION(_ZnamSt11align_val_tRKSt9nothrow_t)(hidden(PTRDIFF_MAX), 64, &nothrow) == NULL);
}

MAIN(SCENARIO(new_without_cpp_serves), SCENARIO(nothrow_without_cpp_returns_null),
     SCENARIO(new_without_cpp_ends_the_process))
