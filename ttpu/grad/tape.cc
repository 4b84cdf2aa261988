#include "ttpu/grad/tape.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {

Cotangents::Cotangents(const std::vector<Step>& steps, const ir::Values& inputs) {
  for (const ir::Value input : inputs) active_.insert(input.id());
  for (const Step& step : steps) {
    if (std::none_of(step.operands.begin(), step.operands.end(),
                     [this](ir::Value operand) { return wants(operand); })) {
      continue;
    }
    // Its bits go on as integers, whose gradient would be lost without a word.
    if (step.operation != nullptr && step.operation->kind == ir::OpKind::kBitcastConvert) {
      Reverse(*step.operation, *this).refuse("has no gradient");
    }
    for (const ir::Value result : step.results) {
      if (is_float(result.dtype())) active_.insert(result.id());
    }
  }
}

ir::Value Cotangents::of(ir::Value value) const {
  const auto found = sums_.find(value.id());
  return found == sums_.end() ? ir::Value() : found->second;
}

void Cotangents::add(ir::Value value, ir::Value cotangent) {
  if (!cotangent) return;
  if (cotangent.shape() != value.shape()) {
    fail(Code::kInternal, "[gradient] a cotangent {} of a value {}", cotangent.shape().to_string(),
         value.shape().to_string());
  }
  ir::Value& sum = sums_[value.id()];
  sum = sum ? sum + cotangent : cotangent;
}

void Cotangents::add_part(ir::Value value, ir::Value cotangent, const ir::Values& starts) {
  ir::Value& sum = sums_[value.id()];
  if (sum) {
    cotangent = ir::dynamic_slice(sum, starts, cotangent.dims()) + cotangent;
  } else {
    sum = ir::full_like(value, 0);
  }
  sum = ir::dynamic_update_slice(sum, cotangent, starts);
}

void Reverse::give(size_t index, const std::function<ir::Value()>& cotangent) const {
  if (wants(index)) cotangents_.add(operand(index), cotangent());
}

void Reverse::give_part(size_t index, const std::function<ir::Value()>& cotangent,
                        const ir::Values& starts) const {
  if (wants(index)) cotangents_.add_part(operand(index), cotangent(), starts);
}

void Reverse::refuse(std::string_view what) const {
  fail(Code::kUnimplemented, "[gradient] {} {}", ir::op_name(operation_.kind), what);
}

namespace {

void pass_custom(const Step& step, Cotangents& cotangents) {
  ir::Values given;
  for (const ir::Value result : step.results) {
    const ir::Value own = cotangents.of(result);
    given.push_back(own ? own : ir::full_like(result, 0));
  }
  const ir::Values back = step.custom->backward(step.operands, step.kept, given);
  for (size_t i = 0; i < step.operands.size(); ++i) {
    if (back.at(i) && cotangents.wants(step.operands[i])) cotangents.add(step.operands[i], back[i]);
  }
}

}  // namespace

ir::Values pass_back(const std::vector<Step>& steps, const ir::Values& outputs,
                     const ir::Values& cotangents, const ir::Values& inputs) {
  Cotangents sums(steps, inputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (sums.wants(outputs[i])) sums.add(outputs[i], cotangents.at(i));
  }
  for (size_t i = steps.size(); i-- > 0;) {
    const Step& step = steps[i];
    const bool reached = std::any_of(step.results.begin(), step.results.end(),
                                     [&](ir::Value result) { return bool(sums.of(result)); });
    const bool wanted = std::any_of(step.operands.begin(), step.operands.end(),
                                    [&](ir::Value operand) { return sums.wants(operand); });
    if (!reached || !wanted) continue;
    if (step.custom != nullptr) {
      pass_custom(step, sums);
      continue;
    }
    const Reverse reverse(*step.operation, sums);
    const Rule rule = rule_of(step.operation->kind);
    if (rule == nullptr) reverse.refuse("has no gradient");
    rule(reverse);
  }
  ir::Values gradients;
  for (const ir::Value input : inputs) gradients.push_back(sums.of(input));
  return gradients;
}

}  // namespace ttpu::grad
