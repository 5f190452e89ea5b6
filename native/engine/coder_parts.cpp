// What is coded, bit by bit: matrices and the word list. Contexts are listed in docs/format.md; change both together.
#include <algorithm>
#include <cstring>

#include "engine/coder.hpp"

namespace karui {
namespace {

// A number below 2^25: its bit length in unary, then its lower bits; the first of them and the lengths are modelled.
template <typename Coder>
uint32_t code_number(Model<Coder>& model, int record, int use, uint32_t value) {
    const uint64_t base = uint64_t(record) << 24 | uint64_t(use) << 16;
    const int length = bit_length(value);
    int n = 0;
    for (; n < 25; ++n) {
        const uint64_t contexts[2] = {base | uint64_t(n), uint64_t(use) << 16 | uint64_t(n)};
        if (model.bit(number_part, contexts, 2, n == length)) break;
    }
    if (n < 2) return uint32_t(n);
    uint32_t result = 1;
    for (int k = n - 2; k >= 0; --k) {
        const int bit = value >> k & 1;
        const uint64_t contexts[2] = {base | 0x100 | uint64_t(n) << 1, uint64_t(use) << 16 | 0x100 | uint64_t(n) << 1};
        result = result << 1 | uint32_t(k == n - 2 ? model.bit(number_part, contexts, 2, bit) : model.plain_bit(bit));
    }
    return result;
}

// Sign (0 none, 1 plus, 2 minus) and size class of an earlier value.
struct Seen {
    uint64_t sign = 0, bucket = 0;
};

Seen seen_of(int32_t code) {
    return {code > 0 ? 1u : code < 0 ? 2u : 0u, uint64_t(bit_length(uint32_t(code < 0 ? -int64_t(code) : code)))};
}

template <typename Coder>
class MatrixCoder {
  public:
    MatrixCoder(Model<Coder>& model, const Matrix& matrix)
        : model_(model), m_(matrix), column_(size_t(matrix.cols)), above_(size_t(matrix.cols)), record_(uint64_t(matrix.record) << 44) {}

    void run(int layout) {
        for (int64_t row = 0; row < m_.rows; ++row) {
            start_row(row);
            int32_t* cells = m_.cells + row * m_.cols;
            if (layout == row_sparse) indexed_row(cells);
            else
                for (int64_t col = 0; col < m_.cols; ++col) {
                    const bool kept = layout == dense || code_mask(col, cells[col] != 0);
                    if (kept) cells[col] = code_value(col, cells[col], layout == dense);
                    if (layout == bitmap) left_bits_ = (left_bits_ << 1 | uint64_t(kept)) & 3;
                    above_[size_t(col)] = uint8_t(kept);
                }
        }
    }

  private:
    Model<Coder>& model_;
    const Matrix m_;
    std::vector<Seen> column_;    // last kept value of each column
    std::vector<uint8_t> above_;  // was the cell above kept?
    const uint64_t record_;
    Seen left_;
    uint64_t left_col_ = 0, left_bits_ = 0, kept_in_row_ = 0, hint_ = 0;
    uint64_t first_ = 0, last_ = 0, before_last_ = 0;  // place and sign of kept values of this row: 1 + 2 * (column mod 1024) + minus

    void start_row(int64_t row) {
        if (m_.hints) hint_ = uint64_t(m_.hints[row]);
        left_ = Seen();
        left_col_ = left_bits_ = kept_in_row_ = first_ = last_ = before_last_ = 0;
    }

    void indexed_row(int32_t* cells) {
        uint32_t count = 0;
        if (Coder::writes) count = uint32_t(m_.cols - std::count(cells, cells + m_.cols, 0));
        count = code_number(model_, m_.record, 0, count);
        if (count > m_.cols) throw BadStream("a row has more values than columns");
        int64_t col = -1;
        for (uint32_t k = 0; k < count; ++k) {
            int64_t next = col + 1;
            if (Coder::writes)
                while (!cells[next]) ++next;
            col += 1 + code_number(model_, m_.record, 1, uint32_t(next - col - 1));
            if (col >= m_.cols) throw BadStream("a value lies outside its row");
            cells[col] = code_value(col, cells[col], false);
        }
    }

    int code_mask(int64_t col, int kept) {
        const uint64_t c = uint64_t(col), above = above_[size_t(col)];
        const uint64_t kept_few = std::min<uint64_t>(kept_in_row_, 15);
        const uint64_t contexts[7] = {
            above << 2 | left_bits_,
            record_ | c << 1,
            record_ | left_bits_ << 2 | above << 1 | 1,
            record_ | c << 8 | kept_few,
            record_ | c << 4 | above << 1 | (left_bits_ & 1),
            record_ | c << 24 | before_last_ << 12 | last_,
            record_ | c << 20 | hint_,
        };
        return model_.bit(mask_part, contexts, m_.hints ? 7 : 6, kept);
    }

    // One kept value (or, in a dense matrix, any value).
    int32_t code_value(int64_t col, int32_t code, bool may_be_zero) {
        const int32_t result =
            m_.values == int8_values ? code_integer(uint64_t(col), code, may_be_zero) : code_float(uint64_t(col), code);
        if (!result && !may_be_zero) throw BadStream("a kept value is zero");
        if (result) {
            left_ = column_[size_t(col)] = seen_of(m_.values == int8_values ? result : 1);
            left_col_ = uint64_t(col) + 1;
            before_last_ = last_;
            last_ = 1 + 2 * (uint64_t(col) & 1023) + (left_.sign == 2);
            if (!first_) first_ = last_;
            ++kept_in_row_;
        }
        return result;
    }

    int integer_bit(Part part, uint64_t col, uint64_t node, int bit) {
        const Seen& up = column_[size_t(col)];
        const uint64_t contexts[10] = {
            node,
            record_ | node,
            record_ | col << 10 | node,
            record_ | (left_.sign * 8 + left_.bucket) << 10 | node,
            record_ | (up.sign * 8 + up.bucket) << 10 | node,
            record_ | (col * 4 + left_.sign) << 10 | node,
            record_ | (left_col_ << 2 | left_.sign) << 26 | col << 10 | node,
            record_ | col << 20 | first_,
            record_ | col << 20 | before_last_,
            record_ | col << 20 | hint_,
        };
        return model_.bit(part, contexts, part != sign_part ? 6 : m_.hints ? 10 : 9, bit);
    }

    int32_t code_integer(uint64_t col, int32_t code, bool may_be_zero) {
        const uint32_t size = uint32_t(code < 0 ? -code : code);
        const int length = bit_length(size), longest = bit_length(uint32_t(m_.largest));
        int n = may_be_zero ? 0 : 1;
        while (n < longest && !integer_bit(size_part, col, uint64_t(n), n == length)) ++n;
        uint32_t result = n ? 1 : 0;
        for (int k = n - 2; k >= 0; --k)
            result = result << 1 | uint32_t(integer_bit(size_part, col, 512 | uint64_t(n) << 6 | result, size >> k & 1));
        if (result > uint32_t(m_.largest)) throw BadStream("a value is larger than declared");
        if (!result) return 0;
        return integer_bit(sign_part, col, 0, code < 0) ? -int32_t(result) : int32_t(result);
    }

    int32_t code_float(uint64_t col, int32_t code) {
        const int bytes = m_.values == half_values ? 2 : 4;
        uint32_t result = 0;
        uint64_t top = 0;
        for (int k = 0; k < bytes; ++k) {
            const uint32_t byte = uint32_t(code) >> (8 * (bytes - 1 - k)) & 255;
            uint64_t node = 1;
            for (int b = 7; b >= 0; --b) {
                const int bit = byte >> b & 1;
                const uint64_t at = uint64_t(k) << 9 | top << 18 | node;
                const uint64_t contexts[3] = {at, record_ | at, record_ | 1ull << 43 | col << 27 | at};
                node = node << 1 | uint64_t(k < 2 ? model_.bit(byte_part, contexts, 3, bit) : model_.plain_bit(bit));
            }
            top = node & 255;
            result = result << 8 | uint32_t(top);
        }
        return int32_t(result);
    }
};

// How many leading bytes a word shares with the one before it.
template <typename Coder>
size_t code_prefix(Model<Coder>& model, const std::string& before, size_t before_prefix, size_t prefix) {
    for (size_t i = 0; i < before.size(); ++i) {
        auto byte = [&](size_t at) { return at < before.size() ? uint64_t(uint8_t(before[at])) : 0; };
        const uint64_t n = std::min<size_t>(i, 15), last = i ? byte(i - 1) : 0, last_2 = i > 1 ? byte(i - 2) : 0;
        const uint64_t contexts[6] = {
            n,
            n << 8 | std::min<uint64_t>(before_prefix, 255),
            n << 8 | std::min<uint64_t>(before.size(), 255),
            n << 8 | byte(i),
            last_2 << 16 | last << 8 | byte(i),
            byte(i) << 24 | byte(i + 1) << 16 | byte(i + 2) << 8 | byte(i + 3),
        };
        if (model.bit(prefix_part, contexts, 6, i == prefix)) return i;
    }
    return before.size();
}

template <typename Coder>
uint8_t code_letter(Model<Coder>& model, const std::string& word, size_t start, const std::string& before, uint8_t letter) {
    const size_t i = word.size();
    auto back = [&](size_t k) { return k <= i ? uint64_t(uint8_t(word[i - k])) : 0; };
    const uint64_t since = std::min<size_t>(i - start, 3);
    const uint64_t other = i == start && i < before.size() ? uint8_t(before[i]) : 0;
    auto vowel = [&](size_t k) {
        const uint64_t letter_before = back(k);
        return uint64_t(letter_before && std::strchr("aeiouy", int(letter_before)) != nullptr);
    };
    const uint64_t vowels = vowel(3) << 2 | vowel(2) << 1 | vowel(1);
    uint64_t node = 1;
    for (int b = 7; b >= 0; --b) {
        const uint64_t contexts[7] = {
            node,
            back(1) << 8 | node,
            back(2) << 16 | back(1) << 8 | node,
            back(3) << 24 | back(2) << 16 | back(1) << 8 | node,
            (since == 0 ? 1ull : 0ull) << 16 | other << 8 | node,
            since << 24 | other << 16 | back(1) << 8 | node,
            vowels << 8 | node,
        };
        node = node << 1 | uint64_t(model.bit(letter_part, contexts, 7, letter >> b & 1, since));
    }
    return uint8_t(node & 255);
}

}  // namespace

template <typename Coder>
void code_matrix(Model<Coder>& model, const Matrix& matrix, int layout) {
    MatrixCoder<Coder>(model, matrix).run(layout);
}

template <typename Coder>
void code_words(Model<Coder>& model, std::vector<std::string>& words, int64_t count, int64_t max_word_bytes, int64_t max_total) {
    std::string before;
    size_t before_prefix = 0;
    int64_t total = 0;
    for (int64_t number = 0; number < count; ++number) {
        size_t prefix = 0;
        if (Coder::writes) {
            const std::string& word = words[size_t(number)];
            while (prefix < word.size() && prefix < before.size() && word[prefix] == before[prefix]) ++prefix;
        }
        prefix = code_prefix(model, before, before_prefix, prefix);
        std::string word = before.substr(0, prefix);
        for (;;) {
            const uint8_t wanted = Coder::writes && word.size() < words[size_t(number)].size() ? uint8_t(words[size_t(number)][word.size()]) : 0;
            const uint8_t letter = code_letter(model, word, prefix, before, wanted);
            if (!letter) break;
            word.push_back(char(letter));
            if (int64_t(word.size()) > max_word_bytes) throw BadStream("a word is too long");
        }
        total += int64_t(word.size());
        if (total > max_total) throw BadStream("the word list is too long");
        if (!Coder::writes) words.push_back(word);
        before.swap(word);
        before_prefix = prefix;
    }
}

template void code_matrix(Model<Encoder>&, const Matrix&, int);
template void code_matrix(Model<Decoder>&, const Matrix&, int);
template void code_words(Model<Encoder>&, std::vector<std::string>&, int64_t, int64_t, int64_t);
template void code_words(Model<Decoder>&, std::vector<std::string>&, int64_t, int64_t, int64_t);

}  // namespace karui
