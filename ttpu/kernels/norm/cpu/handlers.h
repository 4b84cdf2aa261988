// The custom call of normalization; kernels::norm and add_norm write it.
#pragma once

#include <span>

#include "ttpu/kernels/cpu/handler.h"

namespace ttpu::kernels {

// "ttpu_norm": operands x, weight, where has_bias the bias, where a second result is declared what
// is added to x; results normed and perhaps the sum. Attributes, as in cpu::Norm: has_bias, layer,
// round_first (i64), epsilon and weight_offset (f32).
inline constexpr const char* kNormTarget = "ttpu_norm";

std::span<const CpuHandler> norm_cpu_handlers();

}  // namespace ttpu::kernels
