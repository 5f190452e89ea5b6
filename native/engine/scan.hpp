// One recurrent layer over one text. H is padded to a multiple of 16 with zero weights, so that padding stays zero.
#pragma once
#include <cstdint>

namespace karui {

enum class Kind : int { sru = 0, lstm = 1, gru = 2, statistical = 4, qrnn = 5, mingru = 6 };
enum class Activation : int { identity = 0, tanh = 1, relu = 2, elu = 3 };

// What decides the code of a step.
struct Form {
    Kind kind = Kind::sru;
    Activation activation = Activation::identity;  // SRU and Statistical Recurrent Unit
    int window = 1;                                // QRNN: inputs that a step reads
    bool output_gate = true;                       // QRNN
};

constexpr int64_t lanes = 16;
inline int64_t padded(int64_t n) { return (n + lanes - 1) / lanes * lanes; }

// A matrix product y += x W, kept by input: only inputs with a weight are listed.
struct ProductView {
    int64_t n_live;         // inputs with at least one weight
    const int64_t* live;    // their numbers
    int64_t width;          // outputs, a multiple of 16
    const float* dense;     // (n_live, width), or null: then the sparse form
    const int64_t* begin;   // (n_live + 1)
    const int32_t* column;  // outputs
    const float* value;
};

// One direction on its way through a text.
struct Walk {
    int64_t H;                 // padded
    const float* const* rows;  // rows[t]: input product with bias, (G, H) gates in file order (SRU: candidate, forget, reset, skip)
    const float* const* before;  // QRNN: what the input read before adds to rows[t], or null where it is in there already
    int64_t first, step;       // time of the first visited step; +1 or -1
    const float* weight_c;     // SRU (2, H)
    ProductView hidden;        // LSTM (4, H) and GRU (3, H) outputs
    const float* bias_n;       // GRU (H): bias of the state's part of n
    float* h;                  // (H) state
    float* c;                  // (H) state of SRU, LSTM and QRNN
    // Statistical Recurrent Unit: rows[t] is (P); `hidden` gives r from the statistics.
    int64_t P, R, n_alphas;    // P and R padded
    ProductView phi, read;     // (P) from r; (H) from the statistics
    const float* alphas;       // (n_alphas)
    const float* bias_r;       // (R)
    const float* bias_o;       // (H)
    float* mu;                 // (n_alphas, P) statistics
    float* sum;                // (H) or null
    float* max;                // (H) or null
    float* out;                // out[t * out_stride + j], or null
    int64_t out_stride, out_size;
    float* scratch;            // (4, H), or (P + R) of a Statistical Recurrent Unit
};

struct EngineTable {
    // Walks `count` directions side by side for `length` steps, from step number `begin` on.
    void (*scan)(const Form& form, Walk* walks, int count, int64_t begin, int64_t length);
    void (*product)(const ProductView& product, const float* x, float* y);
};

namespace generic {
extern const EngineTable engine_table;
}
namespace avx2 {
extern const EngineTable engine_table;
}
namespace avx512 {
extern const EngineTable engine_table;
}

}  // namespace karui
