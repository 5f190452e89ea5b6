#include <exception>
#include <string>

#include "engine/language.hpp"
#include "engine/python_layers.hpp"
#include "engine/python_text.hpp"

using namespace karui;

namespace {

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

PackedMatrix packed(nb::handle object, const char* name, int64_t rows, int64_t columns) {
    const Array array = shaped(object, name, {rows, columns});
    return PackedMatrix(array.data(), rows, columns);
}

int64_t matrix_rows(nb::handle object, const char* name) {
    Array array;
    if (object.is_none() || !nb::try_cast(object, array) || array.ndim() != 2) throw nb::value_error((std::string(name) + " must be a float32 matrix").c_str());
    return int64_t(array.shape(0));
}

std::vector<int32_t> words_of(nb::handle object) {
    Ids ids;
    if (!nb::try_cast(object, ids)) throw nb::value_error("words must be an int32 vector");
    return std::vector<int32_t>(ids.data(), ids.data() + ids.shape(0));
}

SoftmaxPart softmax_part(nb::handle weight, nb::handle bias, int64_t rows, int64_t columns) {
    return {packed(weight, "weight", rows, columns), copied(shaped(bias, "bias", {rows}))};
}

// (projection or None, weight, bias, words)
Cluster cluster_of(nb::handle object, int64_t inputs) {
    const nb::tuple parts = nb::cast<nb::tuple>(object);
    Cluster out;
    out.words = words_of(parts[3]);
    int64_t width = inputs;
    if (!parts[0].is_none()) {
        width = matrix_rows(parts[0], "projection");
        out.projection = packed(parts[0], "projection", width, inputs);
        if (!inputs && width) throw nb::value_error("a projection needs inputs");  // without either there is nothing to multiply
    }
    if (out.words.empty()) throw nb::value_error("a cluster must have words");
    out.part = softmax_part(parts[1], parts[2], int64_t(out.words.size()), width);
    return out;
}

// (children, weight, bias)
void set_tree(LanguageOutput& output, nb::handle object) {
    const nb::tuple parts = nb::cast<nb::tuple>(object);
    nb::ndarray<const int32_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu> children;
    const int64_t nodes = output.n_words - 1;
    if (!nb::try_cast(parts[0], children) || int64_t(children.shape(0)) != nodes) throw nb::value_error("children must be an int32 matrix of two columns");
    output.is_tree = true;
    output.children.assign(children.data(), children.data() + 2 * nodes);
    output.node_weight = copied(shaped(parts[1], "weight", {nodes, output.inputs}));
    output.node_bias = copied(shaped(parts[2], "bias", {nodes}));
}

void init_engine(LanguageEngine* self, int64_t n_words, nb::handle embedding, int64_t embedding_dim, nb::list layers, nb::handle projection,
                 nb::handle head, nb::list clusters, nb::handle tree) {
    LanguageEngine engine;
    if (n_words < 1 || embedding_dim < 0) throw nb::value_error("there must be words");
    engine.n_words = n_words;
    engine.E = embedding_dim;
    if (!embedding.is_none()) engine.embedding = copied(shaped(embedding, "embedding", {n_words, engine.E}));
    for (nb::handle description : layers) {
        const nb::tuple layer = nb::cast<nb::tuple>(description);
        const Form form = form_of(layer);
        std::vector<Array> kept;
        engine.add_layer(form, weights_of(nb::cast<nb::dict>(layer[4]), form, engine.recurrent_size(), kept));
    }
    LanguageOutput& output = engine.output;
    output.n_words = n_words;
    output.inputs = engine.recurrent_size();
    if (!projection.is_none()) {
        const nb::tuple parts = nb::cast<nb::tuple>(projection);
        output.inputs = first_size(parts[1], "projection_bias");
        if (!output.inputs) throw nb::value_error("a projection must have outputs");
        engine.projection = packed(parts[0], "projection_weight", output.inputs, engine.recurrent_size());
        engine.projection_bias = copied(shaped(parts[1], "projection_bias", {output.inputs}));
    }
    if (!tree.is_none()) {
        set_tree(output, tree);
    } else {
        const nb::tuple parts = nb::cast<nb::tuple>(head);  // weight, bias, words
        output.head_words = words_of(parts[2]);
        for (nb::handle cluster : clusters) output.clusters.push_back(cluster_of(cluster, output.inputs));
        const int64_t rows = int64_t(output.head_words.size() + output.clusters.size());
        if (!rows) throw nb::value_error("the output must have words");
        output.head = softmax_part(parts[0], parts[1], rows, output.inputs);
    }
    if (!output.finish()) throw nb::value_error("a word is missing in the output, or there twice");
    if (embedding.is_none()) {
        bool shared = !output.is_tree && output.clusters.empty() && output.inputs == engine.E;
        for (size_t row = 0; shared && row < output.head_words.size(); ++row) shared = output.head_words[row] == int32_t(row);
        if (!shared) throw nb::value_error("an output that is no table of the words cannot be the embedding");
    }
    new (self) LanguageEngine(std::move(engine));
}

// A text word by word; the Python side keeps the engine alive.
class LanguageStream {
  public:
    explicit LanguageStream(const LanguageEngine& engine) : engine_(engine) { engine.start(state_); }
    LanguageStream(const LanguageEngine& engine, const LanguageStream& other) : engine_(engine), state_(other.state_) {
        if (&engine != &other.engine_) throw nb::value_error("the other stream is of another model");
    }
    void reset() { engine_.start(state_); }
    void feed(const Ids& ids, int threads) {
        check(ids, threads);
        nb::gil_scoped_release release;
        engine_.advance(state_, ids.data(), int64_t(ids.shape(0)), nullptr, threads);
    }
    Vector<float> score(const Ids& ids, int threads) {
        check(ids, threads);
        std::vector<float> out(ids.shape(0));
        {
            nb::gil_scoped_release release;
            engine_.score(state_, ids.data(), int64_t(ids.shape(0)), out.data(), threads);
        }
        return to_numpy(std::move(out));
    }
    Vector<float> log_probs(int threads) const {
        check_threads(threads);
        std::vector<float> out(size_t(engine_.n_words));
        engine_.output.all(state_.hidden.data(), out.data(), threads);
        return to_numpy(std::move(out));
    }
    float log_prob(int64_t id, int threads) const {
        check_threads(threads);
        check_id(id);
        const int32_t target = int32_t(id);
        float out;
        engine_.output.log_prob(state_.hidden.data(), 1, &target, &out, threads);
        return out;
    }
    nb::tuple topk(int64_t k, int threads) const {
        check_threads(threads);
        if (k < 1 || k > engine_.n_words) throw nb::value_error(("k must be in 1 .. " + std::to_string(engine_.n_words) + ", got " + std::to_string(k)).c_str());
        Ranked found = engine_.output.topk(state_.hidden.data(), k, threads);
        return nb::make_tuple(to_numpy(std::move(found.ids)), to_numpy(std::move(found.log_prob)));
    }

  private:
    const LanguageEngine& engine_;
    LanguageState state_;
    static void check_threads(int threads) {
        if (threads < 1 || threads > 1024) throw nb::value_error("threads must be in 1 .. 1024");
    }
    void check_id(int64_t id) const {
        if (id < 0 || id >= engine_.n_words)
            throw nb::value_error(("a word id must be in 0 .. " + std::to_string(engine_.n_words - 1) + ", got " + std::to_string(id)).c_str());
    }
    void check(const Ids& ids, int threads) const {
        check_threads(threads);
        for (size_t k = 0; k < ids.shape(0); ++k) check_id(ids.data()[k]);
    }
};

}  // namespace

void bind_language(nb::module_& m) {
    nb::class_<LanguageEngine>(m, "LanguageEngine")
        .def("__init__", &init_engine, nb::kw_only(), nb::arg("n_words"), nb::arg("embedding").none(), nb::arg("embedding_dim"), nb::arg("layers"),
             nb::arg("projection").none(), nb::arg("head").none(), nb::arg("clusters"), nb::arg("tree").none());
    nb::class_<LanguageStream>(m, "LanguageStream")
        .def(nb::init<const LanguageEngine&>(), nb::arg("engine"), nb::keep_alive<1, 2>())
        .def(nb::init<const LanguageEngine&, const LanguageStream&>(), nb::arg("engine"), nb::arg("state_of"), nb::keep_alive<1, 2>())
        .def("reset", &LanguageStream::reset)
        .def("feed", &LanguageStream::feed, nb::arg("ids"), nb::arg("threads") = 1)
        .def("score", &LanguageStream::score, nb::arg("ids"), nb::arg("threads") = 1)
        .def("log_probs", &LanguageStream::log_probs, nb::arg("threads") = 1)
        .def("log_prob", &LanguageStream::log_prob, nb::arg("id"), nb::arg("threads") = 1)
        .def("topk", &LanguageStream::topk, nb::arg("k"), nb::arg("threads") = 1);
}
