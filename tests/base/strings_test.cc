#include "ttpu/base/strings.h"

#include <gtest/gtest.h>

namespace ttpu {
namespace {

using Parts = std::vector<std::string>;

TEST(Strings, ASeparatorAtTheEndBeginsNothing) {
  EXPECT_EQ(split("", ','), Parts{});
  EXPECT_EQ(split("a", ','), Parts{"a"});
  EXPECT_EQ(split("a,b,", ','), (Parts{"a", "b"}));
  EXPECT_EQ(split(",a,,b", ','), (Parts{"", "a", "", "b"}));
}

TEST(Strings, ACountIsTheWholeText) {
  EXPECT_EQ(parse_count("0"), 0);
  EXPECT_EQ(parse_count("8490"), 8490);
  for (const char* bad : {"", " 1", "1 ", "1x", "-1", "+1", "0x1", "99999999999"}) {
    EXPECT_FALSE(parse_count(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace ttpu
