#include <cmath>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels {
namespace {

using ir::Value;

Value activate_f32(Activation activation, Value x) {
  switch (activation) {
    case Activation::kSilu:
      return x * ir::logistic(x);
    case Activation::kGeluTanh: {
      const Value inner = (x + x * x * x * 0.044715) * std::sqrt(2.0 / M_PI);
      return x * 0.5 * (ir::tanh(inner) + 1.0);
    }
    case Activation::kGelu:
      return x * 0.5 * (ir::erf(x * std::sqrt(0.5)) + 1.0);
  }
  return x;
}

}  // namespace

Value activate(Activation activation, Value x) {
  return ir::convert(activate_f32(activation, ir::convert(x, DType::kF32)), x.dtype());
}

}  // namespace ttpu::kernels
