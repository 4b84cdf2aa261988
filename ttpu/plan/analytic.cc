#include "ttpu/plan/analytic.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include <fmt/format.h>

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

// Collectives run beside the products of so many tokens: nn::Context::divide_tokens.
bool overlaps(const Candidate& candidate, double tokens) {
  return candidate.strategy.ends_with("sequence") && candidate.tensor > 1 &&
         tokens / as_double(candidate.tensor) >= 256;
}

// How many parts the cache of a layer is divided into.
double cache_parts(const ModelFacts::Attention& layer, const Candidate& candidate) {
  if (divides_positions(candidate)) return as_double(candidate.tensor);
  return as_double(std::gcd(layer.kv_heads, layer.kv_heads == 0 ? 1 : candidate.tensor));
}

// Numbers in the cache of one sequence of `length` tokens, on a device.
double cache_width(const ModelFacts& facts, const Candidate& candidate, double length) {
  double sum = 0;
  for (const ModelFacts::Attention& layer : facts.attention) {
    const double seen = layer.window ? std::min(length, as_double(*layer.window)) : length;
    const double parts = std::max(1.0, cache_parts(layer, candidate));
    sum += as_double(layer.layers) * as_double(layer.cache_width) * seen / parts;
  }
  return sum;
}

// Bytes of weights on a device, of all of them or of those that a step reads.
double device_weights(const ModelFacts& facts, const Workload& work, const Candidate& candidate,
                      double reached) {
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
  const double linear = (facts.head_params + facts.mlp_params) / tensor +
                        (kv_weight > 0 ? facts.kv_params * kv / kv_weight : 0) +
                        facts.expert_params * reached / experts;
  return (facts.vocab_params / tensor + facts.whole_params) * work.element_bytes +
         linear * work.linear_bytes();
}

// Bytes that a device sends for the layers of a step, and the time of it.
double add_collectives(const ModelFacts& facts, const Candidate& candidate, double tokens,
                       double element_bytes, StepTime* time) {
  const auto n = as_double(candidate.tensor);
  double sent = 0;
  if (candidate.tensor > 1) {
    // Two all-reduces a layer (or as many pairs of reduce-scatter and all-gather) and the
    // embedding's.
    double count = 2 * as_double(facts.layers) + 1;
    if (divides_positions(candidate)) count += as_double(facts.layers);  // parts of the attention
    const double bytes = 2 * (n - 1) / n * tokens * as_double(facts.hidden) * element_bytes;
    sent += count * bytes;
    time->interconnect +=
        count * (bytes / candidate.slice.ici_bandwidth(candidate.tensor) + n * kHopSeconds);
  }
  if (divides_experts(candidate) && candidate.data > 1) {
    // Tokens of all replicas meet before the experts and part after them.
    const double all = as_double(candidate.tensor * candidate.data);
    const double bytes =
        2 * tokens * as_double(candidate.data - 1) * as_double(facts.hidden) * element_bytes;
    sent += as_double(facts.moe_layers) * bytes;
    time->interconnect +=
        as_double(facts.moe_layers) *
        (bytes / candidate.slice.ici_bandwidth(candidate.slice.devices()) + all * kHopSeconds);
  }
  return sent;
}

// `tokens` of a replica, which see `positions` each of `sequences` sequences' caches of `length`.
StepTime step(const ModelFacts& facts, const Workload& work, const Candidate& candidate,
              double tokens, double sequences, double seen, double* sent) {
  const Chip& chip = candidate.slice.chip;
  const double tensor = as_double(candidate.tensor);
  StepTime time;
  double pairs = 0;
  for (const ModelFacts::Attention& layer : facts.attention) {
    const double positions = layer.window ? std::min(seen, as_double(*layer.window)) : seen;
    pairs += as_double(layer.layers) * layer.pair_flops * positions;
  }
  // The head sees the last token of each sequence alone.
  const double head = as_double(facts.vocab) * as_double(facts.hidden);
  const double linear = 2 * (facts.active_params() - head - facts.whole_params) * tokens;
  Compute compute;
  compute.flops = 2 * facts.whole_params * tokens + 2 * head * sequences + pairs * tokens;
  const bool small = work.quantization && work.quantization->activations;
  double& kind = !small                                         ? compute.flops
                 : work.quantization->dtype == DType::kF8E4M3FN ? compute.fp8_flops
                                                                : compute.int8_ops;
  kind += linear;
  time.compute = compute.seconds(chip) / tensor;
  const double everyone = divides_experts(candidate) ? tokens * as_double(candidate.data) : tokens;
  const double read = device_weights(facts, work, candidate, facts.reached_experts(everyone));
  const double embedding = as_double(facts.vocab) * as_double(facts.hidden) / tensor;
  const bool tied = facts.vocab_params <= head;
  const double cache = sequences * cache_width(facts, candidate, seen);
  time.hbm = (read + (cache - (tied ? 0 : embedding)) * work.element_bytes) / chip.hbm_bandwidth;
  *sent = add_collectives(facts, candidate, tokens, work.element_bytes, &time);
  if (overlaps(candidate, tokens)) {
    const double layers = 2 * as_double(facts.layers);
    const double hidden = time.interconnect * layers / (layers + 1);  // all but the embedding's
    time.interconnect -= std::min(hidden, std::max(time.compute, time.hbm));
  }
  return time;
}

}  // namespace

int64_t Workload::chunk() const {
  return std::min(input_len, prefill_tokens > 0 ? prefill_tokens : kLongestChunk);
}

double Workload::linear_bytes() const {
  if (!quantization) return element_bytes;
  const auto bytes = [](DType dtype) { return bit_width(dtype) / 8.0; };
  // A row's scales are few beside its numbers.
  if (quantization->group == 0) return bytes(quantization->dtype);
  const double scale = bytes(quantization->scales) + (quantization->zero_points ? 2 : 0);
  return bytes(quantization->dtype) + scale / as_double(quantization->group);
}

int64_t Workload::chunks() const { return (input_len + chunk() - 1) / chunk(); }

std::string Candidate::mesh() const {
  if (tensor * data == 1) return "one device";
  if (data == 1) return fmt::format("tensor={}", tensor);
  return tensor == 1 ? fmt::format("data={}", data)
                     : fmt::format("data={}, tensor={}", data, tensor);
}

std::string StepTime::bound() const { return sorted(*this)[0].second; }
std::string StepTime::next_bound() const { return sorted(*this)[1].second; }

double usable_hbm(const Chip& chip) { return as_double(chip.hbm_bytes) * 39 / 40; }

Analytic analyse(const ModelFacts& facts, const Workload& work, const Candidate& candidate) {
  Analytic result;
  const auto batch = as_double(candidate.batch_of(work));
  const auto length = as_double(work.length());
  const auto chunk = as_double(work.chunk());
  result.parameters = facts.params();
  result.weight_bytes = device_weights(facts, work, candidate, 1);
  result.cache_bytes = batch * cache_width(facts, candidate, length) * work.element_bytes;
  result.cache_token_bytes =
      cache_width(facts, candidate, length) * work.element_bytes / std::max(1.0, length);
  // The widest activations of a prefill, and the logits.
  const double tensor = as_double(candidate.tensor);
  result.temporary_bytes =
      chunk * (4 * as_double(facts.hidden) + 3 * as_double(facts.intermediate) / tensor) *
          work.element_bytes +
      8 * batch * as_double(facts.vocab) / tensor;
  result.prefill = step(facts, work, candidate, chunk, 1, as_double(work.input_len) / 2,
                        &result.prefill_all_reduce_bytes);
  result.decode =
      step(facts, work, candidate, batch, batch, length, &result.decode_all_reduce_bytes);
  return result;
}

}  // namespace ttpu::plan
