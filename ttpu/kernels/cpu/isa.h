// Which instruction set the CPU kernels use, decided once at run time.
#pragma once

#include <vector>

namespace ttpu::kernels {

enum class Isa {
  kPortable,  // plain C++, any processor
  kAvx2,      // AVX2, FMA, F16C
  kAvx512,    // AVX512 F, BW, DQ, VL with BF16 and VNNI (Zen 4, Sapphire Rapids and later)
};

// "portable", "avx2", "avx512".
const char* isa_name(Isa isa);
// The best this processor has, lowered by TTPU_CPU_ISA=portable|avx2|avx512 when that is set. Read
// once. Throws kInvalidArgument when TTPU_CPU_ISA holds another word.
Isa best_isa();
// Every level that this processor can run, portable first (for tests).
std::vector<Isa> supported_isas();

}  // namespace ttpu::kernels
