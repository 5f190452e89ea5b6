// A text classifier that answers: word ids in, logits out (docs/format.md, "The model").
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/scan.hpp"
#include "engine/tokenise.hpp"

namespace karui {

enum class Pooling : int { last = 0, mean = 1, max = 2, mean_max = 3 };

// Part of a weight as in the file: rows of `blocks` blocks of `size` outputs, `stride` columns of which `inputs` are used.
struct Block {
    const float* weight;
    int64_t blocks, size, inputs;
    int64_t stride;       // columns of the whole weight
    int64_t input_block;  // inputs lie in blocks of so many, each padded to a multiple of 16; `inputs` if not padded
};

// y += x W, its blocks of outputs padded to a multiple of 16.
class Product {
  public:
    Product() = default;
    // Sparse below this share of non-zero cells, dense above: gathering single weights costs about 8 dense ones.
    static constexpr double sparse_density = 0.125;
    explicit Product(const Block& block);
    ProductView view() const;

  private:
    int64_t width_ = 0;
    std::vector<int64_t> live_, begin_;
    std::vector<int32_t> column_;
    std::vector<float> values_;
    bool is_dense_ = true;
};

// Weights of a direction as in the file; null where the kind has none.
struct Weights {
    int64_t H = 0, P = 0, R = 0, n_alphas = 0;  // the last three of a Statistical Recurrent Unit
    const float *ih = nullptr, *hh = nullptr, *bias = nullptr, *c = nullptr;
    const float *r = nullptr, *phi = nullptr, *o = nullptr, *alphas = nullptr;
};

struct EngineDirection {
    int64_t H = 0, width = 0;  // units; padded values of a row
    int64_t P = 0, R = 0;      // padded
    Product input, hidden;
    Product before;            // QRNN with window 2: what the input before adds to a row
    Product phi, read;         // Statistical Recurrent Unit
    std::vector<float> row_bias;           // (width): what a row is without input
    std::vector<float> weight_c, bias_n;   // padded
    std::vector<float> alphas, bias_r, bias_o;
    std::vector<float> table;              // layer 0: a row for each word, (n_words + 1, width); empty: computed a token
    std::vector<float> table_before;       // the same for `before`; row 0 is zero, as the embedding of id 0 is
    // Sizes and weights of a walk; rows, states and outputs are the caller's.
    void put_weights(Walk& walk) const;
};

// The functions of scan.hpp for this machine.
const EngineTable& scan_table();

struct EngineLayer {
    Form form;
    std::vector<EngineDirection> directions;
    int64_t output_size() const;
};

// Scores of pairs of known words that follow each other: row k of the scores belongs to the pair (first, second).
class PairTable {
  public:
    PairTable() = default;
    // ids: count pairs of ids >= 1, two numbers each, distinct.
    PairTable(const int32_t* ids, int64_t count);
    // Row of a pair, or -1; most pairs take one probe.
    int32_t find(int32_t first, int32_t second) const {
        for (uint64_t at = place(key_of(first, second));; at = (at + 1) & mask_) {
            if (slots_[at].key == key_of(first, second)) return slots_[at].row;
            if (!slots_[at].key) return -1;
        }
    }
    bool empty() const { return slots_.empty(); }

  private:
    struct Slot {
        uint64_t key;  // 0 is free
        int32_t row;
    };
    static uint64_t key_of(int32_t first, int32_t second) { return uint64_t(uint32_t(first)) << 32 | uint32_t(second); }
    uint64_t place(uint64_t key) const { return (key * 0x9E3779B97F4A7C15ull) >> shift_; }
    std::vector<Slot> slots_;
    uint64_t mask_ = 0;
    int shift_ = 63;
};

// States and sums of one text; reused from text to text.
struct Progress {
    struct Part {
        std::vector<float> h, c, mu, sum, max, scratch, rows;
        std::vector<const float*> row_of, before_of;
        std::vector<float> last_input;  // QRNN with window 2, above layer 0: what the step before read
    };
    std::vector<std::vector<Part>> parts;  // layer, direction
    std::vector<std::vector<float>> sequence;  // outputs of layer k, (T, I)
    std::vector<float> embedding_sum, embedding_max, embedding_last;  // without layers
    std::vector<float> pooled;
    std::vector<double> scores;
    std::vector<int32_t> ids;
    int64_t length = 0;
    int32_t last_id = 0;  // at first 0, whose embedding is zero
};

class Engine {
  public:
    Pooling pooling = Pooling::last;
    int64_t n_words = 0, E = 0, n_outputs = 1, max_tokens = 0;
    std::vector<float> embedding;    // (n_words + 1, E)
    std::vector<float> word_scores;  // (n_words + 1, n_outputs) or empty
    std::vector<float> pair_scores;  // (pairs, n_outputs) or empty
    PairTable pairs;
    std::vector<EngineLayer> layers;
    std::vector<float> output_weight, output_bias;  // (n_outputs, P), (n_outputs)
    WordIds words;

    int64_t pooled_size() const;
    bool one_way() const;
    // Inputs of layer `number`.
    int64_t input_size(size_t number) const;
    void add_direction(EngineLayer& layer, int64_t inputs, const Weights& weights) const;
    // Precomputes the rows of layer 0 where they fit into max_table_floats.
    void finish();
    static constexpr int64_t max_table_floats = 1 << 23;

    void start(Progress& progress) const;
    // Walks `length` further tokens; ids are in 0 .. n_words. Only with one direction may this be called repeatedly.
    void advance(Progress& progress, const int32_t* ids, int64_t length) const;
    void logits(Progress& progress, float* out) const;
    // A whole document; none is read as one token of id 0.
    void answer(Progress& progress, const int32_t* ids, int64_t length, float* out) const;

  private:
    void advance_layer(Progress& progress, size_t number, const int32_t* ids, int64_t length) const;
    void advance_embedding(Progress& progress, const int32_t* ids, int64_t length) const;
    void add_scores(Progress& progress, const int32_t* ids, int64_t length) const;
    void prepare(Progress& progress, size_t number, size_t direction, const int32_t* ids, int64_t length, Walk& walk) const;
    // before: the input that the step before read, or null.
    void fill_row(const EngineDirection& direction, const float* x, const float* before, float* row) const;
    // Input of layer `number` that the step before step t of a direction read; null at its first one.
    const float* input_before(const Progress& progress, size_t number, const int32_t* ids, int64_t t, int64_t step, int64_t length) const;
};

}  // namespace karui
