#include "ttpu/engine/step_program.h"

namespace ttpu::engine {

StepProgram build_step_program(const nn::DecoderSpec& spec, const StepShape& shape,
                               const kernels::Target& target, DType compute, DType cache_dtype,
                               const nn::FormatOf& format_of) {
  StepProgram program;
  program.module = std::make_unique<ir::Module>("ttpu_step");
  ir::Function& function = program.module->add_function("main");
  const auto i32 = [](Dims dims) { return Shape(DType::kS32, std::move(dims)); };
  program.inputs = {i32({shape.tokens}),        i32({shape.tokens}),
                    i32({shape.sequences}),     i32({shape.sequences * shape.pages_per_sequence}),
                    i32({shape.sequences + 1}), i32({3}),
                    i32({shape.rows})};
  static constexpr const char* kNames[] = {"tokens",    "positions",    "kv_lens", "page_indices",
                                           "cu_q_lens", "distribution", "rows"};
  std::vector<ir::Value> inputs;
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    inputs.push_back(function.add_argument(program.inputs[i], kNames[i]));
  }
  std::vector<ir::Value> caches;
  const bool scanned = shape.layers == nn::Layers::kScanned;
  const auto layers = static_cast<int64_t>(spec.layers.size());
  for (int64_t i = 0; i < (scanned ? 1 : layers); ++i) {
    Dims dims = {scanned ? layers * shape.pages : shape.pages, shape.page_size};
    const nn::LayerSpec& layer = spec.layers[static_cast<size_t>(i)];
    for (const int64_t dim : nn::cache_dims(layer, cache_dtype)) dims.push_back(dim);
    program.caches.emplace_back(cache_dtype, dims);
    caches.push_back(function.add_argument(program.caches.back(),
                                           fmt::format("cache.{}", program.caches.size() - 1)));
    function.alias(caches.back(), static_cast<int>(program.caches.size()));
  }
  nn::Context context(&function, target, compute, format_of);
  nn::StepInputs step;
  step.tokens = inputs[kTokens];
  step.positions = inputs[kPositions];
  step.batch.kv_lens = inputs[kKvLens];
  step.batch.page_indices = inputs[kPageIndices];
  step.batch.cu_q_lens = inputs[kCuQLens];
  step.batch.distribution = inputs[kDistribution];
  const nn::DecoderResult result =
      nn::decoder(context, spec, step, caches, inputs[kRows], shape.layers);
  ir::Values results = {result.logits};
  results.insert(results.end(), result.caches.begin(), result.caches.end());
  function.set_results(results);
  program.weights = context.weights();
  return program;
}

}  // namespace ttpu::engine
