// A C++ library that is loaded into a C program: the C++ library comes with it, and only it sees it.
#include "check.h"
#include <memory>
#include <new>
#include <string>
#include <vector>

static int handler_calls;

extern "C" int plugin_catches_bad_alloc()
{
    std::vector<std::string> texts(100, std::string(100, 'x'));
    // Not SIZE_MAX: the C++ library rounds it up to a multiple of the alignment, which is 0.
    for (size_t size : {size_t(PTRDIFF_MAX), size_t(PTRDIFF_MAX) + 1, size_t(1) << 48}) {
        int caught = 0;
        try {
            std::string guard(1000, 'g');
            kept(::operator new(size));
        } catch (const std::bad_alloc &) {
            caught++;
        }
        try {
            kept(::operator new[](size, std::align_val_t(64)));
        } catch (const std::bad_alloc &) {
            caught++;
        }
        if (caught != 2)
            return 0;
    }
    return texts[99].size() == 100;
}

extern "C" int plugin_calls_handler()
{
    handler_calls = 0;
    std::set_new_handler([] {
        if (++handler_calls == 3)
            std::set_new_handler(nullptr);
    });
    try {
        kept(::operator new(hidden(PTRDIFF_MAX)));
    } catch (const std::bad_alloc &) {
        return handler_calls == 3;
    }
    return 0;
}

extern "C" int plugin_nothrow_calls_handler()
{
    handler_calls = 0;
    std::set_new_handler([] {
        if (++handler_calls == 3)
            std::set_new_handler(nullptr);
    });
    return ::operator new(hidden(PTRDIFF_MAX), std::nothrow) == nullptr && handler_calls == 3;
}

extern "C" int plugin_nothrow_returns_null()
{
    std::set_new_handler(nullptr);
    return ::operator new(hidden(PTRDIFF_MAX), std::nothrow) == nullptr &&
           ::operator new[](hidden(PTRDIFF_MAX), std::align_val_t(64), std::nothrow) == nullptr;
}

// For who loads and unloads it.
extern "C" char *plugin_block(size_t size) { return new char[size]; }
extern "C" void plugin_free(char *block) { delete[] block; }
