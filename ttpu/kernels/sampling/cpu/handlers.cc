#include "ttpu/kernels/sampling/cpu/handlers.h"

#include <cstring>

#include "ttpu/base/error.h"
#include "ttpu/kernels/cpu/ffi_call.h"
#include "ttpu/kernels/sampling/cpu/kernel.h"

namespace ttpu::kernels {
namespace {

// The shapes were checked when the program was built; a program from elsewhere is stopped here.
template <typename T>
T* take(const XLA_FFI_Buffer& buffer, XLA_FFI_DataType type, std::initializer_list<int64_t> dims) {
  const auto given = dims_of(buffer);
  require(buffer.dtype == type && std::equal(given.begin(), given.end(), dims.begin(), dims.end()),
          "[sampling] an operand has another shape or type than expected");
  return data_of<T>(buffer);
}
template <typename T>
T* floats(const XLA_FFI_Buffer& buffer, std::initializer_list<int64_t> dims) {
  return take<T>(buffer, XLA_FFI_DataType_F32, dims);
}
template <typename T>
T* ints(const XLA_FFI_Buffer& buffer, std::initializer_list<int64_t> dims) {
  return take<T>(buffer, XLA_FFI_DataType_S32, dims);
}

void check_logits(const XLA_FFI_Buffer& logits) {
  require(logits.rank == 2 && logits.dtype == XLA_FFI_DataType_F32,
          "[sampling] logits are no f32 [rows, vocab]");
}

// Results from `next` on; the tokens are known.
void logprobs(FfiCall& call, const XLA_FFI_Buffer& logits, const int32_t* tokens, int64_t next) {
  cpu::Logprobs l;
  l.rows = logits.dims[0];
  l.vocab = logits.dims[1];
  l.logits = data_of<const float>(logits);
  l.tokens = tokens;
  l.logprobs = floats<float>(call.result(next++), {l.rows});
  if (call.num_results() > next) {
    const XLA_FFI_Buffer& top = call.result(next++);
    require(top.rank == 2 && top.dims[1] <= l.vocab, "[sampling] wrong top tokens");
    l.top = top.dims[1];
    l.top_tokens = ints<int32_t>(top, {l.rows, l.top});
    l.top_logprobs = floats<float>(call.result(next), {l.rows, l.top});
  }
  cpu::token_logprobs(l, call.pool());
}

// Operands from `next` on.
void read_history(FfiCall& call, cpu::Sampling& s, int64_t& next) {
  const XLA_FFI_Buffer& before = call.arg(next++);
  const XLA_FFI_Buffer& counts = call.result(1);
  require(counts.rank == 2, "[sampling] counts are no matrix");
  s.slot_count = counts.dims[0];
  s.counts = take<uint16_t>(counts, XLA_FFI_DataType_U16, {s.slot_count, s.vocab});
  const auto* old = take<const uint16_t>(before, XLA_FFI_DataType_U16, {s.slot_count, s.vocab});
  // The plugin gives the same memory where it can.
  if (old != s.counts) {
    std::memcpy(s.counts, old, static_cast<size_t>(s.slot_count * s.vocab) * sizeof(uint16_t));
  }
  s.slots = ints<const int32_t>(call.arg(next++), {s.rows});
  s.repetition = floats<const float>(call.arg(next++), {s.rows});
  s.frequency = floats<const float>(call.arg(next++), {s.rows});
  s.presence = floats<const float>(call.arg(next++), {s.rows});
}

void sampling_kernel(FfiCall& call) {
  const XLA_FFI_Buffer& logits = call.arg(0);
  check_logits(logits);
  cpu::Sampling s;
  s.rows = logits.dims[0];
  s.vocab = logits.dims[1];
  s.logits = data_of<const float>(logits);
  s.temperature = floats<const float>(call.arg(1), {s.rows});
  s.top_k = ints<const int32_t>(call.arg(2), {s.rows});
  s.top_p = floats<const float>(call.arg(3), {s.rows});
  s.min_p = floats<const float>(call.arg(4), {s.rows});
  s.seeds = take<const uint32_t>(call.arg(5), XLA_FFI_DataType_U32, {s.rows, 2});
  s.position = take<const uint32_t>(call.arg(6), XLA_FFI_DataType_U32, {s.rows});
  s.tokens = ints<int32_t>(call.result(0), {s.rows});
  int64_t next = 7;
  const bool history = call.attr_i64("has_history") != 0;
  if (history) read_history(call, s, next);
  if (call.attr_i64("has_bias") != 0) {
    const XLA_FFI_Buffer& tokens = call.arg(next++);
    require(tokens.rank == 2, "[sampling] the bias is no matrix");
    s.biases = tokens.dims[1];
    s.bias_tokens = ints<const int32_t>(tokens, {s.rows, s.biases});
    s.bias_values = floats<const float>(call.arg(next++), {s.rows, s.biases});
  }
  if (call.attr_i64("has_allowed") != 0) {
    s.allowed =
        take<const uint32_t>(call.arg(next++), XLA_FFI_DataType_U32, {s.rows, (s.vocab + 31) / 32});
  }
  cpu::sample(s, call.pool());
  if (call.attr_i64("logprobs") != 0) logprobs(call, logits, s.tokens, history ? 2 : 1);
}

void logprobs_kernel(FfiCall& call) {
  const XLA_FFI_Buffer& logits = call.arg(0);
  check_logits(logits);
  logprobs(call, logits, ints<const int32_t>(call.arg(1), {logits.dims[0]}), 0);
}

}  // namespace

std::span<const CpuHandler> sampling_cpu_handlers() {
  static constexpr CpuHandler kHandlers[] = {{kSamplingTarget, ffi_handler<sampling_kernel>},
                                             {kLogprobsTarget, ffi_handler<logprobs_kernel>}};
  return kHandlers;
}

}  // namespace ttpu::kernels
