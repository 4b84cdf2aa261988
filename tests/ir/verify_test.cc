// What Module::verify refuses: programs that passes broke or that were never finished.
#include <gtest/gtest.h>

#include "support/contains.h"
#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::ir {
namespace {

using testing::contains;

const Shape kVector(DType::kF32, {4});

class Verify : public ::testing::Test {
 protected:
  void expect_rejected(const std::string& reason) {
    try {
      module_.verify();
      ADD_FAILURE() << "accepted; expected: " << reason;
    } catch (const Error& error) {
      EXPECT_TRUE(contains(error.what(), "[verify] function 'main': "));
      EXPECT_TRUE(contains(error.what(), reason));
    }
  }

  Module module_;
  Function& main_ = module_.add_function();
  Value x_ = main_.add_argument(kVector, "x");
};

TEST_F(Verify, RefusesAFunctionWithoutResults) { expect_rejected("it has no results"); }

TEST_F(Verify, RefusesOperandsUsedBeforeTheyExist) {
  const Value y = negate(x_);
  main_.set_results({abs(y)});
  module_.verify();
  std::swap(main_.body().operations[0], main_.body().operations[1]);
  expect_rejected("operand 0 of abs (tensor<4xf32>) is used where it does not exist");
}

TEST_F(Verify, RefusesResultsThatDoNotFollow) {
  const Value y = reduce_sum(x_, {0});
  const Value z = negate(x_);
  main_.set_results({z});
  z.producer()->operands[0] = y;
  expect_rejected("negate has results (tensor<4xf32>), but its operands give (tensor<f32>)");
}

TEST_F(Verify, RefusesAnOperatorThatIsNotWellFormed) {
  const Value y = add(x_, x_);
  main_.set_results({y});
  y.producer()->operands.pop_back();
  expect_rejected("[add] 1 operands given, 2 expected");
}

TEST_F(Verify, RefusesARegionWithoutReturn) {
  main_.set_results({x_});
  main_.body().operations.pop_back();
  expect_rejected("");
}

TEST_F(Verify, RefusesAReturnInTheMiddle) {
  main_.set_results({negate(x_)});
  std::swap(main_.body().operations[0], main_.body().operations[1]);
  expect_rejected("a region does not end with a return");
  main_.body().operations.push_back(main_.body().operations[0]);
  expect_rejected("a return stands before the end");
}

TEST_F(Verify, RefusesValuesOfAnotherFunction) {
  const Value other = module_.add_function("other").add_argument(kVector);
  const Value y = negate(x_);
  main_.set_results({y});
  y.producer()->operands[0] = other;
  expect_rejected("operand 0 of negate belongs to another function");
}

TEST_F(Verify, RefusesBodiesThatLookOutside) {
  const Value zero = scalar_like(x_, 0);
  const Value sum =
      reduce({x_}, {zero}, {0}, [](const Values& v) { return Values{add(v[0], v[1])}; })[0];
  main_.set_results({sum});
  sum.producer()->regions[0]->operations[0]->operands[1] = zero;
  expect_rejected("operand 1 of add (tensor<f32>) is used where it does not exist");
}

TEST_F(Verify, RefusesAMissingCallee) {
  const Value y =
      main_.append(OpKind::kCall, {x_}, {{"callee", Symbol{"nobody"}}}, {}, {kVector}).result();
  main_.set_results({y});
  expect_rejected("calls 'nobody', which the module does not have");
}

TEST_F(Verify, RefusesACalleeOfAnotherType) {
  Function& callee = module_.add_function("f");
  callee.set_results({callee.add_argument(Shape(DType::kF32, {}))});
  const Value y =
      main_.append(OpKind::kCall, {x_}, {{"callee", Symbol{"f"}}}, {}, {kVector}).result();
  main_.set_results({y});
  expect_rejected("calls 'f' with (tensor<4xf32>) -> (tensor<4xf32>), which is (tensor<f32>)");
}

TEST_F(Verify, RefusesAliasesBetweenDifferentShapes) {
  main_.alias(x_, 0);
  main_.set_results({reduce_sum(x_, {0})});
  expect_rejected("argument 0 (tensor<4xf32>) aliases result 0 (tensor<f32>)");
}

TEST_F(Verify, RefusesTwoAliasesOfOneResultAndAliasesOfNone) {
  const Value y = main_.add_argument(kVector);
  main_.alias(x_, 0);
  main_.alias(y, 0);
  main_.set_results({x_});
  expect_rejected("two arguments alias result 0");
  EXPECT_THROW(main_.alias(y, 3), Error);
}

TEST_F(Verify, RefusesShardingsThatDoNotFit) {
  main_.set_results({x_});
  main_.set_sharding(x_, {"m", {{{"x"}}}});
  expect_rejected("argument 0 is sharded over mesh 'm', which the module does not have");
  module_.add_mesh({"m", {{"x", 2}}});
  module_.verify();
  main_.set_sharding(x_, {"m", {{{"y"}}}});
  expect_rejected("axis 'y' is not one of mesh 'm'");
  main_.set_sharding(x_, {"m", {{{"x"}}, {}}});
  expect_rejected("one entry a dimension expected");
}

TEST(Module, RefusesNamesThatAreTaken) {
  Module module;
  module.add_function("f");
  EXPECT_THROW(module.add_function("f"), Error);
  module.add_mesh({"m", {{"x", 2}}});
  EXPECT_THROW(module.add_mesh({"m", {{"x", 2}}}), Error);
  EXPECT_THROW(module.add_mesh({"n", {{"x", 2}, {"x", 2}}}), Error);
  EXPECT_THROW(module.add_mesh({"n", {{"x", 0}}}), Error);
}

}  // namespace
}  // namespace ttpu::ir
