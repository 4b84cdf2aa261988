#include "ttpu/server/api_error.h"

namespace ttpu::server {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 429:
      return "rate_limit_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

Json ApiError::json() const {
  return {{"error",
           {{"message", what()},
            {"type", type_of(status_)},
            {"param", text_or_null(param_)},
            {"code", text_or_null(code_)}}}};
}

ApiError to_api_error(const Error& error, std::string_view param) {
  const std::string message = error.what();
  switch (error.code()) {
    case Code::kOutOfRange:
      return ApiError(400, message, std::string(param), "context_length_exceeded");
    case Code::kInvalidArgument:
    case Code::kFailedPrecondition:
    case Code::kResourceExhausted:
    case Code::kUnimplemented: {
      // "[sampling] top_p is 2, ..." is about top_p.
      constexpr std::string_view kSampling = "[sampling] ";
      if (message.rfind(kSampling, 0) == 0) {
        const size_t start = kSampling.size();
        return ApiError(400, message, message.substr(start, message.find(' ', start) - start));
      }
      return ApiError(400, message, std::string(param));
    }
    default:
      return ApiError(500, message);
  }
}

}  // namespace ttpu::server
