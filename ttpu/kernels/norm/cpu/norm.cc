#include "ttpu/kernels/norm/cpu/kernel.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // numbers that are worth another thread

NormRow isa_row(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Norm;
  if (isa == Isa::kAvx2) return kAvx2Norm;
#endif
  static_cast<void>(isa);
  return kPortableNorm;
}

}  // namespace

void norm(const Norm& c, TaskPool* pool, Isa isa) {
  const NormRow run = isa_row(isa);
  parallel_for(pool, c.rows, kGrain / c.dim + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) run(c, row);
  });
}

}  // namespace ttpu::kernels::cpu
