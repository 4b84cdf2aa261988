// erf(x) is not in StableHLO. Near zero it is x P(x^2); from 1 on it is 1 - exp(Q(|x|)), where
// exp(Q) is erfc and so its errors shrink beside 1. Both polynomials are Chebyshev fits: P on [0,
// 1] with error 4e-11, Q, the logarithm of erfc, on [1, 4] with 2e-8.
#include "ttpu/base/error.h"
#include "ttpu/ir/broadcasting.h"
#include "ttpu/ir/constant.h"
#include "ttpu/ir/convert.h"
#include "ttpu/ir/elementwise.h"
#include "ttpu/ir/function.h"

namespace ttpu::ir {
namespace {

constexpr double kSmall[] = {1.12837916706,     -0.37612638468,   0.112837824952,
                             -0.0268654307277,  0.00522103180786, -0.000848408040554,
                             0.000112659590256, -9.66704457149e-6};
constexpr double kLarge[] = {0.000320138049678, -1.13023343484,    -0.631826051559,
                             -0.110080082949,   0.0264211360057,   -0.00475959629327,
                             0.000596805625661, -4.60580426892e-5, 1.63715141459e-6};

template <size_t N>
Value polynomial(Value x, const double (&coefficients)[N]) {
  Value result = full_like(x, coefficients[N - 1]);
  for (size_t i = N - 1; i-- > 0;) result = result * x + coefficients[i];
  return result;
}

}  // namespace

Value erf(Value x) {
  require(is_float(x.dtype()), "[erf] is not defined for {}; it takes floats",
          x.shape().to_string());
  if (bit_width(x.dtype()) < 32) return convert(erf(convert(x, DType::kF32)), x.dtype());
  // Beyond 4, erf is 1 in f32. A clamp of NaN stays NaN.
  const Value magnitude = minimum(abs(x), full_like(x, 4.0));
  const Value small = x * polynomial(x * x, kSmall);
  const Value large = sign(x) * (1.0 - exponential(polynomial(magnitude, kLarge)));
  const Value one = full_like(x, 1.0);
  return select(compare(magnitude, one, ComparisonDirection::kLt), small, large);
}

}  // namespace ttpu::ir
