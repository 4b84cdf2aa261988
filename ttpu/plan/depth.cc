#include "ttpu/plan/depth.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "ttpu/plan/chips.h"

namespace ttpu::plan {
namespace {

constexpr int64_t kLongestPattern = 12;
constexpr int64_t kLongestStart = 4;  // layers before the pattern: dense ones before experts

// What makes a difference to the cost of a layer.
std::string kind_of(const nn::LayerSpec& layer) {
  std::string kind = std::visit(
      [](const auto& spec) {
        if constexpr (std::is_same_v<std::decay_t<decltype(spec)>, nn::MlaSpec>) {
          return fmt::format("mla {}", spec.heads);
        } else {
          return fmt::format("attention {} {} {} window {} rope {}", spec.heads, spec.kv_heads,
                             spec.head_dim, spec.sliding_window.value_or(0), spec.rope.has_value());
        }
      },
      layer.attention);
  std::visit(
      [&kind](const auto& spec) {
        if constexpr (std::is_same_v<std::decay_t<decltype(spec)>, nn::MoeSpec>) {
          kind += fmt::format(" moe {} {} {}", spec.experts, spec.top_k, spec.intermediate);
        } else {
          kind += fmt::format(" mlp {}", spec.intermediate);
        }
      },
      layer.mlp);
  return kind;
}

std::vector<std::string> kinds_of(const nn::DecoderSpec& spec) {
  std::vector<std::string> kinds;
  for (const nn::LayerSpec& layer : spec.layers) kinds.push_back(kind_of(layer));
  return kinds;
}

// Whether from `start` on each layer is like the one `period` before it.
bool repeats(const std::vector<std::string>& kinds, int64_t start, int64_t period) {
  for (auto i = static_cast<size_t>(start + period); i < kinds.size(); ++i) {
    if (kinds[i] != kinds[i - static_cast<size_t>(period)]) return false;
  }
  return true;
}

// From a straight line through the two.
Json on_line(const Json& first, const Json& second, double at) {
  if (first.is_object() && second.is_object()) {
    Json all = second;
    for (auto& [key, value] : all.items()) {
      if (first.contains(key)) value = on_line(first.at(key), value, at);
    }
    return all;
  }
  if (!first.is_number() || !second.is_number()) return second;
  const double value = first.get<double>() + at * (second.get<double>() - first.get<double>());
  if (second.is_number_float()) return value;
  return static_cast<int64_t>(std::llround(value));
}

// Entries of a list that `alike` holds to be of one kind; those of the second that the first lacks
// count from nothing.
template <typename Cost, typename Alike, typename Join>
std::vector<Cost> lists_on_line(const std::vector<Cost>& first, const std::vector<Cost>& second,
                                const Alike& alike, const Join& join) {
  std::vector<Cost> all = second;
  for (Cost& entry : all) {
    const auto known = std::find_if(first.begin(), first.end(),
                                    [&](const Cost& one) { return alike(one, entry); });
    join(known == first.end() ? Cost{} : *known, &entry);
  }
  return all;
}

double each(const CollectiveCost& cost) { return cost.count > 0 ? cost.bytes / cost.count : 0; }

}  // namespace

std::optional<Depths> depths_of(const nn::DecoderSpec& spec, int64_t stages) {
  const std::vector<std::string> kinds = kinds_of(spec);
  const auto layers = static_cast<int64_t>(kinds.size());
  for (int64_t period = 1; period <= kLongestPattern; ++period) {
    for (int64_t start = 0; start <= kLongestStart; ++start) {
      if (!repeats(kinds, start, period)) continue;
      // Stages of fewer layers are alike too where they have whole turns.
      if (stages > 1 && (start > 0 || layers / stages % period != 0)) return std::nullopt;
      // The first and the last layer join what stands around them: at least one between them.
      const int64_t first = start + std::max<int64_t>(period, 2);
      const Depths depths{layers, stages * first, stages * (first + period)};
      return depths.second < layers ? std::optional(depths) : std::nullopt;
    }
  }
  return std::nullopt;
}

std::vector<int64_t> stages_of(const nn::DecoderSpec& spec) {
  const std::vector<std::string> kinds = kinds_of(spec);
  const auto layers = static_cast<int64_t>(kinds.size());
  std::vector<int64_t> stages;
  for (int64_t count = 2; count <= layers; ++count) {
    if (layers % count == 0 && repeats(kinds, 0, layers / count)) stages.push_back(count);
  }
  return stages;
}

ProgramReport at_depth(const ProgramReport& first, const ProgramReport& second,
                       const Depths& depths) {
  const double at = static_cast<double>(depths.layers - depths.first) /
                    static_cast<double>(depths.second - depths.first);
  const auto go_on = [at](double one, double* other) { *other = one + at * (*other - one); };
  ProgramReport all = report_from_json(on_line(to_json(first), to_json(second), at));
  ScheduleCost& cost = all.schedule;
  cost.collectives = lists_on_line(
      first.schedule.collectives, second.schedule.collectives,
      [](const CollectiveCost& a, const CollectiveCost& b) {
        return a.opcode == b.opcode && a.group == b.group && each(a) == each(b);
      },
      [&](const CollectiveCost& one, CollectiveCost* other) {
        go_on(one.count, &other->count);
        go_on(one.bytes, &other->bytes);
        go_on(one.sent_bytes, &other->sent_bytes);
        go_on(one.seconds, &other->seconds);
        go_on(one.exposed_seconds, &other->exposed_seconds);
      });
  cost.kernels = lists_on_line(
      first.schedule.kernels, second.schedule.kernels,
      [](const KernelCost& a, const KernelCost& b) { return a.name == b.name; },
      [&](const KernelCost& one, KernelCost* other) {
        go_on(one.count, &other->count);
        go_on(one.bytes, &other->bytes);
        go_on(one.flops, &other->flops);
        go_on(one.seconds, &other->seconds);
      });
  find_limit(&cost);
  const Chip& chip = chip_of_topology(all.topology);
  all.estimate = estimate_step(chip, all.compute(), all.moved_bytes(), all.ici_bytes);
  all.tokens_per_second = static_cast<double>(all.tokens) / all.estimate.seconds;
  all.compile_seconds = first.compile_seconds + second.compile_seconds;
  all.layers = fmt::format("{}, from programs of {} and {} layers", second.layers, depths.first,
                           depths.second);
  return all;
}

}  // namespace ttpu::plan
