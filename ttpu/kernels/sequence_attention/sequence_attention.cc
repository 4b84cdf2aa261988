#include "ttpu/kernels/sequence_attention/sequence_attention.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/sequence_attention/reference.h"
#include "ttpu/kernels/sequence_attention/tpu.h"

namespace ttpu::kernels {
namespace {

constexpr const char* kOp = "sequence_attention";

void check(ir::Value q, ir::Value k, ir::Value v, int64_t length,
           const SequenceAttentionOptions& options) {
  require(q.rank() == 3 && k.rank() == 3 && v.rank() == 3,
          "[{}] q is {}, k {}, v {}; expected 3 dimensions each", kOp, q.shape().to_string(),
          k.shape().to_string(), v.shape().to_string());
  require(is_float(q.dtype()) && k.dtype() == q.dtype() && v.dtype() == q.dtype() &&
              k.dims() == Dims({q.dim(0), k.dim(1), q.dim(2)}) &&
              v.dims() == Dims({q.dim(0), k.dim(1), v.dim(2)}),
          "[{}] q is {}, k {} and v {}; expected [tokens, q_heads, d], [tokens, kv_heads, d] and "
          "[tokens, kv_heads, d_v] of one type of floats",
          kOp, q.shape().to_string(), k.shape().to_string(), v.shape().to_string());
  require(k.dim(1) > 0 && q.dim(1) % k.dim(1) == 0,
          "[{}] {} query heads are no multiple of {} key heads", kOp, q.dim(1), k.dim(1));
  require(length > 0 && q.dim(0) > 0 && q.dim(0) % length == 0,
          "[{}] {} tokens are no whole sequences of {}", kOp, q.dim(0), length);
  require(!options.sliding_window || *options.sliding_window > 0,
          "[{}] the sliding window is {}, expected 1 or more", kOp,
          options.sliding_window.value_or(0));
  require(!options.soft_cap || *options.soft_cap > 0,
          "[{}] the soft cap is {}, expected more than 0", kOp, options.soft_cap.value_or(0));
  require(!options.sinks || options.sinks->dims() == Dims({q.dim(1)}),
          "[{}] sinks do not have one number for each of {} heads", kOp, q.dim(1));
}

// Tells apart what is computed otherwise.
std::string name_of(const ir::Values& arguments, int64_t length,
                    const SequenceAttentionOptions& options) {
  std::string name = fmt::format("{}.{}", kOp, dtype_name(arguments[0].dtype()));
  for (const ir::Value x : arguments) name += fmt::format(".{}", fmt::join(x.dims(), "x"));
  name += fmt::format(".length_{}.scale_{}", length, options.scale);
  if (options.causal) name += ".causal";
  if (options.sliding_window) name += fmt::format(".window_{}", *options.sliding_window);
  if (options.soft_cap) name += fmt::format(".cap_{}", *options.soft_cap);
  return name;
}

// The operator over the arguments of a function, q, k, v and perhaps sinks, whichever that is.
struct Attention {
  Target target;
  int64_t length;
  SequenceAttentionOptions options;  // without sinks

  SequenceAttentionOptions options_for(const ir::Values& arguments) const {
    SequenceAttentionOptions all = options;
    if (arguments.size() > 3) all.sinks = arguments[3];
    return all;
  }

  SequenceAttentionResult result_of(const ir::Values& a) const {
    const SequenceAttentionOptions all = options_for(a);
    if (target.tpu) {
      const auto made = tpu_sequence_attention(*target.tpu, a[0], a[1], a[2], length, all);
      if (made) return *made;
    }
    return reference::sequence_attention(a[0], a[1], a[2], length, all);
  }

  // The output, and what the gradient wants to know of it.
  ir::Values forward(const ir::Values& arguments) const {
    const SequenceAttentionResult result = result_of(arguments);
    return {result.output, result.logarithm};
  }

  ir::Values backward(const ir::Values& a, const ir::Values& kept, ir::Value d_output) const {
    const SequenceAttentionOptions all = options_for(a);
    const SequenceAttentionResult result{kept.at(0), kept.at(1)};
    if (target.tpu) {
      const auto made = tpu_sequence_attention_gradient(*target.tpu, a[0], a[1], a[2], length, all,
                                                        result, d_output);
      if (made) return *made;
    }
    return reference::sequence_attention_gradient(a[0], a[1], a[2], length, all, result, d_output);
  }
};

const ir::Function& function_of(ir::Module& module, const ir::Values& operands,
                                const Attention& attention) {
  const std::string name = name_of(operands, attention.length, attention.options);
  if (const ir::Function* known = module.find_function(name)) return *known;
  ir::Function& function = module.add_function(name);
  for (const ir::Value x : operands) function.add_argument(x.shape());
  function.set_results({attention.forward(function.arguments())[0]});
  function.set_gradient(
      {[attention](const ir::Values& arguments) { return attention.forward(arguments); },
       [attention](const ir::Values& arguments, const ir::Values& kept,
                   const ir::Values& cotangents) {
         return attention.backward(arguments, kept, cotangents.at(0));
       }});
  return function;
}

}  // namespace

ir::Value sequence_attention(const Target& target, ir::Value q, ir::Value k, ir::Value v,
                             int64_t length, const SequenceAttentionOptions& options) {
  check(q, k, v, length, options);
  ir::Values operands = {q, k, v};
  if (options.sinks) operands.push_back(ir::convert(*options.sinks, DType::kF32));
  Attention attention{target, length, options};
  attention.options.sinks.reset();
  // A window as long as the sequence hides nothing.
  if (options.sliding_window.value_or(0) >= length) attention.options.sliding_window.reset();
  const ir::Function& function = function_of(q.function().module(), operands, attention);
  return ir::call(function, operands)[0];
}

}  // namespace ttpu::kernels
