#include "ttpu/parallel/strategy.h"

#include <fmt/ranges.h>

#include "ttpu/base/error.h"

namespace ttpu::parallel {
namespace {

using Rules = std::map<std::string, std::vector<std::string>>;

// Megatron's tensor parallelism (arXiv:1909.08053), on each stage of each replica of the model.
Rules tensor_rules() {
  return {{"batch", {kDataAxis}},
          {"stages", {kPipeAxis}},
          {"vocab", {kPipeAxis, kTensorAxis}},
          {"heads", {kTensorAxis}},
          {"kv_heads", {kTensorAxis}},
          {"mlp", {kTensorAxis}},
          {"expert_mlp", {kTensorAxis}}};
}

// Whole experts on different devices, those of all replicas together.
Rules expert_rules() {
  Rules rules = tensor_rules();
  rules.erase("expert_mlp");
  rules["experts"] = {kDataAxis, kTensorAxis};
  return rules;
}

Rules with(Rules rules, const std::string& logical_axis) {
  rules[logical_axis] = {kTensorAxis};
  return rules;
}

Rules ulysses(const Rules& rules) { return with(with(rules, "tokens"), "projected_tokens"); }

}  // namespace

const std::vector<Strategy>& strategies() {
  static const std::vector<Strategy> kStrategies = {
      {"tensor", "every matrix divided; KV heads that are too few are replicated", tensor_rules()},
      {"sequence",
       "tensor; in long prefills norms and residual sums are divided by tokens, and what is sent "
       "travels beside the products",
       with(tensor_rules(), "tokens")},
      {"ulysses",
       "sequence, and every device has the attention's projections of all heads: it multiplies its "
       "own tokens, and less is sent",
       ulysses(tensor_rules())},
      {"context", "tensor, and the cache of KV heads that are too few divided by positions",
       with(tensor_rules(), "context")},
      {"expert", "tensor, but experts stay whole and are spread over all devices", expert_rules()},
      {"expert_sequence", "expert and sequence", with(expert_rules(), "tokens")},
      {"expert_ulysses", "expert and ulysses", ulysses(expert_rules())},
      {"expert_context", "expert and context", with(expert_rules(), "context")},
  };
  return kStrategies;
}

const Strategy& find_strategy(const std::string& name) {
  std::vector<std::string> names;
  for (const Strategy& strategy : strategies()) {
    if (strategy.name == name) return strategy;
    names.push_back(strategy.name);
  }
  fail(Code::kInvalidArgument, "[parallel] there is no strategy '{}'; known are auto, {}", name,
       fmt::join(names, ", "));
}

Division Layout::division(const std::string& logical_axis) const {
  return division(logical_axis, 0);
}

Division Layout::division(const std::string& logical_axis, int64_t units) const {
  Division division;
  const auto rule = strategy_.rules.find(logical_axis);
  if (rule == strategy_.rules.end()) return division;
  for (const std::string& axis : rule->second) {
    for (const Mesh::Factor& factor : mesh_.factors()) {
      if (factor.axis != axis) continue;
      if (units % (division.parts * factor.size) != 0) return division;
      division.factors.push_back(factor.name);
      division.parts *= factor.size;
    }
  }
  return division;
}

}  // namespace ttpu::parallel
