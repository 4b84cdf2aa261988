// A client: the devices that one plugin drives in this process.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/base/shape.h"
#include "ttpu/pjrt/buffer.h"
#include "ttpu/pjrt/compile_options.h"
#include "ttpu/pjrt/device.h"
#include "ttpu/pjrt/executable.h"
#include "ttpu/pjrt/plugin.h"

struct PJRT_Client;

namespace ttpu::pjrt {

// The client proper. Buffers and executables share it, so that it outlives them all.
class ClientHandle {
 public:
  ClientHandle(std::shared_ptr<const Plugin> plugin, const Options& options);
  ~ClientHandle();
  ClientHandle(const ClientHandle&) = delete;
  ClientHandle& operator=(const ClientHandle&) = delete;

  const PJRT_Api* api() const { return api_; }
  PJRT_Client* get() const { return client_; }
  const std::shared_ptr<const Plugin>& plugin() const { return plugin_; }
  bool shares_host_memory() const { return shares_host_memory_; }

 private:
  std::shared_ptr<const Plugin> plugin_;
  const PJRT_Api* api_;
  PJRT_Client* client_ = nullptr;
  bool shares_host_memory_ = false;
};

// A cheap value: copies are the same client.
class Client {
 public:
  // `options` go to the plugin: {"cpu_device_count", int64_t{4}} gives four CPU devices.
  static Client create(std::shared_ptr<const Plugin> plugin, const Options& options = {});

  std::string platform_name() const;  // "cpu", "tpu", "cuda"
  std::string platform_version() const;
  const Plugin& plugin() const { return *handle_->plugin(); }
  // The devices this process can use; `all_devices` are those of every process.
  const std::vector<Device>& devices() const { return devices_; }
  std::vector<Device> all_devices() const;

  // `program` is the text of a StableHLO module (or its bytecode). Throws the compiler's error.
  LoadedExecutable compile(std::string_view program, const CompileOptions& options = {}) const;
  // Loads what Executable::serialize gave, from the same version of the same plugin.
  LoadedExecutable load(std::string_view serialized) const;

  // Starts a transfer of shape.byte_size() bytes to `device` (the first when not given).
  // `keep_alive` is held until the plugin no longer needs the host memory: with kZeroCopy, until
  // the buffer is gone. CPU plugins alias memory that is aligned to 64 bytes and copy other.
  Transfer transfer(const void* data, const Shape& shape,
                    HostBufferSemantics semantics = HostBufferSemantics::kCopy,
                    std::shared_ptr<const void> keep_alive = nullptr) const;
  Transfer transfer(const void* data, const Shape& shape, const Device& device,
                    HostBufferSemantics semantics, std::shared_ptr<const void> keep_alive) const;
  // The same where 4-bit elements lie one to a byte, as plugins take them.
  Transfer transfer_unpacked(const void* data, const Shape& shape, const Device& device,
                             HostBufferSemantics semantics,
                             std::shared_ptr<const void> keep_alive) const;
  // A copy of host memory that may be changed when the call returns.
  Buffer to_device(const void* data, const Shape& shape) const;
  Buffer to_device(const void* data, const Shape& shape, const Device& device) const;

  // Zeros that can be donated. Where the device is the host, they take memory only as they are
  // written.
  Buffer zeros(const Shape& shape, const Device& device) const;

  const std::shared_ptr<const ClientHandle>& handle() const { return handle_; }

 private:
  explicit Client(std::shared_ptr<const ClientHandle> handle);
  std::shared_ptr<const ClientHandle> handle_;
  std::vector<Device> devices_;
};

}  // namespace ttpu::pjrt
