#include "ttpu/nn/layer_trace.h"

#include <algorithm>

#include "ttpu/ir/module.h"
#include "ttpu/nn/layer.h"

namespace ttpu::nn {

LayerTrace trace_layer(const Context& context, const LayerSpec& layer, ir::Value x, ir::Value cache,
                       const StepInputs& inputs) {
  ir::Module module("layer");
  ir::Function& function = module.add_function("layer");
  const auto copy = [&](ir::Value value) { return function.add_argument(value.shape()); };
  StepInputs own;
  own.tokens = copy(inputs.tokens);
  own.positions = copy(inputs.positions);
  own.batch.kv_lens = copy(inputs.batch.kv_lens);
  own.batch.page_indices = copy(inputs.batch.page_indices);
  own.batch.cu_q_lens = copy(inputs.batch.cu_q_lens);
  own.batch.distribution = copy(inputs.batch.distribution);
  const ir::Value own_x = copy(x);
  const ir::Value own_cache = copy(cache);
  Context scratch = context.sibling(&function);
  RotaryTables tables(own.positions);
  const LayerResult result = layer_step(scratch, layer, own_x, own_cache, own, tables);
  function.set_results({result.output, result.cache});
  return {module.to_string(), scratch.weights()};
}

bool alike(const LayerTrace& a, const LayerTrace& b) {
  const auto same = [](const WeightDecl& one, const WeightDecl& other) {
    return one.dims == other.dims && one.transposed == other.transposed &&
           one.row_stride == other.row_stride && one.row_offset == other.row_offset &&
           one.places == other.places && one.names.size() == other.names.size();
  };
  return a.program == b.program && std::ranges::equal(a.weights, b.weights, same);
}

std::vector<std::string> names_in_all(const std::vector<LayerTrace>& traces, size_t first,
                                      size_t period, const WeightDecl& decl) {
  const std::vector<WeightDecl>& own = traces[first].weights;
  const auto found =
      std::ranges::find_if(own, [&](const WeightDecl& known) { return same_weight(known, decl); });
  const auto index = static_cast<size_t>(found - own.begin());
  std::vector<std::string> all;
  for (size_t i = first; i < traces.size(); i += period) {
    const std::vector<std::string>& names = traces[i].weights.at(index).names;
    all.insert(all.end(), names.begin(), names.end());
  }
  return all;
}

}  // namespace ttpu::nn
