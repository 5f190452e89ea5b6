#include <nanobind/nanobind.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "isa.hpp"
#include "kernels/addresses.hpp"
#include "kernels/row_update.hpp"
#include "kernels/sampled_logits.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

const RowUpdateTable& rows() { return KARUI_TABLE(row_update_table); }
const SampledLogitsTable& logits() { return KARUI_TABLE(sampled_logits_table); }

int64_t group(int64_t M, nb::tuple p) {
    if (M < 0) throw std::invalid_argument("M must be >= 0");
    const auto* ids = at<const int64_t>(p, 0);
    const RowGroups groups{at<int64_t>(p, 1), at<int64_t>(p, 2), at<int64_t>(p, 3)};
    nb::gil_scoped_release free;
    return group_rows(M, ids, groups);
}

RowSizes row_sizes(int64_t R, int64_t H, int threads) {
    if (R < 0 || H < 1 || threads < 1) throw std::invalid_argument("sizes must be R >= 0, H >= 1, threads >= 1");
    return {R, H, threads};
}

RowGroups row_groups(nb::tuple p) { return {at<int64_t>(p, 0), at<int64_t>(p, 1), at<int64_t>(p, 2)}; }

template <typename R>
struct Parts {
    std::vector<const R*> values;
    std::vector<int64_t> sizes;
    Parts(nb::tuple addresses, nb::tuple lengths) {
        for (nb::handle one : addresses) values.push_back(at<const R>(nb::cast<uintptr_t>(one)));
        for (nb::handle one : lengths) sizes.push_back(nb::cast<int64_t>(one));
        if (values.empty() || values.size() != sizes.size()) throw std::invalid_argument("every part needs a size");
    }
    RowParts<R> view() const { return {static_cast<int64_t>(values.size()), values.data(), sizes.data()}; }
};

template <typename R>
void sum_as(const RowSizes& s, nb::tuple groups, nb::tuple values, nb::tuple sizes, uintptr_t total,
            void (*run)(const RowSizes&, const RowGroups&, const RowParts<R>&, R*)) {
    const Parts<R> parts(values, sizes);
    const RowGroups g = row_groups(groups);
    nb::gil_scoped_release free;
    run(s, g, parts.view(), at<R>(total));
}

void row_sum(int64_t R, int64_t H, int threads, bool f64, nb::tuple groups, nb::tuple values, nb::tuple sizes, uintptr_t total) {
    const RowSizes s = row_sizes(R, H, threads);
    if (f64) sum_as<double>(s, groups, values, sizes, total, rows().sum_f64);
    else sum_as<float>(s, groups, values, sizes, total, rows().sum_f32);
}

template <typename R>
void adagrad_as(const RowSizes& s, nb::tuple p, const AdagradRule& rule, int64_t M,
                void (*run)(const RowSizes&, const RowGroups&, const RowParts<R>&, const AdagradRule&, const AdagradTable<R>&)) {
    const RowGroups groups = row_groups(p);
    const R* values = at<const R>(p, 3);
    const AdagradTable<R> table{at<R>(p, 4), at<R>(p, 5)};
    nb::gil_scoped_release free;
    run(s, groups, {1, &values, &M}, rule, table);
}

void row_adagrad(int64_t M, int64_t R, int64_t V, int64_t H, int threads, bool f64, double lr, double eps, nb::tuple p) {
    const RowSizes s = row_sizes(R, H, threads);
    const RowGroups g = row_groups(p);  // ids rise: the ends tell
    if (R > 0 && (g.distinct[0] < 0 || g.distinct[R - 1] >= V))
        throw std::invalid_argument("ids must be in [0, " + std::to_string(V) + "), got " +
                                    std::to_string(g.distinct[0] < 0 ? g.distinct[0] : g.distinct[R - 1]));
    const AdagradRule rule{lr, eps};
    if (f64) adagrad_as<double>(s, p, rule, M, rows().adagrad_f64);
    else adagrad_as<float>(s, p, rule, M, rows().adagrad_f32);
}

template <typename R>
NoiseArrays<R> noise_arrays(nb::tuple p) {
    return {at<R>(p, 0), at<const R>(p, 1), at<const R>(p, 2), at<const int64_t>(p, 3), at<const int64_t>(p, 4),
            at<R>(p, 5), at<R>(p, 6)};
}

void noise_terms(int64_t N, int64_t K, int term, int threads, bool f64, nb::tuple p) {
    if (N < 0 || K < 1 || threads < 1 || term < 0 || term > static_cast<int>(NoiseTerm::blackout))
        throw std::invalid_argument("sizes must be N >= 0, K >= 1, threads >= 1, term in 0..2");
    const NoiseSizes s{N, K, static_cast<NoiseTerm>(term), threads};
    if (f64) {
        const auto arrays = noise_arrays<double>(p);
        nb::gil_scoped_release free;
        logits().f64(s, arrays);
    } else {
        const auto arrays = noise_arrays<float>(p);
        nb::gil_scoped_release free;
        logits().f32(s, arrays);
    }
}

}  // namespace

void bind_output(nb::module_& m) {
    m.def("row_group", &group, "M, addresses: ids, distinct, starts, order; returns R");
    m.def("row_sum", &row_sum, "R, H, threads, float64, addresses of RowGroups, of values, sizes of the parts, total");
    m.def("row_adagrad", &row_adagrad, "M, R, V, H, threads, float64, lr, eps, addresses: RowGroups, values, AdagradTable");
    m.def("noise_terms", &noise_terms, "N, K, term, threads, float64, addresses of NoiseArrays");
}
