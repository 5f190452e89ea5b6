// A layer of Simple Recurrent Units, one direction: its products and its scan together, a chunk of time after the other.
// T time, B batch, I input features, G gate blocks, H hidden size. See ops/simple_recurrence/README.md.
#pragma once
#include "kernels/simple_recurrence.hpp"

namespace karui {

struct LayerSizes {
    int64_t T, B, I, G, H;
    Activation activation;
    double scale;        // alpha of the skip term when G = 3
    int threads;         // of the forward; the backward uses as many
    int64_t chunk_rows;  // time steps times batch of a chunk; 0: what fits the cache
};

template <typename R>
struct LayerForward {
    const R* x;              // (T, B, I)
    const R* weight;         // (G*H, I)
    const R* skip;           // (T, B, H), or x itself, or null; null when G = 4
    const R* weight_c;       // (2, H) or null: version 1
    const R* bias;           // (2, H)
    const R* c_0;            // (B, H) or null: zeros
    const R* dropout_mask;   // (B, H) or null
    const uint8_t* padding;  // (T, B) or null: 1 = padding
    R* h;                    // (T, B, H)
    R* c_n;                  // (B, H)
    R* kept;                 // `LayerRoom::kept` numbers for the backward, or null where there is none
    R* scratch;              // `LayerRoom::forward` numbers
};

template <typename R>
struct LayerBackward {
    LayerForward<R> forward;  // what it was called with; h, c_n and scratch are not read
    const R* grad_h;          // (T, B, H)
    const R* grad_c_n;        // (B, H), or null: zeros
    R* grad_x;                // (T, B, I), or null
    R* grad_weight;           // (G*H, I), or null
    R* grad_skip;             // (T, B, H), or null; not read where skip is x: grad_x has both parts then
    R* grad_weight_c;         // (2, H), or null in version 1
    R* grad_bias;             // (2, H)
    R* grad_c_0;              // (B, H), or null
    R* scratch;               // `LayerRoom::backward` numbers
};

// Numbers that a caller makes room for; they depend on the instruction set.
struct LayerRoom {
    int64_t kept, forward, backward;
};

struct LayerTable {
    LayerRoom (*room_f32)(const LayerSizes&);
    LayerRoom (*room_f64)(const LayerSizes&);
    void (*forward_f32)(const LayerSizes&, const LayerForward<float>&);
    void (*forward_f64)(const LayerSizes&, const LayerForward<double>&);
    void (*backward_f32)(const LayerSizes&, const LayerBackward<float>&);
    void (*backward_f64)(const LayerSizes&, const LayerBackward<double>&);
};

namespace generic { extern const LayerTable layer_table; }
namespace avx2 { extern const LayerTable layer_table; }
namespace avx512 { extern const LayerTable layer_table; }

}  // namespace karui
