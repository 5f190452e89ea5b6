#include "kernels/huffman.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace karui {

namespace {

// Children of nodes in the order of their making: a leaf is ~class, an inner node its number.
struct Merges {
    std::vector<int64_t> mass;
    std::vector<int32_t> light, heavy;
};

Merges merge(int64_t V, const int64_t* counts) {
    std::vector<std::pair<int64_t, int32_t>> leaves(V);  // equal masses: the lower class is the later, shorter one
    for (int64_t i = 0; i < V; ++i) leaves[i] = {std::max<int64_t>(counts[i], 1), static_cast<int32_t>(~i)};
    std::sort(leaves.begin(), leaves.end());
    Merges m{std::vector<int64_t>(V - 1), std::vector<int32_t>(V - 1), std::vector<int32_t>(V - 1)};
    int64_t leaf = 0, node = 0;
    for (int64_t made = 0; made < V - 1; ++made) {
        auto take = [&](int64_t& mass) {  // of equal masses the leaf: the smallest longest code of all Huffman trees
            if (leaf < V && (node >= made || leaves[leaf].first <= m.mass[node])) {
                mass = leaves[leaf].first;
                return leaves[leaf++].second;
            }
            mass = m.mass[node];
            return static_cast<int32_t>(node++);
        };
        int64_t first, second;
        m.light[made] = take(first);
        m.heavy[made] = take(second);
        m.mass[made] = first + second;
    }
    return m;
}

}  // namespace

std::vector<int64_t> build_huffman(int64_t V, const int64_t* counts, const HuffmanTree& tree) {
    std::vector<int64_t> levels;
    if (V == 1) {
        tree.parent[0] = -1;
        tree.depth[0] = 0;
        return levels;
    }
    const Merges m = merge(V, counts);
    const int64_t M = V - 1;
    std::vector<uint8_t> depth(M);  // a sum below 2^62 allows 90 levels at most: masses grow like Fibonacci's numbers
    std::vector<int64_t> width;
    depth[M - 1] = 0;
    for (int64_t t = M - 1; t >= 0; --t) {
        if (width.size() <= depth[t]) width.resize(depth[t] + 1, 0);
        ++width[depth[t]];
        for (int32_t child : {m.heavy[t], m.light[t]}) {
            if (child >= 0) depth[child] = depth[t] + 1;
            else tree.depth[~child] = depth[t] + 1;
        }
    }
    int64_t first = 0;
    for (int64_t w : width) {
        levels.push_back(first);
        first += w;
    }
    std::vector<int64_t> next = levels;
    std::vector<int32_t> number(M);
    for (int64_t t = M - 1; t >= 0; --t) number[t] = static_cast<int32_t>(next[depth[t]]++);
    tree.parent[0] = -1;
    for (int64_t t = M - 1; t >= 0; --t) {
        const int32_t n = number[t];
        const int32_t children[2] = {m.heavy[t], m.light[t]};
        double mass[2];
        for (int code = 0; code < 2; ++code) {
            const int32_t child = children[code];
            mass[code] = static_cast<double>(child >= 0 ? m.mass[child] : std::max<int64_t>(counts[~child], 1));
            tree.parent[child >= 0 ? number[child] : M + ~child] = 2 * n + code;
        }
        tree.log_odds[n] = std::log(mass[0] / mass[1]);
    }
    return levels;
}

void huffman_paths(int64_t N, int64_t V, const int64_t* leaves, const int32_t* parent, const int64_t* offsets,
                   int32_t* nodes, uint8_t* codes) {
    for (int64_t n = 0; n < N; ++n) {
        int32_t up = parent[V - 1 + leaves[n]];
        for (int64_t i = offsets[n + 1] - 1; i >= offsets[n]; --i) {
            nodes[i] = up >> 1;
            codes[i] = static_cast<uint8_t>(up & 1);
            up = parent[up >> 1];
        }
    }
}

}  // namespace karui
