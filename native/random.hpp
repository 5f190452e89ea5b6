// Random numbers as a pure function of a seed and a position: any thread may draw any part, in any order.
#pragma once
#include <cstdint>

#include "vector_math.hpp"

namespace karui {

// Threefry-2x32 with 13 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): it passes their
// tests from 13 on; additions, rotations and xors only, so that every instruction set has vectors for it.
template <int rounds = 13>
inline void threefry(uint32_t key0, uint32_t key1, uint32_t& x0, uint32_t& x1) {
    const uint32_t keys[3] = {key0, key1, 0x1BD11BDAu ^ key0 ^ key1};
    constexpr int turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
    x0 += keys[0];
    x1 += keys[1];
#pragma GCC unroll 32
    for (int r = 0; r < rounds; ++r) {
        x0 += x1;
        x1 = (x1 << turns[r % 8]) | (x1 >> (32 - turns[r % 8]));
        x1 ^= x0;
        if (r % 4 == 3) {
            const int k = r / 4 + 1;
            x0 += keys[k % 3];
            x1 += keys[(k + 1) % 3] + static_cast<uint32_t>(k);
        }
    }
}

// Positions come in groups of 32: pair l of group g is the counter 16 g + l, its words are positions l and 16 + l.
// Numbers of 16 bits come in groups of 64, the lower half of each word before the upper one: as they lie in memory.
constexpr int64_t group_size = 32, halves_group_size = 2 * group_size;

struct Words {
    alignas(64) uint32_t first[16], second[16];
};

inline void draw_words(uint64_t seed, uint64_t group, Words& words) {
    const uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    const uint32_t low = static_cast<uint32_t>(group << 4), high = static_cast<uint32_t>(group >> 28);
#pragma omp simd
    for (int l = 0; l < 16; ++l) {
        uint32_t x0 = low + static_cast<uint32_t>(l), x1 = high;
        threefry(key0, key1, x0, x1);
        words.first[l] = x0;
        words.second[l] = x1;
    }
}

// Two independent numbers of N(0, 1) by Box and Muller: sqrt(-2 log u) (cos, sin)(2 pi v).
template <typename R>
inline void normal_pair(uint32_t word0, uint32_t word1, R& first, R& second) {
    const R u = (static_cast<R>(word0) + R(0.5)) * R(1.0 / 4294967296.0);
    const R radius = sqrt_(R(-2) * log_(u));
    // The turn: a quarter, and a rest t in [-1/8, 1/8] of the circle, whose sine and cosine are short polynomials.
    const uint32_t shifted = word1 + 0x20000000u;
    const int32_t rest = static_cast<int32_t>(shifted & 0x3FFFFFFFu) - 0x20000000;
    const R t = static_cast<R>(rest) * R(6.283185307179586 / 4294967296.0);
    R sine, cosine;
    small_sine_cosine(t, sine, cosine);
    const uint32_t quarter = shifted >> 30;  // 0: (c, s), 1: (-s, c), 2: (-c, -s), 3: (s, -c)
    const R a = quarter & 1 ? sine : cosine;
    const R b = quarter & 1 ? cosine : sine;
    first = radius * ((quarter == 1 || quarter == 2) ? -a : a);
    second = radius * (quarter >= 2 ? -b : b);
}

}  // namespace karui
