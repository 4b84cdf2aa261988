// Checks of flags that take a number. CLI11's own print their limits with 309 digits, and let NaN
// through.
#pragma once

#include <cmath>
#include <string>

#include <CLI/CLI.hpp>

namespace ttpu::cli {

inline CLI::Validator number_check(bool zero, const std::string& name) {
  const auto check = [zero](const std::string& text) -> std::string {
    double value = 0;
    const bool is_number = CLI::detail::lexical_cast(text, value) && std::isfinite(value);
    if (is_number && (zero ? value >= 0 : value > 0)) return "";
    return "'" + text + "' was given, expected a number " + (zero ? "of 0 or more" : "above 0");
  };
  return {check, name};
}

inline CLI::Validator above_zero() { return number_check(false, "POSITIVE"); }
inline CLI::Validator zero_or_more() { return number_check(true, "NONNEGATIVE"); }

}  // namespace ttpu::cli
