#include "engine/engine.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "isa.hpp"

namespace karui {
namespace {

constexpr int64_t chunk_steps = 512;  // rows that are computed ahead: long texts need no more memory for them
constexpr float lowest = -std::numeric_limits<float>::max();

}  // namespace

const EngineTable& scan_table() { return KARUI_TABLE(engine_table); }

void EngineDirection::put_weights(Walk& w) const {
    w.H = padded(H);
    w.weight_c = weight_c.data();
    w.hidden = hidden.view();
    w.bias_n = bias_n.data();
    w.P = P;
    w.R = R;
    w.n_alphas = int64_t(alphas.size());
    w.phi = phi.view();
    w.read = read.view();
    w.alphas = alphas.data();
    w.bias_r = bias_r.data();
    w.bias_o = bias_o.data();
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

void Engine::fill_row(const EngineDirection& direction, const float* x, const float* before, float* row) const {
    std::copy(direction.row_bias.begin(), direction.row_bias.end(), row);
    scan_table().product(direction.input.view(), x, row);
    if (before) scan_table().product(direction.before.view(), before, row);
}

void Engine::finish() {
    if (layers.empty()) return;
    const bool two = layers[0].form.window == 2;
    int64_t width = 0;  // both directions of a QRNN take their rows from tables, or none: one walk serves them both
    for (const EngineDirection& d : layers[0].directions) width = std::max(width, d.width);
    for (EngineDirection& d : layers[0].directions) {
        if ((n_words + 1) * (two ? 2 * width : d.width) > max_table_floats) continue;
        d.table.resize(size_t((n_words + 1) * d.width));
        if (two) d.table_before.assign(size_t((n_words + 1) * d.width), 0.0f);
        for (int64_t id = 0; id <= n_words; ++id) {
            const float* x = embedding.data() + id * E;
            fill_row(d, x, nullptr, d.table.data() + id * d.width);
            if (two) scan_table().product(d.before.view(), x, d.table_before.data() + id * d.width);
        }
    }
}

void Engine::start(Progress& p) const {
    p.length = 0;
    p.last_id = 0;
    p.scores.assign(size_t(n_outputs), 0.0);
    p.parts.resize(layers.size());
    p.sequence.resize(layers.size());
    p.embedding_sum.assign(size_t(E), 0.0f);
    p.embedding_max.assign(size_t(E), lowest);
    p.embedding_last.assign(size_t(E), 0.0f);
    for (size_t k = 0; k < layers.size(); ++k) {
        p.parts[k].resize(layers[k].directions.size());
        for (size_t d = 0; d < layers[k].directions.size(); ++d) {
            const EngineDirection& direction = layers[k].directions[d];
            const size_t Hp = size_t(padded(direction.H));
            Progress::Part& part = p.parts[k][d];
            part.h.assign(Hp, 0.0f);
            part.c.assign(Hp, 0.0f);
            part.sum.assign(Hp, 0.0f);
            part.max.assign(Hp, lowest);
            part.mu.assign(direction.alphas.size() * size_t(direction.P), 0.0f);
            part.scratch.resize(std::max(4 * Hp, size_t(direction.P + direction.R)));
            part.last_input.assign(layers[k].form.window == 2 ? size_t(input_size(k)) : 0, 0.0f);
        }
    }
}

void Engine::prepare(Progress& p, size_t number, size_t d, const int32_t* ids, int64_t length, Walk& w) const {
    const EngineDirection& direction = layers[number].directions[d];
    const bool is_last = number + 1 == layers.size();
    Progress::Part& part = p.parts[number][d];
    w.first = d == 0 ? 0 : length - 1;
    w.step = d == 0 ? 1 : -1;
    part.row_of.resize(size_t(length));
    if (number == 0 && !direction.table.empty())
        for (int64_t t = 0; t < length; ++t) part.row_of[size_t(t)] = direction.table.data() + ids[t] * direction.width;
    else part.rows.resize(size_t(std::min(length, chunk_steps) * direction.width));
    if (number == 0 && !direction.table_before.empty()) {
        part.before_of.resize(size_t(length));
        for (int64_t t = 0; t < length; ++t) {
            const int64_t id = t != w.first ? ids[t - w.step] : d == 0 ? p.last_id : 0;
            part.before_of[size_t(t)] = direction.table_before.data() + id * direction.width;
        }
        w.before = part.before_of.data();
    }
    direction.put_weights(w);
    w.rows = part.row_of.data();
    w.h = part.h.data();
    w.c = part.c.data();
    w.mu = part.mu.data();
    w.scratch = part.scratch.data();
    w.sum = is_last && (pooling == Pooling::mean || pooling == Pooling::mean_max) ? part.sum.data() : nullptr;
    w.max = is_last && (pooling == Pooling::max || pooling == Pooling::mean_max) ? part.max.data() : nullptr;
}

const float* Engine::input_before(const Progress& p, size_t number, const int32_t* ids, int64_t t, int64_t step, int64_t length) const {
    const int64_t place = t - step;
    if (place >= length) return nullptr;  // the reverse direction begins
    if (number == 0) return embedding.data() + (place < 0 ? p.last_id : ids[place]) * E;
    return place < 0 ? p.parts[number][0].last_input.data() : p.sequence[number - 1].data() + place * input_size(number);
}

void Engine::advance_layer(Progress& p, size_t number, const int32_t* ids, int64_t length) const {
    const EngineLayer& layer = layers[number];
    const bool is_last = number + 1 == layers.size();
    const int64_t inputs = input_size(number);
    if (!is_last) p.sequence[number].resize(size_t(length * layer.output_size()));
    Walk walks[2] = {};
    int64_t offset = 0;
    for (size_t d = 0; d < layer.directions.size(); ++d) {
        Walk& w = walks[d];
        prepare(p, number, d, ids, length, w);
        w.out = is_last ? nullptr : p.sequence[number].data() + offset;
        w.out_stride = layer.output_size();
        w.out_size = layer.directions[d].H;
        offset += w.out_size;
    }
    for (int64_t begin = 0; begin < length; begin += chunk_steps) {
        const int64_t steps = std::min(chunk_steps, length - begin);
        for (size_t d = 0; d < layer.directions.size(); ++d) {
            const EngineDirection& direction = layer.directions[d];
            if (number == 0 && !direction.table.empty()) continue;
            for (int64_t i = 0; i < steps; ++i) {
                const int64_t t = walks[d].first + (begin + i) * walks[d].step;
                float* row = p.parts[number][d].rows.data() + i * direction.width;
                const float* x = number ? p.sequence[number - 1].data() + t * inputs : embedding.data() + ids[t] * E;
                fill_row(direction, x, layer.form.window == 2 ? input_before(p, number, ids, t, walks[d].step, length) : nullptr, row);
                p.parts[number][d].row_of[size_t(t)] = row;
            }
        }
        scan_table().scan(layer.form, walks, int(layer.directions.size()), begin, steps);
    }
    if (number && layer.form.window == 2) {
        const float* last = p.sequence[number - 1].data() + (length - 1) * inputs;
        std::copy(last, last + inputs, p.parts[number][0].last_input.begin());
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

void Engine::add_scores(Progress& p, const int32_t* ids, int64_t length) const {
    auto add = [&](const std::vector<float>& table, int64_t row) {
        for (int64_t o = 0; o < n_outputs; ++o) p.scores[size_t(o)] += table[size_t(row * n_outputs + o)];
    };
    const bool has_words = !word_scores.empty(), has_pairs = !pairs.empty();
    if (!has_words && !has_pairs) return;
    int32_t before = p.last_id;
    for (int64_t t = 0; t < length; ++t) {  // token by token, so that a stream adds in the order of a whole text
        if (has_words && ids[t]) add(word_scores, ids[t]);
        const int32_t row = has_pairs && before && ids[t] ? pairs.find(before, ids[t]) : -1;
        if (row >= 0) add(pair_scores, row);
        before = ids[t];
    }
}

void Engine::advance(Progress& p, const int32_t* ids, int64_t length) const {
    if (!length) return;
    for (size_t k = 0; k < layers.size(); ++k) advance_layer(p, k, ids, length);
    if (layers.empty()) advance_embedding(p, ids, length);
    add_scores(p, ids, length);
    p.length += length;
    p.last_id = ids[length - 1];
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
        if (!word_scores.empty() || !pairs.empty()) sum += p.scores[size_t(o)] / std::sqrt(double(p.length));
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
