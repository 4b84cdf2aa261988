#include "ttpu/base/subprocess.h"

#include <filesystem>

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"

namespace ttpu {
namespace {

Code code_of(const std::vector<std::string>& argv, const SubprocessOptions& options = {}) {
  try {
    run_subprocess(argv, options);
  } catch (const Error& error) {
    return error.code();
  }
  return Code::kUnknown;
}

TEST(Subprocess, GivesBothOutputsAndTheExitCode) {
  const SubprocessResult result = run_subprocess({"sh", "-c", "echo out; echo err >&2; exit 7"});
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.output, "out\n");
  EXPECT_EQ(result.errors, "err\n");
}

TEST(Subprocess, PassesMoreInputThanAChannelHolds) {
  SubprocessOptions options;
  options.input = std::string(5'000'000, 'x');
  EXPECT_EQ(run_subprocess({"cat"}, options).output, options.input);
}

TEST(Subprocess, AChildThatDoesNotReadIsNoError) {
  SubprocessOptions options;
  options.input = std::string(5'000'000, 'x');
  EXPECT_EQ(run_subprocess({"true"}, options).exit_code, 0);
}

TEST(Subprocess, SetsVariables) {
  SubprocessOptions options;
  options.environment = {{"TTPU_TEST_VARIABLE", "a b"}};
  EXPECT_EQ(run_subprocess({"sh", "-c", "echo \"$TTPU_TEST_VARIABLE\""}, options).output, "a b\n");
}

TEST(Subprocess, StopsAtTheTimeout) {
  SubprocessOptions options;
  options.timeout = std::chrono::milliseconds(100);
  EXPECT_EQ(code_of({"sleep", "60"}, options), Code::kDeadlineExceeded);
}

TEST(Subprocess, DoesNotWaitForWhatTheChildLeftRunning) {
  SubprocessOptions options;
  options.timeout = std::chrono::seconds(20);
  EXPECT_EQ(run_subprocess({"sh", "-c", "sleep 40 & echo done"}, options).output, "done\n");
}

TEST(Subprocess, TheChildDiesWithTheProcess) {
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "child_pid";
  std::filesystem::remove(file);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // so that what is orphaned can be waited for here
  const pid_t process = ::fork();
  if (process == 0) {
    run_subprocess({"sh", "-c", "echo $$ > $0.new; mv $0.new $0; exec sleep 20", file.string()});
    ::_exit(0);
  }
  for (int i = 0; i < 1000 && !std::filesystem::exists(file); ++i) ::usleep(10'000);
  ::kill(process, SIGTERM);
  ::waitpid(process, nullptr, 0);
  int status = 0;
  const pid_t child = std::stoi(read_file(file));
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
  EXPECT_TRUE(WIFSIGNALED(status));  // and did not sleep to its end
}

TEST(Subprocess, TellsHowTheChildDied) {
  EXPECT_EQ(code_of({"sh", "-c", "kill -KILL $$"}), Code::kResourceExhausted);
  EXPECT_EQ(code_of({"sh", "-c", "kill -SEGV $$"}), Code::kAborted);
  EXPECT_EQ(code_of({"no-such-command-here"}), Code::kNotFound);
  EXPECT_EQ(code_of({}), Code::kInvalidArgument);
}

}  // namespace
}  // namespace ttpu
