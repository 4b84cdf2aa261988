// The loop over layers. Whether layers are alike is decided by what they compute: each is built
// into a program of its own, and these must read the same.
#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/ir/module.h"
#include "ttpu/nn/layer.h"

namespace ttpu::nn {
namespace {

struct Trace {
  std::string program;
  std::vector<WeightDecl> weights;  // in the order in which the layer asks for them
};

// The layer alone. Names of weights stand only in the declarations.
Trace trace(const Context& context, const LayerSpec& layer, ir::Value x, ir::Value cache,
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

bool alike(const Trace& a, const Trace& b) {
  const auto same = [](const WeightDecl& one, const WeightDecl& other) {
    return one.dims == other.dims && one.transposed == other.transposed &&
           one.row_stride == other.row_stride && one.row_offset == other.row_offset &&
           one.names.size() == other.names.size();
  };
  return a.program == b.program && std::ranges::equal(a.weights, b.weights, same);
}

// The shortest run of layers that all others repeat.
size_t period_of(const std::vector<Trace>& traces) {
  const size_t count = traces.size();
  size_t different = 0;
  for (size_t period = 1; period < count; ++period) {
    if (count % period != 0) continue;
    size_t i = period;
    while (i < count && alike(traces[i], traces[i - period])) ++i;
    if (i == count) return period;
    if (period == 1) different = i;
  }
  if (count > 1) {
    fail(Code::kUnimplemented,
         "[decoder] layer {} differs from those before it, and the {} layers repeat in no pattern; "
         "they cannot be scanned: unroll them",
         different, count);
  }
  return 1;
}

// The declarations of one weight of layers `position`, `position` + `period`, ... as one.
WeightDecl stack(const std::vector<Trace>& traces, size_t period, size_t position,
                 const WeightDecl& decl) {
  const std::vector<WeightDecl>& own = traces[position].weights;
  const auto found = std::ranges::find_if(own, [&](const WeightDecl& known) {
    return known.names == decl.names && known.row_offset == decl.row_offset;
  });
  const auto index = static_cast<size_t>(found - own.begin());
  WeightDecl all = decl;
  all.names.clear();
  for (size_t i = position; i < traces.size(); i += period) {
    const std::vector<std::string>& names = traces[i].weights.at(index).names;
    all.names.insert(all.names.end(), names.begin(), names.end());
  }
  all.dims.insert(all.dims.begin(), static_cast<int64_t>(traces.size() / period));
  all.axes.insert(all.axes.begin(), "layers");
  if (!all.units.empty()) all.units.insert(all.units.begin(), 0);
  return all;
}

}  // namespace

LayerResult scan_layers(Context& context, const std::vector<LayerSpec>& layers, ir::Value x,
                        ir::Value cache, const StepInputs& inputs, RotaryTables& tables) {
  const auto count = static_cast<int64_t>(layers.size());
  require(count > 0 && cache.dim(0) % count == 0,
          "[decoder] a cache of {} pages does not hold {} layers", cache.dim(0), count);
  const int64_t pages = cache.dim(0) / count;
  std::vector<Trace> traces;
  for (const LayerSpec& layer : layers) traces.push_back(trace(context, layer, x, cache, inputs));
  const size_t period = period_of(traces);
  for (size_t j = 0; j < period; ++j) {  // made once, before the loop
    if (const auto* mla = std::get_if<MlaSpec>(&layers[j].attention)) tables.get(mla->rope);
    const auto* attention = std::get_if<AttentionSpec>(&layers[j].attention);
    if (attention != nullptr && attention->rope) tables.get(*attention->rope);
  }
  const ir::Value zero = ir::scalar_like(inputs.tokens, 0);
  const size_t turns = layers.size() / period;
  const auto more = [&](const ir::Values& v) {
    return ir::compare(v[0], ir::scalar_like(v[0], static_cast<double>(turns)),
                       ir::ComparisonDirection::kLt);
  };
  const auto turn = [&](const ir::Values& v) -> ir::Values {
    LayerResult result{v[1], v[2]};
    for (size_t j = 0; j < period; ++j) {
      context.enter({v[0], [&traces, period, j](const WeightDecl& decl) {
                       return stack(traces, period, j, decl);
                     }});
      StepInputs own = inputs;
      const ir::Value layer = v[0] * static_cast<double>(period) + static_cast<double>(j);
      const auto of_layer = [&](ir::Value table) {
        return table + ir::broadcast_in_dim(layer * static_cast<double>(pages), table.dims(), {});
      };
      own.batch.page_indices = of_layer(inputs.batch.page_indices);
      for (auto& [window, table] : own.window_pages) table = of_layer(table);
      result = layer_step(context, layers[j], result.output, result.cache, own, tables);
    }
    context.leave();
    return {v[0] + 1.0, result.output, result.cache};
  };
  const ir::Values end = ir::while_loop({zero, x, cache}, more, turn);
  return {end[1], end[2]};
}

}  // namespace ttpu::nn
