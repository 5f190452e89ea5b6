// From weights as they stand in the file to the padded, sparse or dense form that the walk reads.
#include <algorithm>

#include "engine/coder.hpp"
#include "engine/engine.hpp"

namespace karui {
namespace {

// Blocks of `size` values, each padded with zeros to `padded(size)`.
std::vector<float> pad_blocks(const float* values, int64_t blocks, int64_t size) {
    std::vector<float> out(size_t(blocks * padded(size)), 0.0f);
    for (int64_t b = 0; b < blocks; ++b) std::copy(values + b * size, values + (b + 1) * size, out.begin() + b * padded(size));
    return out;
}

int64_t padded_place(int64_t number, int64_t block) { return block ? number / block * padded(block) + number % block : number; }

}  // namespace

Product::Product(const Block& b) : width_(b.blocks * padded(b.size)) {
    const int64_t outputs = b.blocks * b.size;
    std::vector<int64_t> kept;  // columns of the weight
    int64_t cells = 0;
    for (int64_t k = 0; k < b.inputs; ++k) {
        int64_t used = 0;
        for (int64_t o = 0; o < outputs; ++o) used += b.weight[o * b.stride + k] != 0.0f;
        if (used) {
            kept.push_back(k);
            live_.push_back(b.input_block == b.inputs ? k : padded_place(k, b.input_block));
        }
        cells += used;
    }
    is_dense_ = double(cells) >= sparse_density * double(live_.size()) * double(outputs);
    if (is_dense_) values_.assign(live_.size() * size_t(width_), 0.0f);
    begin_.push_back(0);
    for (size_t number = 0; number < kept.size(); ++number) {
        for (int64_t o = 0; o < outputs; ++o) {
            const float value = b.weight[o * b.stride + kept[number]];
            const int64_t column = padded_place(o, b.size);
            if (is_dense_) values_[number * size_t(width_) + size_t(column)] = value;
            else if (value != 0.0f) {
                column_.push_back(int32_t(column));
                values_.push_back(value);
            }
        }
        begin_.push_back(int64_t(column_.size()));
    }
}

ProductView Product::view() const {
    return {int64_t(live_.size()), live_.data(), width_, is_dense_ ? values_.data() : nullptr, begin_.data(), column_.data(), values_.data()};
}

PairTable::PairTable(const int32_t* ids, int64_t count) {
    if (!count) return;
    const int bits = bit_length(uint64_t(count)) + 1;  // at most half of the slots are taken
    slots_.assign(size_t(1) << bits, Slot{0, 0});
    mask_ = (uint64_t(1) << bits) - 1;
    shift_ = 64 - bits;
    for (int64_t row = 0; row < count; ++row) {
        const uint64_t key = key_of(ids[2 * row], ids[2 * row + 1]);
        uint64_t at = place(key);
        while (slots_[at].key) at = (at + 1) & mask_;
        slots_[at] = Slot{key, int32_t(row)};
    }
}

void Engine::add_direction(EngineLayer& layer, int64_t inputs, const Weights& w) const {
    EngineDirection d;
    const Kind kind = layer.form.kind;
    const int64_t H = w.H, Hp = padded(H);
    const int64_t gates = kind == Kind::gru ? 3 : kind == Kind::mingru ? 2 : kind == Kind::qrnn ? (layer.form.output_gate ? 3 : 2) : 4;
    auto plain = [](const float* weight, int64_t blocks, int64_t size, int64_t columns) {
        return Product({weight, blocks, size, columns, columns, columns});
    };
    d.H = H;
    if (kind == Kind::statistical) {
        const int64_t states = w.n_alphas * w.P;
        d.P = d.width = padded(w.P);
        d.R = padded(w.R);
        d.input = plain(w.ih, 1, w.P, inputs);
        d.hidden = Product({w.r, 1, w.R, states, states, w.P});
        d.phi = plain(w.phi, 1, w.P, w.R);
        d.read = Product({w.o, 1, H, states, states, w.P});
        d.row_bias = pad_blocks(w.bias, 1, w.P);
        d.bias_r = pad_blocks(w.bias + w.P, 1, w.R);
        d.bias_o = pad_blocks(w.bias + w.P + w.R, 1, H);
        d.alphas.assign(w.alphas, w.alphas + w.n_alphas);
        layer.directions.push_back(std::move(d));
        return;
    }
    const int64_t stride = inputs * layer.form.window;
    d.width = gates * Hp;
    d.input = Product({w.ih, gates, H, inputs, stride, inputs});
    if (layer.form.window == 2) d.before = Product({w.ih + inputs, gates, H, inputs, stride, inputs});
    if (kind == Kind::sru) {
        d.row_bias.assign(size_t(d.width), 0.0f);
        const std::vector<float> b = pad_blocks(w.bias, 2, H);
        std::copy(b.begin(), b.end(), d.row_bias.begin() + Hp);
        d.weight_c = pad_blocks(w.c, 2, H);
    } else {
        d.row_bias = pad_blocks(w.bias, gates, H);
    }
    if (kind == Kind::lstm || kind == Kind::gru) d.hidden = plain(w.hh, gates, H, H);
    if (kind == Kind::gru) d.bias_n = pad_blocks(w.bias + 3 * H, 1, H);
    layer.directions.push_back(std::move(d));
}

}  // namespace karui
