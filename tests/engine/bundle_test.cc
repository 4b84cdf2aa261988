// A bundle that one engine was compiled into serves another, which compiles nothing.
#include "ttpu/engine/bundle.h"

#include <filesystem>

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/engine/support/answers.h"
#include "tests/support/error_of.h"
#include "ttpu/base/file.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/engine/bundle_build.h"
#include "ttpu/models/registry.h"

namespace ttpu::engine {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(TTPU_SOURCE_DIR) / "tests/fixtures/models";

class BundleTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static EngineOptions options(int64_t devices = 1) {
    ParallelOptions parallel;
    parallel.tensor_parallel_size = devices;
    return small_options(parallel);
  }

  void build(const char* model = "llama", int64_t devices = 1) const {
    BundleRequest request;
    request.model = kModels / model;
    request.engine = options(devices);
    request.folder = folder_;
    build_bundle(request);
  }

  EngineOptions from_bundle() const {
    EngineOptions options;
    options.bundle = folder_;
    return options;
  }

  std::string error_of(const char* model = "llama") const {
    try {
      Engine engine(kModels / model, from_bundle());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  // A bundle of no use, with one program.
  void write_small(const fs::path& folder, const std::string& executable = "compiled") const {
    const Json config = read_json(kModels / "llama" / "config.json");
    BundleWriter writer(folder);
    writer.add("t16", "calls a kernel", executable, "calls none");
    writer.commit({}, "v5e:2x2", "llama",
                  plan_engine(models::decoder_from_config(config), options(), 1 << 24));
  }

  std::string refusal(const fs::path& folder, Code code) const {
    return ttpu::error_of([&] { write_small(folder); }, code);
  }

  Json manifest() const { return read_json(folder_ / "manifest.json"); }
  void write_manifest(const Json& json) const {
    write_file(folder_ / "manifest.json", json.dump());
  }

  fs::path folder_;
};

TEST_F(BundleTest, ServesWithoutCompiling) {
  build();
  Engine compiled(kModels / "llama", options());
  Engine loaded(kModels / "llama", from_bundle());
  EXPECT_EQ(loaded.stats().compiled, 0);
  EXPECT_EQ(loaded.max_model_len(), 32);
  EXPECT_EQ(answers(loaded), answers(compiled));
  EXPECT_EQ(loaded.compilations_after_start(), 0);
}

TEST_F(BundleTest, ServesOnManyDevices) {
  build("mixtral", 4);
  EXPECT_EQ(manifest().at("mesh"), Json({{"tensor", 4}}));
  Engine one(kModels / "mixtral", options());
  Engine loaded(kModels / "mixtral", from_bundle());
  EXPECT_EQ(loaded.stats().compiled, 0);
  EXPECT_EQ(answers(loaded), answers(one));
}

TEST_F(BundleTest, OfAnotherModelIsRefusedWithBothDigests) {
  build();
  const std::string message = error_of("qwen3");
  EXPECT_NE(message.find("model"), std::string::npos) << message;
  EXPECT_NE(message.find(manifest()["identity"]["model"].get<std::string>()), std::string::npos);
  EXPECT_NE(message.find(config_digest(read_json(kModels / "qwen3/config.json"))),
            std::string::npos);
}

TEST_F(BundleTest, OfOtherPluginWeightsOrDevicesIsRefusedWithBothValues) {
  build();
  const Json good = manifest();
  for (const char* field : {"plugin", "devices", "weights", "version"}) {
    Json bad = good;
    bad["identity"][field] = "another one";
    write_manifest(bad);
    const std::string message = error_of();
    EXPECT_NE(message.find("another one"), std::string::npos) << field << ": " << message;
    EXPECT_NE(message.find(good["identity"][field].get<std::string>()), std::string::npos)
        << field << ": " << message;
  }
}

TEST_F(BundleTest, OtherFlagsThanItsOwnAreRefusedWithBothValues) {
  build();
  const auto bundle = Bundle::open(folder_);
  EngineOptions asked = options();
  asked.block_size = 16;
  try {
    bundle->options(asked, {"block-size"});
    FAIL();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("block-size 8"), std::string::npos) << message;
    EXPECT_NE(message.find("16"), std::string::npos) << message;
  }
  EXPECT_EQ(bundle->options(asked, {}).block_size, 8);
}

TEST_F(BundleTest, ADamagedExecutableIsNamed) {
  build();
  const fs::path file = folder_ / "programs/t1_s1_r1.executable";
  std::string bytes = read_file(file);
  bytes[bytes.size() / 2] ^= 1;
  write_file(file, bytes);
  const std::string message = error_of();
  EXPECT_NE(message.find("damaged"), std::string::npos) << message;
  EXPECT_NE(message.find(file.filename()), std::string::npos) << message;
}

TEST_F(BundleTest, WhatThePluginRefusesIsCompiledFromItsText) {
  build();
  const std::string foreign = "an executable of another plugin";
  write_file(folder_ / "programs/t1_s1_r1.executable", foreign);
  Json changed = manifest();
  changed["programs"]["t1_s1_r1"]["executable"] = text_digest(foreign);
  changed["programs"]["t1_s1_r1"]["executable_bytes"] = foreign.size();
  write_manifest(changed);
  Engine engine(kModels / "llama", from_bundle());
  EXPECT_EQ(engine.stats().compiled, 1);
  Engine compiled(kModels / "llama", options());
  EXPECT_EQ(answers(engine), answers(compiled));
}

TEST_F(BundleTest, AProgramWithKernelsOfTheTpuIsComparedWithoutThem) {
  write_small(folder_);
  const auto bundle = Bundle::open(folder_);
  EXPECT_NO_THROW(bundle->check_program("t16", "calls none"));
  EXPECT_THROW(bundle->check_program("t16", "calls a kernel"), Error);
}

TEST_F(BundleTest, WhatIsNoBundleIsRefused) {
  EXPECT_NE(error_of().find("manifest.json"), std::string::npos);
  fs::create_directories(folder_);
  for (const char* text : {"", "[]", "{}", R"({"format": 99})", R"({"format": 1, "model": 3})"}) {
    write_file(folder_ / "manifest.json", text);
    EXPECT_NE(error_of(), "") << text;
  }
}

TEST_F(BundleTest, AFolderWithOtherThingsIsNotReplaced) {
  write_file(folder_ / "thesis.txt", "three years of work");
  EXPECT_THROW(build(), Error);
  EXPECT_EQ(read_file(folder_ / "thesis.txt"), "three years of work");
  fs::remove(folder_ / "thesis.txt");
  for (const char* manifest : {R"({"name": "an app"})", "no JSON", R"({"format": 3})"}) {
    write_file(folder_ / "manifest.json", manifest);
    EXPECT_NE(refusal(folder_, Code::kAlreadyExists).find("is no bundle"), std::string::npos)
        << manifest;
  }
  fs::remove_all(folder_);
  write_small(folder_);
  write_file(folder_ / "programs/thesis.txt", "three years of work");
  EXPECT_NE(refusal(folder_, Code::kAlreadyExists).find("holds other things"), std::string::npos);
  EXPECT_EQ(read_file(folder_ / "programs/thesis.txt"), "three years of work");
}

TEST_F(BundleTest, ABundleIsReplacedAlsoBehindALink) {
  write_small(folder_ / "there", "old");
  fs::create_directory_symlink("there", folder_ / "link");
  write_small(folder_ / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(read_file(folder_ / "there/programs/t16.executable"), "new");
  fs::remove_all(folder_ / "there");
  EXPECT_NE(refusal(folder_ / "link", Code::kNotFound).find("link to nothing"), std::string::npos);
}

TEST_F(BundleTest, AFolderThatCannotBeReplacedIsRefusedAtOnce) {
  EXPECT_NE(refusal("/proc", Code::kFailedPrecondition).find("a folder inside it"),
            std::string::npos);
  EXPECT_NE(refusal(".", Code::kFailedPrecondition).find("a folder inside it"), std::string::npos);
}

TEST_F(BundleTest, WhatAKilledWriterLeftIsRemovedAndWhatItReplacedIsPutBack) {
  const std::string gone = run_subprocess({"sh", "-c", "printf $$"}).output;
  const fs::path folder = folder_ / "bundle";
  const fs::path part = folder_ / ("bundle." + gone + ".part");
  const fs::path living = folder_ / fmt::format("bundle.{}.part", getppid());
  const fs::path foreign = folder_ / ("bundle." + gone + ".parts");
  for (const fs::path& path : {part, living, foreign}) {
    write_file(path / "programs/t16.mlir.1.tmp", "half a text");
  }
  write_small(folder, "old");
  EXPECT_FALSE(fs::exists(part));
  EXPECT_TRUE(fs::exists(living));
  EXPECT_TRUE(fs::exists(foreign));
  fs::path old = part;
  old += ".old";
  fs::rename(folder, old);  // killed between two renames
  { BundleWriter writer(folder); }
  EXPECT_FALSE(fs::exists(old));
  EXPECT_EQ(read_file(folder / "programs/t16.executable"), "old");
}

TEST_F(BundleTest, FilesThatAreMissingOrChangedAreNamedWhenItIsOpened) {
  write_small(folder_);
  const auto opening_error = [&](Code code) {
    return ttpu::error_of([&] { Bundle::open(folder_); }, code);
  };
  const fs::path text = folder_ / "programs/t16.mlir";
  const fs::path executable = folder_ / "programs/t16.executable";
  for (const fs::path& file : {text, executable}) {
    const std::string content = read_file(file);
    write_file(file, content.substr(1));
    EXPECT_NE(opening_error(Code::kInvalidArgument).find(file.string() + "' is damaged"),
              std::string::npos);
    fs::remove(file);
    EXPECT_EQ(opening_error(Code::kNotFound),
              "[bundle] '" + file.string() + "' is missing; build the bundle again");
    write_file(file, content);
  }
}

TEST_F(BundleTest, OfAnotherPlatformNamesTheDeviceToGive) {
  write_small(folder_);
  const auto bundle = Bundle::open(folder_);
  const auto error_on = [&](const std::string& platform) {
    return ttpu::error_of([&] { bundle->check_devices(platform, "of two\nlines", "1 x some"); },
                          Code::kFailedPrecondition);
  };
  EXPECT_NE(error_on("cpu").find("is for v5e:2x2"), std::string::npos) << error_on("cpu");
  EXPECT_NE(error_on("cpu").find("--device tpu"), std::string::npos) << error_on("cpu");
  EXPECT_NE(error_on("tpu").find("of two lines"), std::string::npos) << error_on("tpu");
}

TEST_F(BundleTest, FlagsAreQuotedInTheirOwnWords) {
  write_small(folder_);
  EngineOptions asked = options();
  asked.cache_dtype = DType::kS8;
  const std::string message =
      ttpu::error_of([&] { Bundle::open(folder_)->options(asked, {"kv-cache-dtype"}); },
                     Code::kFailedPrecondition);
  EXPECT_NE(message.find("--kv-cache-dtype auto, and int8 is"), std::string::npos) << message;
}

}  // namespace
}  // namespace ttpu::engine
