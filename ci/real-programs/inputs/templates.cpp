// Work for a C++ compiler: containers of many types, recursive templates and tuples.
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

template <unsigned N> struct Tagged {
    std::array<std::uint32_t, N + 1> words{};
    bool operator<(const Tagged &other) const { return words < other.words; }
};

template <unsigned N> struct Table {
    std::map<Tagged<N>, std::vector<std::string>> ordered;
    std::unordered_map<std::string, std::shared_ptr<Table<N - 1>>> inner;

    std::uint64_t sum(std::uint64_t seed) const {
        std::uint64_t total = seed;
        for (const auto &[key, names] : ordered)
            total = std::accumulate(names.begin(), names.end(), total * 31 + key.words[N],
                                    [](std::uint64_t left, const std::string &name) { return left ^ name.size(); });
        for (const auto &[name, table] : inner)
            total += table->sum(name.size() + N);
        return total;
    }
};

template <> struct Table<0> {
    std::uint64_t sum(std::uint64_t seed) const { return seed; }
};

template <std::size_t... I> auto numbers(std::index_sequence<I...>) {
    return std::make_tuple(std::integral_constant<std::size_t, I * I>{}...);
}

template <unsigned N> std::uint64_t visit_all(std::variant<Tagged<N>, std::vector<Tagged<N>>, std::string> value) {
    return std::visit([](const auto &held) -> std::uint64_t { return sizeof(held) * N; }, value);
}

template <unsigned... N> std::uint64_t all(std::integer_sequence<unsigned, N...>) {
    return (visit_all<N>(std::string("x")) + ... + 0);
}

std::uint64_t everything() {
    Table<10> table;
    auto many = numbers(std::make_index_sequence<150>{});
    std::function<std::uint64_t(std::uint64_t)> sum = [&](std::uint64_t seed) { return table.sum(seed); };
    return sum(std::get<149>(many)) + all(std::make_integer_sequence<unsigned, 20>{});
}
