// What a layer's program sends and multiplies.
#include "ttpu/nn/layers.h"

#include <gtest/gtest.h>

#include "ttpu/ir/module.h"
#include "ttpu/nn/moe.h"

namespace ttpu::nn {
namespace {

// Of an MLP on two devices of a TPU that divide 1,024 tokens.
std::string mlp_program(int64_t matrix_unit, const Quantization& quantization) {
  const parallel::Layout layout(parallel::Mesh({{parallel::kTensorAxis, 2}}),
                                parallel::find_strategy("sequence"));
  const auto form = [&](const WeightDecl&) {
    return WeightFormat{quantization.dtype, Encoding::kDense, quantization};
  };
  ir::Module module;
  ir::Function& main = module.add_function();
  Context context(&main, {kernels::Platform::kTpu, false, nullptr, matrix_unit}, DType::kBF16, form,
                  layout);
  context.divide_tokens(1024);
  const ir::Value own = main.add_argument(Shape(DType::kBF16, {512, 256}));
  main.set_results({mlp(context, {"gate", "up", "down", 256, 4096}, own)});
  return module.to_string();
}

// Parts of 512 rows, each sent once: 2,048 columns of gate and of up on each of two devices pay for
// a unit of 256, the 256 of down for none.
TEST(Mlp, RowsTravelAsTheProductsTakeThem) {
  const Quantization small{DType::kS8, 0, false, true};
  const std::string rounded = mlp_program(256, small);
  const auto sends = [](const std::string& text, const std::string& type) {
    size_t count = 0;
    const std::string call = ": (tensor<" + type + ">) -> tensor<" + type + ">";
    for (size_t at = 0; (at = text.find("stablehlo.collective_permute", at)) != text.npos; ++at) {
      const size_t end = text.find('\n', at);
      count += text.substr(at, end - at).find(call) != std::string::npos ? 1 : 0;
    }
    return count;
  };
  EXPECT_EQ(sends(rounded, "512x256xi8"), 1U) << rounded;
  EXPECT_EQ(sends(rounded, "512xf32"), 1U) << rounded;
  EXPECT_EQ(sends(rounded, "512x256xbf16"), 1U) << "the sum";
  const std::string wide = mlp_program(512, small);
  EXPECT_EQ(sends(wide, "512x256xi8"), 0U);
  EXPECT_EQ(sends(wide, "512x256xbf16"), 2U) << wide;
}

// Tokens choose other experts by logits that were rounded to bf16 on the way.
TEST(Moe, ARouterInF32IsNotRounded) {
  const auto program = [](bool in_f32) {
    const auto dense = [](const WeightDecl&) { return WeightFormat{DType::kBF16}; };
    ir::Module module;
    ir::Function& main = module.add_function();
    Context context(&main, {}, DType::kBF16, dense);
    MoeSpec spec;
    spec.router = "gate";
    spec.router_in_f32 = in_f32;
    spec.experts = 7;
    spec.top_k = 2;
    spec.hidden = 32;
    spec.intermediate = 16;
    const auto stacked = [](const std::string& name, int64_t out, int64_t in) {
      WeightDecl decl;
      decl.names = {name};
      decl.dims = {7, out, in};
      decl.axes = {"experts", "expert_mlp", "embed"};
      return decl;
    };
    spec.gate = stacked("gate_proj", 16, 32);
    spec.up = stacked("up_proj", 16, 32);
    spec.down = stacked("down_proj", 32, 16);
    main.set_results({moe(context, spec, main.add_argument(Shape(DType::kBF16, {4, 32})), {})});
    return module.to_string();
  };
  const std::string narrow = "-> tensor<4x7xbf16>";
  EXPECT_NE(program(false).find(narrow), std::string::npos);
  EXPECT_EQ(program(true).find(narrow), std::string::npos);
}

}  // namespace
}  // namespace ttpu::nn
