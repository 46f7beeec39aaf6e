// Objects that live as long as the process or a thread: their destructors run late.
#include "check.h"
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

static int threads_done;

struct Late {
    std::map<int, std::string> map;
    std::unique_ptr<char[]> large{new char[5 << 20]};
    const char *name;

    explicit Late(const char *name) : name(name)
    {
        for (int number = 0; number < 1000; number++)
            map[number] = std::string(static_cast<size_t>(number), 'x');
        large[0] = large[(5 << 20) - 1] = 'l';
    }

    ~Late()
    {
        use_memory();
        CHECK(map.size() == 1000 && map[999].size() == 999 && large[(5 << 20) - 1] == 'l');
        map[1000] = "one more";
        if (name != nullptr)
            say(name);
    }
};

static Late of_program("program\n");

static Late &of_function()
{
    static Late late("function\n");
    return late;
}

static thread_local std::vector<std::unique_ptr<Late>> of_thread;

static void static_objects_are_destroyed_in_order()
{
    of_function().map[5] = "five";
    of_thread.push_back(std::make_unique<Late>("thread\n"));
    say("main\n");
}

static void thread_local_objects_are_destroyed_with_their_threads()
{
    for (int round = 0; round < 20; round++) {
        std::vector<std::thread> threads;
        for (int index = 0; index < 4; index++)
            threads.emplace_back([] {
                for (int count = 0; count < 3; count++)
                    of_thread.push_back(std::make_unique<Late>(nullptr));
                __atomic_add_fetch(&threads_done, 1, __ATOMIC_RELAXED);
            });
        for (auto &thread : threads)
            thread.join();
    }
    CHECK(threads_done == 80);
}

MAIN(SCENARIO(static_objects_are_destroyed_in_order), SCENARIO(thread_local_objects_are_destroyed_with_their_threads))
