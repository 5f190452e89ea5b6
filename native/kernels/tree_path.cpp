#include "kernels/tree_path.hpp"

#include <algorithm>
#include <vector>

namespace karui {

int64_t group_steps(int64_t N, const int64_t* offsets, const int32_t* nodes, const PathGroups& groups) {
    struct Step {
        int32_t node;
        int64_t row, step;
    };
    std::vector<Step> steps;
    steps.reserve(offsets[N]);
    for (int64_t n = 0; n < N; ++n)
        for (int64_t i = offsets[n]; i < offsets[n + 1]; ++i) steps.push_back({nodes[i], n, i});
    std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) {
        return a.node != b.node ? a.node < b.node : a.step < b.step;  // one order of summation, whatever sorts
    });
    int64_t U = 0;
    for (size_t i = 0; i < steps.size(); ++i) {
        if (i == 0 || steps[i].node != steps[i - 1].node) {
            groups.unique[U] = steps[i].node;
            groups.starts[U++] = static_cast<int64_t>(i);
        }
        groups.order[i] = steps[i].step;
        groups.rows[i] = steps[i].row;
    }
    groups.starts[U] = static_cast<int64_t>(steps.size());
    return U;
}

}  // namespace karui
