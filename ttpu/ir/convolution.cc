#include "ttpu/ir/convolution.h"

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

// The places of batch, features and spatial dimensions are a permutation of [0, rank).
void check_layout(const OpContext& op, const Shape& shape, int64_t first, int64_t second,
                  const Dims& spatial, const char* what) {
  Dims all = spatial;
  all.push_back(first);
  all.push_back(second);
  check(static_cast<int>(all.size()) == shape.rank(), op, "{} {} with {} spatial dimensions", what,
        shape.to_string(), spatial.size());
  check_dims(op, all, shape.rank(), what);
}

int64_t at(const Shape& shape, int64_t dim) { return shape.dims[static_cast<size_t>(dim)]; }

void check_groups(const OpContext& op, const ConvolutionDimensionNumbers& d) {
  const Shape& lhs = op.shape(0);
  const Shape& rhs = op.shape(1);
  const auto feature_groups = op.attributes.get<int64_t>("feature_group_count");
  const auto batch_groups = op.attributes.get<int64_t>("batch_group_count");
  check(feature_groups > 0 && batch_groups > 0 && (feature_groups == 1 || batch_groups == 1), op,
        "{} feature groups and {} batch groups; both positive, one of them 1", feature_groups,
        batch_groups);
  check(at(lhs, d.input_feature) == at(rhs, d.kernel_input_feature) * feature_groups, op,
        "{} input features of {}, but the kernel {} takes {} in each of {} groups",
        at(lhs, d.input_feature), lhs.to_string(), rhs.to_string(), at(rhs, d.kernel_input_feature),
        feature_groups);
  check(at(rhs, d.kernel_output_feature) % (feature_groups * batch_groups) == 0, op,
        "{} output features do not divide into {} groups", at(rhs, d.kernel_output_feature),
        feature_groups * batch_groups);
  check(at(lhs, d.input_batch) % batch_groups == 0, op, "batch {} does not divide into {} groups",
        at(lhs, d.input_batch), batch_groups);
}

}  // namespace

std::vector<Shape> infer_convolution(const OpContext& op) {
  const Shape& lhs = op.shape(0);
  const Shape& rhs = op.shape(1);
  const Attributes& a = op.attributes;
  const auto& d = a.get<ConvolutionDimensionNumbers>("dimension_numbers");
  check(lhs.dtype == rhs.dtype && lhs.rank() == rhs.rank(), op,
        "lhs {} and rhs {}: element types and number of dimensions must be equal", lhs.to_string(),
        rhs.to_string());
  check_layout(op, lhs, d.input_batch, d.input_feature, d.input_spatial, "input");
  check_layout(op, rhs, d.kernel_input_feature, d.kernel_output_feature, d.kernel_spatial,
               "kernel");
  check_layout(op, lhs, d.output_batch, d.output_feature, d.output_spatial, "output");
  check_groups(op, d);
  const auto& strides = a.get<Dims>("window_strides");
  const auto& padding = a.get<IntMatrix>("padding").rows;
  const auto& lhs_dilation = a.get<Dims>("lhs_dilation");
  const auto& rhs_dilation = a.get<Dims>("rhs_dilation");
  const size_t spatial = d.input_spatial.size();
  check(strides.size() == spatial && padding.size() == spatial && lhs_dilation.size() == spatial &&
            rhs_dilation.size() == spatial &&
            a.get<std::vector<bool>>("window_reversal").size() == spatial,
        op, "strides, padding, dilations and reversal need {} entries, one a spatial dimension",
        spatial);
  Dims dims(lhs.dims.size());
  dims[static_cast<size_t>(d.output_batch)] =
      at(lhs, d.input_batch) / a.get<int64_t>("batch_group_count");
  dims[static_cast<size_t>(d.output_feature)] = at(rhs, d.kernel_output_feature);
  for (size_t i = 0; i < spatial; ++i) {
    const WindowDim window{at(rhs, d.kernel_spatial[i]),
                           strides[i],
                           padding[i].at(0),
                           padding[i].at(1),
                           lhs_dilation[i],
                           rhs_dilation[i]};
    dims[static_cast<size_t>(d.output_spatial[i])] =
        window_output_size(op, at(lhs, d.input_spatial[i]), window);
  }
  return {Shape(lhs.dtype, dims)};
}

Value convolution(Value lhs, Value rhs, ConvolutionDimensionNumbers dims,
                  const ConvolutionOptions& options) {
  const size_t spatial = dims.input_spatial.size();
  const auto or_ones = [&](const Dims& given) { return given.empty() ? Dims(spatial, 1) : given; };
  IntMatrix padding{2, {}};
  for (const auto& [low, high] : options.padding) padding.rows.push_back({low, high});
  if (options.padding.empty()) padding.rows.assign(spatial, Dims{0, 0});
  Attributes attributes{
      {"window_strides", or_ones(options.window_strides)},
      {"padding", padding},
      {"lhs_dilation", or_ones(options.lhs_dilation)},
      {"rhs_dilation", or_ones(options.rhs_dilation)},
      {"window_reversal", options.window_reversal.empty() ? std::vector<bool>(spatial, false)
                                                          : options.window_reversal},
      {"dimension_numbers", std::move(dims)},
      {"feature_group_count", options.feature_group_count},
      {"batch_group_count", options.batch_group_count}};
  if (options.precision != Precision::kDefault) {
    attributes.set("precision_config",
                   std::vector<Precision>{options.precision, options.precision});
  }
  return lhs.function().append(OpKind::kConvolution, {lhs, rhs}, std::move(attributes)).result();
}

}  // namespace ttpu::ir
