#include "ttpu/io/hub.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <sys/resource.h>
#include <sys/wait.h>

#include "testing.h"
#include "ttpu/io/http.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";

// A real hub in a process of its own, serving a small model, and an empty cache.
class HubTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = scratch_folder();
    repository_ = root_ / "repository";
    cache_ = root_ / "cache";
    for (size_t i = 0; i < 5000; ++i) weights_ += static_cast<char>(i * 7 % 251);
    write_file(repository_ / "config.json", R"({"model_type": "llama"})");
    write_file(repository_ / "tokenizer.json", "{}");
    write_file(repository_ / "model.safetensors", weights_);
    write_file(repository_ / "pytorch_model.bin", "pickle");
    write_file(repository_ / "tiny-q8_0.gguf", "GGUF" + weights_);
    start_server();
    for (const char* name : {"HF_HOME", "HF_HUB_OFFLINE", "TTPU_OFFLINE", "HF_TOKEN"}) {
      ::unsetenv(name);
    }
    ::setenv("HF_HUB_CACHE", cache_.c_str(), 1);
    use("ok");
  }

  void TearDown() override {
    if (server_ > 0) {
      ::kill(server_, SIGKILL);
      ::waitpid(server_, nullptr, 0);
    }
    for (const char* name : {"HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"}) {
      ::unsetenv(name);
    }
  }

  void start_server() {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    server_ = ::fork();
    if (server_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::close(ends[0]);
      ::execlp("python3", "python3", TTPU_SOURCE_DIR "/tests/io/hub_server.py", repository_.c_str(),
               nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    FILE* output = ::fdopen(ends[0], "r");
    ASSERT_EQ(std::fscanf(output, "%d", &port_), 1) << "python3 does not run hub_server.py";
    std::fclose(output);
  }

  std::string server(std::string_view path) const {
    return fmt::format("http://127.0.0.1:{}/{}", port_, path);
  }
  void use(std::string_view fault) const { ::setenv("HF_ENDPOINT", server(fault).c_str(), 1); }
  std::string log() const { return http_get(server("log"), "").body; }
  std::string error() const {
    return error_of([] { resolve_model("org/model"); });
  }
  void expect_nothing_whole() const {
    EXPECT_FALSE(fs::exists(folder() / "refs" / "main"));
    EXPECT_FALSE(fs::exists(folder() / "snapshots" / kCommit / "model.safetensors"));
  }
  fs::path folder() const { return cache_ / "models--org--model"; }

  fs::path root_, repository_, cache_;
  std::string weights_;
  pid_t server_ = -1;
  int port_ = 0;
};

TEST_F(HubTest, AModelIsFetchedOnceIntoTheCachesLayout) {
  const fs::path model = resolve_model("org/model");
  EXPECT_EQ(model, folder() / "snapshots" / kCommit);
  EXPECT_EQ(read_file(model / "model.safetensors"), weights_);
  EXPECT_TRUE(fs::is_symlink(model / "model.safetensors"));
  EXPECT_EQ(fs::read_symlink(model / "config.json").parent_path(), "../../blobs");
  EXPECT_EQ(read_file(folder() / "refs" / "main"), kCommit);
  EXPECT_FALSE(fs::exists(model / "pytorch_model.bin"));  // pickles are never fetched
  EXPECT_FALSE(fs::exists(model / "tiny-q8_0.gguf"));
  const std::string before = log();
  EXPECT_EQ(resolve_model("org/model"), model);
  EXPECT_EQ(resolve_model("org/model", kCommit), model);
  EXPECT_EQ(log(), before);
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  EXPECT_EQ(resolve_model("org/model"), model);
}

TEST_F(HubTest, OneGgufIsFetchedByName) {
  for (const char* name : {"org/model:tiny-q8_0.gguf", "org/model/tiny-q8_0.gguf"}) {
    const fs::path file = resolve_model(name);
    EXPECT_EQ(read_file(file), "GGUF" + weights_);
  }
  EXPECT_NE(error_of([] { resolve_model("org/model:other.gguf"); }).find("tiny-q8_0.gguf"),
            std::string::npos);
}

TEST_F(HubTest, ACutConnectionIsResumedWhereItStopped) {
  use("cut");
  EXPECT_EQ(read_file(resolve_model("org/model") / "model.safetensors"), weights_);
  EXPECT_NE(log().find("bytes=4000-"), std::string::npos) << log();
}

TEST_F(HubTest, AnEarlierRunsPartIsGoneOnWith) {
  resolve_model("org/model");
  const fs::path link = folder() / "snapshots" / kCommit / "model.safetensors";
  const fs::path blob = fs::canonical(link);
  fs::remove(link);
  fs::remove(folder() / "refs" / "main");
  fs::remove(blob);
  write_file(blob.string() + ".incomplete", weights_.substr(0, 1234));
  EXPECT_EQ(read_file(resolve_model("org/model") / "model.safetensors"), weights_);
  EXPECT_NE(log().find("bytes=1234-"), std::string::npos);
  EXPECT_FALSE(fs::exists(blob.string() + ".incomplete"));
}

TEST_F(HubTest, AServerWithoutRangesSendsTheFileAgain) {
  resolve_model("org/model");
  const fs::path link = folder() / "snapshots" / kCommit / "model.safetensors";
  const fs::path blob = fs::canonical(link);
  fs::remove(link);
  fs::remove(blob);
  write_file(blob.string() + ".incomplete", std::string(1234, 'x'));
  use("norange");
  EXPECT_EQ(read_file(resolve_model("org/model") / "model.safetensors"), weights_);
}

TEST_F(HubTest, ADamagedFileIsDeletedAndReported) {
  use("corrupt");
  EXPECT_NE(error().find("damaged"), std::string::npos);
  expect_nothing_whole();
  use("ok");
  EXPECT_EQ(read_file(resolve_model("org/model") / "model.safetensors"), weights_);
}

TEST_F(HubTest, RefusalsSayWhatToDo) {
  use("401");
  EXPECT_NE(error().find("HF_TOKEN"), std::string::npos);
  use("403");
  EXPECT_NE(error().find("accept its conditions"), std::string::npos);
  use("404");
  EXPECT_NE(error().find("check the spelling"), std::string::npos);
  use("500");
  EXPECT_NE(error().find("try again later"), std::string::npos);
  ::setenv("HF_ENDPOINT", "http://127.0.0.1:1", 1);
  EXPECT_NE(error().find("cannot reach"), std::string::npos);
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  EXPECT_NE(error().find("switched off"), std::string::npos);
  expect_nothing_whole();
}

TEST_F(HubTest, TheTokenIsSent) {
  use("token");
  EXPECT_NE(error().find("private"), std::string::npos);
  ::setenv("HF_TOKEN", "good", 1);
  EXPECT_EQ(read_file(resolve_model("org/model") / "model.safetensors"), weights_);
}

TEST_F(HubTest, AFullDiskLeavesNothingThatLooksWhole) {
  // A limit on the file's size stands for the disk's end: writing fails in the same way.
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    // The test's own output may go to a file that is longer.
    if (std::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(4);
    const rlimit limit{2000, 2000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      resolve_model("org/model");
    } catch (const Error& error) {
      ::_exit(std::string(error.what()).find("cannot write") != std::string::npos ? 0 : 1);
    } catch (...) {
      ::_exit(3);
    }
    ::_exit(2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  expect_nothing_whole();
  EXPECT_EQ(read_file(resolve_model("org/model") / "model.safetensors"), weights_);
}

TEST_F(HubTest, RepositoriesOfOtherKindsSayWhatTheyHold) {
  fs::remove(repository_ / "model.safetensors");
  EXPECT_NE(error().find("org/model:tiny-q8_0.gguf"), std::string::npos);
  fs::remove(repository_ / "tiny-q8_0.gguf");
  EXPECT_NE(error().find("pickles"), std::string::npos);
}

TEST_F(HubTest, APartialSnapshotOfAnotherProgramIsCompleted) {
  write_file(folder() / "refs" / "main", kCommit);
  write_file(folder() / "snapshots" / kCommit / "config.json", "{}");
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  EXPECT_THROW(resolve_model("org/model"), Error);
  ::unsetenv("HF_HUB_OFFLINE");
  EXPECT_EQ(read_file(resolve_model("org/model") / "model.safetensors"), weights_);
}

TEST_F(HubTest, ARevisionWithASlashIsAskedForAsOneName) {
  const fs::path model = resolve_model("org/model", "refs/pr/1");
  EXPECT_EQ(read_file(model / "model.safetensors"), weights_);
  EXPECT_NE(log().find("/revision/refs%2Fpr%2F1 "), std::string::npos) << log();
  EXPECT_EQ(read_file(folder() / "refs" / "refs" / "pr" / "1"), kCommit);
}

TEST_F(HubTest, LocalPathsAreThemselvesAndTypingErrorsAreNotAskedFor) {
  EXPECT_EQ(resolve_model(repository_.string()), repository_);
  for (const char* name : {"./absent", "/absent", "a/b/c", "", "org/../x", "m.gguf",
                           "org/model:../x.gguf", "org/model:x.bin", "org/mo del"}) {
    EXPECT_THROW(resolve_model(name), Error) << name;
  }
  EXPECT_THROW(resolve_model("org/model", "../../x"), Error);
  EXPECT_EQ(log(), "");
}

}  // namespace
}  // namespace ttpu::io
