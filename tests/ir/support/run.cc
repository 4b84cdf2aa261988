#include "run.h"

#include <cmath>
#include <set>

namespace ttpu::ir::testing {
namespace {

// Host arrays of PJRT hold two 4-bit elements a byte, the lower half first.
std::vector<std::byte> host_bytes(const Shape& shape, const std::vector<double>& values) {
  std::vector<std::byte> bytes;
  const auto size = static_cast<size_t>(Literal::element_bytes(shape.dtype));
  for (const double value : values) {
    const Literal one = Literal::splat(Shape(shape.dtype, {}), value);
    bytes.insert(bytes.end(), one.bytes().begin(),
                 one.bytes().begin() + static_cast<int64_t>(size));
  }
  if (bit_width(shape.dtype) != 4) return bytes;
  std::vector<std::byte> packed((bytes.size() + 1) / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    packed[i / 2] |= (bytes[i] & std::byte{15}) << (i % 2 == 0 ? 0 : 4);
  }
  return packed;
}

std::vector<double> from_device(const pjrt::Buffer& buffer) {
  const Shape shape = buffer.shape();
  auto bytes = buffer.to_vector<std::byte>();
  if (bit_width(shape.dtype) == 4) {
    std::vector<std::byte> unpacked(static_cast<size_t>(shape.num_elements()));
    for (size_t i = 0; i < unpacked.size(); ++i) {
      const auto nibble = static_cast<int>((bytes[i / 2] >> (i % 2 == 0 ? 0 : 4)) & std::byte{15});
      const bool negative = shape.dtype == DType::kS4 && nibble >= 8;
      unpacked[i] = static_cast<std::byte>(negative ? nibble - 16 : nibble);
    }
    bytes = std::move(unpacked);
  }
  return Literal(shape, std::move(bytes)).numbers();
}

double default_tolerance(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
      return 3e-6;
    case DType::kF16:
      return 2e-3;
    case DType::kBF16:
      return 1e-2;
    default:
      return 0;
  }
}

bool close(double actual, double expected, double tolerance) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (actual == expected) return true;
  return std::fabs(actual - expected) <= tolerance * std::max(1.0, std::fabs(expected));
}

std::string compare_values(const std::vector<double>& actual, const Expectation& expected,
                           size_t device) {
  const auto& wanted = expected.values.at(expected.values.size() == 1 ? 0 : device);
  if (actual.size() != wanted.size()) {
    return fmt::format("'{}' has {} elements, expected {}\n", expected.name, actual.size(),
                       wanted.size());
  }
  const double tolerance =
      expected.tolerance < 0 ? default_tolerance(expected.shape.dtype) : expected.tolerance;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (!close(actual[i], wanted[i], tolerance)) {
      return fmt::format("'{}'[{}] on device {} is {}, expected {}\n", expected.name, i, device,
                         actual[i], wanted[i]);
    }
  }
  return "";
}

// The part of a sharded argument that one device holds has as many values as the text gives it.
Shape local_shape(const Argument& argument, const OpCase& op_case, size_t index) {
  Shape shape = argument.shape;
  const auto& sharding = op_case.module->find_function("main")->argument_info(index).sharding;
  if (!sharding) return shape;
  for (size_t i = 0; i < sharding->dims.size(); ++i) {
    for (const std::string& axis : sharding->dims[i].axes) {
      for (const auto& [name, size] : op_case.module->find_mesh(sharding->mesh)->axes) {
        if (name == axis) shape.dims[i] /= size;
      }
    }
  }
  return shape;
}

}  // namespace

const std::vector<CpuPlugin>& cpu_plugins() {
  static const std::vector<CpuPlugin> plugins = [] {
    std::vector<CpuPlugin> found;
    std::set<std::string> names;
    for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
      if (location.name.rfind("cpu", 0) != 0 || !names.insert(location.name).second) continue;
      found.push_back({location.name, pjrt::Client::create(pjrt::load_plugin(location.path),
                                                           {{"cpu_device_count", int64_t{2}}})});
    }
    require(!found.empty(), "no CPU plugin is installed; run: ttpu plugin install cpu");
    return found;
  }();
  return plugins;
}

Program::Program(const pjrt::Client& client, const Module& module)
    : client_(client), program_(client.compile(module.to_string())) {
  for (const Value argument : module.find_function("main")->arguments()) {
    shapes_.push_back(argument.shape());
  }
}

std::vector<std::vector<double>> Program::operator()(
    const std::vector<std::vector<double>>& arguments) const {
  std::vector<pjrt::Buffer> buffers;
  for (size_t i = 0; i < arguments.size(); ++i) {
    buffers.push_back(client_.to_device(host_bytes(shapes_[i], arguments[i]).data(), shapes_[i]));
  }
  std::vector<const pjrt::Buffer*> pointers;
  for (const pjrt::Buffer& buffer : buffers) pointers.push_back(&buffer);
  std::vector<std::vector<double>> results;
  for (const pjrt::Buffer& buffer : program_.execute(pointers)) {
    results.push_back(from_device(buffer));
  }
  return results;
}

std::vector<std::vector<double>> run(const pjrt::Client& client, const Module& module,
                                     const std::vector<std::vector<double>>& arguments) {
  return Program(client, module)(arguments);
}

std::string check_case(const pjrt::Client& client, const OpCase& op_case) {
  pjrt::CompileOptions options;
  options.num_replicas = op_case.replicas;
  options.num_partitions = op_case.partitions;
  const pjrt::LoadedExecutable program = client.compile(op_case.module->to_string(), options);
  const auto devices = static_cast<size_t>(op_case.replicas * op_case.partitions);
  std::vector<std::vector<pjrt::Buffer>> buffers(devices);
  std::vector<std::vector<const pjrt::Buffer*>> pointers(devices);
  for (size_t device = 0; device < devices; ++device) {
    for (size_t i = 0; i < op_case.arguments.size(); ++i) {
      const Argument& argument = op_case.arguments[i];
      const Shape shape = local_shape(argument, op_case, i);
      const auto& values = argument.values.at(argument.values.size() == 1 ? 0 : device);
      require(static_cast<int64_t>(values.size()) == shape.num_elements(),
              "'{}' has {} values for {}", argument.name, values.size(), shape.to_string());
      buffers[device].push_back(
          client.to_device(host_bytes(shape, values).data(), shape, program.devices().at(device)));
    }
    for (const pjrt::Buffer& buffer : buffers[device]) pointers[device].push_back(&buffer);
  }
  std::string problems;
  const auto results = program.execute(pointers);
  for (size_t device = 0; device < devices; ++device) {
    for (size_t i = 0; i < op_case.expectations.size(); ++i) {
      const Shape shape = results[device].at(i).shape();
      if (shape != op_case.expectations[i].shape) {
        problems += fmt::format("'{}' is {} on the device\n", op_case.expectations[i].name,
                                shape.to_string());
        continue;
      }
      problems += compare_values(from_device(results[device][i]), op_case.expectations[i], device);
    }
  }
  return problems;
}

}  // namespace ttpu::ir::testing
