// A language model that answers: ids of words in, log-probabilities of the next one out (docs/format.md, version 2).
#pragma once
#include <cstdint>
#include <vector>

#include "engine/engine.hpp"
#include "engine/matrix.hpp"

namespace karui {

// Words with their log-probabilities, best first; equal ones by id.
struct Ranked {
    std::vector<int32_t> ids;
    std::vector<float> log_prob;
};

// log softmax over the rows of a matrix.
struct SoftmaxPart {
    PackedMatrix weight;
    std::vector<float> bias;
    // log softmax of M positions, summed over `targets` (rows): out[m] += it, a target below 0 is left out.
    void add_log_prob(const Stripes& x, const int32_t* targets, float* out, int threads) const;
    // All rows of one position; returns false if they are not finite.
    bool log_softmax(const float* x, float* out, int threads) const;
};

// Words of a class or tail.
struct Cluster {
    PackedMatrix projection;  // no rows: there is none
    SoftmaxPart part;
    std::vector<int32_t> words;  // of each row
    void project(const float* x, std::vector<float>& out) const;
};

// Output layers of the file: full softmax (a head of all words), classes, adaptive softmax, tree.
class LanguageOutput {
  public:
    int64_t n_words = 0, inputs = 0;
    // Head: a row for each of head_words, then one for each cluster.
    SoftmaxPart head;
    std::vector<int32_t> head_words;
    std::vector<Cluster> clusters;
    // Tree: rows of inner nodes, the first of them the root; children k >= 0 an inner node, -1 - w the word w.
    std::vector<float> node_weight, node_bias;
    std::vector<int32_t> children;
    bool is_tree = false;

    // After the parts are there: the place of each word. False if a word is missing or there twice.
    bool finish();
    // Log-probabilities of M positions, rows of hidden `inputs` long.
    void log_prob(const float* hidden, int64_t M, const int32_t* targets, float* out, int threads) const;
    // Of all words, out (n_words).
    void all(const float* hidden, float* out, int threads) const;
    // The k most probable ones, without sorting all of them; clusters and branches that cannot hold one are not opened.
    Ranked topk(const float* hidden, int64_t k, int threads) const;

  private:
    std::vector<int32_t> home_, row_;        // of each word: 0 the head, k cluster k - 1; row in there
    std::vector<int32_t> parent_, word_parent_;  // of inner nodes and words: node * 2 + which child; root -1
    bool finish_tree();
    float node_score(const float* hidden, int64_t node) const;
    void all_of_tree(const float* hidden, float* out) const;
    Ranked topk_of_tree(const float* hidden, int64_t k) const;
};

// Where a text stands.
struct LanguageState {
    struct Layer {
        std::vector<float> h, c, mu, last_input;
    };
    std::vector<Layer> layers;
    std::vector<float> hidden;  // inputs of the output layer after the last word
};

struct LanguageLayer {
    EngineLayer layer;  // one direction
    PackedMatrix input, before;
    std::vector<float> row_bias;
    int64_t inputs = 0, row_stride = 0;
};

class LanguageEngine {
  public:
    int64_t n_words = 0, E = 0;
    std::vector<float> embedding;  // (n_words, E), or empty: the rows of the head are shared
    std::vector<LanguageLayer> layers;
    PackedMatrix projection;  // no rows: there is none
    std::vector<float> projection_bias;
    LanguageOutput output;

    int64_t recurrent_size() const;
    void add_layer(const Form& form, const Weights& weights);
    void start(LanguageState& state) const;
    // Reads words; ids are in 0 .. n_words - 1. With `hidden`, the inputs of the output layer after each, (length, D).
    void advance(LanguageState& state, const int32_t* ids, int64_t length, float* hidden, int threads) const;
    // Log-probability of each word, given those before it, and reads them all.
    void score(LanguageState& state, const int32_t* ids, int64_t length, float* out, int threads) const;

  private:
    void advance_layer(LanguageState& state, size_t number, const float* x, int64_t length, float* out, int threads) const;
};

}  // namespace karui
