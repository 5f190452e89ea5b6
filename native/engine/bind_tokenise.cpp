#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>

#include "engine/python_text.hpp"
#include "engine/tokenise.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

nb::str to_str(const uint32_t* codes, int64_t length) {
    return nb::steal<nb::str>(PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, codes, length));
}

struct ListSink {
    nb::list words;
    nb::list spans;
    std::vector<uint32_t> word;
    void add(uint32_t code) { word.push_back(code); }
    bool finish(int64_t start, int64_t end) {
        words.append(to_str(word.data(), int64_t(word.size())));
        spans.append(nb::make_tuple(start, end));
        word.clear();
        return true;
    }
};

struct WordSink {
    nb::list words;
    std::vector<uint32_t> word;
    void add(uint32_t code) { word.push_back(code); }
    bool finish(int64_t, int64_t) {
        words.append(to_str(word.data(), int64_t(word.size())));
        word.clear();
        return true;
    }
};

struct CountSink {
    WordTable table;
    std::vector<int64_t> counts;
    std::vector<uint32_t> word;
    uint64_t hash = 0;
    void add(uint32_t code) {
        word.push_back(code);
        hash = hash_step(hash, code);
    }
    bool finish(int64_t, int64_t) {
        const int64_t number = table.insert(word.data(), int64_t(word.size()), hash);
        if (number == int64_t(counts.size())) counts.push_back(0);
        ++counts[number];
        word.clear();
        hash = 0;
        return true;
    }
};

nb::list tokenise(nb::handle text) {
    WordSink sink;
    scan_words(text_of(text), sink);
    return sink.words;
}

nb::tuple tokenise_spans(nb::handle text) {
    ListSink sink;
    scan_words(text_of(text), sink);
    return nb::make_tuple(sink.words, sink.spans);
}

nb::dict count_words(nb::list texts) {
    CountSink sink;
    for (nb::handle text : texts) scan_words(text_of(text), sink);
    nb::dict counts;
    for (int64_t number = 0; number < sink.table.size(); ++number)
        counts[to_str(sink.table.codes(number), sink.table.length(number))] = sink.counts[number];
    return counts;
}

void init_word_ids(WordIds* self, nb::list words) {
    new (self) WordIds();
    for (nb::handle word : words) {
        if (self->add(text_of(word)) >= 0) {
            PyErr_Format(PyExc_ValueError, "words must differ, got %R twice", word.ptr());
            self->~WordIds();
            throw nb::python_error();
        }
    }
}

auto encode(const WordIds& self, nb::handle text, int64_t max_tokens) {
    std::vector<int32_t> ids;
    self.encode(text_of(text), max_tokens, ids);
    return to_numpy(std::move(ids));
}

auto encode_batch(const WordIds& self, nb::list texts, int64_t max_tokens) {
    std::vector<int32_t> ids;
    std::vector<int64_t> offsets(1, 0);
    for (nb::handle text : texts) {
        self.encode(text_of(text), max_tokens, ids);
        offsets.push_back(int64_t(ids.size()));
    }
    return std::make_pair(to_numpy(std::move(ids)), to_numpy(std::move(offsets)));
}

}  // namespace

void bind_tokenise(nb::module_& m) {
    m.def("tokenise", &tokenise, nb::arg("text").none());
    m.def("tokenise_spans", &tokenise_spans, nb::arg("text").none());
    m.def("count_words", &count_words, nb::arg("texts"));
    m.def("settled_length", [](nb::handle text) { return settled_length(text_of(text)); }, nb::arg("text").none());
    nb::class_<WordIds>(m, "WordIds")
        .def("__init__", &init_word_ids, nb::arg("words"))
        .def("__len__", &WordIds::size)
        .def("encode", &encode, nb::arg("text").none(), nb::arg("max_tokens") = 0)
        .def("encode_batch", &encode_batch, nb::arg("texts"), nb::arg("max_tokens") = 0);
}
