#include "ttpu/kernels/cpu/isa.h"

#include <cstdlib>
#include <string_view>

#include "ttpu/base/error.h"

namespace ttpu::kernels {
namespace {

Isa detect() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (!avx2) return Isa::kPortable;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  return avx512 ? Isa::kAvx512 : Isa::kAvx2;
#else
  return Isa::kPortable;
#endif
}

Isa lowered_by_environment(Isa best) {
  const char* text = std::getenv("TTPU_CPU_ISA");
  if (text == nullptr || *text == '\0') return best;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (std::string_view(text) == isa_name(isa)) return isa < best ? isa : best;
  }
  fail(Code::kInvalidArgument,
       "[kernels] TTPU_CPU_ISA is \"{}\"; expected portable, avx2 or avx512", text);
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

Isa best_isa() {
  static const Isa isa = lowered_by_environment(detect());
  return isa;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas{Isa::kPortable};
  const Isa best = detect();
  if (best >= Isa::kAvx2) isas.push_back(Isa::kAvx2);
  if (best >= Isa::kAvx512) isas.push_back(Isa::kAvx512);
  return isas;
}

}  // namespace ttpu::kernels
