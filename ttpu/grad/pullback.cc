#include "ttpu/grad/pullback.h"

#include <algorithm>
#include <unordered_set>

#include "ttpu/base/error.h"
#include "ttpu/grad/copy.h"
#include "ttpu/grad/tape.h"
#include "ttpu/ir/infer.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {
namespace {

using ir::Value;

// The body of `source` in `target`, the calls in it followed; what was computed goes to `tape`.
ir::Values record(const ir::Function& source, const ir::Values& arguments, ir::Function& target,
                  std::vector<Step>* tape);

// The same of a call.
ir::Values record_call(const ir::Function& callee, const ir::Values& arguments,
                       ir::Function& target, std::vector<Step>* tape) {
  if (callee.gradient() != nullptr) {
    const ir::Values kept = callee.gradient()->forward(arguments);
    const size_t count = callee.results().size();
    ir::Values results(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(count));
    tape->push_back({nullptr, callee.gradient(), arguments, results, kept});
    return results;
  }
  if (callee.text() == nullptr) return record(callee, arguments, target, tape);
  // Has none, which is told if it is asked for.
  ir::Values results = ir::call(callee, arguments, target);
  tape->push_back({results.at(0).producer(), nullptr, arguments, results, {}});
  return results;
}

ir::Values record(const ir::Function& source, const ir::Values& arguments, ir::Function& target,
                  std::vector<Step>* tape) {
  Copier copier(target);
  copier.map(source.arguments(), arguments);
  for (const ir::Operation* operation : source.body().operations) {
    if (operation->kind == ir::OpKind::kReturn) continue;
    if (operation->kind == ir::OpKind::kCall) {
      const std::string& name = operation->attributes.get<ir::Symbol>("callee").name;
      const ir::Function& callee = *source.module().find_function(name);
      copier.map(operation->results,
                 record_call(callee, copier.at(operation->operands), target, tape));
      continue;
    }
    const ir::Operation& made = copier.copy(*operation);
    tape->push_back({&made, nullptr, made.operands, made.results, {}});
  }
  return copier.at(source.results());
}

// The values that follow from arguments, by their numbers.
std::unordered_set<int32_t> dependent_values(const ir::Function& function) {
  std::unordered_set<int32_t> dependent;
  for (const Value argument : function.arguments()) dependent.insert(argument.id());
  for (const ir::Operation* operation : function.body().operations) {
    const ir::Values read = values_read(*operation);
    if (std::none_of(read.begin(), read.end(),
                     [&](Value value) { return dependent.contains(value.id()); })) {
      continue;
    }
    for (const Value result : operation->results) dependent.insert(result.id());
  }
  return dependent;
}

// Cheaper to make again than to keep.
bool is_view(const ir::Operation& operation) {
  using enum ir::OpKind;
  switch (operation.kind) {
    case kBroadcastInDim:
    case kReshape:
    case kConvert:
    case kCompare:
      return true;
    default:
      return false;
  }
}

// What is kept of the first pass.
class Keeper {
 public:
  // `forward`: as many of the values of `joint` belong to the first pass.
  Keeper(const ir::Function& joint, int32_t forward, Remat remat, const std::vector<Step>& tape)
      : forward_(forward),
        remat_(remat),
        users_(joint.users()),
        dependent_(dependent_values(joint)) {
    for (const Step& step : tape) {
      if (step.custom == nullptr) continue;
      for (const Value value : step.kept) of_custom_.insert(value.id());
    }
  }

  // What is to be kept that `values` may be computed from it, and from arguments.
  ir::Values for_values(const ir::Values& values) const {
    ir::Values open = values;
    ir::Values kept;
    std::unordered_set<int32_t> seen;
    while (!open.empty()) {
      const Value value = open.back();
      open.pop_back();
      if (value.producer() == nullptr || !seen.insert(value.id()).second) continue;
      if (value.id() < forward_ && keeps(value)) {
        kept.push_back(value);
        continue;
      }
      const ir::Values read = values_read(*value.producer());
      open.insert(open.end(), read.begin(), read.end());
    }
    std::sort(kept.begin(), kept.end(), [](Value a, Value b) { return a.id() < b.id(); });
    return kept;
  }

 private:
  // A product whose only use rounds it is kept as it is rounded.
  bool is_product(Value value) const {
    const ir::Operation& producer = *value.producer();
    if (producer.kind == ir::OpKind::kDotGeneral) return !rounded_at_once(value);
    if (producer.kind != ir::OpKind::kConvert) return false;
    const ir::Operation* before = producer.operands[0].producer();
    return before != nullptr && before->kind == ir::OpKind::kDotGeneral &&
           rounded_at_once(producer.operands[0]);
  }

  bool rounded_at_once(Value product) const {
    const auto& users = users_[static_cast<size_t>(product.id())];
    const auto is_first = [this](const ir::Operation* user) {
      return !user->results.empty() && user->results[0].id() < forward_;
    };
    const auto count = std::count_if(users.begin(), users.end(), is_first);
    const auto first = std::find_if(users.begin(), users.end(), is_first);
    return count == 1 && (*first)->kind == ir::OpKind::kConvert &&
           bit_width((*first)->results[0].dtype()) < bit_width(product.dtype());
  }

  bool keeps(Value value) const {
    switch (remat_) {
      case Remat::kFull:
        return false;
      case Remat::kMinimal:
        return of_custom_.contains(value.id()) || is_product(value);
      case Remat::kNone:
        return dependent_.contains(value.id()) && !is_view(*value.producer());
    }
    return false;
  }

  int32_t forward_;
  Remat remat_;
  std::vector<std::vector<ir::Operation*>> users_;
  std::unordered_set<int32_t> dependent_;
  std::unordered_set<int32_t> of_custom_;
};

ir::Values add_arguments(ir::Function& function, const ir::Values& like) {
  ir::Values arguments;
  for (const Value value : like) arguments.push_back(function.add_argument(value.shape()));
  return arguments;
}

ir::Values joined(const ir::Values& first, const ir::Values& second) {
  ir::Values all = first;
  all.insert(all.end(), second.begin(), second.end());
  return all;
}

// A function from `from` to `to`, both of `source`.
ir::Function& extract(const ir::Function& source, const std::string& name, const ir::Values& from,
                      const ir::Values& to, bool barrier) {
  ir::Function& function = source.module().add_function(name);
  Copier copier(function);
  const ir::Values arguments = add_arguments(function, from);
  copier.map(from, barrier ? ir::optimization_barrier(arguments) : arguments);
  copy_values(source, to, copier);
  function.set_results(copier.at(to));
  return function;
}

}  // namespace

Remat remat_from_name(const std::string& name) {
  if (name == "full") return Remat::kFull;
  if (name == "minimal") return Remat::kMinimal;
  if (name == "none") return Remat::kNone;
  fail(Code::kInvalidArgument,
       "[gradient] '{}' is no policy of rematerialization; give full, "
       "minimal or none",
       name);
}

Pullback make_pullback(ir::Function& function, std::vector<size_t> wanted, Remat remat,
                       bool barrier) {
  ir::Module& module = function.module();
  ir::Function& joint = module.add_function(function.name() + ".joint");
  const ir::Values arguments = add_arguments(joint, function.arguments());
  std::vector<Step> tape;
  const ir::Values results = record(function, arguments, joint, &tape);
  const auto forward = static_cast<int32_t>(joint.num_values());

  // Stand for the cotangents until the second function has arguments for them.
  ir::Values cotangents;
  for (const Value result : results) {
    cotangents.push_back(ir::full(joint, result.shape(), 0));
  }
  ir::Values inputs;
  for (const size_t index : wanted) inputs.push_back(arguments.at(index));
  ir::Values gradients = pass_back(tape, results, cotangents, inputs);
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i]) gradients[i] = ir::full(joint, inputs[i].shape(), 0);
  }
  joint.set_results(joined(results, gradients));

  Pullback pullback;
  const ir::Values kept = Keeper(joint, forward, remat, tape).for_values(gradients);
  pullback.kept = kept.size();
  pullback.wanted = std::move(wanted);
  pullback.forward =
      &extract(joint, function.name() + ".forward", arguments, joined(results, kept), false);
  pullback.backward = &extract(joint, function.name() + ".backward",
                               joined(joined(arguments, kept), cotangents), gradients, barrier);
  module.remove_function(joint);
  module.remove_function(function);
  return pullback;
}

}  // namespace ttpu::grad
