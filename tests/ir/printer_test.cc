#include <gtest/gtest.h>

#include "support/contains.h"
#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::ir {
namespace {

using testing::contains;

TEST(Printer, WritesShortTextForCommonOperators) {
  Module module("demo");
  Function& main = module.add_function();
  const Value x = main.add_argument(Shape(DType::kBF16, {2, 3}), "x");
  const Value w = main.add_argument(Shape(DType::kBF16, {3, 4}));
  const Value y = dot_general(x, w, {{}, {}, {1}, {0}}, DType::kF32);
  main.set_results({reduce_max(y * 2.0, {1})}, {"best"});
  EXPECT_EQ(module.to_string(), R"(module @demo {
  func.func public @main(%arg0: tensor<2x3xbf16> loc("x"), %arg1: tensor<3x4xbf16>) -> (tensor<2xf32> {jax.result_info = "best"}) {
    %0 = stablehlo.dot_general %arg0, %arg1, contracting_dims = [1] x [0] : (tensor<2x3xbf16>, tensor<3x4xbf16>) -> tensor<2x4xf32>
    %1 = stablehlo.constant dense<2.0> : tensor<f32>
    %2 = stablehlo.broadcast_in_dim %1, dims = [] : (tensor<f32>) -> tensor<2x4xf32>
    %3 = stablehlo.multiply %0, %2 : tensor<2x4xf32>
    %4 = stablehlo.constant dense<0xFF800000> : tensor<f32>
    %5 = stablehlo.reduce(%3 init: %4) applies stablehlo.maximum across dimensions = [1] : (tensor<2x4xf32>, tensor<f32>) -> tensor<2xf32>
    return %5 : tensor<2xf32>
  }
}
)");
}

TEST(Printer, AFunctionGivenAsTextIsCalledAndWrittenAsItStands) {
  Module module;
  Function& given = module.add_function("twice");
  given.add_argument(Shape(DType::kF32, {4}));
  const std::string text = R"(  func.func private @twice(%arg0: tensor<4xf32>) -> tensor<4xf32> {
    %0 = stablehlo.add %arg0, %arg0 : tensor<4xf32>
    return %0 : tensor<4xf32>
  }
)";
  given.set_text({text}, {Shape(DType::kF32, {4})});
  Function& main = module.add_function();
  main.set_results(call(given, {main.add_argument(Shape(DType::kF32, {4}))}));
  module.verify();
  EXPECT_TRUE(contains(module.to_string(), text));
  EXPECT_TRUE(contains(module.to_string(), "func.call @twice(%arg0)"));
}

TEST(Printer, TextThatUpdatesAnArgumentOfAnotherShapeIsRefused) {
  Module module;
  Function& given = module.add_function("bad");
  given.add_argument(Shape(DType::kF32, {4}));
  EXPECT_THROW(given.set_text({"", 0, {{0, 0}}}, {Shape(DType::kF32, {8})}), Error);
}

TEST(Printer, WritesDonationAndShardings) {
  Module module;
  module.add_mesh({"mesh", {{"data", 2}, {"tensor", 4}}});
  Function& main = module.add_function();
  const Value cache = main.add_argument(Shape(DType::kF32, {8, 8}));
  const Value state = main.add_argument(Shape(DType::kF32, {8}));
  main.alias(cache, 0);
  main.donate(state);
  main.set_sharding(cache, {"mesh", {{{"data", "tensor"}}, {{}, true}}});
  main.set_results({cache});
  main.set_result_sharding(0, {"mesh", {{{"data"}}, {}}, {"tensor"}});
  const std::string text = module.to_string();
  EXPECT_TRUE(contains(text, R"(sdy.mesh @mesh = <["data"=2, "tensor"=4]>)"));
  EXPECT_TRUE(contains(
      text,

      R"({sdy.sharding = #sdy.sharding<@mesh, [{"data", "tensor"}, {?}]>, tf.aliasing_output = 0 : i32})"));
  EXPECT_TRUE(contains(text, "%arg1: tensor<8xf32> {jax.buffer_donor = true}"));
  EXPECT_TRUE(contains(
      text, R"({sdy.sharding = #sdy.sharding<@mesh, [{"data"}, {}], replicated={"tensor"}>})"));
}

TEST(Printer, WritesTypedBackendConfigs) {
  Module module;
  Function& main = module.add_function();
  const Value x = main.add_argument(Shape(DType::kF32, {2, 2}));
  CustomCallOptions options;
  options.backend_config = {{"count", int64_t{3}}, {"scale", 0.5f},      {"causal", true},
                            {"mode", "a\"b"},      {"dims", Dims{1, 2}}, {"small", I32{7}}};
  options.operand_layouts = {{1, 0}};
  options.result_layouts = {{0, 1}};
  options.output_operand_aliases = {{std::nullopt, 0}};
  options.frontend_attributes = {{"note", "n"}};
  main.set_results(custom_call(main, "kernel", {x}, {x.shape()}, options));
  EXPECT_TRUE(contains(
      module.to_string(),

      R"("stablehlo.custom_call"(%arg0) {call_target_name = "kernel", has_side_effect = false, api_version = 4 : i32, backend_config = {count = 3 : i64, scale = 0.5 : f32, causal = true, mode = "a\"b", dims = array<i64: 1, 2>, small = 7 : i32}, operand_layouts = [dense<[1, 0]> : tensor<2xindex>], result_layouts = [dense<[0, 1]> : tensor<2xindex>], output_operand_aliases = [#stablehlo.output_operand_alias<output_tuple_indices = [], operand_index = 0, operand_tuple_indices = []>], mhlo.frontend_attributes = {note = "n"}} : (tensor<2x2xf32>) -> tensor<2x2xf32>)"));
}

TEST(Literal, WritesListsSplatsAndHexadecimal) {
  const auto text = [](DType dtype, Dims dims, std::vector<double> values) {
    return Literal::from_doubles(Shape(dtype, std::move(dims)), values).to_string();
  };
  EXPECT_EQ(text(DType::kF32, {2}, {0.1, 1e-30}), "dense<[0.1, 1.0e-30]> : tensor<2xf32>");
  EXPECT_EQ(text(DType::kBF16, {2, 2}, {1, 1, 1, 1}), "dense<1.0> : tensor<2x2xbf16>");
  EXPECT_EQ(text(DType::kPred, {2}, {1, 0}), "dense<[true, false]> : tensor<2xi1>");
  EXPECT_EQ(text(DType::kS4, {2}, {-8, 7}), "dense<[-8, 7]> : tensor<2xi4>");
  EXPECT_EQ(text(DType::kU4, {1}, {15}), "dense<[15]> : tensor<1xui4>");
  EXPECT_EQ(text(DType::kF8E5M2, {}, {1.0 / 0.0}), "dense<0x7C> : tensor<f8E5M2>");
  EXPECT_EQ(text(DType::kF32, {0}, {}), "dense<> : tensor<0xf32>");
  std::vector<double> many(17, 1);
  many[16] = 2;
  EXPECT_EQ(text(DType::kU8, {17}, many),
            "dense<\"0x0101010101010101010101010101010102\"> : tensor<17xui8>");
}

TEST(Literal, KeepsSplatsAsOneElement) {
  const Literal literal = Literal::splat(Shape(DType::kF32, {1000, 1000}), 3);
  EXPECT_TRUE(literal.is_splat());
  EXPECT_EQ(literal.bytes().size(), 4u);
  EXPECT_EQ(literal.number(999999), 3);
}

}  // namespace
}  // namespace ttpu::ir
