#include "engine/tokenise.hpp"

#include <algorithm>
#include <cstring>
#include <map>

namespace karui {
namespace {

struct ClassRange {
    uint32_t first, last, kind;
};
struct LowerRun {
    uint32_t first, last, step;
    int32_t delta;
};
#include "engine/unicode_table.inc"

constexpr uint32_t num_pages = 0x1100;

}  // namespace

CodeTable::CodeTable() : page_begin(num_pages) {
    std::vector<CodeEntry> all(num_pages * 256, CodeEntry{0, separator});
    for (const ClassRange& range : class_ranges)
        for (uint32_t code = range.first; code <= range.last; ++code) all[code].kind = range.kind;
    for (const LowerRun& run : lower_runs)
        for (uint32_t code = run.first; code <= run.last; code += run.step) all[code].code = uint32_t(run.delta);
    std::map<std::vector<uint64_t>, uint32_t> seen;
    for (uint32_t page = 0; page < num_pages; ++page) {
        std::vector<uint64_t> key(256);
        std::memcpy(key.data(), all.data() + page * 256, 256 * sizeof(CodeEntry));
        auto found = seen.emplace(std::move(key), uint32_t(entries.size()));
        if (found.second) entries.insert(entries.end(), all.begin() + page * 256, all.begin() + (page + 1) * 256);
        page_begin[page] = found.first->second;
    }
    for (uint32_t code = 0; code < 256; ++code) latin[code] = {all[code].code + code, all[code].kind};
}

const CodeTable& code_table() {
    static const CodeTable table;
    return table;
}

namespace {

template <typename Char>
int64_t settled(const Char* s, int64_t n) {
    for (int64_t i = std::max<int64_t>(0, n - 5); i < n; ++i) {
        bool partial = false;
        if (s[i] == '<' && !tag_length(s + i, n - i, &partial) && partial) return i;
    }
    const CodeTable& table = code_table();
    while (n > 0) {
        const uint32_t kind = table[s[n - 1]].kind;
        if (kind != word_part && kind != apostrophe) break;
        --n;
    }
    return n;
}

}  // namespace

int64_t settled_length(const Text& text) {
    if (text.width == 1) return settled(static_cast<const uint8_t*>(text.data), text.length);
    if (text.width == 2) return settled(static_cast<const uint16_t*>(text.data), text.length);
    return settled(static_cast<const uint32_t*>(text.data), text.length);
}

WordTable::WordTable() : ends_(1, 0), slots_(64, Slot{0, -1}), mask_(63) {}

int64_t WordTable::find(const uint32_t* codes, int64_t length, uint64_t hash) const {
    const uint64_t h = mix(hash);
    for (uint64_t at = h & mask_;; at = (at + 1) & mask_) {
        const Slot slot = slots_[at];
        if (slot.number < 0) return -1;
        if (slot.tag == uint32_t(h >> 32) && this->length(slot.number) == length &&
            std::equal(codes, codes + length, this->codes(slot.number)))
            return slot.number;
    }
}

int64_t WordTable::insert(const uint32_t* codes, int64_t length, uint64_t hash) {
    const int64_t found = find(codes, length, hash);
    if (found >= 0) return found;
    if (uint64_t(size() + 1) * 2 > mask_) grow();
    const uint64_t h = mix(hash);
    uint64_t at = h & mask_;
    while (slots_[at].number >= 0) at = (at + 1) & mask_;
    slots_[at] = Slot{uint32_t(h >> 32), int32_t(size())};
    arena_.insert(arena_.end(), codes, codes + length);
    ends_.push_back(int64_t(arena_.size()));
    longest_ = std::max(longest_, length);
    return size() - 1;
}

void WordTable::grow() {
    std::vector<Slot> wider(slots_.size() * 2, Slot{0, -1});
    mask_ = wider.size() - 1;
    for (int64_t number = 0; number < size(); ++number) {
        uint64_t hash = 0;
        for (int64_t i = 0; i < length(number); ++i) hash = hash_step(hash, codes(number)[i]);
        const uint64_t h = mix(hash);
        uint64_t at = h & mask_;
        while (wider[at].number >= 0) at = (at + 1) & mask_;
        wider[at] = Slot{uint32_t(h >> 32), int32_t(number)};
    }
    slots_.swap(wider);
}

int64_t WordIds::add(const Text& word) {
    std::vector<uint32_t> codes(size_t(word.length));
    uint64_t hash = 0;
    for (int64_t i = 0; i < word.length; ++i) {
        codes[i] = word.width == 1   ? static_cast<const uint8_t*>(word.data)[i]
                   : word.width == 2 ? static_cast<const uint16_t*>(word.data)[i]
                                     : static_cast<const uint32_t*>(word.data)[i];
        hash = hash_step(hash, codes[i]);
    }
    const int64_t before = table_.size();
    const int64_t number = table_.insert(codes.data(), word.length, hash);
    return number < before ? number : -1;
}

namespace {

struct IdSink {
    const WordTable& table;
    int64_t left;  // tokens still allowed
    std::vector<int32_t>& ids;
    std::vector<int64_t>* spans;
    std::vector<uint32_t> word;  // longer words than the longest of the table need no more of their letters
    int64_t length = 0;
    uint64_t hash = 0;

    void add(uint32_t code) {
        if (length < int64_t(word.size())) {
            word[length] = code;
            hash = hash_step(hash, code);
        }
        ++length;
    }
    bool finish(int64_t start, int64_t end) {
        ids.push_back(length > int64_t(word.size()) ? 0 : int32_t(table.find(word.data(), length, hash) + 1));
        if (spans) {
            spans->push_back(start);
            spans->push_back(end);
        }
        length = 0;
        hash = 0;
        return --left != 0;
    }
};

}  // namespace

void WordIds::encode(const Text& text, int64_t max_tokens, std::vector<int32_t>& ids, std::vector<int64_t>* spans) const {
    const size_t before = ids.size();
    IdSink sink{table_, max_tokens > 0 ? max_tokens : -1, ids, spans, std::vector<uint32_t>(size_t(table_.longest()))};
    scan_words(text, sink);
    if (ids.size() == before) {
        ids.push_back(0);
        if (spans) spans->insert(spans->end(), {0, 0});
    }
}

}  // namespace karui
