// Compiled programs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/base/shape.h"
#include "ttpu/pjrt/buffer.h"
#include "ttpu/pjrt/device.h"
#include "ttpu/pjrt/event.h"
#include "ttpu/pjrt/options.h"

struct PJRT_Api;
struct PJRT_Executable;
struct PJRT_LoadedExecutable;

namespace ttpu::pjrt {

class ClientHandle;

// Bytes on one device.
struct CompiledMemoryStats {
  int64_t generated_code = 0;
  int64_t arguments = 0;
  int64_t outputs = 0;
  int64_t aliased = 0;  // of the outputs, bytes that reuse donated arguments
  int64_t temporaries = 0;
  int64_t peak = 0;  // the most that is in use at once as the compiler counts it; 0 if not told
};

// A program as the compiler left it.
struct OptimizedProgram {
  std::string
      format;        // "hlo" (HloModuleProto), "hlo_with_config" (HloModuleProtoWithConfig), "mlir"
  std::string code;  // bytes in that format
};

// What the compiler made, whether or not it can run here. Movable, not copyable.
class Executable {
 public:
  Executable() = default;
  // `owner` keeps alive what the executable depends on; may be null.
  Executable(const PJRT_Api* api, PJRT_Executable* executable, std::shared_ptr<const void> owner);
  ~Executable();
  Executable(Executable&& other) noexcept;
  Executable& operator=(Executable&& other) noexcept;

  std::string name() const;
  int64_t num_outputs() const;
  int64_t num_replicas() const;
  int64_t num_partitions() const;
  // Of one device, in the order of the program's results.
  std::vector<Shape> output_shapes() const;
  CompiledMemoryStats memory_stats() const;
  // XLA's names: "flops", "bytes accessed", ... Throws kUnimplemented where the plugin has none.
  Options cost_analysis() const;
  OptimizedProgram optimized_program() const;
  std::string serialize() const;
  // In hexadecimal; equal for equal programs. "" when the plugin has none.
  std::string fingerprint() const;

 private:
  const PJRT_Api* api_ = nullptr;
  PJRT_Executable* executable_ = nullptr;
  std::shared_ptr<const void> owner_;
};

struct ExecuteOptions {
  // Arguments that are not given up although the program would take them over.
  std::span<const int64_t> non_donatable = {};
  // Programs that meet in collectives are started in this order on every process.
  int launch_id = 0;
};

class LoadedExecutable;

// A call that is made many times: the lists PJRT wants are kept, so that running it allocates
// nothing here. The executable must outlive it; buffers set as arguments must live until run().
class Call {
 public:
  // Every device takes `num_arguments` buffers.
  Call(const LoadedExecutable& executable, int64_t num_arguments);

  int64_t num_arguments() const { return num_arguments_; }
  // `device` is the position in LoadedExecutable::devices().
  // Throws kInvalidArgument if there is no such argument or device.
  void set_argument(int64_t index, const Buffer& buffer, int64_t device = 0) {
    if (index < 0 || index >= num_arguments_ || device < 0 || device >= num_devices_) {
      refuse_argument(index, device);
    }
    arguments_[static_cast<size_t>(device * num_arguments_ + index)] = buffer.get();
  }
  // Starts the program on every device. Donated arguments are deleted by it. Throws
  // kInvalidArgument for an argument that is not set, kFailedPrecondition for one that was deleted
  // or donated before, and what the plugin says of wrong counts and shapes.
  void run(const ExecuteOptions& options = {});
  // As run(); `done` gets one event a device. Reuses the vector's memory.
  void run(const ExecuteOptions& options, std::vector<Event>& done);
  // Takes a result of the last run; each can be taken once. What is not taken is freed.
  Buffer take_output(int64_t index, int64_t device = 0);
  int64_t num_outputs() const { return num_outputs_; }

  ~Call();
  Call(Call&&) = delete;

 private:
  void start(const ExecuteOptions& options, bool with_events);
  void free_outputs();
  [[noreturn]] void explain(const Error& error) const;
  [[noreturn]] void refuse_argument(int64_t index, int64_t device) const;

  const LoadedExecutable* executable_;
  int64_t num_arguments_;
  int64_t num_outputs_;
  int64_t num_devices_;
  std::vector<PJRT_Buffer*> arguments_;  // [device][argument]
  std::vector<PJRT_Buffer*> outputs_;    // [device][output]
  std::vector<PJRT_Buffer* const*> argument_lists_;
  std::vector<PJRT_Buffer**> output_lists_;
  std::vector<PJRT_Event*> events_;
};

// A program that can run on its client's devices. Movable, not copyable.
class LoadedExecutable {
 public:
  LoadedExecutable() = default;
  LoadedExecutable(std::shared_ptr<const ClientHandle> client, PJRT_LoadedExecutable* executable);
  ~LoadedExecutable();
  LoadedExecutable(LoadedExecutable&& other) noexcept;
  LoadedExecutable& operator=(LoadedExecutable&& other) noexcept;

  const Executable& info() const { return info_; }
  // In the order of the lists that execute takes and gives.
  const std::vector<Device>& devices() const { return devices_; }
  // Asked once, when the program was loaded.
  int64_t num_outputs() const { return num_outputs_; }

  // For programs of one device. Results are ready when their ready() is. Errors as Call::run.
  std::vector<Buffer> execute(std::span<const Buffer* const> arguments,
                              const ExecuteOptions& options = {}) const;
  // arguments[device][argument] to results[device][output].
  std::vector<std::vector<Buffer>> execute(std::span<const std::vector<const Buffer*>> arguments,
                                           const ExecuteOptions& options = {}) const;

  PJRT_LoadedExecutable* get() const { return executable_; }
  const std::shared_ptr<const ClientHandle>& client() const { return client_; }

 private:
  std::shared_ptr<const ClientHandle> client_;
  PJRT_LoadedExecutable* executable_ = nullptr;
  Executable info_;
  std::vector<Device> devices_;
  int64_t num_outputs_ = 0;
};

}  // namespace ttpu::pjrt
