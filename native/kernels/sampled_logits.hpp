// What a sampled loss reads of the scores of its noise words, and the slope, in one pass over the scores.
// See ops/sampled_logits/README.md. N positions, K noise words.
#pragma once
#include <cstdint>

namespace karui {

enum class NoiseTerm { logsumexp, softplus, blackout };

struct NoiseSizes {
    int64_t N, K;
    NoiseTerm term;
    int threads;
};

template <typename R>
struct NoiseArrays {
    R* scores;                        // (N, K), overwritten by d reduced / d score
    const R* offset;                  // (K), added to every row of scores
    const R* first;                   // (N), the target's own term, or null
    const int64_t *target, *noise;    // (N), (K): a noise word equal to the target is left out; or null
    R* reduced;                       // (N)
    R* slope_first;                   // (N): d reduced / d first; or null
};

struct SampledLogitsTable {
    void (*f32)(const NoiseSizes&, const NoiseArrays<float>&);
    void (*f64)(const NoiseSizes&, const NoiseArrays<double>&);
};

namespace generic { extern const SampledLogitsTable sampled_logits_table; }
namespace avx2 { extern const SampledLogitsTable sampled_logits_table; }
namespace avx512 { extern const SampledLogitsTable sampled_logits_table; }

}  // namespace karui
