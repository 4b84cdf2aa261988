#include "ttpu/ir/random.h"

#include "ttpu/ir/broadcasting.h"
#include "ttpu/ir/constant.h"
#include "ttpu/ir/convert.h"
#include "ttpu/ir/elementwise.h"
#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {

std::vector<Shape> infer_rng_bit_generator(const OpContext& op) {
  const Shape& state = op.shape(0);
  const auto algorithm = op.attributes.get<RngAlgorithm>("rng_algorithm");
  check(op.declared.size() == 2, op, "state and bits are its results");
  check(op.declared[0] == state, op, "state {} becomes {}", state.to_string(),
        op.declared[0].to_string());
  check(state.rank() == 1 && state.dtype == DType::kU64, op, "state {}, a vector of ui64 expected",
        state.to_string());
  const int64_t size = state.dims[0];
  const bool fits = algorithm == RngAlgorithm::kDefault
                        ? size > 0
                        : size == 2 || (algorithm == RngAlgorithm::kPhilox && size == 3);
  check(fits, op, "state {} does not fit {}: 2 elements for THREE_FRY, 2 or 3 for PHILOX",
        state.to_string(), to_string(algorithm));
  check(is_integer(op.declared[1].dtype) && bit_width(op.declared[1].dtype) >= 8, op,
        "bits {}; integers of 8 to 64 bits expected", op.declared[1].to_string());
  return op.declared;
}

std::pair<Value, Value> rng_bit_generator(Value state, Shape shape, RngAlgorithm algorithm) {
  const Operation& operation =
      state.function().append(OpKind::kRngBitGenerator, {state}, {{"rng_algorithm", algorithm}}, {},
                              {state.shape(), std::move(shape)});
  return {operation.result(0), operation.result(1)};
}

Value uniform_from_bits(Value bits) {
  require(bits.dtype() == DType::kU32, "[uniform_from_bits] bits {}, ui32 expected",
          bits.shape().to_string());
  Function& function = bits.function();
  // The bits become the mantissa of a number in [1, 2).
  const Value nine = full(function, bits.shape(), 9);
  const Value one = full(function, bits.shape(), 0x3f800000);
  const Value mantissa = shift_right_logical(bits, nine);
  return bitcast_convert(or_(mantissa, one), DType::kF32) - 1.0;
}

}  // namespace ttpu::ir
