// Exact answers of the output layers. Sums over words are taken in blocks of floats, block sums and positions in doubles.
#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>

#include "engine/language.hpp"

namespace karui {
namespace {

constexpr int64_t block_words = 1024;  // columns whose products stay in the cache until they are summed
constexpr float nothing = -std::numeric_limits<float>::infinity();

float log_sigmoid(float x) { return x < 0.0f ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }

// log of a sum of exponentials, kept as its largest term and the rest: the two added up would lose the rest of large terms.
struct LogSum {
    double most, rest;
    float of(float score) const { return float((double(score) - most) - rest); }
    bool is_finite() const { return std::isfinite(most) && std::isfinite(rest); }
};

// The sum was taken in blocks, each relative to its own largest term.
LogSum log_sum(const float* largest, const double* sums, int64_t count, int64_t stride) {
    float most = nothing;
    for (int64_t i = 0; i < count; ++i) most = largest[i * stride] > most ? largest[i * stride] : most;
    double total = 0.0;
    for (int64_t i = 0; i < count; ++i) total += sums[i * stride] * std::exp(double(largest[i * stride]) - double(most));
    return {double(most), std::log(total)};
}

// The best k seen so far: the worst of them on top.
class Best {
  public:
    explicit Best(int64_t k) : k_(size_t(k)) {}
    void offer(float log_prob, int32_t id) {
        if (!(log_prob > nothing)) return;  // NaN as well
        const Entry entry{log_prob, id};
        if (heap_.size() < k_) heap_.push(entry);
        else if (better(entry, heap_.top())) {
            heap_.pop();
            heap_.push(entry);
        }
    }
    // Whether nothing of this log-probability or less can still enter.
    bool is_closed_to(float log_prob) const { return heap_.size() == k_ && log_prob < heap_.top().log_prob; }
    Ranked ranked() {
        Ranked out;
        out.ids.resize(heap_.size());
        out.log_prob.resize(heap_.size());
        for (size_t at = heap_.size(); at-- > 0; heap_.pop()) {
            out.ids[at] = heap_.top().id;
            out.log_prob[at] = heap_.top().log_prob;
        }
        return out;
    }

  private:
    struct Entry {
        float log_prob;
        int32_t id;
    };
    static bool better(const Entry& a, const Entry& b) { return a.log_prob != b.log_prob ? a.log_prob > b.log_prob : a.id < b.id; }
    struct WorstFirst {
        bool operator()(const Entry& a, const Entry& b) const { return better(a, b); }
    };
    size_t k_;
    std::priority_queue<Entry, std::vector<Entry>, WorstFirst> heap_;
};

}  // namespace

void SoftmaxPart::add_log_prob(const Stripes& x, const int32_t* targets, float* out, int threads) const {
    const int64_t M = x.rows(), n = weight.rows(), panel = matrix_table().panel, step = block_words / panel;
    const int64_t blocks = (weight.n_panels() + step - 1) / step;
    std::vector<float> largest(size_t(blocks * M)), target(size_t(M), 0.0f);
    std::vector<double> sums(size_t(blocks * M));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> y(size_t(M * block_words));
#pragma omp for schedule(dynamic)
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t first = b * step, count = std::min(step, weight.n_panels() - first), row = first * panel;
            weight.product_part(x, first, count, y.data(), block_words);
            const int64_t here = std::min(count * panel, n - row);
            matrix_table().exp_sums(y.data(), M, block_words, here, bias.data() + row, largest.data() + b * M, sums.data() + b * M);
            for (int64_t m = 0; m < M; ++m)
                if (targets[m] >= row && targets[m] < row + here) target[size_t(m)] = y[size_t(m * block_words + targets[m] - row)];
        }
    }
    for (int64_t m = 0; m < M; ++m)
        if (targets[m] >= 0) out[m] += log_sum(largest.data() + m, sums.data() + m, blocks, M).of(target[size_t(m)]);
}

bool SoftmaxPart::log_softmax(const float* x, float* out, int threads) const {
    Stripes stripes;
    stripes.pack(x, 1, weight.columns(), weight.columns());
    std::vector<float> y(size_t(weight.padded_rows()));
    weight.product(stripes, y.data(), weight.padded_rows(), false, threads);
    const int64_t n = weight.rows(), blocks = (n + block_words - 1) / block_words;
    std::vector<float> largest(static_cast<size_t>(blocks));
    std::vector<double> sums(static_cast<size_t>(blocks));
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t row = b * block_words;
        matrix_table().exp_sums(y.data() + row, 1, 0, std::min(block_words, n - row), bias.data() + row, &largest[size_t(b)], &sums[size_t(b)]);
    }
    const LogSum total = log_sum(largest.data(), sums.data(), blocks, 1);
    for (int64_t j = 0; j < n; ++j) out[j] = total.of(y[size_t(j)]);
    return total.is_finite();
}

void Cluster::project(const float* x, std::vector<float>& out) const {
    Stripes stripes;
    stripes.pack(x, 1, projection.columns(), projection.columns());
    out.resize(size_t(projection.padded_rows()));
    projection.product(stripes, out.data(), projection.padded_rows(), false, 1);
}

bool LanguageOutput::finish() {
    if (is_tree) return finish_tree();
    home_.assign(size_t(n_words), -1);
    row_.assign(size_t(n_words), 0);
    auto enter = [&](const std::vector<int32_t>& words, int32_t home) {
        for (size_t row = 0; row < words.size(); ++row) {
            if (words[row] < 0 || words[row] >= n_words || home_[size_t(words[row])] >= 0) return false;
            home_[size_t(words[row])] = home;
            row_[size_t(words[row])] = int32_t(row);
        }
        return true;
    };
    if (!enter(head_words, 0)) return false;
    for (size_t c = 0; c < clusters.size(); ++c)
        if (!enter(clusters[c].words, int32_t(c) + 1)) return false;
    return std::find(home_.begin(), home_.end(), -1) == home_.end();
}

void LanguageOutput::log_prob(const float* hidden, int64_t M, const int32_t* targets, float* out, int threads) const {
    std::fill(out, out + M, 0.0f);
    if (is_tree) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
        for (int64_t m = 0; m < M; ++m) {
            double sum = 0.0;
            for (int32_t at = word_parent_[size_t(targets[m])]; at >= 0; at = parent_[size_t(at / 2)]) {
                const float s = node_score(hidden + m * inputs, at / 2);
                sum += double(log_sigmoid(at % 2 ? -s : s));
            }
            out[m] = float(sum);
        }
        return;
    }
    Stripes stripes;
    stripes.pack(hidden, M, inputs, inputs);
    std::vector<int32_t> rows(static_cast<size_t>(M));
    std::vector<std::vector<int64_t>> members(clusters.size());
    for (int64_t m = 0; m < M; ++m) {
        const int32_t home = home_[size_t(targets[m])];
        rows[size_t(m)] = home ? int32_t(head_words.size()) + home - 1 : row_[size_t(targets[m])];
        if (home) members[size_t(home - 1)].push_back(m);
    }
    head.add_log_prob(stripes, rows.data(), out, threads);
    std::vector<float> x, projected, part;
    for (size_t c = 0; c < clusters.size(); ++c) {
        const std::vector<int64_t>& chosen = members[c];
        const int64_t count = int64_t(chosen.size());
        if (!count) continue;
        const Cluster& cluster = clusters[c];
        x.resize(size_t(count * inputs));
        rows.resize(chosen.size());
        part.assign(chosen.size(), 0.0f);
        for (int64_t i = 0; i < count; ++i) {
            std::copy(hidden + chosen[size_t(i)] * inputs, hidden + (chosen[size_t(i)] + 1) * inputs, x.begin() + i * inputs);
            rows[size_t(i)] = row_[size_t(targets[chosen[size_t(i)]])];
        }
        stripes.pack(x.data(), count, inputs, inputs);
        if (cluster.projection.columns()) {
            const int64_t stride = cluster.projection.padded_rows();
            projected.resize(size_t(count * stride));
            cluster.projection.product(stripes, projected.data(), stride, false, threads);
            stripes.pack(projected.data(), count, cluster.projection.rows(), stride);
        }
        cluster.part.add_log_prob(stripes, rows.data(), part.data(), threads);
        for (int64_t i = 0; i < count; ++i) out[chosen[size_t(i)]] += part[size_t(i)];
    }
}

void LanguageOutput::all(const float* hidden, float* out, int threads) const {
    if (is_tree) return all_of_tree(hidden, out);
    std::vector<float> heads(size_t(head.weight.rows())), x, rows;
    head.log_softmax(hidden, heads.data(), threads);
    for (size_t row = 0; row < head_words.size(); ++row) out[head_words[row]] = heads[row];
    for (size_t c = 0; c < clusters.size(); ++c) {
        const Cluster& cluster = clusters[c];
        if (cluster.projection.columns()) cluster.project(hidden, x);
        rows.resize(cluster.words.size());
        cluster.part.log_softmax(cluster.projection.columns() ? x.data() : hidden, rows.data(), threads);
        for (size_t row = 0; row < rows.size(); ++row) out[cluster.words[row]] = heads[head_words.size() + c] + rows[row];
    }
}

Ranked LanguageOutput::topk(const float* hidden, int64_t k, int threads) const {
    if (is_tree) return topk_of_tree(hidden, k);
    std::vector<float> heads(size_t(head.weight.rows())), x, rows;
    Best best(k);
    if (!head.log_softmax(hidden, heads.data(), threads)) return best.ranked();
    for (size_t row = 0; row < head_words.size(); ++row) best.offer(heads[row], head_words[row]);
    const float* of_cluster = heads.data() + head_words.size();
    std::vector<size_t> order(clusters.size());
    for (size_t c = 0; c < order.size(); ++c) order[c] = c;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return of_cluster[a] != of_cluster[b] ? of_cluster[a] > of_cluster[b] : a < b; });
    for (size_t c : order) {
        if (best.is_closed_to(of_cluster[c])) break;  // no word is likelier than its cluster
        const Cluster& cluster = clusters[c];
        if (cluster.projection.columns()) cluster.project(hidden, x);
        rows.resize(cluster.words.size());
        if (!cluster.part.log_softmax(cluster.projection.columns() ? x.data() : hidden, rows.data(), threads)) return Ranked();
        for (size_t row = 0; row < rows.size(); ++row) best.offer(of_cluster[c] + rows[row], cluster.words[row]);
    }
    return best.ranked();
}

bool LanguageOutput::finish_tree() {
    const int64_t nodes = n_words - 1;
    if (int64_t(children.size()) != 2 * nodes) return false;
    parent_.assign(size_t(nodes), -1);
    word_parent_.assign(size_t(n_words), -1);
    std::vector<uint8_t> seen(size_t(n_words), 0);
    for (int64_t at = 0; at < 2 * nodes; ++at) {
        const int64_t child = children[size_t(at)];
        if (child >= 0) {
            // parents come first, so that no walk upwards goes in a circle
            if (child >= nodes || child <= at / 2 || parent_[size_t(child)] >= 0) return false;
            parent_[size_t(child)] = int32_t(at);
        } else {
            const int64_t word = -1 - child;
            if (word >= n_words || seen[size_t(word)]) return false;
            seen[size_t(word)] = 1;
            word_parent_[size_t(word)] = int32_t(at);
        }
    }
    return nodes == 0 || std::find(seen.begin(), seen.end(), 0) == seen.end();
}

float LanguageOutput::node_score(const float* hidden, int64_t node) const {
    return matrix_table().dot(node_weight.data() + node * inputs, hidden, inputs) + node_bias[size_t(node)];
}

void LanguageOutput::all_of_tree(const float* hidden, float* out) const {
    const int64_t nodes = n_words - 1;
    if (!nodes) out[0] = 0.0f;
    std::vector<double> above(size_t(nodes), 0.0);
    for (int64_t node = 0; node < nodes; ++node) {
        const float s = node_score(hidden, node);
        for (int64_t which = 0; which < 2; ++which) {
            const double log_prob = above[size_t(node)] + double(log_sigmoid(which ? -s : s));
            const int32_t child = children[size_t(2 * node + which)];
            if (child >= 0) above[size_t(child)] = log_prob;
            else out[-1 - child] = float(log_prob);
        }
    }
}

Ranked LanguageOutput::topk_of_tree(const float* hidden, int64_t k) const {
    Best best(k);
    if (n_words == 1) {
        best.offer(0.0f, 0);
        return best.ranked();
    }
    using Open = std::pair<double, int32_t>;  // log-probability of an inner node, which no word below it exceeds
    std::priority_queue<Open> open;
    open.emplace(0.0, 0);
    while (!open.empty() && !best.is_closed_to(float(open.top().first))) {
        const auto [above, node] = open.top();
        open.pop();
        const float s = node_score(hidden, node);
        if (!std::isfinite(s)) return Ranked();
        for (int64_t which = 0; which < 2; ++which) {
            const double log_prob = above + double(log_sigmoid(which ? -s : s));
            const int32_t child = children[size_t(2 * node + which)];
            if (child >= 0) open.emplace(log_prob, child);
            else best.offer(float(log_prob), -1 - child);
        }
    }
    return best.ranked();
}

}  // namespace karui
