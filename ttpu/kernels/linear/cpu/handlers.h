// The custom calls of the linear operators; linear.cc writes the calls.
#pragma once

#include <span>

#include "ttpu/kernels/cpu/handler.h"

namespace ttpu::kernels {

// "ttpu_linear": operands x, then for each product W, its scales (flag kHasScales), its bias
// (kHasBias); one result a product, or one for all when gated. Attributes: `products`, one i64 a
// product: the Encoding in the low byte and the flags; `gate`, an i64 of cpu::Activation.
// "ttpu_expert_linear": operands x, expert ids, W, then scales and bias by the same flags.
inline constexpr const char* kLinearTarget = "ttpu_linear";
inline constexpr const char* kExpertLinearTarget = "ttpu_expert_linear";
inline constexpr int kHasScales = 1 << 8;
inline constexpr int kHasBias = 1 << 9;
inline constexpr int kMaxProducts = 8;

std::span<const CpuHandler> linear_cpu_handlers();

}  // namespace ttpu::kernels
