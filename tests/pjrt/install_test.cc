#include "ttpu/pjrt/install.h"

#include <cstdlib>
#include <filesystem>

#include <sys/mount.h>
#include <unistd.h>

#include "testing.h"
#include "ttpu/base/file.h"
#include "ttpu/base/subprocess.h"

namespace ttpu::pjrt {
namespace {

namespace fs = std::filesystem;

// A small wheel made for the test, and a cache of its own.
class InstallTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / ("ttpu_install_" + std::to_string(::getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_ / "cache/wheels");
    before_ = env_or("TTPU_CACHE");
    ::setenv("TTPU_CACHE", (root_ / "cache").c_str(), 1);
    ::setenv("TTPU_OFFLINE", "1", 1);
  }
  void TearDown() override {
    ::unsetenv("TTPU_OFFLINE");
    if (before_.empty()) {
      ::unsetenv("TTPU_CACHE");
    } else {
      ::setenv("TTPU_CACHE", before_.c_str(), 1);
    }
    fs::remove_all(root_);
  }

  // Writes the wheel into the cache's wheels and gives its description.
  Wheel make_wheel(int megabytes = 4) {
    const SubprocessResult python =
        run_subprocess({"python3", "-c",
                        "import sys, os, zipfile, hashlib\n"
                        "with zipfile.ZipFile(sys.argv[1], 'w') as z:\n"
                        "    z.writestr('some_plugin/lib.so', os.urandom(int(sys.argv[2]) << 20))\n"
                        "print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest(), end='')",
                        file().string(), std::to_string(megabytes)});
    EXPECT_EQ(python.exit_code, 0) << python.errors;
    return {"some", "some-plugin",          "1.0",   python.output, "3.11",
            "any",  {"some_plugin/lib.so"}, "plugin"};
  }
  fs::path file() const { return root_ / "cache/wheels/some_plugin-1.0-py3-none-any.whl"; }
  fs::path plugins() const { return root_ / "cache/plugins"; }
  static bool is_empty(const fs::path& folder) {
    return !fs::exists(folder) || fs::is_empty(folder);
  }

  fs::path root_;
  std::string before_;
};

TEST_F(InstallTest, AWheelInTheCacheIsEnough) {
  const Wheel wheel = make_wheel();
  const fs::path library = install_plugin(wheel);
  EXPECT_EQ(library, installed_path(wheel));
  EXPECT_EQ(fs::file_size(library), 4u << 20);
  const auto written = fs::last_write_time(library);
  fs::remove(file());
  EXPECT_EQ(install_plugin(wheel), library) << "a second time nothing is needed";
  EXPECT_EQ(fs::last_write_time(library), written);
}

// A plugin's other wheels, where the plugin looks for them.
TEST_F(InstallTest, PartsLieBesideThePluginAsInTheirWheels) {
  Wheel plugin = make_wheel();
  const SubprocessResult python =
      run_subprocess({"python3", "-c",
                      "import sys, zipfile, hashlib\n"
                      "with zipfile.ZipFile(sys.argv[1], 'w') as z:\n"
                      "    z.writestr('vendor/bin/tool', '#!/bin/sh\\necho works')\n"
                      "    z.writestr('vendor/lib/libmore.so', 'a library')\n"
                      "print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest(), end='')",
                      (root_ / "cache/wheels/more-2.0-py3-none-any.whl").string()});
  ASSERT_EQ(python.exit_code, 0) << python.errors;
  plugin.parts.push_back({"more",
                          "more",
                          "2.0",
                          python.output,
                          "3.11",
                          "any",
                          {"vendor/bin/tool", "vendor/lib/libmore.so"},
                          "run"});
  const Wheel& part = plugin.parts[0];
  EXPECT_FALSE(is_installed(plugin, part));
  const fs::path library = install_plugin(plugin);
  EXPECT_EQ(library, plugins() / "some-1.0/some_plugin/lib.so");
  install_part(plugin, part);
  EXPECT_TRUE(is_installed(plugin, part));
  const SubprocessResult tool = run_subprocess({(plugins() / "some-1.0/vendor/bin/tool").string()});
  EXPECT_EQ(tool.output, "works\n");
  fs::remove(root_ / "cache/wheels/more-2.0-py3-none-any.whl");
  install_part(plugin, part);  // a second time nothing is needed
  fs::remove(plugins() / "some-1.0/vendor/lib/libmore.so");
  EXPECT_FALSE(is_installed(plugin, part));
  EXPECT_EQ(error_of([&] { install_part(plugin, part); }).code(), Code::kUnavailable);
}

TEST_F(InstallTest, APartOfAnotherHashIsRefused) {
  Wheel plugin = make_wheel();
  plugin.parts.push_back(plugin);
  plugin.parts[0].members = {"vendor/lib/other.so"};
  plugin.parts[0].sha256 = std::string(64, '0');
  install_plugin(plugin);
  EXPECT_EQ(error_of([&] { install_part(plugin, plugin.parts[0]); }).code(), Code::kDataLoss);
}

TEST_F(InstallTest, OfflineWithoutTheWheelSaysWhereItBelongs) {
  const Error error = error_of([] { install_plugin(pinned_plugin("cpu")); });
  EXPECT_EQ(error.code(), Code::kUnavailable);
  EXPECT_TRUE(contains(error, "lammps_jax_pjrt_cpu-0.11.2-")) << error.what();
  EXPECT_TRUE(is_empty(plugins()));
}

TEST_F(InstallTest, AnotherHashIsRefused) {
  Wheel wheel = make_wheel();
  wheel.sha256 = std::string(64, '0');
  const Error error = error_of([&] { install_plugin(wheel); });
  EXPECT_EQ(error.code(), Code::kDataLoss);
  EXPECT_TRUE(contains(error, wheel.sha256)) << error.what();
  EXPECT_TRUE(is_empty(plugins()));
}

TEST_F(InstallTest, ADamagedWheelLeavesNothingBehind) {
  const Wheel wheel = make_wheel();
  const fs::path target = plugins() / "some-1.0";
  std::string bytes = read_file(file());
  bytes[bytes.size() / 2] ^= 1;
  write_file(file(), bytes);
  EXPECT_EQ(error_of([&] { unpack_wheel(wheel, file(), target); }).code(), Code::kDataLoss);
  EXPECT_TRUE(is_empty(plugins()));
  fs::resize_file(file(), bytes.size() / 2);
  EXPECT_EQ(error_of([&] { unpack_wheel(wheel, file(), target); }).code(), Code::kDataLoss);
  EXPECT_TRUE(is_empty(plugins()));
}

TEST_F(InstallTest, AWheelWithoutTheLibraryIsRefused) {
  Wheel wheel = make_wheel();
  wheel.members = {"some_plugin/other.so"};
  const Error error = error_of([&] { install_plugin(wheel); });
  EXPECT_EQ(error.code(), Code::kDataLoss);
  EXPECT_TRUE(contains(error, "other.so")) << error.what();
  EXPECT_TRUE(is_empty(plugins()));
}

TEST_F(InstallTest, WhatAnInterruptedInstallLeftIsRemoved) {
  const Wheel wheel = make_wheel();
  const SubprocessResult shell =
      run_subprocess({"sh", "-c", "echo $$"});  // the id of a process now gone
  const fs::path abandoned =
      plugins() / (".partial-" + std::to_string(std::stoi(shell.output)) + "-abcdef");
  write_file(abandoned / "tree/lib.so", "half a library");
  const fs::path library = install_plugin(wheel);
  EXPECT_EQ(fs::file_size(library), 4u << 20);
  EXPECT_FALSE(fs::exists(abandoned));
}

TEST_F(InstallTest, AFullDiskIsAnErrorAndLeavesNothingBehind) {
  const Wheel wheel = make_wheel();
  fs::create_directories(plugins());
  if (::mount("tmpfs", plugins().c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "needs the right to mount a small file system";
  }
  const Error error = error_of([&] { install_plugin(wheel); });
  const bool empty = is_empty(plugins());
  EXPECT_EQ(::umount(plugins().c_str()), 0);
  EXPECT_EQ(error.code(), Code::kResourceExhausted);
  EXPECT_TRUE(contains(error, "No space left")) << error.what();
  EXPECT_TRUE(empty);
}

TEST_F(InstallTest, AFolderThatCannotBeMadeIsAnError) {
  const Wheel wheel = make_wheel();
  write_file(plugins(), "a file where the folder belongs");
  const Error error = error_of([&] { install_plugin(wheel); });
  EXPECT_TRUE(contains(error, "TTPU_CACHE")) << error.what();
}

TEST(PinnedWheels, EveryOneHasAHashAndAMember) {
  ASSERT_GE(pinned_wheels().size(), 5u);
  for (const Wheel& wheel : pinned_wheels()) {
    EXPECT_EQ(wheel.sha256.size(), 64u) << wheel.id;
    EXPECT_FALSE(wheel.members.empty()) << wheel.id;
    for (const Wheel& part : wheel.parts) {
      EXPECT_EQ(part.sha256.size(), 64u) << part.name;
      EXPECT_FALSE(part.members.empty()) << part.name;
      EXPECT_TRUE(part.kind == "compile" || part.kind == "run") << part.name;
    }
  }
  EXPECT_FALSE(pinned_plugin("cuda").parts.empty());
  EXPECT_EQ(error_of([] { pinned_plugin("npu"); }).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace ttpu::pjrt
