// The recurrent part of a language model: the products with the inputs of a block of words at once, then step by step.
#include "engine/language.hpp"

#include <algorithm>

namespace karui {
namespace {

constexpr int64_t block = 256;  // words whose products are computed together

// Rows of `blocks` blocks of `size` outputs, each padded to a multiple of 16, and their columns from `first` on.
PackedMatrix packed_blocks(const float* weight, int64_t blocks, int64_t size, int64_t inputs, int64_t stride, int64_t first) {
    std::vector<float> rows(size_t(blocks * padded(size) * inputs), 0.0f);
    for (int64_t b = 0; b < blocks; ++b)
        for (int64_t j = 0; j < size; ++j) {
            const float* from = weight + (b * size + j) * stride + first;
            std::copy(from, from + inputs, rows.begin() + (b * padded(size) + j) * inputs);
        }
    return PackedMatrix(rows.data(), blocks * padded(size), inputs);
}

}  // namespace

int64_t LanguageEngine::recurrent_size() const { return layers.empty() ? E : layers.back().layer.directions[0].H; }

void LanguageEngine::add_layer(const Form& form, const Weights& w) {
    LanguageLayer out;
    out.inputs = recurrent_size();
    out.layer.form = form;
    Engine().add_direction(out.layer, out.inputs, w);
    EngineDirection& d = out.layer.directions[0];
    d.input = Product();
    d.before = Product();
    const bool statistical = form.kind == Kind::statistical;
    const int64_t size = statistical ? w.P : w.H;
    const int64_t blocks = statistical || !size ? 1 : d.width / padded(size);
    const int64_t stride = out.inputs * form.window;
    out.input = packed_blocks(w.ih, blocks, size, out.inputs, stride, 0);
    if (form.window == 2) out.before = packed_blocks(w.ih, blocks, size, out.inputs, stride, out.inputs);
    out.row_stride = out.input.padded_rows();
    out.row_bias.assign(size_t(out.row_stride), 0.0f);
    std::copy(d.row_bias.begin(), d.row_bias.end(), out.row_bias.begin());
    layers.push_back(std::move(out));
}

void LanguageEngine::start(LanguageState& state) const {
    state.layers.resize(layers.size());
    for (size_t k = 0; k < layers.size(); ++k) {
        const EngineDirection& d = layers[k].layer.directions[0];
        LanguageState::Layer& s = state.layers[k];
        s.h.assign(size_t(padded(d.H)), 0.0f);
        s.c.assign(size_t(padded(d.H)), 0.0f);
        s.mu.assign(d.alphas.size() * size_t(d.P), 0.0f);
        s.last_input.assign(layers[k].layer.form.window == 2 ? size_t(layers[k].inputs) : 0, 0.0f);
    }
    state.hidden.assign(size_t(output.inputs), 0.0f);
}

void LanguageEngine::advance_layer(LanguageState& state, size_t number, const float* x, int64_t length, float* out, int threads) const {
    const LanguageLayer& layer = layers[number];
    const EngineDirection& d = layer.layer.directions[0];
    LanguageState::Layer& s = state.layers[number];
    std::vector<float> rows(size_t(length * layer.row_stride));
    std::vector<const float*> row_of(static_cast<size_t>(length));
    for (int64_t t = 0; t < length; ++t) {
        std::copy(layer.row_bias.begin(), layer.row_bias.end(), rows.begin() + t * layer.row_stride);
        row_of[size_t(t)] = rows.data() + t * layer.row_stride;
    }
    Stripes stripes;
    stripes.pack(x, length, layer.inputs, layer.inputs);
    layer.input.product(stripes, rows.data(), layer.row_stride, true, threads);
    if (layer.layer.form.window == 2) {
        std::vector<float> earlier(s.last_input);
        earlier.insert(earlier.end(), x, x + (length - 1) * layer.inputs);
        stripes.pack(earlier.data(), length, layer.inputs, layer.inputs);
        layer.before.product(stripes, rows.data(), layer.row_stride, true, threads);
        std::copy(x + (length - 1) * layer.inputs, x + length * layer.inputs, s.last_input.begin());
    }
    std::vector<float> scratch(std::max(4 * s.h.size(), size_t(d.P + d.R)));
    Walk w = {};
    d.put_weights(w);
    w.rows = row_of.data();
    w.step = 1;
    w.h = s.h.data();
    w.c = s.c.data();
    w.mu = s.mu.data();
    w.scratch = scratch.data();
    w.out = out;
    w.out_stride = w.out_size = d.H;
    scan_table().scan(layer.layer.form, &w, 1, 0, length);
}

void LanguageEngine::advance(LanguageState& state, const int32_t* ids, int64_t length, float* hidden, int threads) const {
    std::vector<float> x, y, projected;
    Stripes stripes;
    const int64_t D = output.inputs;
    for (int64_t begin = 0; begin < length; begin += block) {
        const int64_t count = std::min(block, length - begin);
        x.resize(size_t(count * E));
        for (int64_t t = 0; t < count && E; ++t) {  // without columns an embedding of its own is empty too
            const int32_t id = ids[begin + t];
            if (embedding.empty()) output.head.weight.copy_row(id, x.data() + t * E);
            else std::copy(embedding.begin() + id * E, embedding.begin() + (id + 1) * E, x.begin() + t * E);
        }
        for (size_t k = 0; k < layers.size(); ++k) {
            y.resize(size_t(count * layers[k].layer.directions[0].H));
            advance_layer(state, k, x.data(), count, y.data(), threads);
            x.swap(y);
        }
        if (projection.rows()) {
            const int64_t stride = projection.padded_rows();
            projected.resize(size_t(count * stride));
            stripes.pack(x.data(), count, recurrent_size(), recurrent_size());
            projection.product(stripes, projected.data(), stride, false, threads);
            x.resize(size_t(count * D));
            for (int64_t t = 0; t < count; ++t)
                for (int64_t j = 0; j < D; ++j) x[size_t(t * D + j)] = projected[size_t(t * stride + j)] + projection_bias[size_t(j)];
        }
        if (hidden) std::copy(x.begin(), x.begin() + count * D, hidden + begin * D);
        std::copy(x.begin() + (count - 1) * D, x.begin() + count * D, state.hidden.begin());
    }
}

void LanguageEngine::score(LanguageState& state, const int32_t* ids, int64_t length, float* out, int threads) const {
    const int64_t D = output.inputs;
    std::vector<float> hidden(size_t((std::min(block, length) + 1) * D));
    for (int64_t begin = 0; begin < length; begin += block) {
        const int64_t count = std::min(block, length - begin);
        std::copy(state.hidden.begin(), state.hidden.end(), hidden.begin());
        advance(state, ids + begin, count, hidden.data() + D, threads);
        output.log_prob(hidden.data(), count, ids + begin, out + begin, threads);
    }
}

}  // namespace karui
