// A program that replaces malloc and free, and no operator: these are used by new and delete.
#include "check.h"
#include <memory>
#include <new>
#include <string>

extern "C" void *__libc_malloc(size_t);
extern "C" void __libc_free(void *);

static size_t mallocs, frees;

extern "C" void *malloc(size_t size) { return mallocs++, __libc_malloc(size); }
extern "C" void free(void *block) { frees += block != nullptr, __libc_free(block); }

static void expect_own(size_t count)
{
    CHECK_FOR(mallocs == count && frees == count, "%zu %zu %zu", mallocs, frees, count);
    mallocs = frees = 0;
}

static void operators_call_own_malloc()
{
    mallocs = frees = 0;
    ::operator delete(kept(::operator new(10)));
    ::operator delete(kept(::operator new(10)), 10);
    ::operator delete[](kept(::operator new[](10)));
    ::operator delete(kept(::operator new(10, std::nothrow)), std::nothrow);
    ::operator delete[](kept(::operator new[](10, std::nothrow)));
    expect_own(5);
    kept(std::make_unique<std::string>(1000, 'x').get());
    expect_own(2);
}

MAIN(SCENARIO(operators_call_own_malloc))
