#include "ttpu/kernels/cpu/isa.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string_view>

#include "ttpu/base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ttpu::kernels {
namespace {

#if defined(__x86_64__)
// Which register files the operating system saves (XCR0).
uint64_t saved_state() {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// Bits of CPUID: Intel's Software Developer's Manual, volume 2A. Not __builtin_cpu_supports, since
// clang 14 does not know avx512bf16 there.
Isa detect() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  const auto has = [](uint32_t word, std::initializer_list<int> bits) {
    return std::all_of(bits.begin(), bits.end(), [&](int bit) { return (word >> bit & 1) != 0; });
  };
  constexpr int kFma = 12, kOsxsave = 27, kAvx = 28, kF16c = 29;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return Isa::kPortable;
  if (!has(ecx, {kFma, kOsxsave, kAvx, kF16c})) return Isa::kPortable;
  constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6;
  const uint64_t state = saved_state();
  constexpr int kAvx2 = 5, kAvx512F = 16, kAvx512Dq = 17, kAvx512Bw = 30, kAvx512Vl = 31;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return Isa::kPortable;
  if (!has(ebx, {kAvx2}) || (state & kYmmState) != kYmmState) return Isa::kPortable;
  constexpr int kAvx512Vnni = 11, kAvx512Bf16 = 5;
  const bool foundation = has(ebx, {kAvx512F, kAvx512Dq, kAvx512Bw, kAvx512Vl}) &&
                          has(ecx, {kAvx512Vnni}) && (state & kZmmState) == kZmmState;
  if (!foundation || __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) == 0) return Isa::kAvx2;
  return has(eax, {kAvx512Bf16}) ? Isa::kAvx512 : Isa::kAvx2;
}
#else
Isa detect() { return Isa::kPortable; }
#endif

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
