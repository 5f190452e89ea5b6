// One step of a Simple Recurrent Unit layer, one direction, for a few sequences: the product of all gates, then the scan.
#pragma once
#include "kernels/simple_recurrence.hpp"

namespace karui {

template <typename R>
struct ScanStep {
    int64_t I;            // features that the product reads
    const R* x;           // (B, I)
    const R* weight_ih;   // (G*H, I)
    ScanForward<R> scan;  // u is made here; x is the skip; T = D = 1
};

struct ScanStepTable {
    void (*f32)(const ScanSizes&, const ScanStep<float>&);
    void (*f64)(const ScanSizes&, const ScanStep<double>&);
};

namespace generic { extern const ScanStepTable scan_step_table; }
namespace avx2 { extern const ScanStepTable scan_step_table; }
namespace avx512 { extern const ScanStepTable scan_step_table; }

}  // namespace karui
