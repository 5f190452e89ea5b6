#include "engine/coder.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace karui {
namespace {

// 65536 / (1 + exp(-(i - 16) / 2)), rounded.
const int32_t squash_knots[33] = {22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

int32_t interpolate(int64_t d) {
    d += 2048;
    const int64_t i = d >> 7, f = d & 127;
    return int32_t((squash_knots[i] * (128 - f) + squash_knots[i + 1] * f) >> 7);
}

std::array<int16_t, 4096> inverse() {
    std::array<int16_t, 4096> table{};
    int d = -2047;
    for (int p = 0; p < 4096; ++p) {
        while (d < 2047 && (interpolate(d) >> 4) < p) ++d;
        table[size_t(p)] = int16_t(d);
    }
    return table;
}

const std::array<int16_t, 4096> stretch_table = inverse();

}  // namespace

int32_t squash(int64_t d) {
    const int32_t p = interpolate(std::max<int64_t>(-2047, std::min<int64_t>(2047, d)));
    return std::max(16, std::min(65520, p));
}

int32_t stretch(uint32_t p) { return stretch_table[p >> 4]; }

double Encoder::bits() const { return 8.0 * double(out_.size()) + 32.0 - std::log2(double(high_ - low_) + 1.0); }

std::vector<uint8_t> Encoder::finished() const {
    std::vector<uint8_t> stream = out_;
    for (int bytes = 0; bytes <= 4; ++bytes) {
        const uint64_t unit = uint64_t(1) << (32 - 8 * bytes);
        const uint64_t value = (low_ + unit - 1) / unit * unit;
        if (value > high_) continue;
        for (int k = 0; k < bytes; ++k) stream.push_back(uint8_t(value >> (24 - 8 * k)));
        break;
    }
    return stream;
}

size_t Counters::at(uint64_t key) {
    const size_t mask = slots_.size() - 1;
    size_t index = size_t((key * 0x9E3779B97F4A7C15ull) >> 20) & mask;
    while (slots_[index].key != key) {
        if (!slots_[index].key) {
            slots_[index] = Counter{key, 32768, 0};
            ++used_;
            break;
        }
        index = (index + 1) & mask;
    }
    return index;
}

void Counters::reserve(int more) {
    if ((used_ + size_t(more)) * 2 < slots_.size()) return;
    std::vector<Counter> old(slots_.size() * 2, Counter{0, 0, 0});
    old.swap(slots_);
    const size_t mask = slots_.size() - 1;
    for (const Counter& counter : old) {
        if (!counter.key) continue;
        size_t index = size_t((counter.key * 0x9E3779B97F4A7C15ull) >> 20) & mask;
        while (slots_[index].key) index = (index + 1) & mask;
        slots_[index] = counter;
    }
}

template <typename Coder>
Model<Coder>::Model(Coder given) : coder(std::move(given)) {
    for (uint32_t part = 0; part < num_parts; ++part)
        for (auto& set : weights_[part])
            for (auto& input : set) std::fill(input, input + num_buckets, part <= letter_part ? 1 << 14 : 1 << 13);
}

template <typename Coder>
int Model<Coder>::bit(Part part, const uint64_t* contexts, int n, int bit, uint64_t set) {
    size_t at[max_inputs];
    int32_t stretched[max_inputs];
    int32_t* weight[max_inputs];
    int64_t sum = 0;
    counters_.reserve(n);
    for (int i = 0; i < n; ++i) {
        at[i] = counters_.at((uint64_t(part + 1) << 60) | (uint64_t(i) << 56) | contexts[i]);
        const Counters::Counter& counter = counters_[at[i]];
        stretched[i] = counter.seen ? stretch(counter.p) : 0;
        weight[i] = &weights_[part][set][i][std::min<int>(counter.seen, num_buckets - 1)];
        sum += int64_t(stretched[i]) * *weight[i];
    }
    const int32_t p = squash(sum >> 16);
    bit = coder.code(uint32_t(p), bit);
    const int64_t error = (int64_t(bit) << 16) - p;
    const int32_t target = bit ? 65535 : 0;
    for (int i = 0; i < n; ++i) {
        const int64_t step = (stretched[i] * error * 3 + 32768) >> 16;
        *weight[i] = int32_t(std::max(-max_weight, std::min(max_weight, *weight[i] + step)));
        Counters::Counter& counter = counters_[at[i]];
        counter.p = uint16_t(counter.p + (((target - counter.p) * (131072 / (2 * counter.seen + 3))) >> 16));
        counter.seen = uint16_t(std::min(max_count, counter.seen + 1));
    }
    return bit;
}

template class Model<Encoder>;
template class Model<Decoder>;

}  // namespace karui
