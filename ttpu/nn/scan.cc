// The loop over layers.
#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/nn/layer.h"
#include "ttpu/nn/layer_trace.h"

namespace ttpu::nn {
namespace {

// The shortest run of layers that all others repeat.
size_t period_of(const std::vector<LayerTrace>& traces) {
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
WeightDecl stack(const std::vector<LayerTrace>& traces, size_t period, size_t position,
                 const WeightDecl& decl) {
  WeightDecl all = decl;
  all.names = names_in_all(traces, position, period, decl);
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
  std::vector<LayerTrace> traces;
  for (const LayerSpec& layer : layers) {
    traces.push_back(trace_layer(context, layer, x, cache, inputs));
  }
  const size_t period = period_of(traces);
  for (size_t j = 0; j < period; ++j) {  // made once, before the loop
    if (const auto* mla = std::get_if<MlaSpec>(&layers[j].attention)) tables.get(mla->rope);
    const auto* attention = std::get_if<AttentionSpec>(&layers[j].attention);
    if (attention != nullptr && attention->rope) tables.get(*attention->rope);
  }
  const auto turn = [&](ir::Value index, const ir::Values& v) -> ir::Values {
    LayerResult result{v[0], v[1]};
    for (size_t j = 0; j < period; ++j) {
      context.enter({index, [&traces, period, j](const WeightDecl& decl) {
                       return stack(traces, period, j, decl);
                     }});
      StepInputs own = inputs;
      const ir::Value layer = index * static_cast<double>(period) + static_cast<double>(j);
      const auto of_layer = [&](ir::Value table) {
        return table + ir::broadcast_in_dim(layer * static_cast<double>(pages), table.dims(), {});
      };
      own.batch.page_indices = of_layer(inputs.batch.page_indices);
      for (auto& [window, table] : own.window_pages) table = of_layer(table);
      result = layer_step(context, layers[j], result.output, result.cache, own, tables);
    }
    context.leave();
    return {result.output, result.cache};
  };
  const auto turns = static_cast<int64_t>(layers.size() / period);
  const ir::Values end = ir::repeat(turns, {x, cache}, turn);
  return {end[0], end[1]};
}

}  // namespace ttpu::nn
