#include "kernels/row_update.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace karui {

int64_t group_rows(int64_t M, const int64_t* ids, const RowGroups& groups) {
    bool rising = true;  // a coalesced gradient: nothing to sort
    for (int64_t m = 1; m < M && rising; ++m) rising = ids[m - 1] < ids[m];
    if (rising) {
        for (int64_t m = 0; m < M; ++m) groups.distinct[m] = ids[m], groups.starts[m] = m, groups.order[m] = m;
        groups.starts[M] = M;
        return M;
    }
    std::vector<std::pair<int64_t, int64_t>> places(static_cast<size_t>(M));
    for (int64_t m = 0; m < M; ++m) places[static_cast<size_t>(m)] = {ids[m], m};
    std::sort(places.begin(), places.end());  // equal ids stay in the order in which they came
    int64_t R = 0;
    for (int64_t m = 0; m < M; ++m) {
        const auto& [id, place] = places[static_cast<size_t>(m)];
        if (R == 0 || groups.distinct[R - 1] != id) {
            groups.distinct[R] = id;
            groups.starts[R++] = m;
        }
        groups.order[m] = place;
    }
    groups.starts[R] = M;
    return R;
}

}  // namespace karui
