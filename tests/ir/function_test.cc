#include <gtest/gtest.h>

#include "support/contains.h"
#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::ir {
namespace {

using testing::contains;

const Shape kVector(DType::kF32, {2});

template <typename F>
std::string message_of(F action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Function, KeepsOperatorsAsDataThatCanBeWalked) {
  Module module;
  Function& main = module.add_function();
  const Value x = main.add_argument(kVector, "x");
  const Values loop = while_loop(
      {x}, [](const Values& v) { return squeeze(is_finite(slice(v[0], {0}, {1})), 0); },
      [](const Values& v) { return Values{multiply(v[0], v[0])}; });
  main.set_results({add(loop[0], x)});
  std::vector<OpKind> kinds;
  walk(main.body(), [&](const Operation& operation) { kinds.push_back(operation.kind); });
  EXPECT_EQ(kinds, (std::vector<OpKind>{OpKind::kWhile, OpKind::kSlice, OpKind::kIsFinite,
                                        OpKind::kReshape, OpKind::kReturn, OpKind::kMultiply,
                                        OpKind::kReturn, OpKind::kAdd, OpKind::kReturn}));
  EXPECT_EQ(loop[0].producer()->kind, OpKind::kWhile);
  EXPECT_EQ(x.producer(), nullptr);
  const auto users = main.users();
  ASSERT_EQ(users[static_cast<size_t>(x.id())].size(), 2u);
  EXPECT_EQ(users[static_cast<size_t>(x.id())][1]->kind, OpKind::kAdd);
  module.verify();
}

TEST(Function, RefusesOperandsOfAnotherFunction) {
  Module module;
  const Value x = module.add_function("f").add_argument(kVector);
  const Value y = module.add_function("g").add_argument(kVector);
  EXPECT_EQ(message_of([&] { add(x, y); }),
            "[add] operand 1 belongs to function 'g', the operator to 'f'");
}

TEST(Function, RefusesValuesOfARegionThatIsClosed) {
  Module module;
  Function& main = module.add_function();
  const Value p = main.add_argument(Shape(DType::kPred, {}));
  const Value x = main.add_argument(kVector);
  Value leaked;
  if_(
      p, [&] { return Values{leaked = add(x, x)}; }, [&] { return Values{x}; });
  EXPECT_TRUE(contains(message_of([&] { negate(leaked); }),
                       "[negate] operand 0 (tensor<2xf32>) cannot be used here"));
}

TEST(Function, StaysUsableAfterABodyThrew) {
  Module module;
  Function& main = module.add_function();
  const Value x = main.add_argument(kVector);
  const auto bad = [](const Values&) -> Values { fail(Code::kInternal, "stop"); };
  EXPECT_EQ(message_of([&] { reduce({x}, {scalar_like(x, 0)}, {0}, bad); }), "stop");
  main.set_results({reduce_sum(x, {0})});
  module.verify();
}

TEST(Function, RefusesEmptyValues) {
  EXPECT_TRUE(contains(message_of([] { add(Value(), Value()); }), "[value] an empty Value"));
  Module module;
  const Value x = module.add_function().add_argument(kVector);
  EXPECT_EQ(message_of([&] { add(x, Value()); }), "[add] operand 1 is an empty Value");
}

TEST(Function, TakesNothingMoreOnceItHasResults) {
  Module module;
  Function& main = module.add_function();
  const Value x = main.add_argument(kVector);
  EXPECT_TRUE(contains(message_of([&] { main.results(); }), "no results yet"));
  main.set_results({x});
  EXPECT_TRUE(contains(message_of([&] { add(x, x); }), "[add] function 'main' is finished"));
  EXPECT_TRUE(contains(message_of([&] { main.add_argument(kVector); }), "is finished"));
}

TEST(Function, ChecksCallsAgainstTheCallee) {
  Module module;
  Function& callee = module.add_function("f");
  callee.set_results({callee.add_argument(kVector)});
  Function& main = module.add_function();
  const Value scalar_argument = main.add_argument(Shape(DType::kF32, {}));
  EXPECT_EQ(message_of([&] { call(callee, {scalar_argument}); }),
            "[call] 'f' takes (tensor<2xf32>), given (tensor<f32>)");
}

TEST(CustomCall, ChecksLayoutsAndAliases) {
  Module module;
  Function& main = module.add_function();
  const Value x = main.add_argument(Shape(DType::kF32, {2, 3}));
  CustomCallOptions layouts;
  layouts.operand_layouts = {{1, 0}};
  EXPECT_TRUE(contains(message_of([&] { custom_call(main, "k", {x}, {x.shape()}, layouts); }),
                       "[custom_call] 0 layouts for 1 results"));
  CustomCallOptions alias;
  alias.output_operand_aliases = {{std::nullopt, 0}};
  EXPECT_TRUE(contains(message_of([&] { custom_call(main, "k", {x}, {kVector}, alias); }),
                       "alias of output tensor<2xf32> with operand tensor<2x3xf32>"));
  CustomCallOptions old;
  old.api_version = 2;
  old.backend_config = {{"a", int64_t{1}}};
  EXPECT_TRUE(contains(message_of([&] { custom_call(main, "k", {x}, {x.shape()}, old); }),
                       "needs api_version 4"));
}

TEST(Broadcasting, NeverChangesTheElementType) {
  Module module;
  Function& main = module.add_function();
  const Value x = main.add_argument(kVector);
  const Value i = main.add_argument(Shape(DType::kS32, {2}));
  EXPECT_TRUE(contains(message_of([&] { x + i; }), "[add] element types differ"));
  EXPECT_EQ((2.0 * x).dtype(), DType::kF32);
  EXPECT_TRUE(contains(message_of([&] { i + 0.5; }), "[literal] 0.5 is no integer that fits i32"));
}

}  // namespace
}  // namespace ttpu::ir
