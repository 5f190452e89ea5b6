// The products of a layer's backward: a chunk's part of the gradients of x and of the weight, tile by tile.
#pragma once
#include "kernels/simple_recurrence_layer_plan.hpp"

namespace karui {
namespace KARUI_ISA {

// Part `own` of `count` even parts of [0, n).
template <typename Body>
static inline void share(int64_t n, int64_t own, int64_t count, Body body) {
    for (int64_t i = n * own / count; i < n * (own + 1) / count; ++i) body(i);
}

// Where the rows of a chunk lie in x and its gradient: `together` of them, then those of the next step `every` rows on.
struct Rows {
    int64_t count, together, every;
    int64_t at(int64_t row) const { return row / together * every + row % together; }
    bool adjoin(int64_t first, int64_t size) const { return together == every || first % together + size <= together; }
};

// grad_x of a chunk = or += grad_u W: part `own` of its tiles.
template <typename R>
static inline void multiply_for_x(const LayerPlan<R>& plan, const BackwardScratch<R>& room, const R* grad_u,
                                  const Rows& rows, R* grad_x, bool add, int64_t own, int64_t count) {
    constexpr int64_t width = panel<R>, at_once = 16;  // panels of grad_u that are summed over in one go: they stay in cache
    const Cut tiles = Cut::into_tiles(rows.count);
    for (int64_t q = 0; q < plan.outputs; q += at_once) {
        const Terms terms{std::min(at_once, plan.outputs - q), width, room.stride * width};
        const bool more = add || q > 0;
        share(plan.inputs * tiles.count, own, count, [&](int64_t item) {
            const int64_t i = item / tiles.count, tile = item % tiles.count;
            const int64_t first = tiles.begin(tile), size = tiles.size(tile), n = std::min(width, plan.I - i * width);
            const R* from = grad_u + (q * room.stride + first) * width;
            const R* weight = room.weight + (i * plan.outputs + q) * width * width;
            R* const to = grad_x + i * width;
            if (n == width && rows.adjoin(first, size))
                return along_columns<R>(size)(terms, from, weight, to + rows.at(first) * plan.I, plan.I, more);
            R local[tile_rows * width];
            along_columns<R>(size)(terms, from, weight, local, width, false);
            for (int64_t r = 0; r < size; ++r) {
                R* const row = to + rows.at(first + r) * plan.I;
                for (int64_t j = 0; j < n; ++j) row[j] = (more ? row[j] : R(0)) + local[r * width + j];
            }
        });
    }
}

// The transposed gradient of the weight = or += x' grad_u of a chunk: part `own` of its tiles.
template <typename R>
static inline void multiply_for_weight(const LayerPlan<R>& plan, const BackwardScratch<R>& room, const R* x, const R* grad_u,
                                       int64_t rows, R* grad_weight, bool add, int64_t own, int64_t count) {
    constexpr int64_t width = panel<R>;
    share(plan.outputs * room.stripes, own, count, [&](int64_t item) {
        const int64_t q = item / room.stripes, stripe = item % room.stripes, first = stripe * tile_rows;
        along_rows<R>(std::min(tile_rows, plan.I - first))({1, rows, 0}, x + stripe * room.stride * tile_rows,
                                                           grad_u + q * room.stride * width,
                                                           grad_weight + (q * plan.I + first) * width, width, add);
    });
}

// Panel q of the weight's gradient: its summands added up in order and turned round.
template <typename R>
static inline void finish_weight(const LayerPlan<R>& plan, const LayerBackward<R>& a, const BackwardScratch<R>& room,
                                 int64_t q) {
    constexpr int64_t width = panel<R>;
    const int64_t p = q / plan.G, n = std::min(width, plan.H - p * width), size = plan.I * width;
    R* const to = a.grad_weight + (q % plan.G * plan.H + p * width) * plan.I;
    if (plan.T * plan.B == 0) return std::fill(to, to + n * plan.I, R(0));
    R* const total = room.grad_weight + q * size;
    for (int64_t k = 1; k < room.summands; ++k) {
        const R* const more = total + k * room.grad_weight_size(plan);
        for (int64_t i = 0; i < size; ++i) total[i] += more[i];
    }
    unpack_transposed(total, n, plan.I, to);
}

}  // namespace KARUI_ISA
}  // namespace karui
