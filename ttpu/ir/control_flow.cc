#include "ttpu/ir/control_flow.h"

#include "ttpu/ir/constant.h"
#include "ttpu/ir/elementwise.h"
#include "ttpu/ir/infer.h"
#include "ttpu/ir/module.h"

namespace ttpu::ir {
namespace {

const Shape kPredicate(DType::kPred, {});

std::vector<Shape> infer_branches(const OpContext& op) {
  std::vector<Shape> results = shapes_of(op.regions[0]->yielded());
  for (size_t i = 0; i < op.regions.size(); ++i) {
    const std::vector<Shape> yielded = shapes_of(op.regions[i]->yielded());
    check(op.regions[i]->arguments.empty(), op, "branch {} takes arguments", i);
    check(yielded == results, op, "branch 0 yields {}, branch {} yields {}",
          shapes_to_string(results), i, shapes_to_string(yielded));
  }
  return results;
}

}  // namespace

std::vector<Shape> infer_while(const OpContext& op) {
  std::vector<Shape> shapes = shapes_of(op.operands);
  check_region(op, 0, shapes, {kPredicate});
  check_region(op, 1, shapes, shapes);
  return shapes;
}

std::vector<Shape> infer_if(const OpContext& op) {
  check(op.shape(0) == kPredicate, op, "pred {}, expected {}", op.shape(0).to_string(),
        kPredicate.to_string());
  return infer_branches(op);
}

std::vector<Shape> infer_case(const OpContext& op) {
  check(op.shape(0) == Shape(DType::kS32, {}), op, "index {}, expected tensor<i32>",
        op.shape(0).to_string());
  check(!op.regions.empty(), op, "no branches given");
  return infer_branches(op);
}

std::vector<Shape> infer_call(const OpContext& op) {
  check(op.attributes.get_if<Symbol>("callee") != nullptr, op, "no callee given");
  return op.declared;
}

std::vector<Shape> infer_return(const OpContext&) { return {}; }

std::vector<Shape> infer_optimization_barrier(const OpContext& op) {
  return shapes_of(op.operands);
}

Values while_loop(const Values& inits, const std::function<Value(const Values&)>& cond,
                  const std::function<Values(const Values&)>& body) {
  require(!inits.empty(), "[while] no values to carry; give at least one");
  Function& function = inits[0].function();
  const std::vector<Shape> shapes = shapes_of(inits);
  Region* cond_region = function.build_region(
      shapes, false, [&](const Values& values) { return Values{cond(values)}; });
  Region* body_region = function.build_region(shapes, false, body);
  return function.append(OpKind::kWhile, inits, {}, {cond_region, body_region}).results;
}

Values repeat(int64_t turns, const Values& inits,
              const std::function<Values(Value index, const Values& values)>& turn) {
  require(!inits.empty(), "[repeat] no values to carry; give at least one");
  const Value first = scalar(inits[0].function(), DType::kS32, 0);
  if (turns == 1) return turn(first, inits);
  Values all = inits;
  all.insert(all.begin(), first);
  const auto more = [turns](const Values& v) {
    const Value end = scalar(v[0].function(), DType::kS32, static_cast<double>(turns));
    return compare(v[0], end, ComparisonDirection::kLt);
  };
  Values end = while_loop(all, more, [&](const Values& v) {
    Values next = turn(v[0], {v.begin() + 1, v.end()});
    next.insert(next.begin(), add(v[0], scalar(v[0].function(), DType::kS32, 1)));
    return next;
  });
  end.erase(end.begin());
  return end;
}

Values if_(Value pred, const Branch& on_true, const Branch& on_false) {
  Function& function = pred.function();
  const auto region = [&](const Branch& branch) {
    return function.build_region({}, false, [&](const Values&) { return branch(); });
  };
  Region* true_region = region(on_true);
  Region* false_region = region(on_false);
  return function.append(OpKind::kIf, {pred}, {}, {true_region, false_region}).results;
}

Values case_(Value index, const std::vector<Branch>& branches) {
  Function& function = index.function();
  std::vector<Region*> regions;
  for (const Branch& branch : branches) {
    regions.push_back(function.build_region({}, false, [&](const Values&) { return branch(); }));
  }
  return function.append(OpKind::kCase, {index}, {}, std::move(regions)).results;
}

Values call(const Function& callee, const Values& arguments, Function& caller) {
  require(&callee.module() == &caller.module(), "[call] '{}' and '{}' belong to different modules",
          callee.name(), caller.name());
  const std::vector<Shape> expected = shapes_of(callee.arguments());
  const std::vector<Shape> given = shapes_of(arguments);
  require(given == expected, "[call] '{}' takes {}, given {}", callee.name(),
          shapes_to_string(expected), shapes_to_string(given));
  return caller
      .append(OpKind::kCall, arguments, {{"callee", Symbol{callee.name()}}}, {},
              shapes_of(callee.results()))
      .results;
}

Values call(const Function& callee, const Values& arguments) {
  require(!arguments.empty(), "[call] '{}' without arguments: name the calling function",
          callee.name());
  return call(callee, arguments, arguments[0].function());
}

Values optimization_barrier(const Values& values) {
  require(!values.empty(), "[optimization_barrier] no values given");
  return values[0].function().append(OpKind::kOptimizationBarrier, values).results;
}

}  // namespace ttpu::ir
