#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "engine/coder.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

using Hints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Cells = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

Matrix matrix_of(Cells& cells, int record, int values, int largest, int layout, const std::optional<Hints>& hints) {
    if (record < 0 || record > 255) throw nb::value_error("record must be in 0 .. 255");
    if (values < int8_values || values > float_values) throw nb::value_error("values must be 0, 1 or 2");
    if (largest < 1 || largest > 127) throw nb::value_error("largest must be in 1 .. 127");
    if (layout < dense || layout > row_sparse) throw nb::value_error("layout must be 0, 1 or 2");
    if (cells.shape(1) > 65535) throw nb::value_error("a matrix has at most 65535 columns");
    Matrix matrix{int64_t(cells.shape(0)), int64_t(cells.shape(1)), record, values, largest, cells.data()};
    if (hints) {
        if (hints->shape(0) != cells.shape(0)) throw nb::value_error("hints must have one number a row");
        matrix.hints = hints->data();
        for (int64_t row = 0; row < matrix.rows; ++row)
            if (matrix.hints[row] < 0 || matrix.hints[row] > 1 << 17) throw nb::value_error("hints must be in 0 .. 2^17");
    }
    return matrix;
}

void encode_matrix(Model<Encoder>& model, Cells cells, int record, int values, int largest, int layout, std::optional<Hints> hints) {
    const Matrix matrix = matrix_of(cells, record, values, largest, layout, hints);
    if (values == int8_values)
        for (int64_t i = 0; i < matrix.rows * matrix.cols; ++i)
            if (std::abs(int64_t(matrix.cells[i])) > largest) throw nb::value_error("a value is larger than `largest`");
    nb::gil_scoped_release release;
    code_matrix(model, matrix, layout);
}

void decode_matrix(Model<Decoder>& model, Cells cells, int record, int values, int largest, int layout, std::optional<Hints> hints) {
    const Matrix matrix = matrix_of(cells, record, values, largest, layout, hints);
    nb::gil_scoped_release release;
    std::fill(matrix.cells, matrix.cells + matrix.rows * matrix.cols, 0);
    code_matrix(model, matrix, layout);
}

std::string bytes_of(nb::handle object) {
    char* data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(object.ptr(), &data, &size)) throw nb::python_error();
    return std::string(data, size_t(size));
}

void encode_words(Model<Encoder>& model, nb::list list) {
    std::vector<std::string> words;
    for (nb::handle word : list) {
        words.push_back(bytes_of(word));
        if (words.back().find('\0') != std::string::npos) throw nb::value_error("a word must not hold NUL");
    }
    code_words(model, words, int64_t(words.size()), INT64_MAX, INT64_MAX);
}

nb::list decode_words(Model<Decoder>& model, int64_t count, int64_t max_word_bytes, int64_t max_total) {
    std::vector<std::string> words;
    code_words(model, words, count, max_word_bytes, max_total);
    nb::list list;
    for (const std::string& word : words) list.append(nb::bytes(word.data(), word.size()));
    return list;
}

using Pairs = nb::ndarray<int32_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;

// Codes `pairs` (K, 2); sorted, distinct and in range or std::runtime_error, also when they are written.
template <typename Coder>
void code_pair_list(Model<Coder>& model, Pairs pairs, Hints hints) {
    const PairList list{int64_t(hints.shape(0)), int64_t(pairs.shape(0)), hints.data(), pairs.data()};
    if (list.words > 1 << 20 || list.count > 1 << 20) throw nb::value_error("there are at most 2^20 words and pairs");
    for (int64_t k = 0; k < list.words; ++k)
        if (list.hints[k] < 0 || list.hints[k] > 127) throw nb::value_error("hints must be in 0 .. 127");
    nb::gil_scoped_release release;
    code_pairs(model, list);
}

nb::bytes finish(const Model<Encoder>& model) {
    const std::vector<uint8_t> stream = model.coder.finished();
    return nb::bytes(stream.data(), stream.size());
}

}  // namespace

void bind_coder(nb::module_& m) {
    nb::class_<Model<Encoder>>(m, "Encoder")
        .def("__init__", [](Model<Encoder>* self) { new (self) Model<Encoder>(Encoder()); })
        .def("copy", [](const Model<Encoder>& self) { return Model<Encoder>(self); })
        .def_prop_ro("position", [](const Model<Encoder>& self) { return self.coder.position(); })
        .def_prop_ro("bits", [](const Model<Encoder>& self) { return self.coder.bits(); })
        .def("matrix", &encode_matrix, nb::arg("cells"), nb::kw_only(), nb::arg("record"), nb::arg("values"), nb::arg("largest"), nb::arg("layout"),
             nb::arg("hints") = nb::none())
        .def("words", &encode_words, nb::arg("words"))
        .def("pairs", &code_pair_list<Encoder>, nb::arg("pairs"), nb::kw_only(), nb::arg("hints"))
        .def("finish", &finish);
    nb::class_<Model<Decoder>>(m, "Decoder")
        .def("__init__",
             [](Model<Decoder>* self, nb::bytes data) {
                 const auto* begin = static_cast<const uint8_t*>(data.data());
                 new (self) Model<Decoder>(Decoder(std::vector<uint8_t>(begin, begin + data.size())));
             })
        .def_prop_ro("position", [](const Model<Decoder>& self) { return self.coder.position(); })
        .def("matrix", &decode_matrix, nb::arg("cells"), nb::kw_only(), nb::arg("record"), nb::arg("values"), nb::arg("largest"), nb::arg("layout"),
             nb::arg("hints") = nb::none())
        .def("words", &decode_words, nb::arg("count"), nb::arg("max_word_bytes"), nb::arg("max_total"))
        .def("pairs", &code_pair_list<Decoder>, nb::arg("pairs"), nb::kw_only(), nb::arg("hints"))
        .def("check_end", [](const Model<Decoder>& self) { self.coder.check_end(); });
    nb::exception<BadStream>(m, "BadStream", PyExc_ValueError);
}
