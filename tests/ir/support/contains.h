#pragma once

#include <string>

#include <gtest/gtest.h>

namespace ttpu::ir::testing {

// EXPECT_TRUE(contains(text, part)): shows the text when the part is not in it.
inline ::testing::AssertionResult contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "expected: " << part << "\nin: " << text;
}

}  // namespace ttpu::ir::testing
