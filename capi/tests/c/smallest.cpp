// A program that has nothing of the C++ library but operator new and what it throws.
#include <cstddef>
#include <cstdint>
#include <new>

static volatile size_t too_much = PTRDIFF_MAX;

int main()
{
    try {
        static_cast<volatile char *>(::operator new(too_much))[0] = 1;
    } catch (const std::bad_alloc &) {
        return 0;
    }
    return 1;
}
