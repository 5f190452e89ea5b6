#include <nanobind/nanobind.h>

#include <stdexcept>

#include "isa.hpp"
#include "kernels/addresses.hpp"
#include "kernels/huffman.hpp"
#include "kernels/tree_path.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

const TreePathTable& table() { return KARUI_TABLE(tree_path_table); }

PathSizes sizes(int64_t N, int64_t H, int threads) {
    if (N < 0 || H < 1 || threads < 1) throw std::invalid_argument("sizes must be N >= 0, H >= 1, threads >= 1");
    return {N, H, threads};
}

nb::list huffman_build(int64_t V, nb::tuple p) {
    if (V < 1 || V > (int64_t{1} << 30)) throw std::invalid_argument("V must be between 1 and 2^30");
    const HuffmanTree tree{at<int32_t>(p, 1), at<double>(p, 2), at<uint8_t>(p, 3)};
    const auto* counts = at<const int64_t>(p, 0);
    std::vector<int64_t> levels;
    {
        nb::gil_scoped_release free;
        levels = build_huffman(V, counts, tree);
    }
    nb::list result;
    for (int64_t first : levels) result.append(first);
    return result;
}

void paths(int64_t N, int64_t V, nb::tuple p) {
    huffman_paths(N, V, at<const int64_t>(p, 0), at<const int32_t>(p, 1), at<const int64_t>(p, 2), at<int32_t>(p, 3),
                  at<uint8_t>(p, 4));
}

int64_t group(int64_t N, nb::tuple p) {
    const PathGroups groups{at<int64_t>(p, 2), at<int64_t>(p, 3), at<int64_t>(p, 4), at<int64_t>(p, 5)};
    const auto* offsets = at<const int64_t>(p, 0);
    const auto* nodes = at<const int32_t>(p, 1);
    nb::gil_scoped_release free;
    return group_steps(N, offsets, nodes, groups);
}

template <typename R>
void forward_as(const PathSizes& s, nb::tuple p, void (*run)(const PathSizes&, const PathForward<R>&)) {
    const PathForward<R> a{at<const R>(p, 0),       at<const R>(p, 1),       at<const R>(p, 2),
                           at<const int32_t>(p, 3), at<const uint8_t>(p, 4), at<const int64_t>(p, 5),
                           at<R>(p, 6),             at<R>(p, 7),             at<R>(p, 8)};
    nb::gil_scoped_release free;
    run(s, a);
}

void forward(int64_t N, int64_t H, int threads, bool f64, nb::tuple p) {
    const PathSizes s = sizes(N, H, threads);
    if (f64) forward_as<double>(s, p, table().forward_f64);
    else forward_as<float>(s, p, table().forward_f32);
}

template <typename R>
void backward_as(const PathSizes& s, int64_t U, nb::tuple p, void (*run)(const PathSizes&, const PathBackward<R>&)) {
    const PathBackward<R> a{at<const R>(p, 0), at<const R>(p, 1), at<const R>(p, 2), U, at<const int64_t>(p, 3),
                            at<const int64_t>(p, 4), at<const int64_t>(p, 5), at<R>(p, 6), at<R>(p, 7)};
    nb::gil_scoped_release free;
    run(s, a);
}

void backward(int64_t N, int64_t H, int threads, bool f64, int64_t U, nb::tuple p) {
    const PathSizes s = sizes(N, H, threads);
    if (f64) backward_as<double>(s, U, p, table().backward_f64);
    else backward_as<float>(s, U, p, table().backward_f32);
}

template <typename R>
void search_as(const PathSizes& s, int64_t k, nb::tuple p, void (*run)(const PathSizes&, const TreeSearch<R>&)) {
    const TreeSearch<R> a{at<const R>(p, 0), at<const R>(p, 1), at<const R>(p, 2), at<const int32_t>(p, 3), k,
                          at<R>(p, 4), at<int64_t>(p, 5)};
    nb::gil_scoped_release free;
    run(s, a);
}

void search(int64_t N, int64_t H, int threads, bool f64, int64_t k, nb::tuple p) {
    const PathSizes s = sizes(N, H, threads);
    if (k < 1) throw std::invalid_argument("k must be at least 1");
    if (f64) search_as<double>(s, k, p, table().search_f64);
    else search_as<float>(s, k, p, table().search_f32);
}

}  // namespace

void bind_tree(nb::module_& m) {
    m.def("huffman_build", &huffman_build, "V, addresses: counts, parent, log_odds, depth; returns the levels");
    m.def("huffman_paths", &paths, "N, V, addresses: leaves, parent, offsets, nodes, codes");
    m.def("tree_group", &group, "N, addresses: offsets, nodes, unique, starts, order, rows; returns the nodes met");
    m.def("tree_path_forward", &forward,
          "N, H, threads, float64, addresses: hidden, weight, bias, nodes, codes, offsets, log_prob, slope, direction");
    m.def("tree_path_backward", &backward,
          "N, H, threads, float64, U, addresses: hidden, slope, grad, starts, order, rows, weight rows, bias rows");
    m.def("tree_search", &search, "N, H, threads, float64, k, addresses: hidden, weight, bias, children, log_prob, ids");
}
