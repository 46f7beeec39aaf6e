// A program with operators of its own: these are used, by it and by the C++ library. With PLAIN_ONLY it has those that
// all others are defined by (C++17 21.6.2). A header before each block tells it from those from elsewhere.
#include "check.h"
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

static const size_t HEADER = 64;
static const uint64_t MAGIC = 0x6d61676963303031;
static size_t news, deletes;

static void *own_new(size_t size)
{
    char *block = size > (size_t)1 << 40 ? nullptr : static_cast<char *>(malloc(size + HEADER));
    if (block == nullptr)
        throw std::bad_alloc();
    memcpy(block, &MAGIC, sizeof MAGIC);
    news++;
    return block + HEADER;
}

static void own_delete(void *block)
{
    if (block == nullptr)
        return;
    char *begin = static_cast<char *>(block) - HEADER;
    CHECK_FOR(memcmp(begin, &MAGIC, sizeof MAGIC) == 0, "a block from elsewhere");
    memset(begin, 0, HEADER);
    deletes++;
    free(begin);
}

void *operator new(size_t size) { return own_new(size); }
void operator delete(void *block) noexcept { own_delete(block); }
void *operator new(size_t size, std::align_val_t) { return own_new(size); }
void operator delete(void *block, std::align_val_t) noexcept { own_delete(block); }

#ifndef PLAIN_ONLY
void *operator new[](size_t size) { return own_new(size); }
static void *own_new_or_null(size_t size) { return size > SIZE_MAX / 2 ? nullptr : own_new(size); }
void *operator new(size_t size, const std::nothrow_t &) noexcept { return own_new_or_null(size); }
void *operator new[](size_t size, const std::nothrow_t &) noexcept { return own_new_or_null(size); }
void operator delete[](void *block) noexcept { own_delete(block); }
void operator delete(void *block, size_t) noexcept { own_delete(block); }
void operator delete[](void *block, size_t) noexcept { own_delete(block); }
void operator delete(void *block, const std::nothrow_t &) noexcept { own_delete(block); }
void operator delete[](void *block, const std::nothrow_t &) noexcept { own_delete(block); }
void *operator new[](size_t size, std::align_val_t) { return own_new(size); }
void operator delete[](void *block, std::align_val_t) noexcept { own_delete(block); }
void operator delete(void *block, size_t, std::align_val_t) noexcept { own_delete(block); }
void operator delete[](void *block, size_t, std::align_val_t) noexcept { own_delete(block); }
#endif

static void expect_own(size_t count)
{
    CHECK_FOR(news == count && deletes == count, "%zu %zu %zu", news, deletes, count);
    news = deletes = 0;
}

struct Thing {
    std::string text = std::string(100, 't');
    virtual ~Thing() {}
};

static void own_new_and_delete_are_used()
{
    ::operator delete(kept(::operator new(10)));
    expect_own(1);
}

static void own_delete_gets_objects()
{
    delete static_cast<Thing *>(kept(new Thing));
    expect_own(2);
}

static void own_new_gets_arrays()
{
    ::operator delete[](kept(::operator new[](10)));
    delete[] static_cast<int *>(kept(new int[100]));
    expect_own(2);
}

static void own_new_gets_arrays_of_objects()
{
    delete[] static_cast<Thing *>(kept(new Thing[10]));
    expect_own(11);
}

static void own_new_gets_nothrow()
{
    ::operator delete(kept(::operator new(10, std::nothrow)));
    ::operator delete(kept(::operator new(10, std::nothrow)), std::nothrow);
    ::operator delete[](kept(::operator new[](10, std::nothrow)));
    ::operator delete[](kept(::operator new[](10, std::nothrow)), std::nothrow);
    expect_own(4);
    CHECK(::operator new(hidden(SIZE_MAX), std::nothrow) == nullptr);
    expect_own(0);
}

static void own_new_gets_alignments()
{
    auto align = std::align_val_t(32);
    ::operator delete(kept(::operator new(10, align)), align);
    ::operator delete[](kept(::operator new[](10, align)), align);
    ::operator delete(kept(::operator new(10, align)), 10, align);
    ::operator delete[](kept(::operator new[](10, align)), 10, align);
    expect_own(4);
}

static void own_delete_gets_sizes()
{
    ::operator delete(kept(::operator new(10)), 10);
    ::operator delete[](kept(::operator new[](10)), 10);
    expect_own(2);
}

static void own_operators_serve_the_library()
{
    {
        std::vector<std::string> texts;
        for (int count = 0; count < 1000; count++)
            texts.push_back(std::string(100, 'x'));
        auto shared = std::make_shared<Thing>();
        texts.push_back(shared->text + shared->text);
    }
    CHECK(news == deletes && news > 1000);
}

static void own_bad_alloc_is_caught()
{
    for (int count = 0; count < 2; count++) {
        bool caught = false;
        try {
            kept(count ? ::operator new[](hidden(SIZE_MAX)) : ::operator new(hidden(SIZE_MAX)));
        } catch (const std::bad_alloc &) {
            caught = true;
        }
        CHECK(caught);
    }
}

MAIN(SCENARIO(own_new_and_delete_are_used), SCENARIO(own_delete_gets_objects), SCENARIO(own_new_gets_arrays),
     SCENARIO(own_new_gets_arrays_of_objects), SCENARIO(own_new_gets_nothrow), SCENARIO(own_new_gets_alignments),
     SCENARIO(own_delete_gets_sizes), SCENARIO(own_operators_serve_the_library), SCENARIO(own_bad_alloc_is_caught))
