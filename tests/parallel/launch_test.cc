// What of `ttpu launch` needs no processes; tests/cli/test_launch.py has the rest.
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/error_of.h"
#include "ttpu/parallel/launch/cluster.h"
#include "ttpu/parallel/launch/lines.h"

namespace ttpu::parallel {
namespace {

TEST(LineReader, OneWhoWritesWithoutEndDoesNotKeepTheReader) {
  constexpr size_t kSize = 8 << 20;
  const Descriptor file(::memfd_create("lines", MFD_CLOEXEC));  // there is always more to read
  ASSERT_EQ(::ftruncate(file.get(), kSize), 0);
  LineReader reader(1 << 16);
  size_t taken = 0;
  int calls = 1;
  while (reader.read(file, [&](std::string_view line) { taken += line.size(); })) ++calls;
  EXPECT_EQ(taken, kSize);
  EXPECT_GE(calls, 8);
}

TEST(Cluster, ListsOfSlurmAreExpanded) {
  const std::vector<std::string> racks = {"rack1n1", "rack1n2", "rack2n1", "rack2n2", "x"};
  EXPECT_EQ(expand_hostlist("rack[1-2]n[1-2],x"), racks);
  const std::vector<std::string> padded = {"tpu08-x", "tpu09-x", "tpu11-x", "y"};
  EXPECT_EQ(expand_hostlist("tpu[08-09,11]-x,y"), padded);
  for (const char* bad : {"a[1-2", "a[2-1]", "a[x]", "a[0-60000]b[0-60000]"}) {
    EXPECT_NE(error_of([&] { expand_hostlist(bad); }, Code::kInvalidArgument), "") << bad;
  }
}

}  // namespace
}  // namespace ttpu::parallel
