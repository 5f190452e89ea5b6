// How a layer is cut into chunks of time and shared out among threads, and where its buffers lie.
#pragma once
#include "kernels/gemm.hpp"
#include "kernels/simple_recurrence_layer.hpp"

namespace karui {
namespace KARUI_ISA {

// Hidden columns come in panels (gemm.hpp), `panels` a gate block. Panel p of block g is number p * G + g of `outputs`:
// what one thread scans lies together. Sums over rows of the batch are taken in blocks that B alone decides.
template <typename R>
struct LayerPlan {
    static constexpr int64_t width = panel<R>, max_blocks = 8, fewest_rows = 64, most_rows = 256;
    static constexpr int64_t input_bytes = 512 << 10, grad_bytes = 1536 << 10;  // of a chunk of x, of gu: half of a cache
    static constexpr int64_t parts = 4, part_bytes = 512 << 10;  // of the batch where a gradient of the weight is this small
    static constexpr int64_t worth_a_thread = int64_t(1) << 18;  // products below this are done before a second thread wakes
    int64_t T, B, I, G, H;
    int64_t panels, outputs, inputs;     // of a gate block, of all of them, of the input features
    int64_t block_rows, blocks;          // of the batch
    int64_t groups, columns;             // tasks of a scan: groups of whole blocks times ranges of panels
    int64_t forward_rows, backward_rows; // of a chunk, at most, unless one step has more
    int threads;
    // Each group goes through the backward alone, to a gradient of the weight of its own; sizes alone decide.
    bool apart;

    explicit LayerPlan(const LayerSizes& s) : T(s.T), B(s.B), I(s.I), G(s.G), H(s.H), threads(s.threads) {
        panels = panels_of<R>(H);
        outputs = G * panels;
        inputs = panels_of<R>(I);
        block_rows = std::max<int64_t>(1, (B + max_blocks - 1) / max_blocks);
        blocks = (B + block_rows - 1) / block_rows;
        if (T * B * I * G * H < worth_a_thread) threads = 1;
        const int64_t gradient_bytes = outputs * width * I * static_cast<int64_t>(sizeof(R));
        apart = blocks >= parts && T * B >= max_blocks * fewest_rows && gradient_bytes <= part_bytes;
        if (apart) {
            groups = parts;
            columns = std::max<int64_t>(1, std::min(panels, threads / parts));
        } else {
            share_scan();
        }
        forward_rows = s.chunk_rows ? s.chunk_rows : rows_in(input_bytes, inputs);
        backward_rows = s.chunk_rows ? s.chunk_rows : rows_in(grad_bytes, outputs);
    }
    int64_t tasks() const { return groups * columns; }
    int64_t first_row(int64_t group) const { return std::min(B, blocks * group / groups * block_rows); }
    int64_t rows(int64_t group) const { return first_row(group + 1) - first_row(group); }
    int64_t most_rows_of_a_group() const {
        int64_t most = 0;
        for (int64_t group = 0; group < groups; ++group) most = std::max(most, rows(group));
        return most;
    }
    // Steps of a chunk with `each` rows a step.
    int64_t steps(int64_t rows, int64_t each) const {
        return std::max<int64_t>(1, std::min(T, rows / std::max<int64_t>(1, each)));
    }
    // Rows between two panels of a chunk: odd, so that the panels spread over the sets of a cache.
    static int64_t spread(int64_t rows) { return rows | 1; }

    // What is kept: for each group and panel, planes (T * rows of the group, width) of u0, f, r[, u3] and c.
    int64_t kept_size() const { return T * B * panels * (G + 1) * width; }
    int64_t plane(int64_t group) const { return T * rows(group) * width; }
    int64_t kept_at(int64_t group, int64_t p) const {
        return first_row(group) * T * panels * (G + 1) * width + p * (G + 1) * plane(group);
    }

private:
    static int64_t rows_in(int64_t bytes, int64_t panels_) {
        const int64_t row = panels_ * width * static_cast<int64_t>(sizeof(R));
        return std::min(most_rows, std::max(fewest_rows, bytes / row));
    }
    void share_scan() {
        int64_t least = -1;
        for (int64_t g = 1; g <= std::max<int64_t>(1, std::min<int64_t>(threads, blocks)); ++g) {
            const int64_t c = std::min(panels, std::max<int64_t>(1, threads / g));
            const int64_t longest = ((panels + c - 1) / c) * ((blocks + g - 1) / g);
            if (least >= 0 && longest > least) continue;  // where both are even, groups: each reads a part of x only
            least = longest;
            groups = g;
            columns = c;
        }
    }
};

// One buffer after the other; counts only while `start` is null.
template <typename R>
struct Scratch {
    R* start;
    int64_t used = 0;
    R* take(int64_t n) {
        R* here = start ? start + used : nullptr;
        used += (n + 15) / 16 * 16;
        return here;
    }
};

// Vectors of the layer as panels, zero beyond H: (panels, width), (panels, B, width).
template <typename R>
struct LayerVectors {
    R *b_f, *b_r, *v_f, *v_r, *state, *mask;
    LayerVectors(const LayerPlan<R>& plan, Scratch<R>& scratch) {
        const int64_t n = plan.panels * plan.width;
        b_f = scratch.take(n);
        b_r = scratch.take(n);
        v_f = scratch.take(n);
        v_r = scratch.take(n);
        state = scratch.take(n * plan.B);
        mask = scratch.take(n * plan.B);
    }
    void fill(const LayerPlan<R>& plan, int64_t p, const LayerForward<R>& a, const R* first_state) {
        const int64_t at = p * plan.width, n = std::min(plan.width, plan.H - at);
        copy_into_panel(a.bias + at, n, b_f + at);
        copy_into_panel(a.bias + plan.H + at, n, b_r + at);
        if (a.weight_c) {
            copy_into_panel(a.weight_c + at, n, v_f + at);
            copy_into_panel(a.weight_c + plan.H + at, n, v_r + at);
        }
        for (int64_t b = 0; b < plan.B; ++b) {
            const int64_t to = (p * plan.B + b) * plan.width;
            if (first_state)
                copy_into_panel(first_state + b * plan.H + at, n, state + to);
            else
                std::fill(state + to, state + to + plan.width, R(0));
            if (a.dropout_mask) copy_into_panel(a.dropout_mask + b * plan.H + at, n, mask + to);
        }
    }
    void read_state(const LayerPlan<R>& plan, int64_t p, int64_t b0, int64_t b1, R* to) const {
        const int64_t at = p * plan.width, n = std::min(plan.width, plan.H - at);
        for (int64_t b = b0; b < b1; ++b) {
            const R* from = state + (p * plan.B + b) * plan.width;
            std::copy(from, from + n, to + b * plan.H + at);
        }
    }
};

template <typename R>
struct ForwardScratch {
    LayerVectors<R> vectors;
    R* weight;  // (outputs, inputs * width, width): transposed panels
    R *x, *u;   // a thread: (inputs, spread(rows), width) and, where nothing is kept, (G, spread(rows), width)
    int64_t x_size, u_size, steps;
    ForwardScratch(const LayerPlan<R>& plan, Scratch<R>& scratch) : vectors(plan, scratch) {
        const int64_t most = plan.most_rows_of_a_group();
        steps = plan.steps(plan.forward_rows, most);
        const int64_t rows = plan.spread(steps * most);
        weight = scratch.take(plan.outputs * plan.inputs * plan.width * plan.width);
        x_size = plan.inputs * rows * plan.width;
        u_size = plan.G * rows * plan.width;
        x = scratch.take(plan.threads * x_size);
        u = scratch.take(plan.threads * u_size);
    }
};

template <typename R>
struct BackwardScratch {
    LayerVectors<R> vectors;  // the state is the gradient of c
    R* c_0;                   // (panels, B, width)
    R* weight;                // (inputs, outputs * width, width): panels as the weight lies
    R* sums;                  // (blocks, panels, 4, width)
    R* grad_u;                // (buffers, outputs, stride, width) of a chunk
    R* x;                     // (buffers, stripes, stride, tile_rows)
    R* grad_weight;           // (summands, outputs, I, width): transposed panels
    int64_t buffers;          // one a thread where groups go apart; else two, so that one barrier a chunk is enough
    int64_t summands;         // one a group where groups go apart, else one
    int64_t steps, rows_a_step, stride, stripes;
    BackwardScratch(const LayerPlan<R>& plan, Scratch<R>& scratch) : vectors(plan, scratch) {
        buffers = plan.apart ? plan.threads : 2;
        summands = plan.apart ? plan.groups : 1;
        rows_a_step = plan.apart ? plan.most_rows_of_a_group() : plan.B;
        steps = plan.steps(plan.backward_rows, rows_a_step);
        stride = plan.spread(steps * rows_a_step);
        stripes = (plan.I + tile_rows - 1) / tile_rows;
        c_0 = scratch.take(plan.panels * plan.B * plan.width);
        weight = scratch.take(plan.inputs * plan.outputs * plan.width * plan.width);
        sums = scratch.take(plan.blocks * plan.panels * 4 * plan.width);
        grad_u = scratch.take(buffers * grad_u_size(plan));
        x = scratch.take(buffers * x_size());
        grad_weight = scratch.take(summands * grad_weight_size(plan));
    }
    int64_t grad_u_size(const LayerPlan<R>& plan) const { return plan.outputs * stride * plan.width; }
    int64_t x_size() const { return stripes * stride * tile_rows; }
    int64_t grad_weight_size(const LayerPlan<R>& plan) const { return plan.outputs * plan.I * plan.width; }
};

}  // namespace KARUI_ISA
}  // namespace karui
