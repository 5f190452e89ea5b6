#include <nanobind/nanobind.h>

namespace nb = nanobind;

// Each part binds its own functions; this file only lists the parts.
void bind_kernels(nb::module_& m);
void bind_statistical(nb::module_& m);
void bind_buffers(nb::module_& m);
void bind_layer(nb::module_& m);
void bind_step(nb::module_& m);
void bind_tree(nb::module_& m);
void bind_output(nb::module_& m);
void bind_sparse(nb::module_& m);
void bind_tokenise(nb::module_& m);
void bind_coder(nb::module_& m);
void bind_engine(nb::module_& m);
void bind_language(nb::module_& m);

NB_MODULE(_native, m) {
    m.doc() = "karui's native core: kernels for training, engine for inference. Knows pointers and sizes only.";
    nb::set_leak_warnings(false);  // what autograd still holds when Python exits is no leak
    bind_kernels(m);
    bind_statistical(m);
    bind_buffers(m);
    bind_layer(m);
    bind_step(m);
    bind_tree(m);
    bind_output(m);
    bind_sparse(m);
    bind_tokenise(m);
    bind_coder(m);
    bind_engine(m);
    bind_language(m);
}
