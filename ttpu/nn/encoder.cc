#include "ttpu/nn/encoder.h"

#include "ttpu/ir/ir.h"

namespace ttpu::nn {

LayerResult encoder(Context& context, const EncoderSpec& spec, const StepInputs& inputs,
                    ir::Value cache) {
  const auto embed = [&](const std::string& name, int64_t rows, ir::Value indices) {
    return embedding(context, name, rows, spec.hidden, indices);
  };
  ir::Value x = embed(spec.embedding, spec.vocab, inputs.tokens);
  x = x + embed(spec.position_embedding, spec.max_positions + spec.position_offset,
                inputs.positions + static_cast<double>(spec.position_offset));
  if (!spec.type_embedding.empty()) {
    const ir::Value first = ir::full(context.function(), inputs.tokens.shape(), 0);
    x = x + embed(spec.type_embedding, spec.types, first);
  }
  x = norm(context, spec.embedding_norm, x);
  RotaryTables tables(inputs.positions);
  for (const EncoderLayerSpec& layer : spec.layers) {
    const LayerResult attended = attention(context, layer.attention, x, cache, inputs, tables);
    cache = attended.cache;
    x = norm(context, layer.attention_norm, x + attended.output);
    x = norm(context, layer.mlp_norm, x + mlp(context, layer.mlp, x));
  }
  return {x, cache};
}

}  // namespace ttpu::nn
