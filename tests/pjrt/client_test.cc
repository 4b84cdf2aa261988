#include "ttpu/pjrt/client.h"

#include <cstdlib>
#include <cstring>
#include <latch>
#include <thread>

#include "testing.h"

namespace ttpu::pjrt {
namespace {

constexpr const char* kAdd = R"(
module @add {
  func.func @main(%a: tensor<2x3xf32>, %b: tensor<2x3xf32>) -> tensor<2x3xf32> {
    %0 = stablehlo.add %a, %b : tensor<2x3xf32>
    return %0 : tensor<2x3xf32>
  }
})";

// The first argument is given up and becomes the first result.
constexpr const char* kDonate = R"(
module @donate {
  func.func @main(%a: tensor<1024xf32> {tf.aliasing_output = 0 : i32}, %b: tensor<1024xf32>)
      -> (tensor<1024xf32>, tensor<1024xf32>) {
    %0 = stablehlo.add %a, %b : tensor<1024xf32>
    %1 = stablehlo.multiply %b, %b : tensor<1024xf32>
    return %0, %1 : tensor<1024xf32>, tensor<1024xf32>
  }
})";

// A matrix product whose contracted axis is spread over four devices.
constexpr const char* kSharded = R"(
module @sharded {
  sdy.mesh @mesh = <["model"=4]>
  func.func @main(
      %a: tensor<2x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"model"}]>},
      %b: tensor<8x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"model"}, {}]>})
      -> (tensor<2x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {}]>}) {
    %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
        : (tensor<2x8xf32>, tensor<8x2xf32>) -> tensor<2x2xf32>
    return %0 : tensor<2x2xf32>
  }
})";

using Pointers = std::vector<const Buffer*>;

class ClientTest : public OnCpuPlugins {};
TTPU_ON_CPU_PLUGINS(ClientTest);

TEST_P(ClientTest, RunsTextStableHlo) {
  const Client on = client();
  EXPECT_EQ(on.platform_name(), "cpu");
  EXPECT_FALSE(on.platform_version().empty());
  const LoadedExecutable program = on.compile(kAdd);
  EXPECT_EQ(program.info().name(), "add");
  EXPECT_EQ(program.num_outputs(), 1);
  EXPECT_EQ(program.info().output_shapes(), (std::vector<Shape>{{DType::kF32, {2, 3}}}));
  const std::vector<float> data = {1, 2, 3, 4, 5, 6};
  const Buffer x = on.to_device(data.data(), Shape(DType::kF32, {2, 3}));
  EXPECT_EQ(x.shape(), Shape(DType::kF32, {2, 3}));
  EXPECT_EQ(x.device(), on.devices()[0]);
  EXPECT_GE(x.device_bytes(), 24);
  const std::vector<Buffer> results = program.execute(Pointers{&x, &x});
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].to_vector<float>(), (std::vector<float>{2, 4, 6, 8, 10, 12}));
}

TEST_P(ClientTest, EveryElementTypeGoesToTheDeviceAndBack) {
  const Client on = client();
  for (int i = 0; i <= static_cast<int>(DType::kF64); ++i) {
    const Shape shape(static_cast<DType>(i), {3, 5});
    std::vector<uint8_t> bytes(static_cast<size_t>(shape.byte_size()));
    for (size_t at = 0; at < bytes.size(); ++at) {
      bytes[at] = static_cast<uint8_t>(shape.dtype == DType::kPred ? at % 2 : at * 7 + 1);
    }
    if (bit_width(shape.dtype) == 4) bytes.back() &= 15;  // the last byte holds one element
    const Buffer buffer = on.to_device(bytes.data(), shape);
    EXPECT_EQ(buffer.shape(), shape);
    EXPECT_EQ(buffer.to_vector<uint8_t>(), bytes) << shape.to_string();
  }
}

TEST_P(ClientTest, ScalarsAndEmptyArraysTransfer) {
  const Client on = client();
  const float value = 3.5f;
  EXPECT_EQ(on.to_device(&value, Shape(DType::kF32, {})).to_vector<float>(), (std::vector{3.5f}));
  const Buffer empty = on.to_device(&value, Shape(DType::kF32, {0, 4}));
  EXPECT_EQ(empty.shape(), Shape(DType::kF32, {0, 4}));
  EXPECT_TRUE(empty.to_vector<float>().empty());
}

TEST_P(ClientTest, SeveralDevicesRunOneProgramWithShardy) {
  const Client on = client(4);
  ASSERT_EQ(on.devices().size(), 4u);
  CompileOptions options;
  options.num_partitions = 4;
  options.device_assignment = {0, 1, 2, 3};
  const LoadedExecutable program = on.compile(kSharded, options);
  ASSERT_EQ(program.devices().size(), 4u);
  EXPECT_EQ(program.info().num_partitions(), 4);

  std::vector<Buffer> a;
  std::vector<Buffer> b;
  std::vector<Pointers> arguments(4);
  for (size_t device = 0; device < 4; ++device) {
    const auto value = static_cast<float>(device + 1);
    const std::vector<float> piece(4, value);
    a.push_back(on.to_device(piece.data(), Shape(DType::kF32, {2, 2}), program.devices()[device]));
    b.push_back(on.to_device(piece.data(), Shape(DType::kF32, {2, 2}), program.devices()[device]));
  }
  for (size_t device = 0; device < 4; ++device) arguments[device] = {&a[device], &b[device]};
  const auto results = program.execute(arguments);
  ASSERT_EQ(results.size(), 4u);
  for (const auto& outputs : results) {  // 2 * (1 + 4 + 9 + 16) on every device
    EXPECT_EQ(outputs.at(0).to_vector<float>(), std::vector<float>(4, 60.0f));
  }
}

TEST_P(ClientTest, ADonatedBufferIsReusedAndCannotBeUsedAgain) {
  const Client on = client();
  const LoadedExecutable program = on.compile(kDonate);
  const std::vector<float> ones(1024, 1.0f);
  const Buffer a = on.to_device(ones.data(), Shape(DType::kF32, {1024}));
  const Buffer b = on.to_device(ones.data(), Shape(DType::kF32, {1024}));
  const uintptr_t address = a.unsafe_pointer();
  const std::vector<Buffer> results = program.execute(Pointers{&a, &b});
  EXPECT_EQ(results[0].to_vector<float>(), std::vector<float>(1024, 2.0f));
  EXPECT_EQ(results[0].unsafe_pointer(), address);
  EXPECT_TRUE(a.deleted());
  EXPECT_FALSE(b.deleted());

  const Error again = error_of([&] { program.execute(Pointers{&a, &b}); });
  EXPECT_EQ(again.code(), Code::kFailedPrecondition);
  EXPECT_TRUE(contains(again, "argument 0")) << again.what();
  EXPECT_TRUE(contains(again, "donated")) << again.what();
  const Error read = error_of([&] { a.to_vector<float>(); });
  EXPECT_EQ(read.code(), Code::kFailedPrecondition);
}

TEST_P(ClientTest, ZerosAreDonatedWithoutACopy) {
  const Client on = client();
  const LoadedExecutable program = on.compile(kDonate);
  const Buffer zeros = on.zeros(Shape(DType::kF32, {1024}), on.devices()[0]);
  const std::vector<float> ones(1024, 1.0f);
  const Buffer b = on.to_device(ones.data(), Shape(DType::kF32, {1024}));
  const uintptr_t address = zeros.unsafe_pointer();
  const std::vector<Buffer> results = program.execute(Pointers{&zeros, &b});
  EXPECT_EQ(results[0].to_vector<float>(), ones);
  EXPECT_EQ(results[0].unsafe_pointer(), address);
  EXPECT_TRUE(zeros.deleted());
}

TEST_P(ClientTest, ANonDonatableArgumentSurvives) {
  const Client on = client();
  const LoadedExecutable program = on.compile(kDonate);
  const std::vector<float> ones(1024, 1.0f);
  const Buffer a = on.to_device(ones.data(), Shape(DType::kF32, {1024}));
  const std::vector<int64_t> keep = {0};
  const std::vector<Buffer> results = program.execute(Pointers{&a, &a}, {.non_donatable = keep});
  EXPECT_FALSE(a.deleted());
  EXPECT_EQ(a.to_vector<float>(), ones);
  EXPECT_EQ(results[0].to_vector<float>(), std::vector<float>(1024, 2.0f));
}

TEST_P(ClientTest, APreparedCallRunsManyTimesOnItsOwnResults) {
  const Client on = client();
  const LoadedExecutable program = on.compile(kDonate);
  const std::vector<float> ones(1024, 1.0f);
  Buffer state = on.to_device(ones.data(), Shape(DType::kF32, {1024}));
  const Buffer step = on.to_device(ones.data(), Shape(DType::kF32, {1024}));
  Call call(program, 2);
  call.set_argument(1, step);
  std::vector<Event> done;
  for (int i = 0; i < 50; ++i) {
    call.set_argument(0, state);
    call.run({}, done);
    state = call.take_output(0);
  }
  ASSERT_EQ(done.size(), 1u);
  done[0].wait();
  EXPECT_TRUE(done[0].ready());
  EXPECT_EQ(state.to_vector<float>(), std::vector<float>(1024, 51.0f));
  EXPECT_EQ(error_of([&] { call.take_output(0); }).code(), Code::kInvalidArgument);
  EXPECT_EQ(error_of([&] { call.take_output(2); }).code(), Code::kInvalidArgument);
}

TEST_P(ClientTest, ACallNamesTheArgumentThatIsMissing) {
  const Client on = client();
  const LoadedExecutable program = on.compile(kAdd);
  Call call(program, 2);
  const std::vector<float> data(6, 1.0f);
  const Buffer x = on.to_device(data.data(), Shape(DType::kF32, {2, 3}));
  EXPECT_EQ(error_of([&] { call.set_argument(2, x); }).code(), Code::kInvalidArgument);
  EXPECT_EQ(error_of([&] { call.set_argument(0, x, 1); }).code(), Code::kInvalidArgument);
  const Error error = error_of([&] { call.run(); });
  EXPECT_TRUE(contains(error, "argument 0")) << error.what();
}

TEST_P(ClientTest, EventsCallBackWhenTheArrayIsThere) {
  const Client on = client();
  const std::vector<float> ones(6, 1.0f);
  const LoadedExecutable program = on.compile(kAdd);
  const Buffer x = on.to_device(ones.data(), Shape(DType::kF32, {2, 3}));
  const std::vector<Buffer> results = program.execute(Pointers{&x, &x});
  std::latch called(1);
  bool failed = true;
  const Event ready = results[0].ready();
  ready.on_ready([&](const Error* error) {
    failed = error != nullptr;
    called.count_down();
  });
  called.wait();
  EXPECT_FALSE(failed);
  ready.wait();
  EXPECT_TRUE(ready.ready());
}

TEST_P(ClientTest, AlignedHostMemoryBecomesTheBuffer) {
  const Client on = client();
  constexpr size_t kCount = 4096;
  std::shared_ptr<void> memory(std::aligned_alloc(64, kCount * sizeof(float) + 64), std::free);
  auto* data = static_cast<float*>(memory.get());
  for (size_t i = 0; i <= kCount; ++i) data[i] = static_cast<float>(i);
  const std::weak_ptr<void> watch = memory;

  Transfer aligned =
      on.transfer(data, Shape(DType::kF32, {kCount}), HostBufferSemantics::kZeroCopy, memory);
  EXPECT_TRUE(aligned.zero_copy);
  EXPECT_EQ(aligned.buffer.unsafe_pointer(), reinterpret_cast<uintptr_t>(data));
  const Transfer shifted =
      on.transfer(data + 1, Shape(DType::kF32, {kCount}), HostBufferSemantics::kZeroCopy);
  EXPECT_FALSE(shifted.zero_copy);
  EXPECT_EQ(shifted.buffer.to_vector<float>()[0], 1.0f);
  const Transfer copied =
      on.transfer(data, Shape(DType::kF32, {kCount}), HostBufferSemantics::kImmutableUntilDone);
  copied.host_done.wait();
  EXPECT_FALSE(copied.zero_copy);

  memory.reset();
  EXPECT_FALSE(watch.expired()) << "the buffer still needs the memory";
  EXPECT_EQ(aligned.buffer.to_vector<float>()[7], 7.0f);
  aligned.buffer = Buffer();
  aligned.host_done.wait();
  for (int i = 0; i < 1000 && !watch.expired(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_TRUE(watch.expired()) << "the buffer is gone";
}

TEST_P(ClientTest, CopiedHostMemoryMayChangeAtOnce) {
  const Client on = client();
  std::vector<float> data(4096, 1.0f);
  const Buffer buffer = on.to_device(data.data(), Shape(DType::kF32, {4096}));
  std::fill(data.begin(), data.end(), 2.0f);
  EXPECT_EQ(buffer.to_vector<float>(), std::vector<float>(4096, 1.0f));
}

TEST_P(ClientTest, BuffersMoveBetweenDevices) {
  const Client on = client(2);
  const std::vector<float> data = {1, 2, 3};
  const Buffer first = on.to_device(data.data(), Shape(DType::kF32, {3}));
  const Buffer second = first.copy_to(on.devices()[1]);
  EXPECT_EQ(second.device(), on.devices()[1]);
  EXPECT_NE(second.device().id(), first.device().id());
  EXPECT_EQ(second.to_vector<float>(), data);
}

TEST_P(ClientTest, AFreedBufferIsRefusedByName) {
  const Client on = client();
  const LoadedExecutable program = on.compile(kAdd);
  const std::vector<float> data(6, 1.0f);
  const Buffer good = on.to_device(data.data(), Shape(DType::kF32, {2, 3}));
  Buffer freed = on.to_device(data.data(), Shape(DType::kF32, {2, 3}));
  freed.free();
  EXPECT_TRUE(freed.deleted());
  const Error error = error_of([&] { program.execute(Pointers{&good, &freed}); });
  EXPECT_EQ(error.code(), Code::kFailedPrecondition);
  EXPECT_TRUE(contains(error, "argument 1")) << error.what();
}

TEST_P(ClientTest, WrongArgumentsAreErrorsAndNotCrashes) {
  const Client on = client();
  const LoadedExecutable program = on.compile(kAdd);
  const std::vector<float> data(16, 1.0f);
  const Buffer good = on.to_device(data.data(), Shape(DType::kF32, {2, 3}));
  const Buffer misshapen = on.to_device(data.data(), Shape(DType::kF32, {4, 4}));
  const Error count = error_of([&] { program.execute(Pointers{&good}); });
  EXPECT_EQ(count.code(), Code::kInvalidArgument) << count.what();
  const Error shape = error_of([&] {
    const auto results = program.execute(Pointers{&good, &misshapen});
    results[0].ready().wait();
  });
  EXPECT_EQ(shape.code(), Code::kInvalidArgument) << shape.what();
  const Error null = error_of([&] { program.execute(Pointers{&good, nullptr}); });
  EXPECT_TRUE(contains(null, "argument 1")) << null.what();
}

TEST_P(ClientTest, ABadProgramGivesTheCompilersWords) {
  const Client on = client();
  const Error syntax = error_of([&] { on.compile("module { func.func @main( }"); });
  EXPECT_TRUE(contains(syntax, "[compile]") && contains(syntax, "expected")) << syntax.what();
  const Error types = error_of([&] {
    on.compile(R"(module {
      func.func @main(%a: tensor<2xf32>, %b: tensor<3xf32>) -> tensor<2xf32> {
        %0 = stablehlo.add %a, %b : (tensor<2xf32>, tensor<3xf32>) -> tensor<2xf32>
        return %0 : tensor<2xf32>
      }
    })");
  });
  EXPECT_TRUE(contains(types, "stablehlo.add")) << types.what();
}

TEST_P(ClientTest, TheWrongDestinationSizeIsRefused) {
  const Client on = client();
  const std::vector<float> data(6, 1.0f);
  const Buffer buffer = on.to_device(data.data(), Shape(DType::kF32, {2, 3}));
  std::vector<float> small(2);
  const Error error = error_of([&] { buffer.to_host(small.data(), 8).wait(); });
  EXPECT_TRUE(contains(error, "24 bytes")) << error.what();
}

TEST_P(ClientTest, AProgramTellsItsMemoryAndCost) {
  const LoadedExecutable program = client().compile(kDonate);
  const CompiledMemoryStats memory = program.info().memory_stats();
  EXPECT_EQ(memory.arguments, 2 * 4096);
  EXPECT_GE(memory.outputs, 2 * 4096);
  EXPECT_EQ(memory.aliased, 4096);
  try {
    const Options cost = program.info().cost_analysis();
    EXPECT_EQ(std::get<float>(cost.at("flops")), 2048.0f);
  } catch (const Error& error) {  // the newer CPU plugin analyses no cost
    EXPECT_EQ(error.code(), Code::kUnimplemented) << error.what();
    EXPECT_STREQ(GetParam(), "cpu");
  }
  const OptimizedProgram optimized = program.info().optimized_program();
  EXPECT_TRUE(optimized.format.starts_with("hlo")) << optimized.format;
  EXPECT_TRUE(contains(optimized.code, "donate"));
}

TEST_P(ClientTest, ASerializedProgramLoadsAndRuns) {
  const Client on = client();
  std::string bytes;
  {
    const LoadedExecutable program = on.compile(kAdd);
    bytes = program.info().serialize();
  }
  const LoadedExecutable program = client().load(bytes);
  const std::vector<float> data = {1, 2, 3, 4, 5, 6};
  const Client owner = on;
  EXPECT_EQ(program.num_outputs(), 1);
  const LoadedExecutable same = owner.load(bytes);
  const Buffer x = owner.to_device(data.data(), Shape(DType::kF32, {2, 3}));
  EXPECT_EQ(same.execute(Pointers{&x, &x})[0].to_vector<float>(),
            (std::vector<float>{2, 4, 6, 8, 10, 12}));
  EXPECT_NO_THROW(same.info().fingerprint());
}

TEST_P(ClientTest, DamagedSerializedBytesAreRefused) {
  const Client on = client();
  const std::string bytes = on.compile(kAdd).info().serialize();
  EXPECT_THROW(on.load("nothing of the kind"), Error);
  EXPECT_THROW(on.load(std::string_view(bytes).substr(0, bytes.size() / 2)), Error);
}

TEST_P(ClientTest, BuffersOutliveTheClientThatMadeThem) {
  const std::vector<float> data = {1, 2, 3};
  Buffer buffer;
  {
    const Client on = client();
    buffer = on.to_device(data.data(), Shape(DType::kF32, {3}));
  }
  EXPECT_EQ(buffer.to_vector<float>(), data);
}

TEST_P(ClientTest, DevicesDescribeThemselves) {
  const Client on = client(2);
  EXPECT_EQ(on.devices().size(), on.all_devices().size());
  const Device device = on.devices()[1];
  EXPECT_TRUE(device.addressable());
  EXPECT_EQ(device.id(), 1);
  EXPECT_EQ(device.kind(), "cpu");
  EXPECT_FALSE(device.description().empty());
  EXPECT_FALSE(device.memory_stats().has_value());
}

TEST_P(ClientTest, AnUnknownXlaFlagIsRefusedAndAKnownOneIsTaken) {
  const Client on = client();
  CompileOptions options;
  add_xla_flags(options, "--xla_cpu_enable_fast_math=false  --xla_backend_optimization_level=1");
  EXPECT_NO_THROW(on.compile(kAdd, options));
  add_xla_flags(options, "--xla_no_such_flag=3");
  EXPECT_THROW(on.compile(kAdd, options), Error);
}

}  // namespace
}  // namespace ttpu::pjrt
