#include "isa.hpp"

#include <cstdlib>
#include <cstring>

namespace karui {

static Isa detect() {
#ifdef KARUI_X86
    const char* wanted = std::getenv("KARUI_ISA_MAX");
    if (wanted && std::strcmp(wanted, "generic") == 0) return Isa::generic;
    __builtin_cpu_init();
    bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (wide && !(wanted && std::strcmp(wanted, "avx2") == 0)) return Isa::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
    return Isa::generic;
}

Isa best_isa() {
    static const Isa isa = detect();
    return isa;
}

}  // namespace karui
