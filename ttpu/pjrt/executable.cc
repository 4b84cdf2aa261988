#include "ttpu/pjrt/executable.h"

#include <utility>

#include "ttpu/pjrt/capi.h"

namespace ttpu::pjrt {

Executable::Executable(const PJRT_Api* api, PJRT_Executable* executable,
                       std::shared_ptr<const void> owner)
    : api_(api), executable_(executable), owner_(std::move(owner)) {}

Executable::~Executable() {
  if (executable_ == nullptr) return;
  TTPU_PJRT_ARGS(PJRT_Executable_Destroy_Args, args);
  args.executable = executable_;
  if (PJRT_Error* error = api_->PJRT_Executable_Destroy(&args); error != nullptr) {
    take_error(api_, error, "executable");
  }
}

Executable::Executable(Executable&& other) noexcept
    : api_(other.api_),
      executable_(std::exchange(other.executable_, nullptr)),
      owner_(std::move(other.owner_)) {}

Executable& Executable::operator=(Executable&& other) noexcept {
  std::swap(api_, other.api_);
  std::swap(executable_, other.executable_);
  std::swap(owner_, other.owner_);
  return *this;
}

std::string Executable::name() const {
  TTPU_PJRT_ARGS(PJRT_Executable_Name_Args, args);
  args.executable = executable_;
  check(api_, api_->PJRT_Executable_Name(&args), "executable");
  return std::string(args.executable_name, args.executable_name_size);
}

int64_t Executable::num_outputs() const {
  TTPU_PJRT_ARGS(PJRT_Executable_NumOutputs_Args, args);
  args.executable = executable_;
  check(api_, api_->PJRT_Executable_NumOutputs(&args), "executable");
  return static_cast<int64_t>(args.num_outputs);
}

int64_t Executable::num_replicas() const {
  TTPU_PJRT_ARGS(PJRT_Executable_NumReplicas_Args, args);
  args.executable = executable_;
  check(api_, api_->PJRT_Executable_NumReplicas(&args), "executable");
  return static_cast<int64_t>(args.num_replicas);
}

int64_t Executable::num_partitions() const {
  TTPU_PJRT_ARGS(PJRT_Executable_NumPartitions_Args, args);
  args.executable = executable_;
  check(api_, api_->PJRT_Executable_NumPartitions(&args), "executable");
  return static_cast<int64_t>(args.num_partitions);
}

std::vector<Shape> Executable::output_shapes() const {
  TTPU_PJRT_ARGS(PJRT_Executable_OutputElementTypes_Args, types);
  types.executable = executable_;
  check(api_, api_->PJRT_Executable_OutputElementTypes(&types), "executable");
  TTPU_PJRT_ARGS(PJRT_Executable_OutputDimensions_Args, dims);
  dims.executable = executable_;
  check(api_, api_->PJRT_Executable_OutputDimensions(&dims), "executable");
  std::vector<Shape> shapes;
  shapes.reserve(types.num_output_types);
  const int64_t* next = dims.dims;  // all outputs' dimensions, one after the other
  for (size_t i = 0; i < types.num_output_types; ++i) {
    shapes.emplace_back(from_buffer_type(types.output_types[i]),
                        Dims(next, next + dims.dim_sizes[i]));
    next += dims.dim_sizes[i];
  }
  return shapes;
}

CompiledMemoryStats Executable::memory_stats() const {
  if (!TTPU_PJRT_HAS(api_, PJRT_Executable_GetCompiledMemoryStats)) {
    fail(Code::kUnimplemented, "[executable] this plugin tells no memory statistics");
  }
  TTPU_PJRT_ARGS(PJRT_Executable_GetCompiledMemoryStats_Args, args);
  args.executable = executable_;
  check(api_, api_->PJRT_Executable_GetCompiledMemoryStats(&args), "executable");
  CompiledMemoryStats stats;
  stats.generated_code = args.generated_code_size_in_bytes;
  stats.arguments = args.argument_size_in_bytes;
  stats.outputs = args.output_size_in_bytes;
  stats.aliased = args.alias_size_in_bytes;
  stats.temporaries = args.temp_size_in_bytes;
  stats.peak = args.peak_memory_in_bytes;
  return stats;
}

Options Executable::cost_analysis() const {
  TTPU_PJRT_ARGS(PJRT_Executable_GetCostAnalysis_Args, args);
  args.executable = executable_;
  check(api_, api_->PJRT_Executable_GetCostAnalysis(&args), "cost analysis");
  return from_named_values(args.properties, args.num_properties);
}

OptimizedProgram Executable::optimized_program() const {
  // Asked twice: for the size, then for the bytes.
  TTPU_PJRT_ARGS(PJRT_Program, program);
  TTPU_PJRT_ARGS(PJRT_Executable_OptimizedProgram_Args, args);
  args.executable = executable_;
  args.program = &program;
  check(api_, api_->PJRT_Executable_OptimizedProgram(&args), "optimized program");
  OptimizedProgram result;
  result.code.resize(program.code_size);
  program.code = result.code.data();
  check(api_, api_->PJRT_Executable_OptimizedProgram(&args), "optimized program");
  result.code.resize(program.code_size);
  result.format.assign(program.format, program.format_size);
  return result;
}

std::string Executable::serialize() const {
  TTPU_PJRT_ARGS(PJRT_Executable_Serialize_Args, args);
  args.executable = executable_;
  check(api_, api_->PJRT_Executable_Serialize(&args), "serialize executable");
  std::string bytes;
  try {
    bytes.assign(args.serialized_bytes, args.serialized_bytes_size);
  } catch (...) {
    args.serialized_executable_deleter(args.serialized_executable);
    throw;
  }
  args.serialized_executable_deleter(args.serialized_executable);
  return bytes;
}

std::string Executable::fingerprint() const {
  if (!TTPU_PJRT_HAS(api_, PJRT_Executable_Fingerprint)) return "";
  TTPU_PJRT_ARGS(PJRT_Executable_Fingerprint_Args, args);
  args.executable = executable_;
  if (PJRT_Error* error = api_->PJRT_Executable_Fingerprint(&args); error != nullptr) {
    const Error ours = take_error(api_, error, "fingerprint");
    if (ours.code() == Code::kUnimplemented) return "";
    throw Error(ours);
  }
  const std::string_view bytes(args.executable_fingerprint, args.executable_fingerprint_size);
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace ttpu::pjrt
