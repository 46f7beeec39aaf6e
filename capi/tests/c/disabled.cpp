// C++ with MAGALLOC_DISABLE=1.
#include "check.h"
#include "magalloc.h"
#include <map>
#include <new>
#include <string>
#include <thread>

static void use(void *block, size_t align)
{
    CHECK(block != nullptr && is_aligned(block, align) && !FUNCTION(magalloc_owns)(block));
}

static void disabled_operators_are_the_systems()
{
    for (size_t size = 0; size < (4u << 20); size += 1 + size / 2) {
        void *blocks[] = {::operator new(size), ::operator new[](size), ::operator new(size, std::nothrow),
                          ::operator new(size, std::align_val_t(512))};
        use(blocks[0], 16), use(blocks[1], 16), use(blocks[2], 16), use(blocks[3], 512);
        ::operator delete(blocks[0]), ::operator delete[](blocks[1]), ::operator delete(blocks[2], size);
        ::operator delete(blocks[3], std::align_val_t(512));
    }
    std::map<int, std::string> map;
    std::thread([&map] {
        for (int number = 0; number < 1000; number++)
            map[number] = std::string(static_cast<size_t>(number), 'x');
    }).join();
    CHECK(map.size() == 1000 && map[999].size() == 999);
    int caught = 0;
    std::set_new_handler([] { std::set_new_handler(nullptr); });
    try {
        kept(::operator new(hidden(PTRDIFF_MAX)));
    } catch (const std::bad_alloc &) {
        caught++;
    }
    CHECK(caught == 1 && ::operator new(hidden(PTRDIFF_MAX), std::nothrow) == nullptr);
}

MAIN(SCENARIO(disabled_operators_are_the_systems))
