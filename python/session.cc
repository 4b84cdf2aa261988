#include "python/session.h"

#include <utility>

#include "ttpu/base/error.h"
#include "ttpu/io/hub.h"

namespace ttpu::python {
namespace {

void expect(const char* name, const std::string& given, const char* known, const char* why) {
  if (given == known) return;
  fail(Code::kUnimplemented, "[from_pretrained] {} is '{}', expected '{}': {}", name, given, known,
       why);
}

DType activation_dtype(const std::string& name) {
  require(name == "bf16" || name == "f32",
          "[from_pretrained] dtype is '{}', expected 'bf16' or 'f32'", name);
  return name == "f32" ? DType::kF32 : DType::kBF16;
}

engine::EngineOptions engine_options(const LoadArguments& arguments) {
  expect("backend", arguments.backend, "jax", "TTPU runs StableHLO through PJRT, as JAX does");
  expect("task", arguments.task, "inference", "TTPU does not train models");
  expect("parallelism_strategy", arguments.parallelism_strategy, "auto",
         "a model runs on one device");
  require(arguments.max_model_len >= 0,
          "[from_pretrained] max_model_len is {}, expected 0 (what the model allows) or more",
          arguments.max_model_len);
  engine::EngineOptions options;
  options.device = arguments.device;
  options.dtype = activation_dtype(arguments.dtype);
  options.expand_weights = options.dtype == DType::kF32;
  options.max_model_len = arguments.max_model_len;
  options.lazy_programs = true;
  options.lazy_programs = true;
  return options;
}

// The arguments are looked at before a model is looked for.
engine::Generator load(const std::string& name, const LoadArguments& arguments) {
  const engine::EngineOptions options = engine_options(arguments);
  return engine::Generator(io::resolve_model(name), options);
}

}  // namespace

Session::Session(const std::string& name, const LoadArguments& arguments)
    : generator_(load(name, arguments)) {}

engine::GenerationResult Session::generate(const engine::Request& request,
                                           const std::function<void(const std::string&)>& on_text,
                                           const std::atomic<bool>& cancelled) {
  const std::scoped_lock lock(mutex_);
  return generator_.generate(request, on_text, &cancelled);
}

Stream::Stream(std::shared_ptr<Session> session, engine::Request request)
    : session_(std::move(session)), request_(std::move(request)), worker_([this] { run(); }) {}

void Stream::run() {
  std::optional<engine::GenerationResult> result;
  std::exception_ptr error;
  try {
    result = session_->generate(
        request_,
        [this](const std::string& piece) {
          const std::scoped_lock lock(mutex_);
          pieces_.push_back(piece);
          changed_.notify_all();
        },
        cancelled_);
  } catch (...) {
    error = std::current_exception();
  }
  const std::scoped_lock lock(mutex_);
  result_ = std::move(result);
  error_ = error;
  changed_.notify_all();
}

bool Stream::wait_piece(Duration most) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, most, [this] { return has_next(); });
}

bool Stream::wait_end(Duration most) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, most, [this] { return has_ended(); });
}

std::optional<std::string> Stream::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return has_next(); });
  if (cancelled_) return std::nullopt;
  if (!pieces_.empty()) {
    std::string piece = std::move(pieces_.front());
    pieces_.pop_front();
    return piece;
  }
  if (error_) std::rethrow_exception(error_);
  return std::nullopt;
}

const engine::GenerationResult& Stream::result() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return has_ended(); });
  if (error_) std::rethrow_exception(error_);
  return *result_;
}

void Stream::close() {
  {
    const std::scoped_lock lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }
  if (worker_.joinable()) worker_.join();
}

}  // namespace ttpu::python
