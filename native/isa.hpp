// One source, several instruction sets: a `.isa.cpp` file puts its code into namespace karui::KARUI_ISA
// and exports a table of function pointers; `best_isa()` says which table this machine should use.
#pragma once

namespace karui {

enum class Isa { generic, avx2, avx512 };

// The widest instruction set that both this build and this processor have; KARUI_ISA_MAX in the
// environment ("generic", "avx2") is an order to use less, for tests. Read once.
Isa best_isa();

template <typename Table>
const Table& of_best_isa(const Table& generic, const Table& avx2, const Table& avx512) {
    switch (best_isa()) {
        case Isa::avx512: return avx512;
        case Isa::avx2: return avx2;
        default: return generic;
    }
}

// The table of this name that this machine should use.
#ifdef KARUI_X86
#define KARUI_TABLE(name) of_best_isa(generic::name, avx2::name, avx512::name)
#else
#define KARUI_TABLE(name) generic::name
#endif

}  // namespace karui
