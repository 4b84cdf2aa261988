#include "ttpu/nn/decoder.h"

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/nn/decoder_states.h"
#include "ttpu/nn/layer.h"
#include "ttpu/nn/pipeline.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::nn {
namespace {

// A number as the compute type rounds it.
double rounded(double value, DType dtype) {
  return dtype == DType::kBF16 ? f32_from_bf16(bf16_from_f32(static_cast<float>(value))) : value;
}

ir::Value scaled(ir::Value x, double factor) { return factor == 1 ? x : x * factor; }

// Of the rows of the vocabulary that the device has.
ir::Value own_logits(Context& context, const DecoderSpec& spec, ir::Value x) {
  if (!spec.head.name.empty()) {
    LinearSpec own = spec.head;
    own.quantizable = false;
    return linear(context, own, x, DType::kF32);
  }
  const kernels::WeightOperand table =
      context.table(spec.embedding, spec.vocab, spec.hidden, {"vocab", "embed"});
  if (const int64_t more = table.dims[1] - spec.hidden; more > 0) {
    x = ir::pad(x, ir::scalar(x.function(), x.dtype(), 0), {0, 0}, {0, more});
  }
  return kernels::linear(context.target(), x, table, std::nullopt, DType::kF32);
}

// Without the rows that make the vocabulary divide.
ir::Value real_tokens(const DecoderSpec& spec, ir::Value logits) {
  if (logits.dim(1) == spec.vocab) return logits;
  return ir::slice(logits, {0, 0}, {logits.dim(0), spec.vocab});
}

}  // namespace

ir::Value embedded(Context& context, const DecoderSpec& spec, const StepInputs& inputs) {
  ir::Value x = embedding(context, spec.embedding, spec.vocab, spec.hidden, inputs.tokens);
  x = scaled(x, rounded(spec.embedding_scale, context.compute()));
  if (spec.position_embedding.empty()) return x;
  return x + embedding(context, spec.position_embedding, spec.max_positions, spec.hidden,
                       inputs.positions, "positions");
}

ir::Value logits(Context& context, const DecoderSpec& spec, ir::Value states) {
  const ir::Value own = scaled(own_logits(context, spec, states), spec.logit_scale);
  if (!spec.logit_soft_cap) return own;
  return ir::tanh(own / *spec.logit_soft_cap) * *spec.logit_soft_cap;
}

ir::Value all_logits(const Context& context, const DecoderSpec& spec, ir::Value own) {
  const parallel::Layout& layout = context.layout();
  return real_tokens(spec, parallel::gather(own, 1, layout.mesh(), layout.division("vocab")));
}

ir::Value own_rows_of_logits(const Context& context, const DecoderSpec& spec, ir::Value own) {
  const parallel::Layout& layout = context.layout();
  return real_tokens(spec, parallel::exchange(own, 1, 0, layout.mesh(), layout.division("vocab")));
}

Dims cache_dims(const LayerSpec& layer, DType cache_dtype) {
  return std::visit([&](const auto& spec) { return cache_dims(spec, cache_dtype); },
                    layer.attention);
}

parallel::Placement cache_placement(const parallel::Layout& layout, const LayerSpec& layer) {
  return std::visit([&](const auto& spec) { return cache_placement(layout, spec); },
                    layer.attention);
}

size_t own_layers(const DecoderSpec& spec, const parallel::Layout& layout) {
  const size_t layers = spec.layers.size();
  const auto stages = static_cast<size_t>(layout.division("stages").parts);
  if (layers % stages == 0) return layers / stages;
  std::vector<size_t> possible;
  for (size_t size = 1; size <= layers; ++size) {
    if (layers % size == 0) possible.push_back(size);
  }
  fail(Code::kInvalidArgument,
       "[parallel] --pipeline-parallel-size is {}, but the model has {} layers, which must divide "
       "into stages that are alike; {} divide them",
       stages, layers, fmt::join(possible, ", "));
}

namespace {

// What the layers give for the tokens at `rows`.
ir::Value layer_states(Context& context, const DecoderSpec& spec, const StepInputs& inputs,
                       const std::vector<ir::Value>& caches, ir::Value rows, Layers layers,
                       DecoderResult& result) {
  if (!context.layout().division("stages").whole()) {
    require(layers == Layers::kUnrolled,
            "[parallel] --layers scanned is for one stage; leave it or --pipeline-parallel-size "
            "out");
    PipelineResult all =
        pipeline(context, spec.layers, embedded(context, spec, inputs), caches, inputs, rows);
    result.caches = std::move(all.caches);
    return all.states;
  }
  RotaryTables tables(inputs.positions);
  context.divide_tokens(inputs.tokens.dim(0));
  ir::Value x = embedded(context, spec, inputs);
  if (layers == Layers::kScanned) {
    const LayerResult all = scan_layers(context, spec.layers, x, caches[0], inputs, tables);
    x = all.output;
    result.caches.push_back(all.cache);
  } else {
    for (size_t i = 0; i < spec.layers.size(); ++i) {
      const LayerResult step = layer_step(context, spec.layers[i], x, caches[i], inputs, tables);
      x = step.output;
      result.caches.push_back(step.cache);
    }
  }
  return take_tokens(context, x, rows);
}

}  // namespace

DecoderResult decoder(Context& context, const DecoderSpec& spec, const StepInputs& inputs,
                      const std::vector<ir::Value>& caches, ir::Value rows, Layers layers) {
  const size_t expected = layers == Layers::kScanned ? 1 : own_layers(spec, context.layout());
  require(caches.size() == expected, "[decoder] {} caches for {} layers, expected {}",
          caches.size(), spec.layers.size(), expected);
  DecoderResult result;
  const ir::Value x = norm(context, spec.final_norm,
                           layer_states(context, spec, inputs, caches, rows, layers, result));
  result.own_logits = logits(context, spec, x);
  return result;
}

LayerResult decoder_states(Context& context, const DecoderSpec& spec, const StepInputs& inputs,
                           ir::Value cache) {
  RotaryTables tables(inputs.positions);
  context.divide_tokens(inputs.tokens.dim(0));
  LayerResult result{embedded(context, spec, inputs), cache};
  for (const LayerSpec& layer : spec.layers) {
    if (cache_dims(layer, cache.dtype()) != cache_dims(spec.layers.front(), cache.dtype())) {
      fail(Code::kUnimplemented, "[decoder] layers with caches of different dimensions");
    }
    result = layer_step(context, layer, result.output, result.cache, inputs, tables);
  }
  result.output = norm(context, spec.final_norm, result.output);
  return result;
}

}  // namespace ttpu::nn
