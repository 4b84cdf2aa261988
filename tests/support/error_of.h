// What a call throws.
#pragma once

#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"

namespace ttpu {

// The message of the Error that `call` throws; the test fails when it has another code, or none is
// thrown.
inline std::string error_of(const std::function<void()>& call, Code code) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

}  // namespace ttpu
