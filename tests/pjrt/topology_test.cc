#include "ttpu/pjrt/topology.h"

#include "testing.h"
#include "ttpu/base/json.h"
#include "ttpu/base/subprocess.h"

namespace ttpu::pjrt {
namespace {

constexpr const char* kMatmul = R"(
module @matmul {
  sdy.mesh @mesh = <["model"=4]>
  func.func @main(
      %a: tensor<256x1024xbf16> {sdy.sharding = #sdy.sharding<@mesh, [{}, {}]>},
      %b: tensor<1024x4096xbf16> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"model"}]>})
      -> (tensor<256x4096xbf16> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"model"}]>}) {
    %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
        : (tensor<256x1024xbf16>, tensor<1024x4096xbf16>) -> tensor<256x4096xbf16>
    return %0 : tensor<256x4096xbf16>
  }
})";

std::string tpu_library() {
  try {
    return find_plugin("tpu").string();
  } catch (const Error&) {
    return install_plugin(pinned_plugin("tpu")).string();
  }
}

// In a child: a process that has compiled for TPU does not give the memory back.
SubprocessResult compile_for(const std::string& topology, const std::string& program) {
  SubprocessOptions options;
  options.input = program;
  options.timeout = std::chrono::minutes(5);
  return run_subprocess({AOT_CHILD, tpu_library(), topology}, options);
}

TEST(Topology, CompilesForATpuThatIsNotHere) {
  const SubprocessResult child = compile_for("v5e:2x2", kMatmul);
  ASSERT_EQ(child.exit_code, 0) << child.errors;
  const Json json = parse_json(child.output, "child");
  EXPECT_EQ(json["platform"], "tpu");
  EXPECT_EQ(json["devices"], 4);
  EXPECT_EQ(json["kind"], "TPU v5 lite");
  EXPECT_GT(json["attributes"], 0);
  // One device holds the whole left matrix and a quarter of the right one.
  EXPECT_EQ(json["arguments"], 2 * (256 * 1024 + 1024 * 1024));
  EXPECT_EQ(json["outputs"], 2 * 256 * 1024);
  EXPECT_GT(json["code"], 0);
  EXPECT_TRUE(json["cost"].contains("flops"));
  EXPECT_TRUE(json["format"].get<std::string>().starts_with("hlo")) << json["format"];
  EXPECT_GT(json["program_bytes"], 500);
  EXPECT_GT(json["serialized_bytes"], 1000);
}

TEST(Topology, AnImpossibleOneIsAnErrorThatNamesIt) {
  const SubprocessResult child = compile_for("v5e:3x7x9", kMatmul);
  EXPECT_EQ(child.exit_code, 1) << child.errors;
  EXPECT_TRUE(contains(child.errors, "v5e:3x7x9")) << child.errors;
  const SubprocessResult unknown = compile_for("v99:2x2", kMatmul);
  EXPECT_EQ(unknown.exit_code, 1) << unknown.errors;
}

}  // namespace
}  // namespace ttpu::pjrt
