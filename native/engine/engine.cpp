#include "engine/engine.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "isa.hpp"

namespace karui {
namespace {

const EngineTable& table() {
#ifdef KARUI_X86
    switch (best_isa()) {
        case Isa::avx512: return avx512::engine_table;
        case Isa::avx2: return avx2::engine_table;
        default: return generic::engine_table;
    }
#else
    return generic::engine_table;
#endif
}

int64_t gates_of(Kind kind) { return kind == Kind::gru ? 3 : 4; }

// Blocks of `size` values, each padded with zeros to `padded(size)`.
std::vector<float> pad_blocks(const float* values, int64_t blocks, int64_t size) {
    std::vector<float> out(size_t(blocks * padded(size)), 0.0f);
    for (int64_t b = 0; b < blocks; ++b) std::copy(values + b * size, values + (b + 1) * size, out.begin() + b * padded(size));
    return out;
}

constexpr int64_t chunk_steps = 512;  // rows that are computed ahead: long texts need no more memory for them
constexpr float lowest = -std::numeric_limits<float>::max();

}  // namespace

Product::Product(const float* weight, int64_t blocks, int64_t size, int64_t inputs) : width_(blocks * padded(size)) {
    int64_t cells = 0;
    for (int64_t k = 0; k < inputs; ++k) {
        int64_t used = 0;
        for (int64_t o = 0; o < blocks * size; ++o) used += weight[o * inputs + k] != 0.0f;
        if (used) live_.push_back(k);
        cells += used;
    }
    is_dense_ = double(cells) >= sparse_density * double(live_.size()) * double(blocks * size);
    if (is_dense_) values_.assign(live_.size() * size_t(width_), 0.0f);
    begin_.push_back(0);
    for (size_t number = 0; number < live_.size(); ++number) {
        for (int64_t o = 0; o < blocks * size; ++o) {
            const float value = weight[o * inputs + live_[number]];
            const int64_t column = o / size * padded(size) + o % size;
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

int64_t EngineLayer::output_size() const {
    int64_t size = 0;
    for (const EngineDirection& direction : directions) size += direction.H;
    return size;
}

int64_t Engine::input_size(size_t number) const { return number ? layers[number - 1].output_size() : E; }

int64_t Engine::pooled_size() const {
    return (layers.empty() ? E : layers.back().output_size()) * (pooling == Pooling::mean_max ? 2 : 1);
}

bool Engine::one_way() const {
    return std::all_of(layers.begin(), layers.end(), [](const EngineLayer& layer) { return layer.directions.size() == 1; });
}

void Engine::add_direction(EngineLayer& layer, int64_t inputs, int64_t H, const float* weight_ih, const float* weight_hh,
                           const float* bias, const float* weight_c) const {
    EngineDirection d;
    const int64_t gates = gates_of(layer.kind), Hp = padded(H);
    d.H = H;
    d.width = gates * Hp;
    d.input = Product(weight_ih, gates, H, inputs);
    d.row_bias.assign(size_t(d.width), 0.0f);
    if (layer.kind == Kind::sru) {
        const std::vector<float> b = pad_blocks(bias, 2, H);
        std::copy(b.begin(), b.end(), d.row_bias.begin() + Hp);
        d.weight_c = pad_blocks(weight_c, 2, H);
    } else {
        const std::vector<float> b = pad_blocks(bias, gates, H);
        std::copy(b.begin(), b.end(), d.row_bias.begin());
        d.hidden = Product(weight_hh, gates, H, H);
        if (layer.kind == Kind::gru) d.bias_n = pad_blocks(bias + 3 * H, 1, H);
    }
    layer.directions.push_back(std::move(d));
}

void Engine::fill_row(const EngineDirection& direction, const float* x, float* row) const {
    std::copy(direction.row_bias.begin(), direction.row_bias.end(), row);
    table().product(direction.input.view(), x, row);
}

void Engine::finish() {
    if (layers.empty()) return;
    for (EngineDirection& d : layers[0].directions) {
        if ((n_words + 1) * d.width > max_table_floats) continue;
        d.table.resize(size_t((n_words + 1) * d.width));
        for (int64_t id = 0; id <= n_words; ++id) fill_row(d, embedding.data() + id * E, d.table.data() + id * d.width);
    }
}

void Engine::start(Progress& p) const {
    p.length = 0;
    p.scores.assign(size_t(n_outputs), 0.0);
    p.parts.resize(layers.size());
    p.sequence.resize(layers.size());
    p.embedding_sum.assign(size_t(E), 0.0f);
    p.embedding_max.assign(size_t(E), lowest);
    p.embedding_last.assign(size_t(E), 0.0f);
    for (size_t k = 0; k < layers.size(); ++k) {
        p.parts[k].resize(layers[k].directions.size());
        for (size_t d = 0; d < layers[k].directions.size(); ++d) {
            const size_t Hp = size_t(padded(layers[k].directions[d].H));
            Progress::Part& part = p.parts[k][d];
            part.h.assign(Hp, 0.0f);
            part.c.assign(Hp, 0.0f);
            part.sum.assign(Hp, 0.0f);
            part.max.assign(Hp, lowest);
            part.scratch.resize(4 * Hp);
        }
    }
}

void Engine::advance_layer(Progress& p, size_t number, const int32_t* ids, int64_t length) const {
    const EngineLayer& layer = layers[number];
    const bool is_last = number + 1 == layers.size();
    const int64_t inputs = input_size(number);
    if (!is_last) p.sequence[number].resize(size_t(length * layer.output_size()));
    Walk walks[2] = {};
    int64_t offset = 0;
    for (size_t d = 0; d < layer.directions.size(); ++d) {
        const EngineDirection& direction = layer.directions[d];
        Progress::Part& part = p.parts[number][d];
        part.row_of.resize(size_t(length));
        if (number == 0 && !direction.table.empty())
            for (int64_t t = 0; t < length; ++t) part.row_of[size_t(t)] = direction.table.data() + ids[t] * direction.width;
        else part.rows.resize(size_t(std::min(length, chunk_steps) * direction.width));
        Walk& w = walks[d];
        w.H = padded(direction.H);
        w.rows = part.row_of.data();
        w.first = d == 0 ? 0 : length - 1;
        w.step = d == 0 ? 1 : -1;
        w.weight_c = direction.weight_c.data();
        w.hidden = direction.hidden.view();
        w.bias_n = direction.bias_n.data();
        w.h = part.h.data();
        w.c = part.c.data();
        w.scratch = part.scratch.data();
        w.sum = is_last && (pooling == Pooling::mean || pooling == Pooling::mean_max) ? part.sum.data() : nullptr;
        w.max = is_last && (pooling == Pooling::max || pooling == Pooling::mean_max) ? part.max.data() : nullptr;
        w.out = is_last ? nullptr : p.sequence[number].data() + offset;
        w.out_stride = layer.output_size();
        w.out_size = direction.H;
        offset += direction.H;
    }
    for (int64_t begin = 0; begin < length; begin += chunk_steps) {
        const int64_t steps = std::min(chunk_steps, length - begin);
        for (size_t d = 0; d < layer.directions.size(); ++d) {
            const EngineDirection& direction = layer.directions[d];
            if (number == 0 && !direction.table.empty()) continue;
            for (int64_t i = 0; i < steps; ++i) {
                const int64_t t = walks[d].first + (begin + i) * walks[d].step;
                float* row = p.parts[number][d].rows.data() + i * direction.width;
                fill_row(direction, number ? p.sequence[number - 1].data() + t * inputs : embedding.data() + ids[t] * E, row);
                p.parts[number][d].row_of[size_t(t)] = row;
            }
        }
        table().scan(layer.kind, layer.with_tanh, walks, int(layer.directions.size()), begin, steps);
    }
}

void Engine::advance_embedding(Progress& p, const int32_t* ids, int64_t length) const {
    for (int64_t t = 0; t < length; ++t)
        for (int64_t j = 0; j < E; ++j) {
            const float x = embedding[size_t(ids[t] * E + j)];
            p.embedding_sum[size_t(j)] += x;
            p.embedding_max[size_t(j)] = std::max(p.embedding_max[size_t(j)], x);
            p.embedding_last[size_t(j)] = x;
        }
}

void Engine::advance(Progress& p, const int32_t* ids, int64_t length) const {
    if (!length) return;
    for (size_t k = 0; k < layers.size(); ++k) advance_layer(p, k, ids, length);
    if (layers.empty()) advance_embedding(p, ids, length);
    if (!word_scores.empty())
        for (int64_t t = 0; t < length; ++t) {
            if (!ids[t]) continue;
            for (int64_t o = 0; o < n_outputs; ++o) p.scores[size_t(o)] += word_scores[size_t(ids[t] * n_outputs + o)];
        }
    p.length += length;
}

void Engine::logits(Progress& p, float* out) const {
    p.pooled.clear();
    auto add = [&](bool maximum) {
        const float share = 1.0f / float(p.length);
        auto append = [&](const std::vector<float>& last, const std::vector<float>& sum, const std::vector<float>& max, int64_t n) {
            for (int64_t j = 0; j < n; ++j)
                p.pooled.push_back(pooling == Pooling::last ? last[size_t(j)] : maximum ? max[size_t(j)] : sum[size_t(j)] * share);
        };
        if (layers.empty()) append(p.embedding_last, p.embedding_sum, p.embedding_max, E);
        else
            for (size_t d = 0; d < layers.back().directions.size(); ++d) {
                const Progress::Part& part = p.parts.back()[d];
                append(part.h, part.sum, part.max, layers.back().directions[d].H);
            }
    };
    if (pooling != Pooling::max) add(false);
    if (pooling == Pooling::max || pooling == Pooling::mean_max) add(true);
    const size_t P = p.pooled.size();
    for (int64_t o = 0; o < n_outputs; ++o) {
        double sum = output_bias[size_t(o)];
        for (size_t j = 0; j < P; ++j) sum += double(output_weight[size_t(o) * P + j]) * p.pooled[j];
        if (!word_scores.empty()) sum += p.scores[size_t(o)] / std::sqrt(double(p.length));
        out[o] = float(sum);
    }
}

void Engine::answer(Progress& progress, const int32_t* ids, int64_t length, float* out) const {
    static const int32_t nothing = 0;
    start(progress);
    advance(progress, length ? ids : &nothing, length ? length : 1);
    logits(progress, out);
}

}  // namespace karui
