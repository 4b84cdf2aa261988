#include "ttpu/engine/embedder.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/engine/device.h"
#include "ttpu/engine/weight_loader.h"
#include "ttpu/ir/ir.h"
#include "ttpu/models/encoders.h"
#include "ttpu/models/registry.h"
#include "ttpu/nn/decoder_states.h"

namespace ttpu::engine {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Spec = std::variant<nn::EncoderSpec, nn::DecoderSpec>;

constexpr int64_t kPageSize = 64;
constexpr int64_t kDefaultLength = 4096;

int64_t pages_for(int64_t tokens) { return (tokens + kPageSize - 1) / kPageSize; }

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Spec spec_of(const Json& config) {
  if (models::is_encoder(config)) return models::encoder_from_config(config);
  nn::DecoderSpec decoder = models::decoder_from_config(config);
  // What was saved without its head has shorter names.
  decoder.name_prefixes.emplace_back("model.", "");
  return decoder;
}

PoolingSpec default_pooling(const Spec& spec) {
  if (std::holds_alternative<nn::EncoderSpec>(spec)) return {};
  return {.pooling = Pooling::kLast, .normalize = true};
}

// The fields of the packed array of a step, in this order.
struct Offsets {
  int64_t tokens, positions, kv_lens, cu_q_lens, distribution, pages, total;
};
Offsets offsets_of(int64_t tokens, int64_t sequences, int64_t pages_per_sequence) {
  Offsets offsets{};
  offsets.positions = tokens;
  offsets.kv_lens = 2 * tokens;
  offsets.cu_q_lens = offsets.kv_lens + sequences;
  offsets.distribution = offsets.cu_q_lens + sequences + 1;
  offsets.pages = offsets.distribution + 3;
  offsets.total = offsets.pages + sequences * pages_per_sequence;
  return offsets;
}

Dims cache_dims(const Spec& spec, DType dtype) {
  if (const auto* encoder = std::get_if<nn::EncoderSpec>(&spec)) {
    return nn::cache_dims(encoder->layers.at(0).attention, dtype);
  }
  return nn::cache_dims(std::get<nn::DecoderSpec>(spec).layers.at(0), dtype);
}

// How many tokens the tokenizer puts behind every text.
size_t end_tokens_of(const TextProcessor& text) {
  if (!text.has_tokenizer()) return 0;
  const std::vector<int32_t> bare = text.tokenizer().encode("x", false);
  const std::vector<int32_t> whole = text.tokenizer().encode("x");
  const auto found = std::search(whole.begin(), whole.end(), bare.begin(), bare.end());
  if (found == whole.end() || bare.empty()) return 0;
  return static_cast<size_t>(whole.end() - found) - bare.size();
}

}  // namespace

bool is_embedding_model(const fs::path& path) {
  if (!fs::is_directory(path)) return false;
  return has_pooling(path) || models::is_encoder(read_json(path / "config.json"));
}

Embedder::Embedder(const fs::path& path, const EmbedderOptions& options, const Progress& progress)
    : files_(io::load_model_files(path)),
      text_(files_),
      spec_(spec_of(files_.config)),
      options_(options),
      pooling_(read_pooling(path, default_pooling(spec_))),
      end_tokens_(end_tokens_of(text_)),
      checkpoint_(io::Checkpoint::open(path)),
      client_(make_client(options.device)) {
  if (options.needs_tokenizer) text_.tokenizer();  // throws where there is none
  auto start = Clock::now();
  std::vector<std::pair<std::string, std::string>> prefixes;
  int64_t longest = 0;
  std::visit(
      [&](const auto& spec) {
        hidden_ = spec.hidden;
        vocab_ = spec.vocab;
        longest = spec.max_positions;
        prefixes = spec.name_prefixes;
      },
      spec_);
  if (options.max_model_len > longest) {
    fail(Code::kInvalidArgument, "[embed] --max-model-len is {}, and the model allows {}",
         options.max_model_len, longest);
  }
  max_tokens_ = options.max_model_len > 0
                    ? options.max_model_len
                    : std::min(pooling_.max_tokens.value_or(kDefaultLength), longest);
  require(max_tokens_ > 2, "[embed] texts may have {} tokens, expected more than 2", max_tokens_);
  plan_steps(std::max(options.max_num_batched_tokens, max_tokens_));

  const kernels::Target target = target_of(client_, options.custom_calls);
  const WeightLoader loader(
      *checkpoint_,
      {options.dtype, options.expand_weights, options.quantization, target.cpu_kernels()},
      prefixes);
  const nn::FormatOf format = [&](const nn::WeightDecl& decl) { return loader.format_of(decl); };
  std::vector<nn::WeightDecl> weights;
  stats_.programs = static_cast<int64_t>(steps_.size());
  kernels::without_refused(target.tpu.get(), [&] {
    for (Step& step : steps_) {
      weights.clear();
      CompiledStep compiled = compile_cached(client_, build(step, format, target, weights));
      step.executable = std::move(compiled.executable);
      stats_.compiled += compiled.from_cache ? 0 : 1;
      if (progress) progress(&step - steps_.data() + 1, stats_.programs);
    }
  });
  stats_.compile_seconds = seconds_since(start);
  start = Clock::now();
  for (const nn::WeightDecl& decl : weights) {
    weights_.push_back(
        std::move(loader.load_parts(decl, {}, client_, own_devices(client_, {}), checkpoint_)[0]));
    stats_.weight_bytes += nn::argument_shape(decl).byte_size();
  }
  cache_ = client_.zeros(cache_shape_, client_.devices().at(0));
  stats_.cache_bytes = cache_shape_.byte_size();
  stats_.load_seconds = seconds_since(start);
}

// Four times as many tokens each, up to the largest; texts of eight tokens or more fill a step.
void Embedder::plan_steps(int64_t largest) {
  for (int64_t tokens = 32; tokens < 4 * largest; tokens *= 4) {
    Step step;
    step.tokens = std::min(tokens, largest);
    step.sequences = std::max<int64_t>(1, step.tokens / 8);
    step.pages_per_sequence = pages_for(std::min(step.tokens, max_tokens_));
    steps_.push_back(std::move(step));
  }
  Dims dims = {pages_for(largest) + steps_.back().sequences, kPageSize};
  for (const int64_t dim : cache_dims(spec_, options_.dtype)) dims.push_back(dim);
  cache_shape_ = Shape(options_.dtype, dims);
}

std::string Embedder::build(const Step& step, const nn::FormatOf& format_of,
                            const kernels::Target& target,
                            std::vector<nn::WeightDecl>& weights) const {
  const Offsets offsets = offsets_of(step.tokens, step.sequences, step.pages_per_sequence);
  ir::Module module("ttpu_embed");
  ir::Function& function = module.add_function("main");
  const ir::Value packed = function.add_argument(Shape(DType::kS32, {offsets.total}), "step");
  const ir::Value scratch = function.add_argument(cache_shape_, "cache");
  function.alias(scratch, 1);
  const auto field = [&](int64_t begin, int64_t end) { return ir::slice(packed, {begin}, {end}); };
  nn::StepInputs inputs;
  inputs.tokens = field(offsets.tokens, offsets.positions);
  inputs.positions = field(offsets.positions, offsets.kv_lens);
  inputs.batch.kv_lens = field(offsets.kv_lens, offsets.cu_q_lens);
  inputs.batch.cu_q_lens = field(offsets.cu_q_lens, offsets.distribution);
  inputs.batch.distribution = field(offsets.distribution, offsets.pages);
  inputs.batch.page_indices = field(offsets.pages, offsets.total);
  nn::Context context(&function, target, options_.dtype, format_of);
  const auto* encoder = std::get_if<nn::EncoderSpec>(&spec_);
  const nn::LayerResult states =
      encoder != nullptr
          ? nn::encoder(context, *encoder, inputs, scratch)
          : nn::decoder_states(context, std::get<nn::DecoderSpec>(spec_), inputs, scratch);
  const ir::Value begins = field(offsets.cu_q_lens, offsets.cu_q_lens + step.sequences);
  const ir::Value ends = field(offsets.cu_q_lens + 1, offsets.distribution);
  const ir::Value pooled = pool(pooling_, ir::convert(states.output, DType::kF32), begins, ends);
  function.set_results({pooled, states.cache});
  weights = context.weights();
  return module.to_string();
}

void Embedder::check_dimensions(int64_t dimensions) const {
  if (dimensions == hidden_) return;
  const JsonView config(files_.config, "config.json");
  const auto offered = config.get_or<std::vector<int64_t>>("matryoshka_dimensions", {});
  if (!offered.empty()) {
    require(std::find(offered.begin(), offered.end(), dimensions) != offered.end(),
            "[embed] dimensions is {}, the model offers {}", dimensions, Json(offered).dump());
    return;
  }
  require(config.get_or("is_matryoshka", false),
          "[embed] dimensions is {}, and this model's vectors have {} that mean nothing alone",
          dimensions, hidden_);
  require(dimensions >= 1 && dimensions < hidden_, "[embed] dimensions is {}, expected 1 to {}",
          dimensions, hidden_);
}

std::vector<int32_t> Embedder::encode(const std::string& text, int64_t most) const {
  std::vector<int32_t> tokens = tokenizer().encode(text);
  truncate(tokens, most == 0 ? max_tokens_ : most);
  return tokens;
}

void Embedder::truncate(std::vector<int32_t>& tokens, int64_t most) const {
  const auto length = static_cast<size_t>(most);
  if (tokens.size() <= length) return;
  const size_t kept = std::min(end_tokens_, length);
  std::copy(tokens.end() - static_cast<std::ptrdiff_t>(kept), tokens.end(),
            tokens.begin() + static_cast<std::ptrdiff_t>(length - kept));
  tokens.resize(length);
}

void Embedder::check(std::span<const int32_t> tokens) const {
  require(!tokens.empty(), "[embed] a text has no tokens");
  if (static_cast<int64_t>(tokens.size()) > max_tokens_) {
    fail(Code::kOutOfRange, "[embed] a text has {} tokens, the model takes {}; shorten it",
         tokens.size(), max_tokens_);
  }
  for (const int32_t token : tokens) {
    require(token >= 0 && token < vocab_,
            "[embed] a text has token {}, the model's vocabulary is [0, {})", token, vocab_);
  }
}

std::vector<std::vector<float>> Embedder::embed(std::span<const std::vector<int32_t>> texts) {
  for (const std::vector<int32_t>& text : texts) check(text);
  // Long ones first, so that the short ones fill the last steps.
  std::vector<size_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return texts[a].size() > texts[b].size(); });
  std::vector<std::vector<float>> result(texts.size());
  const Step& largest = steps_.back();
  for (size_t begin = 0; begin < order.size();) {
    std::vector<const std::vector<int32_t>*> batch;
    int64_t tokens = 0;
    size_t end = begin;
    for (; end < order.size() && static_cast<int64_t>(batch.size()) < largest.sequences; ++end) {
      const auto count = static_cast<int64_t>(texts[order[end]].size());
      if (tokens + count > largest.tokens) break;
      tokens += count;
      batch.push_back(&texts[order[end]]);
    }
    std::vector<std::vector<float>> vectors(batch.size());
    run(batch, vectors);
    for (size_t i = begin; i < end; ++i) result[order[i]] = std::move(vectors[i - begin]);
    begin = end;
  }
  return result;
}

void Embedder::run(std::span<const std::vector<int32_t>* const> texts,
                   std::span<std::vector<float>> out) {
  int64_t tokens = 0;
  for (const auto* text : texts) tokens += static_cast<int64_t>(text->size());
  Step& step = *std::find_if(steps_.begin(), steps_.end(), [&](const Step& one) {
    return one.tokens >= tokens && one.sequences >= static_cast<int64_t>(texts.size());
  });
  const Offsets offsets = offsets_of(step.tokens, step.sequences, step.pages_per_sequence);
  std::vector<int32_t> packed(static_cast<size_t>(offsets.total), 0);
  const auto at = [&](int64_t offset) { return packed.data() + offset; };
  int32_t count = 0;
  int32_t page = 0;
  for (size_t s = 0; s < texts.size(); ++s) {
    const auto length = static_cast<int32_t>(texts[s]->size());
    std::copy(texts[s]->begin(), texts[s]->end(), at(offsets.tokens) + count);
    std::iota(at(offsets.positions) + count, at(offsets.positions) + count + length, 0);
    at(offsets.kv_lens)[s] = length;
    count += length;
    at(offsets.cu_q_lens)[s + 1] = count;
    int32_t* pages = at(offsets.pages) + static_cast<int64_t>(s) * step.pages_per_sequence;
    for (int64_t p = 0; p < pages_for(length); ++p) pages[p] = page++;
  }
  std::fill(at(offsets.cu_q_lens) + texts.size() + 1, at(offsets.distribution), count);
  at(offsets.distribution)[2] = static_cast<int32_t>(texts.size());

  const pjrt::Buffer input = client_.to_device(packed.data(), Shape(DType::kS32, {offsets.total}));
  std::vector<const pjrt::Buffer*> arguments = {&input, &cache_};
  for (const pjrt::Buffer& weight : weights_) arguments.push_back(&weight);
  std::vector<pjrt::Buffer> results = step.executable.execute(arguments);
  cache_ = std::move(results[1]);
  const std::vector<float> pooled = results[0].to_vector<float>();
  for (size_t s = 0; s < texts.size(); ++s) {
    const auto begin = pooled.begin() + static_cast<std::ptrdiff_t>(s) * hidden_;
    out[s].assign(begin, begin + hidden_);
  }
}

}  // namespace ttpu::engine
