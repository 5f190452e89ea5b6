// A text classifier that answers: word ids in, logits out (docs/format.md, "The model").
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/scan.hpp"
#include "engine/tokenise.hpp"

namespace karui {

enum class Pooling : int { last = 0, mean = 1, max = 2, mean_max = 3 };

// y += x W for a weight of (blocks * size, inputs) in the file, its blocks padded to a multiple of 16 outputs.
class Product {
  public:
    Product() = default;
    // Sparse below this share of non-zero cells, dense above: gathering single weights costs about 8 dense ones.
    static constexpr double sparse_density = 0.125;
    Product(const float* weight, int64_t blocks, int64_t size, int64_t inputs);
    ProductView view() const;

  private:
    int64_t width_ = 0;
    std::vector<int64_t> live_, begin_;
    std::vector<int32_t> column_;
    std::vector<float> values_;
    bool is_dense_ = true;
};

struct EngineDirection {
    int64_t H = 0, width = 0;  // units; padded gates * units of a row
    Product input, hidden;
    std::vector<float> row_bias;           // (width): what a row is without input
    std::vector<float> weight_c, bias_n;   // padded
    std::vector<float> table;              // layer 0: a row for each word, (n_words + 1, width); empty: computed a token
};

struct EngineLayer {
    Kind kind = Kind::sru;
    bool with_tanh = false;
    std::vector<EngineDirection> directions;
    int64_t output_size() const;
};

// States and sums of one text; reused from text to text.
struct Progress {
    struct Part {
        std::vector<float> h, c, sum, max, scratch, rows;
        std::vector<const float*> row_of;
    };
    std::vector<std::vector<Part>> parts;  // layer, direction
    std::vector<std::vector<float>> sequence;  // outputs of layer k, (T, I)
    std::vector<float> embedding_sum, embedding_max, embedding_last;  // without layers
    std::vector<float> pooled;
    std::vector<double> scores;
    std::vector<int32_t> ids;
    int64_t length = 0;
};

class Engine {
  public:
    Pooling pooling = Pooling::last;
    int64_t n_words = 0, E = 0, n_outputs = 1, max_tokens = 0;
    std::vector<float> embedding;    // (n_words + 1, E)
    std::vector<float> word_scores;  // (n_words + 1, n_outputs) or empty
    std::vector<EngineLayer> layers;
    std::vector<float> output_weight, output_bias;  // (n_outputs, P), (n_outputs)
    WordIds words;

    int64_t pooled_size() const;
    bool one_way() const;
    // Inputs of layer `number`.
    int64_t input_size(size_t number) const;
    // weight_ih (G H, I), weight_hh (G H, H) or null, bias and weight_c as in the file.
    void add_direction(EngineLayer& layer, int64_t inputs, int64_t H, const float* weight_ih, const float* weight_hh,
                       const float* bias, const float* weight_c) const;
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
    void fill_row(const EngineDirection& direction, const float* x, float* row) const;
};

}  // namespace karui
