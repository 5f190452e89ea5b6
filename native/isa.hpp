// One source, several instruction sets: a `.isa.cpp` file puts its code into namespace karui::KARUI_ISA
// and exports a table of function pointers; `best_isa()` says which table this machine should use.
#pragma once

namespace karui {

enum class Isa { generic, avx2, avx512 };

// The widest instruction set that both this build and this processor have; KARUI_ISA_MAX in the
// environment ("generic", "avx2") is an order to use less, for tests. Read once.
Isa best_isa();

}  // namespace karui
