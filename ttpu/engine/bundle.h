// A bundle: a folder with an engine's programs, compiled. manifest.json says of what model, for
// which devices, plugin and options they were compiled; programs/ has the text (StableHLO) and the
// serialized executable of each.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ttpu/engine/engine_plan.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::engine {

// What a bundle is for. Two of them are compared field by field.
struct BundleIdentity {
  std::string plugin;   // name, version and size of the library
  std::string devices;  // "4 x TPU v5 lite"
  std::string model;    // digest of config.json
  // Digest of the names, shapes and forms of all tensors and of some bytes of each; "none" when
  // programs were compiled from config.json alone.
  std::string weights;
  std::string version;  // TTPU's
};
std::string plugin_fingerprint(const pjrt::Plugin& plugin, const std::string& platform_version);
std::string text_digest(const std::string& text);
std::string config_digest(const Json& config);
std::string weights_digest(const io::Checkpoint& checkpoint);
// The options that decide what programs are, by the names of their flags.
Json program_flags(const EngineOptions& options);
std::string device_list(const std::vector<std::string>& kinds);

// Writes a bundle beside `folder` and renames it at the end; what stood there before is replaced.
class BundleWriter {
 public:
  // Throws kAlreadyExists when `folder` is there and is no bundle, or has other things in it, and
  // kFailedPrecondition when it can have no other in its place. A link is followed. Removes what
  // writers left that were killed.
  explicit BundleWriter(const std::filesystem::path& folder);
  ~BundleWriter();  // removes what was not committed
  BundleWriter(const BundleWriter&) = delete;
  BundleWriter& operator=(const BundleWriter&) = delete;

  // Where child processes may put what they compile.
  const std::filesystem::path& beside() const { return beside_; }
  // `plain`: the text without kernels of the TPU, where it is another one and check_program() is
  // going to ask for it.
  void add(const std::string& program, const std::string& text, const std::string& executable,
           const std::string& plain = "");
  void commit(const BundleIdentity& identity, const std::string& topology,
              const std::string& model_path, const EnginePlan& plan);

 private:
  std::filesystem::path folder_;
  std::filesystem::path beside_;
  Json programs_ = Json::object();
};

class Bundle {
 public:
  // Throws kNotFound, also for a file of it, or kInvalidArgument for what is no bundle or a damaged
  // one. Executables are compared by size here, by digest when they are loaded.
  static std::shared_ptr<const Bundle> open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const std::string& model_path() const { return model_path_; }
  const BundleIdentity& identity() const { return identity_; }
  std::string fingerprint() const;  // a digest of all that it is made of
  // `given` with what the bundle was compiled for. Throws kFailedPrecondition where the bundle has
  // one of the flags that were `asked` for ("block-size") with another value.
  EngineOptions options(const EngineOptions& given, const std::vector<std::string>& asked) const;
  static std::vector<std::string> flags();  // that a bundle fixes
  // plan_engine's result as it was when the bundle was made.
  EnginePlan plan(const nn::DecoderSpec& spec, const EngineOptions& options) const;

  // Throw kFailedPrecondition, with both values.
  void check_model(const std::string& config_digest) const;
  void check_weights(const std::string& weights_digest) const;
  // `platform`: "cpu", "tpu" or "cuda", as Client::platform_name() says it.
  void check_devices(const std::string& platform, const std::string& plugin,
                     const std::string& devices) const;
  // That this version makes the same program of the model. The text is that without kernels of the
  // TPU: the tool that makes them need not be where bundles are loaded.
  void check_program(const std::string& program, const std::string& text) const;

  // The executable; when the plugin refuses it or it is for other devices than the mesh has here, a
  // warning, and the text is compiled (*compiled).
  pjrt::LoadedExecutable load(const pjrt::Client& client, const std::string& program,
                              const parallel::Mesh& mesh, bool* compiled) const;

 private:
  void check_files() const;
  std::filesystem::path file_of(const std::string& program, const char* part) const;
  std::string read(const std::string& program, const char* part) const;
  void require_equal(const char* what, const std::string& own, const std::string& here) const;

  std::filesystem::path folder_;
  Json manifest_;
  BundleIdentity identity_;
  std::string model_path_;
  std::string topology_;
};

// "t16_s4_r4", and that of the program which sets token counts.
std::string program_name(const Bucket& bucket);
inline constexpr const char* kHistoryProgram = "set_history";
inline constexpr const char* kCopyProgram = "copy_blocks";

}  // namespace ttpu::engine
