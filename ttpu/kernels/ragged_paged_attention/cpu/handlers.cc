#include "ttpu/kernels/ragged_paged_attention/cpu/handlers.h"

#include <cstring>

#include "ttpu/base/error.h"
#include "ttpu/kernels/cpu/ffi_call.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/kernel.h"

namespace ttpu::kernels {
namespace {

DType float_type(const XLA_FFI_Buffer& buffer) {
  if (buffer.dtype == XLA_FFI_DataType_BF16) return DType::kBF16;
  if (buffer.dtype == XLA_FFI_DataType_F32) return DType::kF32;
  fail(Code::kInvalidArgument, "[attention] a buffer has XLA type {}, expected bf16 or f32",
       static_cast<int>(buffer.dtype));
}

DType cache_type(const XLA_FFI_Buffer& buffer) {
  if (buffer.dtype == XLA_FFI_DataType_S8) return DType::kS8;
  if (buffer.dtype == XLA_FFI_DataType_F8E4M3FN) return DType::kF8E4M3FN;
  return float_type(buffer);
}

int64_t elements(const XLA_FFI_Buffer& buffer, int64_t from = 0) {
  int64_t count = 1;
  for (int64_t i = from; i < buffer.rank; ++i) count *= buffer.dims[i];
  return count;
}

// The operands that some calls have.
void read_options(FfiCall& call, cpu::Attention& a) {
  int64_t next = 7;
  if (call.attr_i64("has_values") != 0) {
    require(float_type(call.arg(next)) == a.dtype, "[attention] values differ in type");
    a.values = call.arg(next++).data;
  }
  const int64_t rotary = call.attr_i64("rotary");
  if (rotary != kNoRotary) {
    const XLA_FFI_Buffer& cos = call.arg(next);
    require(cos.rank == 2 && 2 * cos.dims[1] <= a.key_dim, "[attention] wrong rotary tables");
    a.rotary_half = cos.dims[1];
    a.interleaved = rotary == kInterleavedRotary;
    a.cos = data_of<const float>(cos);
    a.sin = data_of<const float>(call.arg(next + 1));
    next += 2;
  }
  if (call.attr_i64("has_sinks") != 0) a.sinks = data_of<const float>(call.arg(next));
}

void attention_kernel(FfiCall& call) {
  const XLA_FFI_Buffer& cache = call.arg(0);
  const XLA_FFI_Buffer& q = call.arg(1);
  const XLA_FFI_Buffer& output = call.result(0);
  require(q.rank == 3 && output.rank == 3 && cache.rank >= 3, "[attention] wrong ranks");
  cpu::Attention a;
  a.dtype = float_type(q);
  a.cache_dtype = cache_type(cache);
  require(float_type(call.arg(2)) == a.dtype && float_type(output) == a.dtype,
          "[attention] queries, keys and output differ in type");
  a.q = q.data;
  a.keys = call.arg(2).data;
  a.cache = call.result(1).data;
  a.output = output.data;
  a.kv_lens = data_of<const int32_t>(call.arg(3));
  a.page_indices = data_of<const int32_t>(call.arg(4));
  a.cu_q_lens = data_of<const int32_t>(call.arg(5));
  a.distribution = data_of<const int32_t>(call.arg(6));
  a.tokens = q.dims[0];
  a.q_heads = q.dims[1];
  a.key_dim = q.dims[2];
  a.value_dim = output.dims[2];
  a.width = elements(cache, 2);
  a.pages = cache.dims[0];
  a.page_size = cache.dims[1];
  a.sequences = elements(call.arg(3));
  a.pages_per_sequence = elements(call.arg(4)) / a.sequences;
  a.kv_heads = call.attr_i64("kv_heads");
  a.head_stride = call.attr_i64("head_stride");
  a.value_offset = call.attr_i64("value_offset");
  a.window = call.attr_i64("window");
  a.causal = call.attr_i64("causal") != 0;
  read_options(call, a);
  a.scale = call.attr_f32("scale");
  a.soft_cap = call.attr_f32("soft_cap");
  // The plugin gives the same memory where it can.
  if (a.cache != cache.data) {
    std::memcpy(a.cache, cache.data,
                static_cast<size_t>(elements(cache) * cpu::size_of(a.cache_dtype)));
  }
  cpu::attention(a, call.pool());
}

}  // namespace

std::span<const CpuHandler> attention_cpu_handlers() {
  static constexpr CpuHandler kHandlers[] = {{kAttentionTarget, ffi_handler<attention_kernel>}};
  return kHandlers;
}

}  // namespace ttpu::kernels
