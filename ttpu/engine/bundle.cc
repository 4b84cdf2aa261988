#include "ttpu/engine/bundle.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <map>

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "ttpu/base/file.h"
#include "ttpu/base/log.h"
#include "ttpu/engine/aot.h"
#include "ttpu/engine/device.h"
#include "ttpu/io/composite.h"

namespace ttpu::engine {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFormat = 3;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kPrograms = "programs";
constexpr const char* kText = "mlir";
constexpr const char* kExecutable = "executable";
constexpr const char* kPlain = "without_kernels";
constexpr const char* kSize = "executable_bytes";

std::string digest(const void* data, size_t size) {
  const XXH128_hash_t hash = XXH3_128bits(data, size);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}
std::string digest(const std::string& text) { return digest(text.data(), text.size()); }

Json to_json(const BundleIdentity& identity) {
  return {{"plugin", identity.plugin},
          {"devices", identity.devices},
          {"model", identity.model},
          {"weights", identity.weights},
          {"version", identity.version}};
}

std::string name_of(std::optional<DType> dtype) {
  return dtype ? std::string(dtype_name(*dtype)) : "auto";
}

// A flag's value as the command line has it.
std::string word_of(const std::string& flag, const Json& value) {
  if (!value.is_string()) return value.dump();
  auto word = value.get<std::string>();
  if (flag != "kv-cache-dtype") return word;
  if (word == dtype_name(DType::kS8)) return "int8";
  return word == dtype_name(DType::kF8E4M3FN) ? "fp8" : word;
}

// Plugins describe themselves in several.
std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text;
}

// Of "v5e:2x2", or of "cpu:2" as it is for the devices of a machine.
std::string platform_of_bundle(const std::string& topology) {
  const std::string name = topology.substr(0, topology.find(':'));
  return name == "cpu" || name == "tpu" || name == "cuda" ? name : plugin_of_topology(topology);
}

void read_options(const JsonView& json, EngineOptions* options) {
  options->dtype = parse_dtype(json.get<std::string>("dtype"));
  const auto cache = json.get<std::string>("kv-cache-dtype");
  options->cache_dtype = cache == "auto" ? std::nullopt : std::optional(parse_dtype(cache));
  options->expand_weights = json.get<std::string>("weights") == "bf16";
  const auto quantization = json.get<std::string>("quantization");
  options->quantization = quantization == "none" ? "" : quantization;
  options->custom_calls = !json.get<bool>("no-kernels");
  options->max_model_len = json.get<int64_t>("max-model-len");
  options->max_num_seqs = json.get<int64_t>("max-num-seqs");
  options->max_num_batched_tokens = json.get<int64_t>("max-num-batched-tokens");
  options->block_size = json.get<int64_t>("block-size");
  options->speculation.num_speculative_tokens = json.get<int64_t>("num-speculative-tokens");
  options->parallel = {json.get<int64_t>("tensor-parallel-size"),
                       json.get<int64_t>("data-parallel-size"),
                       json.get<bool>("enable-expert-parallel"), json.get<std::string>("strategy"),
                       json.get<int64_t>("pipeline-parallel-size")};
}

}  // namespace

std::string plugin_fingerprint(const pjrt::Plugin& plugin, const std::string& platform_version) {
  std::error_code error;
  const auto size = fs::file_size(plugin.path(), error);
  // The CUDA plugin has a version for its client, and for a topology the name of the device.
  const auto cuda = plugin.attributes().find("cuda_version");
  const std::string version = cuda == plugin.attributes().end()
                                  ? platform_version
                                  : "cuda " + pjrt::option_to_string(cuda->second);
  return fmt::format("{} (API {}.{}, {} bytes)", version, plugin.api_major(), plugin.api_minor(),
                     error ? 0 : size);
}

Json program_flags(const EngineOptions& options) {
  return {{"dtype", dtype_name(options.dtype)},
          {"kv-cache-dtype", name_of(options.cache_dtype)},
          {"weights", options.expand_weights ? "bf16" : "auto"},
          {"quantization", options.quantization.empty() ? "none" : options.quantization},
          {"no-kernels", !options.custom_calls},
          {"max-model-len", options.max_model_len},
          {"max-num-seqs", options.max_num_seqs},
          {"max-num-batched-tokens", options.max_num_batched_tokens},
          {"block-size", options.block_size},
          {"num-speculative-tokens", options.speculation.num_speculative_tokens},
          {"tensor-parallel-size", options.parallel.tensor_parallel_size},
          {"data-parallel-size", options.parallel.data_parallel_size},
          {"pipeline-parallel-size", options.parallel.pipeline_parallel_size},
          {"enable-expert-parallel", options.parallel.enable_expert_parallel},
          {"strategy", options.parallel.strategy}};
}

std::string text_digest(const std::string& text) { return digest(text); }
std::string config_digest(const Json& config) { return digest(config.dump()); }

namespace {

// A tensor's name, shape, form and some of its bytes, or those of the parts that it is made of.
void describe(const io::Tensor& tensor, std::string* text) {
  constexpr size_t kSample = 64;
  *text += fmt::format("{}|{}|{}|{}|", tensor.name, dims_to_string(tensor.dims),
                       dtype_name(tensor.dtype), encoding_name(tensor.encoding));
  const size_t size = tensor.bytes.size();
  for (const size_t at : {size_t{0}, size / 2, size > kSample ? size - kSample : 0}) {
    const size_t count = std::min(kSample, size - at);
    text->append(reinterpret_cast<const char*>(tensor.bytes.data()) + at, count);
  }
  if (tensor.transform.composite == nullptr) return;
  for (const io::Tensor& part : tensor.transform.composite->parts()) describe(part, text);
}

// Arguments are given in the order of the mesh.
void require_devices(const pjrt::LoadedExecutable& executable, const std::vector<OwnDevice>& own) {
  const bool same =
      std::equal(own.begin(), own.end(), executable.devices().begin(), executable.devices().end(),
                 [](const OwnDevice& a, const pjrt::Device& b) { return a.device == b; });
  if (!same) fail(Code::kFailedPrecondition, "it was compiled for devices in another order");
}

}  // namespace

std::string weights_digest(const io::Checkpoint& checkpoint) {
  std::string text;
  for (const io::Tensor& tensor : checkpoint.tensors()) describe(tensor, &text);
  return digest(text);
}

std::string device_list(const std::vector<std::string>& kinds) {
  std::map<std::string, int> counts;
  for (const std::string& kind : kinds) ++counts[kind];
  std::vector<std::string> parts;
  for (const auto& [kind, count] : counts) parts.push_back(fmt::format("{} x {}", count, kind));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string program_name(const Bucket& bucket) {
  return fmt::format("t{}_s{}_r{}", bucket.tokens, bucket.sequences, bucket.rows);
}

namespace {

// Whole, or still being written by a process ("manifest.json.PID.tmp").
bool is_manifest(const std::string& name) {
  return name == kManifest ||
         (name.starts_with(std::string(kManifest) + ".") && name.ends_with(".tmp"));
}

// Nothing but what a bundle has, or a part of it.
bool has_parts_alone(const fs::path& folder) try {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const fs::file_type type = entry.symlink_status().type();
    if (name == kPrograms && type == fs::file_type::directory) continue;
    if (!is_manifest(name) || type != fs::file_type::regular) return false;
  }
  if (!fs::exists(folder / kPrograms)) return true;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder / kPrograms)) {
    const std::string kind = entry.path().extension().string();
    const bool known = kind == "." + std::string(kText) || kind == ".tmp" ||
                       kind == "." + std::string(kExecutable);
    if (!known || entry.symlink_status().type() != fs::file_type::regular) return false;
  }
  return true;
} catch (const fs::filesystem_error&) {
  return false;  // what cannot be read is not ours to remove
}

// Of any version. Many other things have a manifest.json too.
bool is_bundle(const fs::path& folder) {
  try {
    const Json manifest = read_json(folder / kManifest);
    return manifest.value("format", Json()).is_number_integer() &&
           manifest.value("identity", Json()).is_object() &&
           manifest.value("programs", Json()).is_object() && has_parts_alone(folder);
  } catch (const std::exception&) {
    return false;
  }
}

bool is_mount(const fs::path& folder) {
  struct statx info {};
  return ::statx(AT_FDCWD, folder.c_str(), 0, STATX_TYPE, &info) == 0 &&
         (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

// Throws unless a bundle may be put there, in place of what there is.
void check_place(const fs::path& folder) {
  std::error_code error;
  if (fs::is_symlink(folder)) {
    fail(Code::kNotFound, "[bundle] '{}' is a link to nothing; remove it or give another folder",
         folder.string());
  }
  if (!fs::exists(folder)) return;
  if (is_mount(folder) || fs::equivalent(folder, fs::current_path(error), error)) {
    fail(Code::kFailedPrecondition,
         "[bundle] '{}' is the current folder or a mount point, which cannot be replaced by a new "
         "one; give a folder inside it",
         folder.string());
  }
  const bool empty = fs::is_directory(folder) && fs::is_empty(folder);
  if (!empty && !is_bundle(folder)) {
    fail(Code::kAlreadyExists,
         "[bundle] '{}' exists and is no bundle, or holds other things too; give another folder",
         folder.string());
  }
}

// What processes left beside `folder` that ended before their bundle was whole: "DIR.PID.part", and
// "DIR.PID.part.old" of one that ended while it put the new in place of the old.
void clear_leftovers(const fs::path& folder) {
  const std::string start = folder.filename().string() + ".";
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder.parent_path(), error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(start) || !entry.is_directory(error) || entry.is_symlink(error)) continue;
    pid_t process = 0;
    const char* end = name.data() + name.size();
    const auto [rest, wrong] = std::from_chars(name.data() + start.size(), end, process);
    if (wrong != std::errc() || process <= 0) continue;
    // Containers give the same numbers again: a folder of ours was left by another.
    const bool gone = process == getpid() || (::kill(process, 0) != 0 && errno == ESRCH);
    const std::string_view kind(rest, end);
    if (!gone || (kind != ".part" && kind != ".part.old") || !has_parts_alone(entry)) continue;
    if (kind == ".part.old" && !fs::exists(folder)) {
      fs::rename(entry, folder, error);
    } else {
      fs::remove_all(entry, error);
    }
  }
}

// Without links, which stay and lead to the new bundle, and without "..".
fs::path resolved(const fs::path& folder) {
  std::error_code error;
  fs::path path = fs::weakly_canonical(fs::absolute(folder), error);
  if (error) {
    fail(Code::kInvalidArgument, "[bundle] '{}' cannot be a bundle's folder: {}", folder.string(),
         error.message());
  }
  return path.filename().empty() ? path.parent_path() : path;  // "DIR/"
}

}  // namespace

BundleWriter::BundleWriter(const fs::path& folder) : folder_(resolved(folder)) {
  clear_leftovers(folder_);
  check_place(folder_);
  beside_ = folder_;
  beside_ += fmt::format(".{}.part", getpid());
  std::error_code error;
  fs::create_directories(beside_ / kPrograms, error);
  if (error) {
    fail(Code::kPermissionDenied, "[bundle] '{}' cannot be made: {}", beside_.string(),
         error.message());
  }
}

BundleWriter::~BundleWriter() {
  std::error_code error;
  fs::remove_all(beside_, error);
}

void BundleWriter::add(const std::string& program, const std::string& text,
                       const std::string& executable, const std::string& plain) {
  const auto file = [&](const char* part) {
    return beside_ / kPrograms / fmt::format("{}.{}", program, part);
  };
  write_file(file(kText), text);
  write_file(file(kExecutable), executable);
  programs_[program] = {
      {kText, digest(text)}, {kExecutable, digest(executable)}, {kSize, executable.size()}};
  if (!plain.empty()) programs_[program][kPlain] = digest(plain);
}

void BundleWriter::commit(const BundleIdentity& identity, const std::string& topology,
                          const std::string& model_path, const EnginePlan& plan) {
  Json mesh = Json::object();
  for (const auto& [axis, size] : plan.layout.mesh().axes()) mesh[axis] = size;
  Json buckets = Json::array();
  for (const Bucket& bucket : plan.buckets) {
    buckets.push_back({bucket.tokens, bucket.sequences, bucket.rows});
  }
  const Json manifest = {{"format", kFormat},
                         {"model", model_path},
                         {"topology", topology},
                         {"identity", to_json(identity)},
                         {"mesh", mesh},
                         {"strategy", plan.layout.strategy().name},
                         {"flags", program_flags(plan.options)},
                         {"blocks", plan.shape.group_blocks},
                         {"buckets", buckets},
                         {"programs", programs_}};
  write_file(beside_ / kManifest, manifest.dump(2) + "\n");
  check_place(folder_);  // something may have come there meanwhile
  std::error_code error;
  fs::path old = beside_;
  old += ".old";
  const bool replaces = fs::exists(folder_);
  if (replaces) fs::rename(folder_, old, error);
  if (!error) {
    fs::rename(beside_, folder_, error);
    std::error_code lost;
    if (error && replaces) fs::rename(old, folder_, lost);
    if (lost) spdlog::warn("[bundle] what was in '{}' is in '{}'", folder_.string(), old.string());
  }
  if (error) {
    fail(Code::kPermissionDenied, "[bundle] '{}' cannot be put in place: {}", folder_.string(),
         error.message());
  }
  fs::remove_all(old, error);
}

std::shared_ptr<const Bundle> Bundle::open(const fs::path& folder) {
  const fs::path file = folder / kManifest;
  if (!fs::exists(file)) {
    fail(Code::kNotFound,
         "[bundle] '{}' has no {}; give a folder that `ttpu compile MODEL -o` made",
         folder.string(), kManifest);
  }
  auto bundle = std::make_shared<Bundle>();
  bundle->folder_ = folder;
  bundle->manifest_ = read_json(file);
  const JsonView view(bundle->manifest_, file.string());
  const auto format = view.get_or<int64_t>("format", 0);
  require(format == kFormat, "[bundle] '{}' has format {}, expected {}; build it again",
          file.string(), format, kFormat);
  const JsonView identity = view.child("identity");
  bundle->identity_ = {identity.get<std::string>("plugin"), identity.get<std::string>("devices"),
                       identity.get<std::string>("model"), identity.get<std::string>("weights"),
                       identity.get<std::string>("version")};
  bundle->model_path_ = view.get<std::string>("model");
  bundle->topology_ = view.get<std::string>("topology");
  EngineOptions options;
  read_options(view.child("flags"), &options);
  view.child("programs");
  bundle->check_files();
  return bundle;
}

void Bundle::check_files() const {
  const JsonView programs(manifest_.at("programs"), "programs of " + folder_.string());
  for (const auto& [program, value] : programs.json().items()) {
    read(program, kText);
    const fs::path file = file_of(program, kExecutable);
    const JsonView parts = programs.child(program);
    const auto size = static_cast<int64_t>(fs::file_size(file));
    const auto expected = parts.get_or<int64_t>(kSize, size);
    require(size == expected,
            "[bundle] '{}' is damaged: it has {} bytes, the manifest has {}; build the bundle "
            "again",
            file.string(), size, expected);
  }
}

std::string Bundle::fingerprint() const { return text_digest(manifest_.dump()); }

std::vector<std::string> Bundle::flags() {
  std::vector<std::string> names;
  const Json all = program_flags(EngineOptions());
  for (const auto& [flag, value] : all.items()) names.push_back(flag);
  return names;
}

EngineOptions Bundle::options(const EngineOptions& given,
                              const std::vector<std::string>& asked) const {
  const Json& own = manifest_.at("flags");
  const Json values = program_flags(given);
  for (const std::string& flag : asked) {
    if (values.at(flag) == own.at(flag)) continue;
    fail(Code::kFailedPrecondition,
         "[bundle] '{}' was compiled with --{} {}, and {} is asked for; leave the flag out or "
         "build another bundle",
         folder_.string(), flag, word_of(flag, own.at(flag)), word_of(flag, values.at(flag)));
  }
  EngineOptions options = given;
  read_options(JsonView(own, "flags"), &options);
  return options;
}

EnginePlan Bundle::plan(const nn::DecoderSpec& spec, const EngineOptions& options) const {
  const JsonView view(manifest_, (folder_ / kManifest).string());
  EnginePlan plan = plan_engine(spec, options, INT64_MAX / 4);
  const auto blocks = view.get<std::vector<int64_t>>("blocks");
  require(blocks.size() == plan.groups.size(), "[bundle] '{}' has caches for {} groups, not {}",
          folder_.string(), blocks.size(), plan.groups.size());
  for (size_t i = 0; i < blocks.size(); ++i) plan.groups[i].blocks = blocks[i];
  plan.shape.group_blocks = blocks;
  plan.buckets.clear();
  for (const Json& bucket : manifest_.at("buckets")) {
    require(bucket.is_array() && bucket.size() == 3 && bucket[0].is_number_integer() &&
                bucket[1].is_number_integer() && bucket[2].is_number_integer(),
            "[bundle] '{}' has a bucket {}, expected three numbers", folder_.string(),
            bucket.dump());
    plan.buckets.push_back(
        {bucket[0].get<int64_t>(), bucket[1].get<int64_t>(), bucket[2].get<int64_t>()});
  }
  require(!plan.buckets.empty(), "[bundle] '{}' has no programs", folder_.string());
  return plan;
}

void Bundle::require_equal(const char* what, const std::string& own,
                           const std::string& here) const {
  if (own == here) return;
  fail(Code::kFailedPrecondition,
       "[bundle] '{}' was compiled for another {}: {}; here it is {}. Build it again with `ttpu "
       "compile MODEL -o`",
       folder_.string(), what, one_line(own), one_line(here));
}

void Bundle::check_model(const std::string& digest) const {
  require_equal("version of TTPU", identity_.version, TTPU_VERSION);
  require_equal("model (digest of config.json)", identity_.model, digest);
}

void Bundle::check_weights(const std::string& digest) const {
  if (identity_.weights != "none") require_equal("weights (digest)", identity_.weights, digest);
}

void Bundle::check_devices(const std::string& platform, const std::string& plugin,
                           const std::string& devices) const {
  const std::string own = platform_of_bundle(topology_);
  if (own != platform && !topology_.starts_with(platform + ":")) {
    fail(Code::kFailedPrecondition,
         "[bundle] '{}' is for {}, and the device here is {}; give --device {}, or build another "
         "bundle with `ttpu compile MODEL -o`",
         folder_.string(), topology_, platform, own);
  }
  require_equal("plugin", identity_.plugin, plugin);
  require_equal("topology", identity_.devices, devices);
}

void Bundle::check_program(const std::string& program, const std::string& text) const {
  const JsonView programs(manifest_.at("programs"), "programs of " + folder_.string());
  const JsonView parts = programs.child(program);
  require_equal("form of the weights (digest of a program)",
                parts.get<std::string>(parts.has(kPlain) ? kPlain : kText), digest(text));
}

fs::path Bundle::file_of(const std::string& program, const char* part) const {
  fs::path file = folder_ / kPrograms / fmt::format("{}.{}", program, part);
  if (!fs::exists(file)) {
    fail(Code::kNotFound, "[bundle] '{}' is missing; build the bundle again", file.string());
  }
  return file;
}

std::string Bundle::read(const std::string& program, const char* part) const {
  const JsonView programs(manifest_.at("programs"), "programs of " + folder_.string());
  const auto expected = programs.child(program).get<std::string>(part);
  const fs::path file = file_of(program, part);
  std::string content = read_file(file);
  require(digest(content) == expected,
          "[bundle] '{}' is damaged: its digest is {}, the manifest has {}; build the bundle again",
          file.string(), digest(content), expected);
  return content;
}

pjrt::LoadedExecutable Bundle::load(const pjrt::Client& client, const std::string& program,
                                    const parallel::Mesh& mesh, bool* compiled) const {
  *compiled = false;
  const std::string serialized = read(program, kExecutable);
  try {
    pjrt::LoadedExecutable executable = client.load(serialized);
    require_devices(executable, own_devices(client, mesh));
    return executable;
  } catch (const Error& error) {
    spdlog::warn(
        "[bundle] the plugin refuses the executable of '{}' in '{}', its StableHLO is compiled "
        "instead: {}",
        program, folder_.string(), error.what());
  }
  *compiled = true;
  return client.compile(read(program, kText), compile_options(client, mesh));
}

}  // namespace ttpu::engine
