// Adaptive binary arithmetic coder of the artifact (docs/format.md, "The coded stream"). Integers only, so that every
// machine reads the same bits. `Model<Encoder>` and `Model<Decoder>` run the same code: bit() returns the bit either way.
//
// Coder: carry-less range coder as in lpaq (Mahoney 2007). Model: counters in contexts, mixed in the logistic domain
// (Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data Compression").
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace karui {

struct BadStream : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Encoder {
  public:
    static constexpr bool writes = true;
    // Codes `bit`, whose probability of being 1 is p / 65536.
    int code(uint32_t p, int bit) {
        const uint32_t range = high_ - low_;
        const uint32_t middle = low_ + (range >> 16) * p + (((range & 0xFFFF) * p) >> 16);
        if (bit) high_ = middle;
        else low_ = middle + 1;
        while (!((low_ ^ high_) >> 24)) {
            out_.push_back(uint8_t(high_ >> 24));
            low_ <<= 8;
            high_ = (high_ << 8) | 255;
        }
        return bit;
    }
    int64_t position() const { return int64_t(out_.size()); }
    double bits() const;
    // The stream with the fewest bytes that, followed by zeros, lies inside the last interval.
    std::vector<uint8_t> finished() const;

  private:
    uint32_t low_ = 0, high_ = 0xFFFFFFFF;
    std::vector<uint8_t> out_;
};

class Decoder {
  public:
    static constexpr bool writes = false;
    explicit Decoder(std::vector<uint8_t> data) : data_(std::move(data)) {
        for (int i = 0; i < 4; ++i) shift();
    }
    int code(uint32_t p, int) {
        const uint32_t range = high_ - low_;
        const uint32_t middle = low_ + (range >> 16) * p + (((range & 0xFFFF) * p) >> 16);
        const int bit = value_ <= middle;
        if (bit) high_ = middle;
        else low_ = middle + 1;
        while (!((low_ ^ high_) >> 24)) {
            low_ <<= 8;
            high_ = (high_ << 8) | 255;
            shift();
        }
        return bit;
    }
    int64_t position() const { return read_ - 4; }
    // After the last symbol: throws unless the stream ends where an encoder would have ended it.
    void check_end() const {
        if (position() > int64_t(data_.size()) || position() + 4 < int64_t(data_.size()))
            throw BadStream("the coded stream has bytes left over");
    }

  private:
    void shift() {
        if (read_ > int64_t(data_.size()) + 3) throw BadStream("the coded stream ends too early");
        value_ = (value_ << 8) | (read_ < int64_t(data_.size()) ? data_[size_t(read_)] : 0);
        ++read_;
    }
    std::vector<uint8_t> data_;
    int64_t read_ = 0;
    uint32_t low_ = 0, high_ = 0xFFFFFFFF, value_ = 0;
};

inline int bit_length(uint64_t value) {
    int n = 0;
    while (value >> n) ++n;
    return n;
}

// What a bit is part of; each has its own mixing weights.
enum Part : uint32_t { prefix_part, letter_part, mask_part, size_part, sign_part, number_part, byte_part, count_part, second_part, num_parts };

constexpr int max_inputs = 10;
constexpr int num_sets = 4;
constexpr int max_count = 255;
constexpr int num_buckets = 9;  // of how often a context was seen: 0 .. 7, 8 or more
constexpr int64_t max_weight = 1 << 22;

// Probability p of 65536 to ln(p / (1 - p)) * 256 and back, from 33 printed numbers (docs/format.md).
int32_t stretch(uint32_t p);
int32_t squash(int64_t d);

// Counters by 64-bit context; equal keys only, so that the Python twin can use a dict.
class Counters {
  public:
    struct Counter {
        uint64_t key;
        uint16_t p;
        uint16_t seen;
    };
    Counters() : slots_(1024, Counter{0, 0, 0}) {}
    // Index of the counter of this key; new ones start at one half. Valid until the next call.
    size_t at(uint64_t key);
    Counter& operator[](size_t index) { return slots_[index]; }
    void reserve(int more);

  private:
    std::vector<Counter> slots_;  // key 0 is free
    size_t used_ = 0;
};

template <typename Coder>
class Model {
  public:
    explicit Model(Coder coder);
    // Codes one bit under up to max_inputs contexts (each < 2^56), mixed with one of the part's sets of weights.
    int bit(Part part, const uint64_t* contexts, int n, int bit, uint64_t set = 0);
    // An equally likely bit.
    int plain_bit(int bit) { return coder.code(32768, bit); }
    Coder coder;

  private:
    Counters counters_;
    int32_t weights_[num_parts][num_sets][max_inputs][num_buckets];
};

extern template class Model<Encoder>;
extern template class Model<Decoder>;

enum Layout : int { dense = 0, bitmap = 1, row_sparse = 2 };
enum Values : int { int8_values = 0, half_values = 1, float_values = 2 };

// One matrix of codes: small integers (int8) or the bit patterns of half or single floats; 0 is a pruned cell.
struct Matrix {
    int64_t rows, cols;
    int record;     // number of the record in the file, 0 .. 255
    int values;     // Values
    int largest;    // largest magnitude of an integer, 1 .. 127
    int32_t* cells;  // rows * cols; zero before decoding
    const int32_t* hints = nullptr;  // (rows): what is known of each row from another matrix, 0 .. 2^17; or null
};

template <typename Coder>
void code_matrix(Model<Coder>& model, const Matrix& matrix, int layout);

// Sorted distinct words without NUL bytes, each of 1 .. max_word_bytes.
template <typename Coder>
void code_words(Model<Coder>& model, std::vector<std::string>& words, int64_t count, int64_t max_word_bytes, int64_t max_total);

// Pairs of ids 1 .. words, sorted and distinct; written from and read into `ids` (count * 2).
struct PairList {
    int64_t words, count;
    const int32_t* hints;  // (words): min(bytes, 15) + 16 * min(kept word scores, 7)
    int32_t* ids;
};

template <typename Coder>
void code_pairs(Model<Coder>& model, const PairList& list);

}  // namespace karui
