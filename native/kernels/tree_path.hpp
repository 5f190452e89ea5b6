// Products of branch probabilities along paths of a binary tree, their gradients, and the most probable leaves.
// See ops/tree_path/README.md. N rows, H hidden size, L steps of all paths together, U nodes met.
#pragma once
#include <cstdint>

namespace karui {

struct PathSizes {
    int64_t N, H;
    int threads;
};

template <typename R>
struct PathForward {
    const R *hidden, *weight, *bias;  // (N, H), (M, H), (M) or null
    const int32_t* nodes;             // (L)
    const uint8_t* codes;             // (L): 0 has the probability sigmoid(score), 1 the rest
    const int64_t* offsets;           // (N + 1): the steps of row n are offsets[n]..offsets[n + 1]
    R* log_prob;                      // (N)
    R* slope;                         // (L): d log_prob / d score, written where direction is
    R* direction;                     // (N, H): d log_prob / d hidden, or null
};

// Steps sorted by node: unique[u] is met at steps order[starts[u]..starts[u + 1]), in the rows beside them.
struct PathGroups {
    int64_t* unique;  // (U), room for L
    int64_t* starts;  // (U + 1), room for L + 1
    int64_t* order;   // (L)
    int64_t* rows;    // (L)
};
int64_t group_steps(int64_t N, const int64_t* offsets, const int32_t* nodes, const PathGroups& groups);

template <typename R>
struct PathBackward {
    const R *hidden, *slope, *grad;  // (N, H), (L), gradient of log_prob (N)
    int64_t U;
    const int64_t *starts, *order, *rows;
    R *rows_of_weight, *rows_of_bias;  // (U, H), (U) or null
};

template <typename R>
struct TreeSearch {
    const R *hidden, *weight, *bias;
    const int32_t* children;  // (M, 2): an inner node, or ~leaf
    int64_t k;
    R* log_prob;   // (N, k), largest first
    int64_t* ids;  // (N, k)
};

struct TreePathTable {
    void (*forward_f32)(const PathSizes&, const PathForward<float>&);
    void (*forward_f64)(const PathSizes&, const PathForward<double>&);
    void (*backward_f32)(const PathSizes&, const PathBackward<float>&);
    void (*backward_f64)(const PathSizes&, const PathBackward<double>&);
    void (*search_f32)(const PathSizes&, const TreeSearch<float>&);
    void (*search_f64)(const PathSizes&, const TreeSearch<double>&);
};

namespace generic { extern const TreePathTable tree_path_table; }
namespace avx2 { extern const TreePathTable tree_path_table; }
namespace avx512 { extern const TreePathTable tree_path_table; }

}  // namespace karui
