#include <utility>

#include "ttpu/pjrt/capi.h"
#include "ttpu/pjrt/client.h"
#include "ttpu/pjrt/executable.h"

namespace ttpu::pjrt {
namespace {

void destroy_buffer(const PJRT_Api* api, PJRT_Buffer* buffer) {
  if (buffer == nullptr) return;
  TTPU_PJRT_ARGS(PJRT_Buffer_Destroy_Args, args);
  args.buffer = buffer;
  if (PJRT_Error* error = api->PJRT_Buffer_Destroy(&args); error != nullptr) {
    take_error(api, error, "buffer");
  }
}

bool is_deleted(const PJRT_Api* api, PJRT_Buffer* buffer) {
  TTPU_PJRT_ARGS(PJRT_Buffer_IsDeleted_Args, args);
  args.buffer = buffer;
  if (PJRT_Error* error = api->PJRT_Buffer_IsDeleted(&args); error != nullptr) {
    take_error(api, error, "buffer");
    return false;
  }
  return args.is_deleted;
}

}  // namespace

LoadedExecutable::LoadedExecutable(std::shared_ptr<const ClientHandle> client,
                                   PJRT_LoadedExecutable* executable)
    : client_(std::move(client)), executable_(executable) {
  const PJRT_Api* api = client_->api();
  TTPU_PJRT_ARGS(PJRT_LoadedExecutable_GetExecutable_Args, get);
  get.loaded_executable = executable_;
  check(api, api->PJRT_LoadedExecutable_GetExecutable(&get), "executable");
  info_ = Executable(api, get.executable, client_);
  num_outputs_ = info_.num_outputs();

  TTPU_PJRT_ARGS(PJRT_LoadedExecutable_AddressableDevices_Args, args);
  args.executable = executable_;
  check(api, api->PJRT_LoadedExecutable_AddressableDevices(&args), "executable");
  for (size_t i = 0; i < args.num_addressable_devices; ++i) {
    devices_.emplace_back(api, args.addressable_devices[i]);
  }
}

LoadedExecutable::~LoadedExecutable() {
  info_ = Executable();
  if (executable_ == nullptr) return;
  TTPU_PJRT_ARGS(PJRT_LoadedExecutable_Destroy_Args, args);
  args.executable = executable_;
  const PJRT_Api* api = client_->api();
  if (PJRT_Error* error = api->PJRT_LoadedExecutable_Destroy(&args); error != nullptr) {
    take_error(api, error, "executable");
  }
}

LoadedExecutable::LoadedExecutable(LoadedExecutable&& other) noexcept
    : client_(std::move(other.client_)),
      executable_(std::exchange(other.executable_, nullptr)),
      info_(std::move(other.info_)),
      devices_(std::move(other.devices_)),
      num_outputs_(other.num_outputs_) {}

LoadedExecutable& LoadedExecutable::operator=(LoadedExecutable&& other) noexcept {
  std::swap(client_, other.client_);
  std::swap(executable_, other.executable_);
  std::swap(info_, other.info_);
  std::swap(devices_, other.devices_);
  std::swap(num_outputs_, other.num_outputs_);
  return *this;
}

std::vector<Buffer> LoadedExecutable::execute(std::span<const Buffer* const> arguments,
                                              const ExecuteOptions& options) const {
  const std::vector<const Buffer*> one(arguments.begin(), arguments.end());
  return std::move(execute(std::span(&one, 1), options)[0]);
}

std::vector<std::vector<Buffer>> LoadedExecutable::execute(
    std::span<const std::vector<const Buffer*>> arguments, const ExecuteOptions& options) const {
  require(executable_ != nullptr, "[execute] an empty executable cannot run; was it moved from?");
  require(arguments.size() == devices_.size(),
          "[execute] '{}' runs on {} devices, but arguments for {} were given", info_.name(),
          devices_.size(), arguments.size());
  const size_t num_arguments = arguments.empty() ? 0 : arguments[0].size();
  Call call(*this, static_cast<int64_t>(num_arguments));
  for (size_t device = 0; device < arguments.size(); ++device) {
    require(
        arguments[device].size() == num_arguments,
        "[execute] device {} was given {} arguments and device 0 {}; every device takes as many",
        device, arguments[device].size(), num_arguments);
    for (size_t i = 0; i < num_arguments; ++i) {
      require(arguments[device][i] != nullptr, "[execute] argument {} of device {} is null", i,
              device);
      call.set_argument(static_cast<int64_t>(i), *arguments[device][i],
                        static_cast<int64_t>(device));
    }
  }
  call.run(options);
  std::vector<std::vector<Buffer>> results(arguments.size());
  for (size_t device = 0; device < results.size(); ++device) {
    for (int64_t i = 0; i < num_outputs_; ++i) {
      results[device].push_back(call.take_output(i, static_cast<int64_t>(device)));
    }
  }
  return results;
}

Call::Call(const LoadedExecutable& executable, int64_t num_arguments)
    : executable_(&executable),
      num_arguments_(num_arguments),
      num_outputs_(executable.num_outputs()),
      num_devices_(static_cast<int64_t>(executable.devices().size())) {
  arguments_.resize(static_cast<size_t>(num_devices_ * num_arguments_));
  outputs_.resize(static_cast<size_t>(num_devices_ * num_outputs_));
  events_.resize(static_cast<size_t>(num_devices_));
  for (int64_t device = 0; device < num_devices_; ++device) {
    argument_lists_.push_back(arguments_.data() + device * num_arguments_);
    output_lists_.push_back(outputs_.data() + device * num_outputs_);
  }
}

Call::~Call() { free_outputs(); }

void Call::free_outputs() {
  for (PJRT_Buffer*& output : outputs_) {
    if (output != nullptr) destroy_buffer(executable_->client()->api(), output);
    output = nullptr;
  }
}

void Call::run(const ExecuteOptions& options) { start(options, false); }

void Call::run(const ExecuteOptions& options, std::vector<Event>& done) {
  start(options, true);
  done.clear();
  const PJRT_Api* api = executable_->client()->api();
  for (PJRT_Event*& event : events_) done.emplace_back(api, std::exchange(event, nullptr));
}

void Call::start(const ExecuteOptions& options, bool with_events) {
  free_outputs();
  for (size_t i = 0; i < arguments_.size(); ++i) {
    if (arguments_[i] == nullptr) {
      fail(Code::kInvalidArgument, "[execute] argument {} of device {} of '{}' is not set",
           static_cast<int64_t>(i) % num_arguments_, static_cast<int64_t>(i) / num_arguments_,
           executable_->info().name());
    }
  }
  TTPU_PJRT_ARGS(PJRT_ExecuteOptions, c_options);
  c_options.launch_id = options.launch_id;
  c_options.non_donatable_input_indices = options.non_donatable.data();
  c_options.num_non_donatable_input_indices = options.non_donatable.size();
  TTPU_PJRT_ARGS(PJRT_LoadedExecutable_Execute_Args, args);
  args.executable = executable_->get();
  args.options = &c_options;
  args.argument_lists = argument_lists_.data();
  args.num_devices = static_cast<size_t>(num_devices_);
  args.num_args = static_cast<size_t>(num_arguments_);
  args.output_lists = output_lists_.data();
  args.device_complete_events = with_events ? events_.data() : nullptr;
  const PJRT_Api* api = executable_->client()->api();
  if (PJRT_Error* error = api->PJRT_LoadedExecutable_Execute(&args); error != nullptr) {
    explain(take_error(api, error, "execute"));
  }
}

// Finds the argument at fault when it is one that no longer exists.
void Call::explain(const Error& error) const {
  const PJRT_Api* api = executable_->client()->api();
  for (size_t i = 0; i < arguments_.size(); ++i) {
    if (!is_deleted(api, arguments_[i])) continue;
    fail(Code::kFailedPrecondition,
         "[execute] argument {} of device {} of '{}' was deleted, or donated to an earlier call; "
         "pass "
         "that call's result instead, or list the argument as non-donatable there. The plugin "
         "says: {}",
         static_cast<int64_t>(i) % num_arguments_, static_cast<int64_t>(i) / num_arguments_,
         executable_->info().name(), error.what());
  }
  throw error;
}

void Call::refuse_argument(int64_t index, int64_t device) const {
  fail(Code::kInvalidArgument,
       "[execute] argument {} of device {} was set; this call of '{}' has {} arguments on {} "
       "devices",
       index, device, executable_->info().name(), num_arguments_, num_devices_);
}

Buffer Call::take_output(int64_t index, int64_t device) {
  require(
      index >= 0 && index < num_outputs_ && device >= 0 && device < num_devices_,
      "[execute] output {} of device {} was asked for; the program has {} outputs on {} devices",
      index, device, num_outputs_, num_devices_);
  PJRT_Buffer*& output = outputs_[static_cast<size_t>(device * num_outputs_ + index)];
  require(output != nullptr,
          "[execute] output {} of device {} was taken already, or nothing ran yet", index, device);
  return Buffer(executable_->client(), std::exchange(output, nullptr));
}

}  // namespace ttpu::pjrt
