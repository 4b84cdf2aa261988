#include "ttpu/server/metrics.h"

#include <gtest/gtest.h>

namespace ttpu::server {
namespace {

TEST(Histogram, CountsUpToEachBoundAndAllInTheLast) {
  Histogram histogram({1, 2.5});
  for (const double value : {0.5, 1.0, 2.0, 7.0}) histogram.observe(value);
  std::string text;
  histogram.print("h", "a=\"b\"", text);
  EXPECT_EQ(text,
            "h_bucket{a=\"b\",le=\"1\"} 2\n"
            "h_bucket{a=\"b\",le=\"2.5\"} 3\n"
            "h_bucket{a=\"b\",le=\"+Inf\"} 4\n"
            "h_sum{a=\"b\"} 10.5\n"
            "h_count{a=\"b\"} 4\n");
}

}  // namespace
}  // namespace ttpu::server
