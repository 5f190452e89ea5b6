// How a scan over time is cut into independent tasks.
// T time, B batch, D directions, H hidden size per direction.
#pragma once
#include <cstddef>
#include <cstdint>

#include "huge_pages.hpp"

namespace karui {
namespace KARUI_ISA {  // inline code differs between instruction sets

// A task owns the rows [b0, b1) of one direction d and the columns [j0, j1), and walks all of time.
// Rows a task are fixed by B alone, columns never meet: the number of threads changes no bit of a sum over rows.
struct ScanGrid {
    static constexpr int64_t max_chunks = 8;
    int64_t B, D, H, rows, chunks, width, blocks;
    int threads;

    struct Task {
        int64_t d, chunk, b0, b1, j0, j1;
    };

    ScanGrid(int64_t T, int64_t B_, int64_t D_, int64_t H_, int wanted) : B(B_), D(D_), H(H_), threads(wanted) {
        rows = B > 0 ? (B + max_chunks - 1) / max_chunks : 1;
        chunks = (B + rows - 1) / rows;
        if (T * B * D * H < 1 << 14) threads = 1;  // waking a thread costs as much as this work
        width = H;
        blocks = 1;
        for (int64_t n = 2; uneven() && width > 32; ++n) {
            width = ((H + n - 1) / n + 15) / 16 * 16;  // whole vectors: tails stay where they are with one block
            blocks = (H + width - 1) / width;
        }
    }
    bool uneven() const { return tasks() < 4 * threads && tasks() % threads != 0; }
    int64_t tasks() const { return chunks * D * blocks; }
    Task task(int64_t k) const {
        const int64_t block = k % blocks, d = k / blocks % D, chunk = k / blocks / D;
        const int64_t b1 = (chunk + 1) * rows, j1 = (block + 1) * width;
        return {d, chunk, chunk * rows, b1 < B ? b1 : B, block * width, j1 < H ? j1 : H};
    }
};

}  // namespace KARUI_ISA
}  // namespace karui
