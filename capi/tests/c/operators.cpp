// Operators new and delete in all forms, and what stands on them.
#include "check.h"
#include "magalloc.h"
#include <array>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

static const size_t impossible[] = {PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 64, (size_t)1 << 48};

static bool owned(const void *block)
{
    return FUNCTION(magalloc_owns)(block) == 1;
}

static void use(void *block, size_t size, size_t align)
{
    CHECK_FOR(block != nullptr && is_aligned(block, align) && owned(block), "%zu at %zu", size, align);
    size_t touched = size < (1 << 20) ? size : 1;
    mark(kept(block), touched, align);
    CHECK(is_marked(block, touched, align));
}

static void every_form_is_served()
{
    for (size_t size = 0; size < (8u << 20); size += 1 + size / 2) {
        size_t align = size > 8 ? 16 : 8;
        for (int count = 0; count < 3; count++) {
            void *blocks[] = {::operator new(size), ::operator new[](size), ::operator new(size, std::nothrow),
                              ::operator new[](size, std::nothrow)};
            for (void *block : blocks)
                use(block, size, align);
            CHECK(blocks[0] != blocks[1] && blocks[1] != blocks[2] && blocks[2] != blocks[3]);
            switch (count) {
            case 0:
                ::operator delete(blocks[0]), ::operator delete[](blocks[1]);
                ::operator delete(blocks[2], std::nothrow), ::operator delete[](blocks[3], std::nothrow);
                break;
            case 1:
                ::operator delete(blocks[0], size), ::operator delete[](blocks[1], size);
                ::operator delete(blocks[2]), ::operator delete[](blocks[3]);
                break;
            default:
                for (void *block : blocks)
                    free(block);
            }
        }
    }
    ::operator delete(nullptr), ::operator delete[](nullptr), ::operator delete(nullptr, std::nothrow);
    ::operator delete(nullptr, 5), ::operator delete[](nullptr, std::align_val_t(64));
}

static void every_aligned_form_is_served()
{
    for (size_t bytes = 1; bytes <= (1u << 30); bytes *= 2) {
        auto align = std::align_val_t(bytes);
        for (size_t size : {size_t(0), size_t(1), size_t(24), bytes, bytes + 1, size_t(100000)}) {
            for (int count = 0; count < 2; count++) {
                void *blocks[] = {::operator new(size, align), ::operator new[](size, align),
                                  ::operator new(size, align, std::nothrow),
                                  ::operator new[](size, align, std::nothrow)};
                for (void *block : blocks)
                    use(block, size, bytes);
                if (count == 0) {
                    ::operator delete(blocks[0], align), ::operator delete[](blocks[1], align);
                    ::operator delete(blocks[2], align, std::nothrow);
                    ::operator delete[](blocks[3], align, std::nothrow);
                } else {
                    ::operator delete(blocks[0], size, align), ::operator delete[](blocks[1], size, align);
                    ::operator delete(blocks[2], align), ::operator delete[](blocks[3], align);
                }
            }
        }
    }
}

struct alignas(64) Line {
    char bytes[64];
};

struct alignas(4096) Page {
    int number;
};

static void containers_and_over_aligned_types_work()
{
    std::map<int, std::string> map;
    std::unordered_map<std::string, std::vector<int>> table;
    std::list<std::unique_ptr<int[]>> list;
    std::deque<std::shared_ptr<std::string>> deque;
    std::set<std::function<int()> *> set;
    std::vector<Line> lines;
    std::vector<Page> pages;
    for (int number = 0; number < 5000; number++) {
        std::string text = std::to_string(number) + std::string(static_cast<size_t>(number % 100), 'x');
        map[number] = text;
        table[text].assign(static_cast<size_t>(number % 50), number);
        list.push_back(std::make_unique<int[]>(static_cast<size_t>(number)));
        deque.push_back(std::make_shared<std::string>(text));
        set.insert(new std::function<int()>([number, text] { return number + static_cast<int>(text.size()); }));
        lines.emplace_back();
        CHECK(is_aligned(&lines.back(), 64));
        if (number % 50 == 0)
            pages.push_back(Page{number});
        if (number % 3 == 0) {
            list.pop_front();
            deque.pop_front();
            map.erase(number / 2);
        }
    }
    for (auto &[number, text] : map)
        CHECK(text.compare(0, std::to_string(number).size(), std::to_string(number)) == 0 && table.count(text) == 1);
    int sum = 0;
    for (auto *function : set) {
        sum += (*function)();
        delete function;
    }
    CHECK(sum > 0 && owned(map.begin()->second.c_str()) && owned(lines.data()));
    for (size_t index = 0; index < pages.size(); index++)
        CHECK(is_aligned(&pages[index], 4096) && pages[index].number == static_cast<int>(index) * 50);
    Page *page = new Page[3];
    CHECK(is_aligned(page, 4096));
    delete[] page;
    delete static_cast<Line *>(kept(new Line));
}

static int destroyed;

struct Guard {
    std::string text = std::string(50, 'g');
    ~Guard() { destroyed++; }
};

__attribute__((noinline)) static void *request(int depth, size_t size, int form)
{
    Guard guard;
    if (depth > 0) {
        void *block = request(depth - 1, size, form);
        CHECK(guard.text.size() == 50);
        return block;
    }
    switch (form) {
    case 0:
        return ::operator new(size);
    case 1:
        return ::operator new[](size);
    case 2:
        return ::operator new(size, std::align_val_t(64));
    case 3:
        return ::operator new[](size, std::align_val_t(1 << 20));
    default:
        return new char[hidden(size)];
    }
}

static void too_much_throws_bad_alloc_through_frames()
{
    for (int round = 0; round < 100; round++) {
        for (size_t size : impossible) {
            for (int form = 0; form < 5; form++) {
                destroyed = 0;
                bool caught = false;
                try {
                    request(10, size, form);
                } catch (const std::bad_alloc &error) {
                    caught = error.what() != nullptr;
                }
                CHECK_FOR(caught && destroyed == 11, "%zu in form %d", size, form);
            }
        }
    }
}

static void nothrow_returns_null()
{
    for (size_t size : impossible) {
        CHECK(::operator new(size, std::nothrow) == nullptr);
        CHECK(::operator new[](size, std::nothrow) == nullptr);
        CHECK(::operator new(size, std::align_val_t(128), std::nothrow) == nullptr);
        CHECK(::operator new[](size, std::align_val_t(128), std::nothrow) == nullptr);
        CHECK(new (std::nothrow) char[hidden(PTRDIFF_MAX)] == nullptr);
    }
}

static void containers_throw_where_memory_ends()
{
    std::vector<char> vector(100, 'v');
    std::string text(100, 't');
    for (int count = 0; count < 10; count++) {
        bool caught = false;
        try {
            vector.reserve(vector.max_size());
        } catch (const std::bad_alloc &) {
            caught = true;
        }
        CHECK(caught && vector[99] == 'v');
        caught = false;
        try {
            text.reserve(text.max_size());
        } catch (const std::bad_alloc &) {
            caught = true;
        }
        CHECK(caught && text[99] == 't');
    }
}

static int calls;
static void *reserve;

static void counting_handler()
{
    if (++calls == 5)
        std::set_new_handler(nullptr);
}

template <typename Call> static void expect_bad_alloc(Call call)
{
    bool caught = false;
    try {
        call();
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught);
}

static void new_handler_is_called_until_there_is_none()
{
    for (int form = 0; form < 5; form++) {
        calls = 0;
        std::set_new_handler(counting_handler);
        expect_bad_alloc([form] { request(3, PTRDIFF_MAX, form); });
        CHECK_FOR(calls == 5 && std::get_new_handler() == nullptr, "form %d: %d", form, calls);
    }
    calls = 0;
    std::set_new_handler(counting_handler);
    CHECK(::operator new(PTRDIFF_MAX, std::nothrow) == nullptr && calls == 5);
    calls = 0;
    std::set_new_handler(counting_handler);
    CHECK(::operator new[](PTRDIFF_MAX, std::align_val_t(32), std::nothrow) == nullptr && calls == 5);
}

// Run with a hard limit of 256 MiB.
static void new_handler_that_frees_memory_is_enough()
{
    for (int form = 0; form < 7; form++) {
        calls = 0;
        reserve = malloc(200 << 20);
        CHECK(reserve != nullptr && malloc(200 << 20) == nullptr);
        std::set_new_handler([] {
            calls++;
            free(reserve);
        });
        void *block = form == 5   ? ::operator new(150 << 20, std::nothrow)
                      : form == 6 ? ::operator new[](150 << 20, std::align_val_t(4096), std::nothrow)
                                  : request(3, 150 << 20, form);
        CHECK_FOR(block != nullptr && calls == 1, "form %d: %d", form, calls);
        free(block);
    }
}

struct Own {
    int number;
    std::string text;
};

static void exception_of_new_handler_passes()
{
    std::set_new_handler([] { throw Own{42, std::string(100, 'o')}; });
    for (int form = 0; form < 5; form++) {
        destroyed = 0;
        int number = 0;
        try {
            request(5, PTRDIFF_MAX, form);
        } catch (const Own &own) {
            CHECK(own.text.size() == 100);
            number = own.number;
        }
        CHECK(number == 42 && destroyed == 6);
    }
}

static void nothrow_catches_exception_of_new_handler()
{
    std::set_new_handler([] {
        calls++;
        throw std::bad_alloc();
    });
    CHECK(::operator new(PTRDIFF_MAX, std::nothrow) == nullptr);
    CHECK(::operator new[](PTRDIFF_MAX, std::nothrow) == nullptr);
    CHECK(::operator new(PTRDIFF_MAX, std::align_val_t(64), std::nothrow) == nullptr);
    CHECK(::operator new[](PTRDIFF_MAX, std::align_val_t(64), std::nothrow) == nullptr);
    CHECK_FOR(calls == 4, "%d", calls);
}

struct Refuses {
    Guard guard;
    Refuses() { throw std::runtime_error("constructor"); }
};

// The compiler calls the delete that belongs to the new.
static void block_of_failed_constructor_is_freed()
{
    struct magalloc_stats before, after;
    FUNCTION(magalloc_stats)(&before, sizeof before);
    for (int count = 0; count < 1000; count++) {
        try {
            kept(count % 2 ? new Refuses : new Refuses[20]);
            CHECK(false);
        } catch (const std::runtime_error &error) {
            CHECK(strcmp(error.what(), "constructor") == 0);
        }
    }
    FUNCTION(magalloc_stats)(&after, sizeof after);
    CHECK(after.live < before.live + 10000);
}

static void memory_resources_work()
{
    std::pmr::monotonic_buffer_resource monotonic;
    std::pmr::unsynchronized_pool_resource pool;
    std::pmr::synchronized_pool_resource shared;
    for (std::pmr::memory_resource *resource :
         {std::pmr::new_delete_resource(), static_cast<std::pmr::memory_resource *>(&monotonic),
          static_cast<std::pmr::memory_resource *>(&pool), static_cast<std::pmr::memory_resource *>(&shared)}) {
        std::pmr::vector<std::pmr::string> texts(resource);
        for (int number = 0; number < 3000; number++)
            texts.emplace_back(static_cast<size_t>(number % 200), 'p');
        CHECK(texts[199] == std::pmr::string(199, 'p'));
        for (size_t align = 1; align <= 65536; align *= 2) {
            void *block = resource->allocate(300, align);
            CHECK(is_aligned(block, align) && owned(block));
            resource->deallocate(block, 300, align);
        }
    }
    expect_bad_alloc([] { (void)std::pmr::new_delete_resource()->allocate(PTRDIFF_MAX, 64); });
}

static void blocks_pass_between_threads()
{
    for (int round = 0; round < 20; round++) {
        std::array<std::vector<std::unique_ptr<std::string>>, 4> made;
        std::vector<std::thread> threads;
        for (auto &mine : made)
            threads.emplace_back([&mine] {
                for (size_t number = 0; number < 3000; number++)
                    mine.push_back(std::make_unique<std::string>(number % 300, 'm'));
                expect_bad_alloc([] { request(3, SIZE_MAX, 0); });
            });
        for (auto &thread : threads)
            thread.join();
        threads.clear();
        for (auto &others : made)
            threads.emplace_back([&others] {
                for (size_t number = 0; number < 3000; number++)
                    CHECK(others[number]->size() == number % 300);
                others.clear();
            });
        for (auto &thread : threads)
            thread.join();
    }
}

MAIN(SCENARIO(every_form_is_served), SCENARIO(every_aligned_form_is_served),
     SCENARIO(containers_and_over_aligned_types_work), SCENARIO(too_much_throws_bad_alloc_through_frames),
     SCENARIO(nothrow_returns_null), SCENARIO(containers_throw_where_memory_ends),
     SCENARIO(new_handler_is_called_until_there_is_none), SCENARIO(new_handler_that_frees_memory_is_enough),
     SCENARIO(exception_of_new_handler_passes), SCENARIO(nothrow_catches_exception_of_new_handler),
     SCENARIO(block_of_failed_constructor_is_freed), SCENARIO(memory_resources_work),
     SCENARIO(blocks_pass_between_threads))
