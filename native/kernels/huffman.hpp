// Huffman trees by two queues (van Leeuwen 1976), and the paths of leaves. See output/huffman.py.
#pragma once
#include <cstdint>
#include <vector>

namespace karui {

// V leaves, V - 1 inner nodes numbered level by level from the root, heavy nodes first in a level.
struct HuffmanTree {
    int32_t* parent;   // (2V - 1): 2 * node + code of inner nodes 0..V-2, then of leaves; -1 for the root
    double* log_odds;  // (V - 1): log(mass under code 0 / mass under code 1), never negative
    uint8_t* depth;    // (V): length of a leaf's code
};

// counts (V) >= 0, their sum below 2^62; zero has the mass of one. Returns the first inner node of each level.
std::vector<int64_t> build_huffman(int64_t V, const int64_t* counts, const HuffmanTree& tree);

// Paths of N leaves, from the root: nodes and codes (L) with L = offsets[N]; offsets (N + 1) are given.
void huffman_paths(int64_t N, int64_t V, const int64_t* leaves, const int32_t* parent, const int64_t* offsets,
                   int32_t* nodes, uint8_t* codes);

}  // namespace karui
