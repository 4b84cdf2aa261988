#include "ttpu/grad/rules.h"
#include "ttpu/ir/infer.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {

using ir::Value;

// Rows that were taken more than once get the sum, in f32 at least. Indices out of bounds, which
// gather moves inside, get nothing.
void reverse_gather(const Reverse& reverse) {
  reverse.give(0, [&] {
    const auto& dims = reverse.attribute<ir::GatherDimensionNumbers>("dimension_numbers");
    const Value operand = reverse.operand(0);
    const DType wide = bit_width(operand.dtype()) < 32 ? DType::kF32 : operand.dtype();
    const Value zero = ir::full(operand.function(), Shape(wide, operand.dims()), 0);
    const Value sum = ir::scatter(
        {zero}, reverse.operand(1), {ir::convert(reverse.cotangent(), wide)},
        {dims.offset_dims, dims.collapsed_slice_dims, dims.operand_batching_dims,
         dims.start_indices_batching_dims, dims.start_index_map, dims.index_vector_dim},
        [](const ir::Values& v) { return ir::Values{v[0] + v[1]}; },
        reverse.attribute<bool>("indices_are_sorted"))[0];
    return ir::convert(sum, operand.dtype());
  });
}

void reverse_scatter(const Reverse& reverse) {
  const ir::Operation& operation = reverse.operation();
  if (operation.results.size() != 1 || !combines_by(operation, ir::OpKind::kAdd)) {
    reverse.refuse("has a gradient where it adds to one operand");
  }
  const Value ct = reverse.cotangent();
  reverse.give(0, [&] { return ct; });
  reverse.give(2, [&] {
    const auto& dims = reverse.attribute<ir::ScatterDimensionNumbers>("scatter_dimension_numbers");
    const Value updates = reverse.operand(2);
    Dims sizes;
    size_t window = 0;
    for (int64_t i = 0; i < ct.rank(); ++i) {
      const bool dropped =
          ir::contains(dims.inserted_window_dims, i) || ir::contains(dims.input_batching_dims, i);
      sizes.push_back(
          dropped ? 1 : updates.dims()[static_cast<size_t>(dims.update_window_dims[window++])]);
    }
    return ir::gather(ct, reverse.operand(1),
                      {dims.update_window_dims, dims.inserted_window_dims, dims.input_batching_dims,
                       dims.scatter_indices_batching_dims, dims.scatter_dims_to_operand_dims,
                       dims.index_vector_dim},
                      sizes);
  });
}

}  // namespace ttpu::grad
