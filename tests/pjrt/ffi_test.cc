#include "ttpu/pjrt/ffi.h"

#include <xla/ffi/api/ffi.h>

#include "testing.h"

namespace ttpu::pjrt {
namespace {

namespace ffi = xla::ffi;

ffi::Error triple(ffi::Buffer<ffi::F32> in, ffi::ResultBuffer<ffi::F32> out) {
  for (size_t i = 0; i < in.element_count(); ++i) out->typed_data()[i] = 3 * in.typed_data()[i];
  return ffi::Error::Success();
}
XLA_FFI_DEFINE_HANDLER(kTriple, triple,
                       ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::F32>>());

ffi::Error refuse(ffi::Buffer<ffi::F32>, ffi::ResultBuffer<ffi::F32>) {
  return ffi::Error::InvalidArgument("refused on purpose");
}
XLA_FFI_DEFINE_HANDLER(kRefuse, refuse,
                       ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::F32>>());

std::string call_of(const std::string& target) {
  return "module { func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {\n"
         "%0 = stablehlo.custom_call @" +
         target +
         "(%a) {api_version = 4 : i32} : (tensor<4xf32>) -> tensor<4xf32>\n"
         "return %0 : tensor<4xf32> } }";
}

class FfiTest : public testing::Test {
 protected:
  std::shared_ptr<const Plugin> plugin_ = plugin_called("cpu");
  Client client() const { return Client::create(plugin_); }
};

TEST_F(FfiTest, AProgramCallsOurFunction) {
  ASSERT_TRUE(supports_ffi(*plugin_));
  register_ffi_handler(*plugin_, "ttpu_test_triple", reinterpret_cast<void*>(kTriple));
  const Client on = client();
  const LoadedExecutable program = on.compile(call_of("ttpu_test_triple"));
  const std::vector<float> data = {1, 2, 3, 4};
  const Buffer x = on.to_device(data.data(), Shape(DType::kF32, {4}));
  EXPECT_EQ(program.execute(std::vector<const Buffer*>{&x})[0].to_vector<float>(),
            (std::vector<float>{3, 6, 9, 12}));
}

TEST_F(FfiTest, AnErrorOfTheFunctionReachesTheCaller) {
  register_ffi_handler(*plugin_, "ttpu_test_refuse", reinterpret_cast<void*>(kRefuse));
  const Client on = client();
  const LoadedExecutable program = on.compile(call_of("ttpu_test_refuse"));
  const std::vector<float> data = {1, 2, 3, 4};
  const Buffer x = on.to_device(data.data(), Shape(DType::kF32, {4}));
  const Error error = error_of([&] {
    const std::vector<Buffer> results = program.execute(std::vector<const Buffer*>{&x});
    results[0].to_vector<float>();
  });
  EXPECT_TRUE(contains(error, "refused on purpose")) << error.what();
}

TEST_F(FfiTest, ATargetKeepsItsFirstHandler) {
  register_ffi_handler(*plugin_, "ttpu_test_once", reinterpret_cast<void*>(kTriple));
  EXPECT_NO_THROW(
      register_ffi_handler(*plugin_, "ttpu_test_once", reinterpret_cast<void*>(kTriple)));
  const Error error = error_of(
      [&] { register_ffi_handler(*plugin_, "ttpu_test_once", reinterpret_cast<void*>(kRefuse)); });
  EXPECT_EQ(error.code(), Code::kAlreadyExists);
}

TEST_F(FfiTest, APluginThatWouldDropTheHandlerRefusesIt) {
  const auto older = plugin_called("cpu-0.81");
  EXPECT_FALSE(supports_ffi(*older));
  const Error error = error_of(
      [&] { register_ffi_handler(*older, "ttpu_test_triple", reinterpret_cast<void*>(kTriple)); });
  EXPECT_EQ(error.code(), Code::kUnimplemented);
  EXPECT_TRUE(contains(error, "0.81")) << error.what();
}

}  // namespace
}  // namespace ttpu::pjrt
