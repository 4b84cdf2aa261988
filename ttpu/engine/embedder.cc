#include "ttpu/engine/embedder.h"

#include <algorithm>
#include <numeric>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/engine/device.h"
#include "ttpu/engine/weight_loader.h"
#include "ttpu/ir/ir.h"
#include "ttpu/models/encoders.h"

namespace ttpu::engine {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPageSize = 64;
constexpr int64_t kBudget = 512;  // tokens of the largest step, or the longest text

int64_t pages_for(int64_t tokens) { return (tokens + kPageSize - 1) / kPageSize; }

Json read_optional(const fs::path& file) {
  return fs::exists(file) ? read_json(file) : Json::object();
}

Pooling read_pooling(const fs::path& folder) {
  const Json json = read_optional(folder / "1_Pooling" / "config.json");
  const JsonView config(json, "1_Pooling/config.json");
  const bool cls = config.get_or<bool>("pooling_mode_cls_token", false);
  const bool mean = config.get_or<bool>("pooling_mode_mean_tokens", !cls);
  for (const auto& [field, value] : json.items()) {
    const bool known = field == "pooling_mode_cls_token" || field == "pooling_mode_mean_tokens";
    if (known || field.rfind("pooling_mode_", 0) != 0 || !value.is_boolean()) continue;
    require(!value.get<bool>(), "[embed] '{}' asks for {}; mean and CLS pooling are supported",
            (folder / "1_Pooling/config.json").string(), field);
  }
  require(cls != mean, "[embed] '{}' asks for {} pooling; give one of mean and CLS",
          (folder / "1_Pooling/config.json").string(), cls ? "two kinds of" : "no");
  return cls ? Pooling::kCls : Pooling::kMean;
}

bool read_normalize(const fs::path& folder) {
  if (!fs::exists(folder / "modules.json")) return false;
  for (const Json& module : read_json(folder / "modules.json")) {
    const std::string type = JsonView(module, "modules.json").get_or<std::string>("type", "");
    if (type.size() >= 9 && type.compare(type.size() - 9, 9, "Normalize") == 0) return true;
  }
  return false;
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

// [tokens, hidden] to [sequences, hidden]: the mean of each sequence's rows.
ir::Value mean_rows(ir::Value hidden, ir::Value begins, ir::Value ends) {
  const Dims dims = {begins.dim(0), hidden.dim(0)};
  const ir::Value index = ir::iota(hidden.function(), Shape(DType::kS32, dims), 1);
  const auto rows = [&](ir::Value v) { return ir::broadcast_in_dim(v, dims, {0}); };
  const ir::Value inside = ir::and_(ir::compare(index, rows(begins), ir::ComparisonDirection::kGe),
                                    ir::compare(index, rows(ends), ir::ComparisonDirection::kLt));
  const ir::Value sums = ir::dot_general(ir::convert(inside, DType::kF32), hidden,
                                         {.lhs_contracting = {1}, .rhs_contracting = {0}});
  const ir::Value one = ir::full(hidden.function(), begins.shape(), 1);
  const ir::Value counts = ir::convert(ir::maximum(ends - begins, one), DType::kF32);
  return sums / ir::expand_dims(counts, 1);
}

ir::Value unit_rows(ir::Value x) {
  const ir::Value squares = x * x;
  const ir::Value zero = ir::scalar(x.function(), DType::kF32, 0);
  const ir::Value sums = ir::reduce({squares}, {zero}, {1}, [](const ir::Values& v) {
    return ir::Values{ir::add(v[0], v[1])};
  })[0];
  const ir::Value norms = ir::sqrt(sums);
  const ir::Value least = ir::full(x.function(), norms.shape(), 1e-12);
  return x / ir::expand_dims(ir::maximum(norms, least), 1);
}

}  // namespace

Embedder::Embedder(const fs::path& path, const EmbedderOptions& options)
    : files_(io::load_model_files(path)),
      text_(files_),
      spec_(models::encoder_from_config(files_.config)),
      options_(options),
      pooling_(read_pooling(path)),
      normalize_(read_normalize(path)),
      checkpoint_(io::Checkpoint::open(path)),
      client_(make_client(options.device)) {
  const Json limits = read_optional(path / "sentence_bert_config.json");
  max_tokens_ =
      std::min(spec_.max_positions, JsonView(limits, "sentence_bert_config.json")
                                        .get_or<int64_t>("max_seq_length", spec_.max_positions));
  require(max_tokens_ > 2, "[embed] texts may have {} tokens, expected more than 2", max_tokens_);
  const WeightLoader loader(*checkpoint_, options.dtype, false, spec_.name_prefixes);
  const nn::FormatOf format = [&](const nn::WeightDecl& decl) { return loader.format_of(decl); };
  const kernels::Target target = target_of(client_, options.custom_calls);
  std::vector<nn::WeightDecl> weights;
  const int64_t largest = std::max(kBudget, max_tokens_);
  for (int64_t tokens = 32; tokens < 4 * largest; tokens *= 4) {
    Step step;
    step.tokens = std::min(tokens, largest);
    step.sequences = std::max<int64_t>(1, step.tokens / 8);
    step.pages_per_sequence = pages_for(std::min(step.tokens, max_tokens_));
    weights.clear();
    Shape cache;
    const std::string text = build(step, format, target, weights, cache);
    step.executable = std::move(compile_cached(client_, text).executable);
    step.cache = client_.zeros(cache, client_.devices().at(0));
    steps_.push_back(std::move(step));
  }
  for (const nn::WeightDecl& decl : weights) {
    weights_.push_back(loader.load(decl, client_, checkpoint_));
  }
}

std::string Embedder::build(Step& step, const nn::FormatOf& format_of,
                            const kernels::Target& target, std::vector<nn::WeightDecl>& weights,
                            Shape& cache) const {
  const Offsets offsets = offsets_of(step.tokens, step.sequences, step.pages_per_sequence);
  ir::Module module("ttpu_embed");
  ir::Function& function = module.add_function("main");
  const ir::Value packed = function.add_argument(Shape(DType::kS32, {offsets.total}), "step");
  Dims dims = {pages_for(step.tokens) + step.sequences, kPageSize};
  for (const int64_t dim : nn::cache_dims(spec_.layers.at(0).attention, options_.dtype))
    dims.push_back(dim);
  cache = Shape(options_.dtype, dims);
  const ir::Value scratch = function.add_argument(cache, "cache");
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
  const nn::LayerResult encoded = nn::encoder(context, spec_, inputs, scratch);
  const ir::Value hidden = ir::convert(encoded.output, DType::kF32);
  const ir::Value begins = field(offsets.cu_q_lens, offsets.cu_q_lens + step.sequences);
  const ir::Value ends = field(offsets.cu_q_lens + 1, offsets.distribution);
  ir::Value pooled;
  if (pooling_ == Pooling::kMean) {
    pooled = mean_rows(hidden, begins, ends);
  } else {
    const ir::Value last = ir::full(function, begins.shape(), static_cast<double>(step.tokens - 1));
    pooled = ir::take(hidden, ir::minimum(begins, last), 0);  // padding begins behind the end
  }
  function.set_results({normalize_ ? unit_rows(pooled) : pooled, encoded.cache});
  weights = context.weights();
  return module.to_string();
}

std::vector<int32_t> Embedder::encode(const std::string& text) const {
  std::vector<int32_t> tokens = tokenizer().encode(text);
  const auto most = static_cast<size_t>(max_tokens_);
  if (tokens.size() <= most) return tokens;
  const int32_t end = tokens.back();  // the separator stays
  tokens.resize(most);
  tokens.back() = end;
  return tokens;
}

std::vector<std::vector<float>> Embedder::embed(std::span<const std::vector<int32_t>> texts) {
  for (const std::vector<int32_t>& text : texts) {
    require(!text.empty(), "[embed] a text has no tokens");
    if (static_cast<int64_t>(text.size()) > max_tokens_) {
      fail(Code::kOutOfRange, "[embed] a text has {} tokens, the model takes {}; shorten it",
           text.size(), max_tokens_);
    }
    for (const int32_t token : text) {
      require(token >= 0 && token < spec_.vocab,
              "[embed] a text has token {}, the model's vocabulary is [0, {})", token, spec_.vocab);
    }
  }
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
  std::vector<const pjrt::Buffer*> arguments = {&input, &step.cache};
  for (const pjrt::Buffer& weight : weights_) arguments.push_back(&weight);
  std::vector<pjrt::Buffer> results = step.executable.execute(arguments);
  step.cache = std::move(results[1]);
  const std::vector<float> pooled = results[0].to_vector<float>();
  for (size_t s = 0; s < texts.size(); ++s) {
    const auto begin = pooled.begin() + static_cast<std::ptrdiff_t>(s) * spec_.hidden;
    out[s].assign(begin, begin + spec_.hidden);
  }
}

}  // namespace ttpu::engine
