// Errors as OpenAI's clients read them.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "ttpu/base/json.h"

namespace ttpu::server {

class ApiError : public std::runtime_error {
 public:
  // `param` is the field at fault, `code` a word for programs; empty ones become null.
  ApiError(int status, const std::string& message, std::string param = "", std::string code = "")
      : std::runtime_error(message),
        status_(status),
        param_(std::move(param)),
        code_(std::move(code)) {}

  int status() const { return status_; }
  const std::string& param() const { return param_; }
  const std::string& code() const { return code_; }
  // {"error": {"message", "type", "param", "code"}}
  Json json() const;

 private:
  int status_;
  std::string param_;
  std::string code_;
};

// 400 unless what failed is the server's own. `param` where the error does not name a field itself.
ApiError to_api_error(const Error& error, std::string_view param = "");

}  // namespace ttpu::server
