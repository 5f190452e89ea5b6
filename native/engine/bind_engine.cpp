#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <exception>
#include <string>

#include "engine/engine.hpp"
#include "engine/python_layers.hpp"
#include "engine/python_text.hpp"

using namespace karui;

namespace {

void add_layer(Engine& engine, nb::handle description) {
    const nb::tuple layer = nb::cast<nb::tuple>(description);
    EngineLayer out;
    out.form = form_of(layer);
    const nb::list directions = nb::cast<nb::list>(layer[4]);
    if (directions.size() < 1 || directions.size() > 2) throw nb::value_error("a layer must have 1 or 2 directions");
    const int64_t inputs = engine.input_size(engine.layers.size());
    for (nb::handle item : directions) {
        std::vector<Array> kept;
        engine.add_direction(out, inputs, weights_of(nb::cast<nb::dict>(item), out.form, inputs, kept));
    }
    engine.layers.push_back(std::move(out));
}

void set_pairs(Engine& engine, nb::handle pairs, nb::handle scores) {
    nb::ndarray<const int32_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu> ids;
    if (!nb::try_cast(pairs, ids)) throw nb::value_error("pairs must be an int32 matrix of two columns");
    const int64_t count = int64_t(ids.shape(0));
    for (int64_t k = 0; k < count; ++k) {
        const int32_t *pair = ids.data() + 2 * k, *before = k ? pair - 2 : nullptr;
        if (pair[0] < 1 || pair[1] < 1 || pair[0] > engine.n_words || pair[1] > engine.n_words) throw nb::value_error("pairs must hold ids of words");
        if (before && (before[0] > pair[0] || (before[0] == pair[0] && before[1] >= pair[1]))) throw nb::value_error("pairs must be sorted and differ");
    }
    engine.pair_scores = copied(shaped(scores, "pair_scores", {count, engine.n_outputs}));
    engine.pairs = PairTable(ids.data(), count);
}

void init_engine(Engine* self, nb::list words, nb::handle embedding, nb::list layers, int pooling, nb::handle output_weight,
                 nb::handle output_bias, nb::handle word_scores, nb::handle pairs, nb::handle pair_scores, int64_t max_tokens) {
    Engine engine;
    if (pooling < 0 || pooling > 3) throw nb::value_error("pooling must be in 0 .. 3");
    engine.pooling = Pooling(pooling);
    engine.max_tokens = max_tokens;
    for (nb::handle word : words)
        if (engine.words.add(text_of(word)) >= 0) throw nb::value_error("words must differ");
    engine.n_words = engine.words.size();
    Array table;
    if (!nb::try_cast(embedding, table) || table.ndim() != 2) throw nb::value_error("embedding must be a float32 matrix");
    engine.E = int64_t(table.shape(1));
    engine.embedding = copied(shaped(embedding, "embedding", {engine.n_words + 1, engine.E}));
    for (nb::handle layer : layers) add_layer(engine, layer);
    engine.n_outputs = first_size(output_bias, "output_bias");
    if (!engine.n_outputs) throw nb::value_error("output_bias must not be empty");
    engine.output_bias = copied(shaped(output_bias, "output_bias", {engine.n_outputs}));
    engine.output_weight = copied(shaped(output_weight, "output_weight", {engine.n_outputs, engine.pooled_size()}));
    if (!word_scores.is_none()) engine.word_scores = copied(shaped(word_scores, "word_scores", {engine.n_words + 1, engine.n_outputs}));
    if (!pairs.is_none()) set_pairs(engine, pairs, pair_scores);
    engine.finish();
    new (self) Engine(std::move(engine));
}

using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

Logits to_matrix(std::vector<float>&& values, size_t rows, size_t cols) {
    auto* kept = new std::vector<float>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
    return Logits(kept->data(), {rows, cols}, owner);
}

// Runs one(document, progress) for all documents in up to `threads` threads, without the GIL.
template <typename One>
void for_each(int64_t count, int threads, One one) {
    nb::gil_scoped_release release;
    std::exception_ptr failure;
    if (threads < 2 || count < 2) {
        Progress progress;
        for (int64_t k = 0; k < count; ++k) one(k, progress);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        Progress progress;
#pragma omp for schedule(dynamic, 8)
        for (int64_t k = 0; k < count; ++k) {
            try {
                one(k, progress);
            } catch (...) {
#pragma omp critical
                failure = std::current_exception();
            }
        }
    }
    if (failure) std::rethrow_exception(failure);
}

int checked_threads(int threads) {
    if (threads < 1 || threads > 1024) throw nb::value_error("threads must be in 1 .. 1024");
    return threads;
}

Logits logits(const Engine& engine, nb::list texts, int threads) {
    std::vector<nb::object> kept;  // the list may change while the GIL is released
    std::vector<Text> views;
    for (nb::handle text : texts) {
        views.push_back(text_of(text));
        kept.push_back(nb::borrow(text));
    }
    std::vector<float> out(views.size() * size_t(engine.n_outputs));
    for_each(int64_t(views.size()), checked_threads(threads), [&](int64_t k, Progress& progress) {
        progress.ids.clear();
        engine.words.encode(views[size_t(k)], engine.max_tokens, progress.ids);
        engine.answer(progress, progress.ids.data(), int64_t(progress.ids.size()), out.data() + k * engine.n_outputs);
    });
    return to_matrix(std::move(out), views.size(), size_t(engine.n_outputs));
}

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void check_ids(const Engine& engine, const Ids& ids) {
    for (size_t k = 0; k < ids.shape(0); ++k)
        if (ids.data()[k] < 0 || ids.data()[k] > engine.n_words)
            throw nb::value_error(("a word id must be in 0 .. " + std::to_string(engine.n_words) + ", got " + std::to_string(ids.data()[k])).c_str());
}

Logits logits_ids(const Engine& engine, Ids ids, Offsets offsets, int threads) {
    check_ids(engine, ids);
    if (!offsets.shape(0) || offsets.data()[0] != 0) throw nb::value_error("offsets must begin with 0");
    const int64_t count = int64_t(offsets.shape(0)) - 1;
    for (int64_t k = 0; k < count; ++k)
        if (offsets.data()[k + 1] < offsets.data()[k]) throw nb::value_error("offsets must not fall");
    if (offsets.data()[count] != int64_t(ids.shape(0))) throw nb::value_error("offsets must end with the number of ids");
    std::vector<float> out(size_t(count * engine.n_outputs));
    for_each(count, checked_threads(threads), [&](int64_t k, Progress& progress) {
        const int64_t begin = offsets.data()[k];
        engine.answer(progress, ids.data() + begin, offsets.data()[k + 1] - begin, out.data() + k * engine.n_outputs);
    });
    return to_matrix(std::move(out), size_t(count), size_t(engine.n_outputs));
}

nb::tuple spans(const Engine& engine, nb::handle text) {
    std::vector<int32_t> ids;
    std::vector<int64_t> places;
    engine.words.encode(text_of(text), engine.max_tokens, ids, &places);
    return nb::make_tuple(to_numpy(std::move(ids)), to_numpy(std::move(places)));
}

// A text that arrives in pieces; holds the states after the words so far. The Python side keeps the engine alive.
class Stream {
  public:
    explicit Stream(const Engine& engine) : engine_(engine) {
        if (!engine.one_way()) throw nb::value_error("a stream needs a model with one direction");
        engine.start(progress_);
    }
    void feed(nb::handle text) {
        if (engine_.max_tokens && progress_.length >= engine_.max_tokens) return;
        ids_.clear();
        spans_.clear();
        const Text view = text_of(text);
        engine_.words.encode(view, engine_.max_tokens ? engine_.max_tokens - progress_.length : 0, ids_, &spans_);
        if (spans_[1]) engine_.advance(progress_, ids_.data(), int64_t(ids_.size()));  // else there was no word
    }
    Vector<float> logits(nb::handle rest) const {
        Stream whole(*this);
        whole.feed(rest);
        static const int32_t nothing = 0;
        if (!whole.progress_.length) engine_.advance(whole.progress_, &nothing, 1);
        std::vector<float> out(size_t(engine_.n_outputs));
        engine_.logits(whole.progress_, out.data());
        return to_numpy(std::move(out));
    }

  private:
    const Engine& engine_;
    Progress progress_;
    std::vector<int32_t> ids_;
    std::vector<int64_t> spans_;
};

}  // namespace

void bind_engine(nb::module_& m) {
    nb::class_<Engine>(m, "Engine")
        .def("__init__", &init_engine, nb::arg("words"), nb::kw_only(), nb::arg("embedding"), nb::arg("layers"), nb::arg("pooling"),
             nb::arg("output_weight"), nb::arg("output_bias"), nb::arg("word_scores").none(), nb::arg("pairs") = nb::none(),
             nb::arg("pair_scores") = nb::none(), nb::arg("max_tokens"))
        .def("logits", &logits, nb::arg("texts"), nb::arg("threads") = 1)
        .def("logits_ids", &logits_ids, nb::arg("ids"), nb::arg("offsets"), nb::arg("threads") = 1)
        .def("spans", &spans, nb::arg("text").none())
        .def_prop_ro("one_way", &Engine::one_way);
    nb::class_<Stream>(m, "Stream")
        .def(nb::init<const Engine&>(), nb::arg("engine"), nb::keep_alive<1, 2>())
        .def("feed", &Stream::feed, nb::arg("text").none())
        .def("logits", &Stream::logits, nb::arg("rest").none());
}
