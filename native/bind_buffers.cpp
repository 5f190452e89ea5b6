// Buffers of the pool as DLPack capsules, which torch turns into tensors; DLPack's layout is fixed, torch's is not.
#include <nanobind/nanobind.h>

#include <memory>
#include <stdexcept>

#include "buffer_pool.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

// DLPack 0.x, https://dmlc.github.io/dlpack/latest/c_api.html
struct DLTensor {
    void* data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t type_code, type_bits;
    uint16_t type_lanes;
    int64_t* shape;
    int64_t* strides;  // null: contiguous
    uint64_t byte_offset;
};
struct DLManagedTensor {
    DLTensor tensor;
    void* owner;
    void (*deleter)(DLManagedTensor*);
};
constexpr int32_t kCPU = 1;
constexpr uint8_t kFloat = 2;
constexpr const char* kFresh = "dltensor";  // who takes the tensor renames the capsule

struct Lent {
    DLManagedTensor managed;
    int64_t shape[1];
    Buffer buffer;
};

// Called by whoever drops the last tensor, from any thread, without Python's lock, perhaps when Python is gone.
void give_back(DLManagedTensor* managed) {
    const std::unique_ptr<Lent> lent(static_cast<Lent*>(managed->owner));
    BufferPool::instance().give_back(lent->buffer);
}

void drop_capsule(PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, kFresh)) return;
    auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kFresh));
    managed->deleter(managed);
}

nb::object lend_buffer(int64_t count, int bits) {
    if (count < 0 || count > (int64_t(1) << 60) || (bits != 32 && bits != 64))
        throw std::invalid_argument("count must be at least 0 and bits 32 or 64");
    auto lent = std::make_unique<Lent>();
    lent->shape[0] = count;
    lent->buffer = BufferPool::instance().lend(count * (bits / 8));
    const DLTensor tensor{lent->buffer.start, kCPU,    0, 1, kFloat, static_cast<uint8_t>(bits), 1,
                          lent->shape,        nullptr, 0};
    lent->managed = {tensor, lent.get(), give_back};
    PyObject* const capsule = PyCapsule_New(&lent->managed, kFresh, drop_capsule);
    if (!capsule) {
        BufferPool::instance().give_back(lent->buffer);
        throw nb::python_error();
    }
    lent.release();
    return nb::steal(capsule);
}

}  // namespace

void bind_buffers(nb::module_& m) {
    m.def("lend_buffer", &lend_buffer, "count, bits (32 or 64) of a float: DLPack capsule of count numbers, not set");
    m.def("limit_idle_buffers", [](int64_t bytes) { BufferPool::instance().set_limit(bytes); });
    m.def("idle_buffers", [] {
        BufferPool& pool = BufferPool::instance();
        return nb::make_tuple(pool.idle_count(), pool.idle_bytes());
    });
}
