#include "ttpu/engine/engine_program.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/engine/cache_shape.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/sampling/sampling.h"
#include "ttpu/parallel/collectives.h"
#include "ttpu/parallel/spmd.h"

namespace ttpu::engine {
namespace {

size_t group_of(const std::vector<std::optional<int64_t>>& windows, const nn::LayerSpec& layer) {
  const auto found = std::find(windows.begin(), windows.end(), window_of(layer));
  return static_cast<size_t>(found - windows.begin());
}

constexpr auto index_of(auto value) { return static_cast<size_t>(value); }

// The fields of the packed array as values.
class Fields {
 public:
  Fields(ir::Value packed, const StepLayout& layout) : packed_(packed), layout_(layout) {}
  ir::Value ints(StepField field) const {
    const int64_t begin = layout_.offset(field);
    return ir::slice(packed_, {begin}, {begin + layout_.size(field)});
  }
  ir::Value floats(StepField field) const { return ir::bitcast_convert(ints(field), DType::kF32); }
  ir::Value words(StepField field) const { return ir::bitcast_convert(ints(field), DType::kU32); }

 private:
  ir::Value packed_;
  const StepLayout& layout_;
};

// Tokens below zero stand for what was sampled in a slot.
ir::Value resolve_tokens(ir::Value tokens, ir::Value last_tokens) {
  const ir::Value zero = ir::full_like(tokens, 0);
  const ir::Value sampled = ir::compare(tokens, zero, ir::ComparisonDirection::kLt);
  const ir::Value slots = ir::select(sampled, -tokens - 1.0, zero);
  return ir::select(sampled, ir::take(last_tokens, slots, 0), tokens);
}

// last_tokens[slots[i]] = tokens[i]; slots outside are skipped.
ir::Value keep_tokens(ir::Value last_tokens, ir::Value slots, ir::Value tokens) {
  // A negative index must not be read as one from the end: it is moved behind it.
  const ir::Value outside = ir::full_like(slots, static_cast<double>(last_tokens.dim(0)));
  const ir::Value valid = ir::compare(slots, 0, ir::ComparisonDirection::kGe);
  const ir::ScatterDimensionNumbers dims{
      .inserted_window_dims = {0}, .scatter_dims_to_operand_dims = {0}, .index_vector_dim = 1};
  const ir::Value indices = ir::expand_dims(ir::select(valid, slots, outside), 1);
  return ir::scatter({last_tokens}, indices, {tokens}, dims,
                     [](const ir::Values& v) { return ir::Values{v[1]}; })[0];
}

nn::StepInputs step_inputs(const Fields& fields, const EngineShape& shape, const Bucket& bucket,
                           const std::vector<std::optional<int64_t>>& windows,
                           ir::Value last_tokens) {
  nn::StepInputs inputs;
  inputs.tokens = resolve_tokens(fields.ints(StepField::kTokens), last_tokens);
  inputs.positions = fields.ints(StepField::kPositions);
  inputs.batch.kv_lens = fields.ints(StepField::kKvLens);
  inputs.batch.cu_q_lens = fields.ints(StepField::kCuQLens);
  inputs.batch.distribution = fields.ints(StepField::kDistribution);
  const ir::Value pages = fields.ints(StepField::kPages);
  const int64_t size = bucket.sequences * shape.blocks_per_sequence;
  for (size_t g = 0; g < windows.size(); ++g) {
    const auto begin = static_cast<int64_t>(g) * size;
    const ir::Value table = ir::slice(pages, {begin}, {begin + size});
    if (g == 0) inputs.batch.page_indices = table;
    if (windows[g]) inputs.window_pages.emplace_back(*windows[g], table);
    if (!windows[g]) inputs.batch.page_indices = table;
  }
  return inputs;
}

struct Logprobs {
  ir::Value chosen, top_tokens, top;
};

// The rows of logits are divided among the devices that have parts of the vocabulary: each samples
// for its own rows, and the tokens are brought together. Where they do not divide each samples all.
class RowParts {
 public:
  RowParts(const parallel::Layout& layout, int64_t rows) : mesh_(layout.mesh()) {
    const parallel::Division vocab = layout.division("vocab");
    if (rows % vocab.parts == 0) division_ = vocab;
  }

  bool whole() const { return division_.whole(); }
  ir::Value own(ir::Value x) const { return parallel::own_part(x, 0, mesh_, division_); }
  ir::Value all(ir::Value x) const { return parallel::gather(x, 0, mesh_, division_); }

 private:
  const parallel::Mesh& mesh_;
  parallel::Division division_;
};

// Computed only in the steps that want them. Logits: of the device's own rows; tokens: of all.
Logprobs logprobs(const Fields& fields, const EngineShape& shape, const kernels::Target& target,
                  const RowParts& parts, ir::Value logits, ir::Value sampled) {
  const ir::Value targets = fields.ints(StepField::kRowTargets);
  const ir::Value tokens = parts.own(
      ir::select(ir::compare(targets, 0, ir::ComparisonDirection::kLt), sampled, targets));
  const ir::Value flag = ir::reshape(fields.ints(StepField::kLogprobs), {});
  const ir::Value wanted = ir::compare(flag, 0, ir::ComparisonDirection::kNe);
  const int64_t rows = logits.dim(0);
  ir::Function& function = logits.function();
  const ir::Values results = ir::if_(
      wanted,
      [&] {
        const kernels::LogprobsResult result =
            kernels::token_logprobs(target, logits, tokens, shape.top_logprobs);
        return ir::Values{result.logprobs, *result.top_tokens, *result.top_logprobs};
      },
      [&] {
        return ir::Values{ir::full(function, Shape(DType::kF32, {rows}), 0),
                          ir::full(function, Shape(DType::kS32, {rows, shape.top_logprobs}), 0),
                          ir::full(function, Shape(DType::kF32, {rows, shape.top_logprobs}), 0)};
      });
  return {parts.all(results[0]), parts.all(results[1]), parts.all(results[2])};
}

struct Sampled {
  ir::Value tokens, counts;  // of all rows
};

// Logits: of the device's own rows.
Sampled sample(const Fields& fields, const kernels::Target& target, const RowParts& parts,
               ir::Value logits, const ir::Values& arguments) {
  kernels::SamplingInputs inputs;
  inputs.logits = logits;
  inputs.temperature = parts.own(fields.floats(StepField::kTemperature));
  inputs.top_k = parts.own(fields.ints(StepField::kTopK));
  inputs.top_p = parts.own(fields.floats(StepField::kTopP));
  inputs.min_p = parts.own(fields.floats(StepField::kMinP));
  const ir::Value position = fields.words(StepField::kSamplePosition);
  inputs.seeds = parts.own(ir::reshape(fields.words(StepField::kSeeds), {position.dim(0), 2}));
  inputs.position = parts.own(position);
  const ir::Value slots = fields.ints(StepField::kHistorySlots);
  const ir::Value counts = arguments[index_of(EngineArgument::kCounts)];
  inputs.history = kernels::TokenHistory{counts, parts.own(slots),
                                         parts.own(fields.floats(StepField::kRepetition)),
                                         parts.own(fields.floats(StepField::kFrequency)),
                                         parts.own(fields.floats(StepField::kPresence))};
  inputs.bias = kernels::LogitBias{parts.own(arguments[index_of(EngineArgument::kBiasTokens)]),
                                   parts.own(arguments[index_of(EngineArgument::kBiasValues)])};
  inputs.allowed = parts.own(arguments[index_of(EngineArgument::kAllowed)]);
  const kernels::SamplingResult result = kernels::sample(target, inputs);
  if (parts.whole()) return {result.tokens, *result.counts};
  const ir::Value tokens = parts.all(result.tokens);
  return {tokens, kernels::count_tokens(counts, slots, tokens)};
}

// What a device has, and how that is a part of the whole.
struct Caches {
  std::vector<Shape> shapes;
  std::vector<parallel::Placement> placements;
};

Caches caches_of(const nn::DecoderSpec& spec, const EngineShape& shape,
                 const std::vector<std::optional<int64_t>>& windows, const parallel::Layout& layout,
                 kernels::Platform platform) {
  Caches caches;
  const auto add = [&](const nn::LayerSpec& layer, int64_t blocks) {
    CacheShape made =
        cache_shape(layer, blocks, shape.block_size, shape.cache_dtype, layout, platform);
    caches.shapes.emplace_back(shape.cache_dtype, std::move(made.dims));
    caches.placements.push_back(std::move(made.placement));
  };
  if (shape.layers == nn::Layers::kScanned) {
    const int64_t blocks = shape.group_blocks.at(0);
    for (const int64_t other : shape.group_blocks) {
      require(other == blocks, "[engine] layers that are scanned have caches of {} and {} blocks",
              blocks, other);
    }
    add(spec.layers.at(0), static_cast<int64_t>(spec.layers.size()) * blocks);
    return caches;
  }
  for (size_t i = 0; i < nn::own_layers(spec, layout); ++i) {
    add(spec.layers[i], shape.group_blocks[group_of(windows, spec.layers[i])]);
  }
  return caches;
}

// Makes `device` the program: as it is, or on every device of the mesh.
void finish_program(ir::Module& module, ir::Function& device, const parallel::Layout& layout,
                    const std::vector<parallel::SpmdValue>& arguments,
                    const std::vector<parallel::SpmdValue>& results) {
  if (!layout.one_device()) {
    return parallel::add_spmd_main(module, layout.mesh(), device, arguments, results);
  }
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].aliases_result) {
      device.alias(device.arguments()[i], *arguments[i].aliases_result);
    }
  }
}

// The first dimension divided among replicas.
parallel::Placement by_replicas(const parallel::Layout& layout) {
  return {layout.division("batch")};
}

const char* device_function(const parallel::Layout& layout) {
  return layout.one_device() ? "main" : "device";
}

}  // namespace

std::optional<int64_t> window_of(const nn::LayerSpec& layer) {
  const auto* attention = std::get_if<nn::AttentionSpec>(&layer.attention);
  return attention == nullptr ? std::nullopt : attention->sliding_window;
}

std::vector<std::optional<int64_t>> kv_windows(const nn::DecoderSpec& spec) {
  std::vector<std::optional<int64_t>> windows;
  for (const nn::LayerSpec& layer : spec.layers) {
    if (group_of(windows, layer) == windows.size()) windows.push_back(window_of(layer));
  }
  return windows;
}

StepLayout::StepLayout(const EngineShape& shape, const Bucket& bucket) {
  const auto groups = static_cast<int64_t>(shape.group_blocks.size());
  const auto size = [&](StepField field) -> int64_t {
    switch (field) {
      case StepField::kTokens:
      case StepField::kPositions:
        return bucket.tokens;
      case StepField::kKvLens:
        return bucket.sequences;
      case StepField::kCuQLens:
        return bucket.sequences + 1;
      case StepField::kDistribution:
        return 3;
      case StepField::kPages:
        return groups * bucket.sequences * shape.blocks_per_sequence;
      case StepField::kSeeds:
        return 2 * bucket.rows;
      case StepField::kLogprobs:
        return 1;
      default:
        return bucket.rows;
    }
  };
  offsets_.push_back(0);
  for (int field = 0; field < static_cast<int>(StepField::kNumFields); ++field) {
    offsets_.push_back(offsets_.back() + size(static_cast<StepField>(field)));
  }
}

std::unique_ptr<ir::Module> build_history_program(int64_t slots, int64_t vocab,
                                                  const parallel::Layout& layout) {
  auto module = std::make_unique<ir::Module>("ttpu_set_history");
  ir::Function& function = module->add_function(device_function(layout));
  const ir::Value counts = function.add_argument(Shape(DType::kU16, {slots, vocab}), "counts");
  const ir::Value given = function.add_argument(Shape(DType::kS32, {1}), "slot");
  const ir::Value row = function.add_argument(Shape(DType::kU16, {1, vocab}), "row");
  const ir::Value slot = ir::reshape(given, {});
  const ir::Value zero = ir::scalar_like(slot, 0);
  const ir::Value set = ir::compare(slot, zero, ir::ComparisonDirection::kGe);
  const ir::Value old = ir::dynamic_slice(counts, {slot, zero}, row.dims());
  const ir::Value fresh = ir::select(ir::broadcast_to(set, row.dims()), row, old);
  function.set_results({ir::dynamic_update_slice(counts, fresh, {slot, zero})});
  const parallel::Placement placement = by_replicas(layout);
  finish_program(*module, function, layout, {{placement, 0}, {placement}, {placement}},
                 {{placement}});
  return module;
}

Shape copies_shape(const EngineShape& shape) {
  return Shape(DType::kS32, {shape.slots * static_cast<int64_t>(shape.group_blocks.size()), 3});
}

std::unique_ptr<ir::Module> build_copy_program(const nn::DecoderSpec& spec,
                                               const EngineShape& shape,
                                               const parallel::Layout& layout,
                                               kernels::Platform platform) {
  const std::vector<std::optional<int64_t>> windows = kv_windows(spec);
  const Caches caches = caches_of(spec, shape, windows, layout, platform);
  auto module = std::make_unique<ir::Module>("ttpu_copy_blocks");
  ir::Function& function = module->add_function(device_function(layout));
  std::vector<parallel::SpmdValue> described;
  std::vector<parallel::SpmdValue> results_described;
  ir::Values state = {ir::scalar(function, DType::kS32, 0)};
  for (size_t i = 0; i < caches.shapes.size(); ++i) {
    state.push_back(function.add_argument(caches.shapes[i], fmt::format("cache.{}", i)));
    described.push_back({caches.placements[i], static_cast<int>(i)});
    results_described.push_back({caches.placements[i]});
  }
  const ir::Value copies = function.add_argument(copies_shape(shape), "copies");
  const ir::Value count = ir::reshape(function.add_argument(Shape(DType::kS32, {1}), "count"), {});
  described.resize(described.size() + 2, {by_replicas(layout)});
  const auto more = [&](const ir::Values& v) {
    return ir::compare(v[0], count, ir::ComparisonDirection::kLt);
  };
  const auto step = [&](const ir::Values& v) {
    const ir::Value zero = ir::scalar_like(v[0], 0);
    const ir::Value copy = ir::dynamic_slice(copies, {v[0], zero}, {1, 3});
    const auto field = [&](int64_t i) {
      return ir::reshape(ir::slice(copy, {0, i}, {1, i + 1}), {});
    };
    ir::Values next = {v[0] + 1.0};
    next.insert(next.end(), v.begin() + 1, v.end());
    for (size_t layer = 0; layer < nn::own_layers(spec, layout); ++layer) {
      const size_t group = group_of(windows, spec.layers[layer]);
      // Other groups copy their first block onto itself.
      const ir::Value here =
          ir::compare(field(0), ir::scalar_like(zero, static_cast<double>(group)),
                      ir::ComparisonDirection::kEq);
      const bool scanned = shape.layers == nn::Layers::kScanned;
      ir::Value& cache = next[scanned ? 1 : layer + 1];
      const auto first = static_cast<double>(
          scanned ? static_cast<int64_t>(layer) * shape.group_blocks[group] : 0);
      ir::Values from(static_cast<size_t>(cache.rank()), zero);
      ir::Values to = from;
      from[0] = ir::select(here, field(1), zero) + first;
      to[0] = ir::select(here, field(2), zero) + first;
      Dims block = cache.dims();
      block[0] = 1;
      cache = ir::dynamic_update_slice(cache, ir::dynamic_slice(cache, from, block), to);
    }
    return next;
  };
  ir::Values results = ir::while_loop(state, more, step);
  results.erase(results.begin());
  function.set_results(results);
  finish_program(*module, function, layout, described, results_described);
  return module;
}

int64_t EngineProgram::weight_bytes() const {
  int64_t bytes = 0;
  for (const nn::WeightDecl& decl : weights) bytes += nn::argument_shape(decl).byte_size();
  return bytes;
}

EngineProgram build_engine_program(const nn::DecoderSpec& spec, const EngineShape& shape,
                                   const Bucket& bucket, const kernels::Target& target,
                                   DType compute, const nn::FormatOf& format_of,
                                   const parallel::Layout& layout) {
  const std::vector<std::optional<int64_t>> windows = kv_windows(spec);
  require(windows.size() == shape.group_blocks.size(), "[engine] {} groups of layers, sizes for {}",
          windows.size(), shape.group_blocks.size());
  const StepLayout fields_layout(shape, bucket);
  EngineProgram program;
  program.module = std::make_unique<ir::Module>("ttpu_engine_step");
  ir::Function& function = program.module->add_function(device_function(layout));
  program.device = &function;
  program.arguments = {Shape(DType::kS32, {fields_layout.total()}),
                       Shape(DType::kU32, {bucket.rows, (spec.vocab + 31) / 32}),
                       Shape(DType::kS32, {bucket.rows, shape.biases}),
                       Shape(DType::kF32, {bucket.rows, shape.biases}),
                       Shape(DType::kS32, {shape.slots}),
                       Shape(DType::kU16, {shape.slots, spec.vocab})};
  static constexpr const char* kNames[] = {"step",        "allowed",     "bias_tokens",
                                           "bias_values", "last_tokens", "counts"};
  const parallel::Placement replicas = by_replicas(layout);
  std::vector<parallel::SpmdValue> described(program.arguments.size(), {replicas});
  std::vector<parallel::SpmdValue> results_described(index_of(EngineResult::kNumResults),
                                                     {replicas});
  ir::Values arguments;
  for (size_t i = 0; i < program.arguments.size(); ++i) {
    arguments.push_back(function.add_argument(program.arguments[i], kNames[i]));
  }
  described[index_of(EngineArgument::kLastTokens)].aliases_result =
      static_cast<int>(EngineResult::kLastTokens);
  described[index_of(EngineArgument::kCounts)].aliases_result =
      static_cast<int>(EngineResult::kCounts);
  const Caches described_caches = caches_of(spec, shape, windows, layout, target.platform);
  program.caches = described_caches.shapes;
  std::vector<ir::Value> caches;
  for (size_t i = 0; i < program.caches.size(); ++i) {
    caches.push_back(function.add_argument(program.caches[i], fmt::format("cache.{}", i)));
    described.push_back(
        {described_caches.placements[i], static_cast<int>(results_described.size())});
    results_described.push_back({described_caches.placements[i]});
  }
  results_described.push_back({replicas});  // logits

  const Fields fields(arguments[index_of(EngineArgument::kStep)], fields_layout);
  const ir::Value last_tokens = arguments[index_of(EngineArgument::kLastTokens)];
  nn::Context context(&function, target, compute, format_of, layout);
  const nn::DecoderResult decoded =
      nn::decoder(context, spec, step_inputs(fields, shape, bucket, windows, last_tokens), caches,
                  fields.ints(StepField::kRows), shape.layers);
  const RowParts parts(layout, bucket.rows);
  const ir::Value logits = parts.whole()
                               ? nn::all_logits(context, spec, decoded.own_logits)
                               : nn::own_rows_of_logits(context, spec, decoded.own_logits);
  const Sampled sampled = sample(fields, target, parts, logits, arguments);
  const Logprobs log = logprobs(fields, shape, target, parts, logits, sampled.tokens);
  ir::Values results = {sampled.tokens,
                        log.chosen,
                        log.top_tokens,
                        log.top,
                        keep_tokens(last_tokens, fields.ints(StepField::kRowSlots), sampled.tokens),
                        sampled.counts};
  results.insert(results.end(), decoded.caches.begin(), decoded.caches.end());
  if (shape.logits) results.push_back(nn::all_logits(context, spec, decoded.own_logits));
  function.set_results(results);
  program.weights = context.weights();
  for (const nn::WeightDecl& decl : program.weights) {
    described.push_back({nn::argument_placement(decl, layout.mesh())});
  }
  finish_program(*program.module, function, layout, described, results_described);
  return program;
}

}  // namespace ttpu::engine
