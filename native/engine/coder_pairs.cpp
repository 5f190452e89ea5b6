// The list of pairs of words, bit by bit (docs/format.md, "Pairs").
#include <algorithm>
#include <vector>

#include "engine/coder.hpp"

namespace karui {
namespace {

constexpr int longest = 21;  // bits of a number of pairs

// How many pairs a word begins; times: how often it was a second word so far.
template <typename Coder>
int64_t code_count(Model<Coder>& model, int32_t hint, int32_t times, int64_t count) {
    const int length = bit_length(uint64_t(count));
    int n = 0;
    for (; n < longest; ++n) {
        const uint64_t i = uint64_t(n);
        const uint64_t contexts[4] = {i, uint64_t(hint & 15) << 8 | i, uint64_t(hint >> 4) << 8 | i, uint64_t(std::min(times, 3)) << 8 | i};
        if (model.bit(count_part, contexts, 4, n == length)) break;
    }
    if (n < 2) return n;
    uint64_t node = 1;
    for (int k = n - 2; k >= 0; --k) {
        const uint64_t context = 1ull << 32 | uint64_t(n) << 24 | node;
        node = node << 1 | uint64_t(model.bit(count_part, &context, 1, int(count >> k & 1)));
    }
    return int64_t(node);
}

// before: the second word of the pair before, 0 if that has another first word.
template <typename Coder>
int32_t code_second(Model<Coder>& model, int bits, int32_t before, int32_t id) {
    uint64_t node = 1;
    for (int k = bits - 1; k >= 0; --k) {
        const uint64_t same = node == (1ull << (bits - 1 - k) | uint64_t(before) >> (k + 1)), its = uint64_t(before) >> k & 1;
        const uint64_t contexts[3] = {node, uint64_t(k) << 2 | same << 1 | its, node << 2 | same << 1 | its};
        node = node << 1 | uint64_t(model.bit(second_part, contexts, 3, id >> k & 1));
    }
    return int32_t(node - (1ull << bits));
}

}  // namespace

template <typename Coder>
void code_pairs(Model<Coder>& model, const PairList& list) {
    const int bits = bit_length(uint64_t(list.words));
    std::vector<int32_t> times(size_t(list.words) + 1, 0);
    int64_t done = 0;
    for (int64_t first = 1; first <= list.words && done < list.count; ++first) {
        int64_t count = 0;
        if (Coder::writes)
            while (done + count < list.count && list.ids[2 * (done + count)] == first) ++count;
        count = code_count(model, list.hints[first - 1], times[size_t(first)], count);
        if (count > list.count - done) throw BadStream("there are more pairs than declared");
        int32_t before = 0;
        for (int64_t k = 0; k < count; ++k, ++done) {
            int32_t* pair = list.ids + 2 * done;
            const int32_t second = code_second(model, bits, before, Coder::writes ? pair[1] : 0);
            if (second <= before || second > list.words) throw BadStream("the pairs are not sorted, not different or not of known words");
            pair[0] = int32_t(first);
            pair[1] = before = second;
            ++times[size_t(second)];
        }
    }
    if (done < list.count) throw BadStream("there are fewer pairs than declared");
}

template void code_pairs(Model<Encoder>&, const PairList&);
template void code_pairs(Model<Decoder>&, const PairList&);

}  // namespace karui
