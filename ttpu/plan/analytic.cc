#include "ttpu/plan/analytic.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "ttpu/kernels/ragged_paged_attention/ragged_paged_attention.h"
#include "ttpu/nn/weights.h"

namespace ttpu::plan {
namespace {

constexpr int64_t kLongestChunk = 2048;

double as_double(int64_t value) { return static_cast<double>(value); }

std::array<std::pair<double, const char*>, 3> sorted(const StepTime& time) {
  std::array<std::pair<double, const char*>, 3> parts = {
      {{time.compute, "compute"}, {time.hbm, "HBM"}, {time.interconnect, "interconnect"}}};
  std::sort(parts.begin(), parts.end(), [](auto& a, auto& b) { return a.first > b.first; });
  return parts;
}

bool divides_experts(const Candidate& candidate) {
  return candidate.strategy.starts_with("expert");
}
bool divides_positions(const Candidate& candidate) {
  return candidate.strategy.ends_with("context");
}

// Devices have the attention's projections of all heads.
bool has_all_projections(const Candidate& candidate) {
  return candidate.strategy.ends_with("ulysses");
}

// Collectives run beside the products of so many tokens: nn::Context::divide_tokens.
bool overlaps(const Candidate& candidate, double tokens) {
  return (candidate.strategy.ends_with("sequence") || has_all_projections(candidate)) &&
         candidate.tensor > 1 && tokens / as_double(candidate.tensor) >= nn::kLeastTokensOnTpu;
}

// Tokens are divided in the projections too, and each device multiplies its own for all heads.
bool exchanges_heads(const Candidate& candidate, double tokens) {
  return has_all_projections(candidate) && overlaps(candidate, tokens);
}

// How many parts the cache of a layer is divided into.
double cache_parts(const ModelFacts::Attention& layer, const Candidate& candidate) {
  if (divides_positions(candidate)) return as_double(candidate.tensor);
  return as_double(std::gcd(layer.kv_heads, layer.kv_heads == 0 ? 1 : candidate.tensor));
}

// Bytes that a token takes in the cache of one layer.
double token_bytes(const ModelFacts::Attention& layer, const Workload& work) {
  if (!work.cache_dtype) return as_double(layer.cache_width) * work.element_bytes;
  // A key and a value of each KV head, or the latent.
  const int64_t rows = layer.kv_heads == 0 ? 1 : 2 * layer.kv_heads;
  const int64_t row = kernels::cache_elements(*work.cache_dtype, layer.cache_width / rows);
  return as_double(rows * row) * bit_width(*work.cache_dtype) / 8;
}

// Bytes of the cache of one sequence of `length` tokens, on a device.
double sequence_bytes(const ModelFacts& facts, const Workload& work, const Candidate& candidate,
                      double length) {
  double sum = 0;
  for (const ModelFacts::Attention& layer : facts.attention) {
    const double seen = layer.window ? std::min(length, as_double(*layer.window)) : length;
    const double parts = std::max(1.0, cache_parts(layer, candidate)) * as_double(candidate.stages);
    sum += as_double(layer.layers) * token_bytes(layer, work) * seen / parts;
  }
  return sum;
}

// Bytes of weights of layers on a device, of all experts or of those that a step reads, and of so
// many devices' parts of the attention's projections.
double layer_weights(const ModelFacts& facts, const Workload& work, const Candidate& candidate,
                     double reached, double projections) {
  const double tensor = as_double(candidate.tensor);
  double kv = 0;
  double kv_weight = 0;
  for (const ModelFacts::Attention& layer : facts.attention) {
    if (layer.kv_heads == 0) continue;
    const double share = as_double(layer.layers) * as_double(layer.cache_width);
    kv += share / as_double(std::gcd(layer.kv_heads, candidate.tensor));
    kv_weight += share;
  }
  const double experts = divides_experts(candidate) ? tensor * as_double(candidate.data) : tensor;
  const double attention =
      facts.head_params / tensor + (kv_weight > 0 ? facts.kv_params * kv / kv_weight : 0);
  const double linear = attention * projections + facts.mlp_params / tensor;
  return (facts.whole_params * work.element_bytes + linear * work.linear_bytes() +
          facts.expert_params * reached / experts * work.expert_bytes()) /
         as_double(candidate.stages);
}

// Seconds of an all-reduce, as a ring, and what it sends.
double all_reduce(const Candidate& candidate, int64_t devices, double bytes, double* sent) {
  if (devices == 1) return 0;
  const double n = as_double(devices);
  *sent += 2 * (n - 1) / n * bytes;
  return 2 * (n - 1) / n * bytes / candidate.slice.ici_bandwidth(devices) + n * kHopSeconds;
}

// Seconds of the all-to-alls in which heads of a device's own tokens become its own heads of all
// tokens, and back; a quarter of a ring is the mean way.
double exchange(const ModelFacts& facts, const Candidate& candidate, double tokens,
                double element_bytes, double* sent) {
  double widths = 0;  // of queries, keys, values and outputs, in all layers
  for (const ModelFacts::Attention& layer : facts.attention) {
    const double heads = layer.pair_flops / 2;  // of queries and outputs
    widths += as_double(layer.layers) * (heads + as_double(layer.cache_width));
  }
  const double stages = as_double(candidate.stages);
  const double n = as_double(candidate.tensor);
  const double own = tokens / n * widths / stages * element_bytes;
  const double moved = own * (n - 1) / n;
  *sent += moved;
  return moved * std::max(1.0, n / 4) / candidate.slice.ici_bandwidth(candidate.tensor) +
         2 * as_double(facts.layers) / stages * n * kHopSeconds;
}

// Seconds of the collectives of a round.
struct RoundCollectives {
  double layers = 0;   // around dense products, which may hide them
  double experts = 0;  // around experts: tokens are brought together, and nothing runs meanwhile
};

// Of a round in which each stage's layers compute `tokens`.
RoundCollectives round_collectives(const ModelFacts& facts, const Candidate& candidate,
                                   double tokens, double element_bytes, double* sent) {
  const double stages = as_double(candidate.stages);
  const double layers = as_double(facts.layers) / stages;
  const double moe = as_double(facts.moe_layers) / stages;
  const double bytes = tokens * as_double(facts.hidden) * element_bytes;
  RoundCollectives seconds;
  double each = 0;
  const bool exchanges = exchanges_heads(candidate, tokens);
  // Two all-reduces a layer (or as many pairs of reduce-scatter and all-gather), and one of the
  // parts of the attention.
  const double count = (divides_positions(candidate) ? 3 : exchanges ? 1 : 2) * layers;
  const double reduced = all_reduce(candidate, candidate.tensor, bytes, &each);
  seconds.layers = (count - moe) * reduced;
  seconds.experts = moe * reduced;
  *sent += count * each;
  if (exchanges) seconds.layers += exchange(facts, candidate, tokens, element_bytes, sent);
  if (divides_experts(candidate) && candidate.data > 1) {
    // Tokens of all replicas meet before the experts and part after them.
    const double all = as_double(candidate.tensor * candidate.data);
    const double moved = 2 * bytes * as_double(candidate.data - 1);
    *sent += moe * moved;
    seconds.experts += moe * (moved / candidate.slice.ici_bandwidth(candidate.slice.devices()) +
                              all * kHopSeconds);
  }
  if (candidate.stages > 1) {  // to the next stage
    const double own = overlaps(candidate, tokens) ? bytes / as_double(candidate.tensor) : bytes;
    *sent += own;
    seconds.layers += own / candidate.slice.link_bandwidth() + kHopSeconds;
  }
  return seconds;
}

// `tokens` of a replica, of `sequences` sequences that have `seen` positions each.
StepTime step(const ModelFacts& facts, const Workload& work, const Candidate& candidate,
              int64_t tokens, double sequences, double seen, double* sent) {
  const Chip& chip = candidate.slice.chip;
  const double tensor = as_double(candidate.tensor);
  const double stages = as_double(candidate.stages);
  // All stages work in all rounds; on what nobody reads where they have no microbatch.
  const double microbatches = as_double(candidate.microbatches(tokens));
  const double rounds = microbatches + stages - 1;
  const double part = as_double(tokens) / microbatches;
  StepTime time;
  double pairs = 0;
  for (const ModelFacts::Attention& layer : facts.attention) {
    const double positions = layer.window ? std::min(seen, as_double(*layer.window)) : seen;
    pairs += as_double(layer.layers) * layer.pair_flops * positions;
  }
  // The head sees the last token of each sequence alone.
  const double head = as_double(facts.vocab) * as_double(facts.hidden);
  const double through = rounds * part;  // tokens that a stage's layers compute
  const double linear = 2 * (facts.active_params() - head - facts.whole_params) * through;
  Compute compute;
  compute.flops =
      2 * facts.whole_params * through + 2 * head * sequences + pairs * as_double(tokens);
  const bool small = work.quantization && work.quantization->activations;
  double& kind = !small                                         ? compute.flops
                 : work.quantization->dtype == DType::kF8E4M3FN ? compute.fp8_flops
                                                                : compute.int8_ops;
  kind += linear;
  time.compute = compute.seconds(chip) / (tensor * stages);
  const double everyone = divides_experts(candidate) ? part * as_double(candidate.data) : part;
  const double projections = exchanges_heads(candidate, part) ? tensor : 1;
  const double layers =
      layer_weights(facts, work, candidate, facts.reached_experts(everyone), projections);
  // A microbatch reads the caches of its own sequences.
  const double cache = microbatches * std::max(1.0, sequences / microbatches) *
                       sequence_bytes(facts, work, candidate, seen);
  time.hbm = (rounds * layers + cache + head / (tensor * stages) * work.element_bytes) /
             chip.hbm_bandwidth;
  RoundCollectives waits = round_collectives(facts, candidate, part, work.element_bytes, sent);
  *sent *= rounds;
  if (overlaps(candidate, part)) {
    waits.layers -= std::min(waits.layers, std::max(time.compute, time.hbm) / rounds);
  }
  time.interconnect = rounds * (waits.layers + waits.experts);
  // The embedding's.
  time.interconnect +=
      all_reduce(candidate, candidate.replica_devices(),
                 as_double(tokens) * as_double(facts.hidden) * work.element_bytes, sent);
  return time;
}

}  // namespace

int64_t Workload::chunk() const {
  return std::min(input_len, prefill_tokens > 0 ? prefill_tokens : kLongestChunk);
}

double Workload::linear_bytes() const {
  const bool experts_alone = quantization && quantization->dtype == DType::kF4E2M1FN;
  return experts_alone ? element_bytes : expert_bytes();
}

double Workload::expert_bytes() const {
  if (!quantization) return element_bytes;
  const auto bytes = [](DType dtype) { return bit_width(dtype) / 8.0; };
  // A row's scales are few beside its numbers.
  if (quantization->group == 0) return bytes(quantization->dtype);
  const double scale = bytes(quantization->scales) + (quantization->zero_points ? 2 : 0);
  return bytes(quantization->dtype) + scale / as_double(quantization->group * quantization->rows);
}

int64_t Workload::chunks() const { return (input_len + chunk() - 1) / chunk(); }

int64_t Candidate::microbatches(int64_t tokens) const {
  return tokens % stages == 0 && tokens / stages >= nn::kLeastTokensOnTpu ? stages : 1;
}

std::string Candidate::mesh() const {
  std::vector<std::string> axes;
  if (data > 1) axes.push_back(fmt::format("data={}", data));
  if (stages > 1) axes.push_back(fmt::format("pipe={}", stages));
  if (tensor > 1) axes.push_back(fmt::format("tensor={}", tensor));
  return axes.empty() ? "one device" : fmt::format("{}", fmt::join(axes, ", "));
}

std::string StepTime::bound() const { return sorted(*this)[0].second; }
std::string StepTime::next_bound() const { return sorted(*this)[1].second; }

double usable_hbm(const Chip& chip) { return as_double(chip.hbm_bytes) * 39 / 40; }

double weight_bytes(const ModelFacts& facts, const Workload& work, const Candidate& candidate) {
  const double projections = has_all_projections(candidate) ? as_double(candidate.tensor) : 1;
  return layer_weights(facts, work, candidate, 1, projections) +
         facts.vocab_params / as_double(candidate.replica_devices()) * work.element_bytes;
}

Analytic analyse(const ModelFacts& facts, const Workload& work, const Candidate& candidate) {
  Analytic result;
  const int64_t batch = candidate.batch_of(work);
  const auto length = as_double(work.length());
  const auto chunk = as_double(work.chunk());
  const double tensor = as_double(candidate.tensor);
  const double vocab_parts = as_double(candidate.replica_devices());
  result.parameters = facts.params();
  result.weight_bytes = weight_bytes(facts, work, candidate);
  const double sequence = sequence_bytes(facts, work, candidate, length);
  result.cache_bytes = as_double(batch) * sequence;
  result.cache_token_bytes = sequence / std::max(1.0, length);
  // The widest activations of a prefill, and the logits.
  result.temporary_bytes =
      chunk * (4 * as_double(facts.hidden) + 3 * as_double(facts.intermediate) / tensor) *
          work.element_bytes +
      8 * as_double(batch) * as_double(facts.vocab) / vocab_parts;
  result.prefill = step(facts, work, candidate, work.chunk(), 1, as_double(work.input_len) / 2,
                        &result.prefill_all_reduce_bytes);
  result.decode = step(facts, work, candidate, batch, as_double(batch), length,
                       &result.decode_all_reduce_bytes);
  return result;
}

}  // namespace ttpu::plan
