// Tokeniser "words-v1" (docs/format.md) on code points of 1, 2 or 4 bytes, as Python stores them.
#pragma once
#include <cstdint>
#include <vector>

namespace karui {

enum CodeClass : uint32_t { separator = 0, word_part = 1, single_word = 2, mark = 3, apostrophe = 4 };

// Class and lower-case code point of one code point.
struct CodeEntry {
    uint32_t code;  // lower-case
    uint32_t kind;  // CodeClass
};

// All code points in pages of 256; equal pages are stored once. 0x1100 pages, built at first use.
struct CodeTable {
    std::vector<CodeEntry> entries;
    std::vector<uint32_t> page_begin;
    CodeEntry latin[256];  // the first page with whole lower-case code points: most letters of most texts
    CodeTable();
    CodeEntry operator[](uint8_t code) const { return latin[code]; }
    CodeEntry operator[](uint16_t code) const { return (*this)[uint32_t(code)]; }
    CodeEntry operator[](uint32_t code) const {
        if (code < 256) return latin[code];
        if (code > 0x10FFFF) return {0, separator};
        CodeEntry e = entries[page_begin[code >> 8] + (code & 255)];
        e.code += code;  // stored as a difference, so that pages can be shared
        return e;
    }
};
const CodeTable& code_table();

struct Text {
    const void* data;
    int64_t length;  // code points
    int width;       // bytes of a code point: 1, 2, 4
};

// Length of the tag <br>, <br/> or <br /> at s[0] == '<', else 0. `partial`: the text ends inside such a tag.
template <typename Char>
int64_t tag_length(const Char* s, int64_t n, bool* partial = nullptr) {
    static const char* const tags[3] = {"<br>", "<br/>", "<br />"};
    for (int t = 0; t < 3; ++t) {
        int64_t k = 0;
        for (; tags[t][k]; ++k) {
            if (k == n) {
                if (partial) *partial = true;
                break;
            }
            uint32_t c = s[k];
            if (c != uint32_t(tags[t][k]) && !(tags[t][k] >= 'a' && c == uint32_t(tags[t][k] - 32))) break;
        }
        if (!tags[t][k]) return k;
    }
    return 0;
}

// Calls sink.add(code) for each code point of a word and then sink.finish(start, end), which returns false to stop.
template <typename Char, typename Sink>
void scan_words(const Char* s, int64_t n, Sink& sink) {
    const CodeTable& table = code_table();
    int64_t i = 0;
    while (i < n) {
        CodeEntry e = table[s[i]];
        if (e.kind == word_part) {
            const int64_t start = i;
            do {
                sink.add(e.code);
                if (++i == n) break;
                e = table[s[i]];
                if (e.kind == apostrophe && i + 1 < n) {
                    const CodeEntry next = table[s[i + 1]];
                    if (next.kind == word_part) {
                        sink.add('\'');
                        ++i;
                        e = next;
                    }
                }
            } while (e.kind == word_part);
            if (!sink.finish(start, i)) return;
        } else if (e.kind == single_word || e.kind == mark) {
            sink.add(e.code);
            ++i;
            if (!sink.finish(i - 1, i)) return;
        } else {
            const int64_t skip = s[i] == '<' ? tag_length(s + i, n - i) : 0;
            i += skip ? skip : 1;
        }
    }
}

template <typename Sink>
void scan_words(const Text& text, Sink& sink) {
    if (text.width == 1) scan_words(static_cast<const uint8_t*>(text.data), text.length, sink);
    else if (text.width == 2) scan_words(static_cast<const uint16_t*>(text.data), text.length, sink);
    else scan_words(static_cast<const uint32_t*>(text.data), text.length, sink);
}

// Number of leading code points whose words cannot change, whatever follows.
int64_t settled_length(const Text& text);

inline uint64_t hash_step(uint64_t hash, uint32_t code) { return (hash ^ code) * 0x9E3779B97F4A7C15ull; }

// Words as code points in one arena, found by open addressing.
class WordTable {
  public:
    WordTable();
    // Number of a word, or -1.
    int64_t find(const uint32_t* codes, int64_t length, uint64_t hash) const;
    // Number of a word, added if new.
    int64_t insert(const uint32_t* codes, int64_t length, uint64_t hash);
    int64_t size() const { return int64_t(ends_.size()) - 1; }
    const uint32_t* codes(int64_t number) const { return arena_.data() + ends_[number]; }
    int64_t length(int64_t number) const { return ends_[number + 1] - ends_[number]; }
    int64_t longest() const { return longest_; }

  private:
    struct Slot {
        uint32_t tag;
        int32_t number;  // -1: free
    };
    std::vector<uint32_t> arena_;
    std::vector<int64_t> ends_;
    std::vector<Slot> slots_;
    uint64_t mask_;
    int64_t longest_ = 0;
    static uint64_t mix(uint64_t hash) { return hash ^ (hash >> 29); }
    void grow();
};

// Ids of words: position in the list + 1; 0 is every other word.
class WordIds {
  public:
    // Returns the number of the first word that is in the list twice, or -1.
    int64_t add(const Text& word);
    // Appends the ids of a text; a text without words is one token of id 0. max_tokens 0 is no limit.
    // With `spans`, appends start and end (code points) of each token; an empty document has the span 0, 0.
    void encode(const Text& text, int64_t max_tokens, std::vector<int32_t>& ids, std::vector<int64_t>* spans = nullptr) const;
    int64_t size() const { return table_.size(); }

  private:
    WordTable table_;
};

}  // namespace karui
