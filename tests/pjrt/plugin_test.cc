#include "ttpu/pjrt/plugin.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "testing.h"
#include "ttpu/base/file.h"

namespace ttpu::pjrt {
namespace {

// Sets a variable for the life of a test.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name), before_(env_or(name)) {
    ::setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (before_.empty()) {
      ::unsetenv(name_);
    } else {
      ::setenv(name_, before_.c_str(), 1);
    }
  }
  Variable(const Variable&) = delete;

 private:
  const char* name_;
  std::string before_;
};

class PluginTest : public OnCpuPlugins {};
TTPU_ON_CPU_PLUGINS(PluginTest);

TEST_P(PluginTest, SaysWhatItIs) {
  const auto loaded = plugin();
  EXPECT_EQ(loaded->api_major(), 0);
  EXPECT_GE(loaded->api_minor(), 81);
  EXPECT_TRUE(loaded->stablehlo_version().starts_with("1.")) << loaded->stablehlo_version();
  EXPECT_TRUE(loaded->attributes().contains("stablehlo_minimum_version"));
}

TEST_P(PluginTest, IsLoadedOnce) { EXPECT_EQ(plugin(), load_plugin(plugin()->path())); }

// Bytes of the plugin's code that are resident, from /proc/self/smaps.
int64_t resident_code(const std::filesystem::path& library) {
  std::ifstream maps("/proc/self/smaps");
  bool code = false;
  int64_t bytes = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("-") < line.find(" ") && line.find(":") > line.find(" ")) {
      code =
          line.find(" r-xp ") != std::string::npos && line.ends_with(library.filename().string());
    } else if (code && line.starts_with("Rss:")) {
      bytes += std::stoll(line.substr(4)) * 1024;
    }
  }
  return bytes;
}

TEST_P(PluginTest, RunsOnAfterItsCodeWasReleased) {
  const Client first = client();
  const int64_t before = resident_code(plugin()->path());
  plugin()->release_code();
  EXPECT_LT(resident_code(plugin()->path()), before / 2);
  EXPECT_EQ(client().devices().size(), 1U);
}

TEST(Plugin, TwoVersionsLiveInOneProcess) {
  const auto newer = plugin_called("cpu");
  const auto older = plugin_called("cpu-0.81");
  EXPECT_NE(newer->api(), older->api());
  EXPECT_GT(newer->api_minor(), older->api_minor());
}

TEST(Plugin, AnOldMinorVersionIsRefusedWithBothVersions) {
  const Error error = error_of([] { load_plugin(FAKE_old_minor); });
  EXPECT_EQ(error.code(), Code::kFailedPrecondition);
  EXPECT_TRUE(contains(error, "0.40") && contains(error, "0.81")) << error.what();
  EXPECT_TRUE(contains(error, "ttpu plugin install")) << error.what();
}

TEST(Plugin, AnotherMajorVersionIsRefusedWithBothVersions) {
  const Error error = error_of([] { load_plugin(FAKE_wrong_major); });
  EXPECT_EQ(error.code(), Code::kFailedPrecondition);
  EXPECT_TRUE(contains(error, "7.3") && contains(error, "0.81")) << error.what();
}

TEST(Plugin, ATableShorterThanItsVersionIsRefused) {
  const Error error = error_of([] { load_plugin(FAKE_short_table); });
  EXPECT_EQ(error.code(), Code::kFailedPrecondition);
  EXPECT_TRUE(contains(error, "200 bytes") && contains(error, "0.115")) << error.what();
  const Error tiny = error_of([] { load_plugin(FAKE_tiny_table); });
  EXPECT_EQ(tiny.code(), Code::kFailedPrecondition);
  EXPECT_TRUE(contains(tiny, "8 bytes")) << tiny.what();
}

TEST(Plugin, OtherFilesAreRefused) {
  const Error symbol = error_of([] { load_plugin(FAKE_no_symbol); });
  EXPECT_EQ(symbol.code(), Code::kInvalidArgument);
  EXPECT_TRUE(contains(symbol, "GetPjrtApi")) << symbol.what();
  const auto text = std::filesystem::path(testing::TempDir()) / "ttpu_not_a_library.so";
  write_file(text, "not a library");
  EXPECT_EQ(error_of([&] { load_plugin(text); }).code(), Code::kInvalidArgument);
  std::filesystem::remove(text);
  EXPECT_EQ(error_of([&] { load_plugin(text); }).code(), Code::kNotFound);
  EXPECT_EQ(error_of([&] { load_plugin(testing::TempDir()); }).code(), Code::kNotFound);
}

TEST(Discovery, TheVariableComesFirst) {
  {
    const Variable variable("TTPU_PLUGIN_PATH", FAKE_no_symbol);
    EXPECT_EQ(find_plugin("cpu"), FAKE_no_symbol);
    EXPECT_EQ(find_plugin("tpu"), FAKE_no_symbol);
  }
  const Variable variable("TTPU_PLUGIN_PATH", "tpu=/nowhere.so,cpu=" FAKE_no_symbol);
  EXPECT_EQ(find_plugin("cpu"), FAKE_no_symbol);
  EXPECT_EQ(find_plugin("tpu"), "/nowhere.so");
}

TEST(Discovery, AVirtualEnvironmentIsSearched) {
  const auto root = std::filesystem::path(testing::TempDir()) / "ttpu_environment";
  const auto library = root / "lib/python3.11/site-packages/libtpu/libtpu.so";
  write_file(library, "stands for a library");
  const Variable environment("VIRTUAL_ENV", root.string());
  const Variable cache("TTPU_CACHE", (root / "cache").string());
  const Variable path("TTPU_PLUGIN_PATH", "");
  EXPECT_EQ(find_plugin("tpu"), library);
  const auto infos = list_plugins();
  const auto found = std::find_if(infos.begin(), infos.end(), [&](const PluginInfo& info) {
    return info.location.path == library;
  });
  ASSERT_NE(found, infos.end());
  EXPECT_EQ(found->location.source, "python environment");
  EXPECT_TRUE(contains(found->problem, "cannot be loaded")) << found->problem;
  std::filesystem::remove_all(root);
}

TEST(Discovery, AMissingPluginNamesTheCommandThatInstallsIt) {
  const auto root = std::filesystem::path(testing::TempDir()) / "ttpu_nothing";
  const Variable environment("VIRTUAL_ENV", root.string());
  const Variable programs("PATH", root.string());
  const Variable cache("TTPU_CACHE", root.string());
  const Variable path("TTPU_PLUGIN_PATH", "");
  const Error error = error_of([] { find_plugin("tpu"); });
  EXPECT_EQ(error.code(), Code::kNotFound);
  EXPECT_TRUE(contains(error, "ttpu plugin install tpu")) << error.what();
  const Error unknown = error_of([] { find_plugin("npu"); });
  EXPECT_TRUE(contains(unknown, "cpu, cpu-0.81, tpu, cuda")) << unknown.what();
}

}  // namespace
}  // namespace ttpu::pjrt
