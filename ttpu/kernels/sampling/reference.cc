#include "ttpu/kernels/sampling/reference.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/sampling/tpu.h"
#include "ttpu/kernels/tpu/lanes.h"

namespace ttpu::kernels::reference {
namespace {

using ir::ComparisonDirection;
using ir::full_like;
using ir::Value;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kGreedyBelow = 1e-5;
constexpr double kLowest = -0x1p31;  // of s32

Value is(Value a, ComparisonDirection direction, Value b) { return ir::compare(a, b, direction); }
Value is(Value a, ComparisonDirection direction, double b) { return ir::compare(a, b, direction); }
// [rows] over [rows, n].
Value down(Value rows, Value like) { return ir::broadcast_in_dim(rows, like.dims(), {0}); }
Value column_numbers(Value like, DType dtype = DType::kS32) {
  return ir::iota(like.function(), Shape(dtype, like.dims()), 1);
}
Value numbers_only(Value x) {
  return ir::select(is(x, ComparisonDirection::kEq, x), x, full_like(x, -kInfinity));
}
// x [rows, n] at one column of each row; -inf (or the lowest number) where there is no such column.
Value at_column(Value x, Value columns) {
  const Value chosen = is(column_numbers(x), ComparisonDirection::kEq, down(columns, x));
  return ir::reduce_max(ir::select(chosen, x, full_like(x, is_float(x.dtype()) ? -kInfinity : -1)),
                        {1});
}

Value penalized(Value x, const TokenHistory& history) {
  const int64_t slots = history.counts.dim(0);
  const Value slot = history.slots;
  const Value known = ir::and_(is(slot, ComparisonDirection::kGe, 0),
                               is(slot, ComparisonDirection::kLt, static_cast<double>(slots)));
  const Value row = ir::select(known, slot, full_like(slot, 0));
  Value counts = ir::convert(ir::take(history.counts, row, 0), DType::kS32);
  counts = ir::select(down(known, counts), counts, full_like(counts, 0));
  const Value seen = is(counts, ComparisonDirection::kGt, 0);
  const Value factor = down(history.repetition, x);
  const Value repeated = ir::select(is(x, ComparisonDirection::kGt, 0), x / factor, x * factor);
  x = ir::select(seen, repeated, x);
  const Value times =
      ir::convert(ir::shift_right_logical(counts, full_like(counts, 1)), DType::kF32);
  x = x - times * down(history.frequency, x);
  return x - ir::minimum(times, full_like(times, 1)) * down(history.presence, x);
}

// The indices [rows, k, 2] of (row, token).
Value row_and_token(Value tokens) {
  return ir::concatenate({ir::expand_dims(ir::iota(tokens.function(), tokens.shape(), 0), 2),
                          ir::expand_dims(tokens, 2)},
                         2);
}

Value biased(Value x, const LogitBias& bias) {
  return ir::scatter({x}, row_and_token(bias.tokens), {bias.values},
                     {.inserted_window_dims = {0, 1},
                      .scatter_dims_to_operand_dims = {0, 1},
                      .index_vector_dim = 2},
                     [](const ir::Values& v) -> ir::Values { return {v[0] + v[1]}; })[0];
}

// Spreads the words of `allowed` over their 32 tokens. A new last dimension of 32 would take a TPU
// the memory and time of 128, so four words are spread over 128 lanes at once, as a product of
// their bytes and ones, which is exact.
Value masked(Value x, Value allowed) {
  ir::Function& f = x.function();
  const int64_t rows = allowed.dim(0), groups = (allowed.dim(1) + 3) / 4;
  const Value words = ir::pad(allowed, ir::full(f, Shape(DType::kU32, {}), 0), {0, 0},
                              {0, 4 * groups - allowed.dim(1)});
  ir::Values bytes;  // [rows, groups, 4] each, together [rows, groups, 16]
  for (int b = 0; b < 4; ++b) {
    const Value byte =
        ir::and_(ir::shift_right_logical(words, full_like(words, 8 * b)), full_like(words, 255));
    bytes.push_back(ir::reshape(ir::convert(byte, DType::kBF16), {rows, groups, 4}));
  }
  const Shape shape(DType::kU32, {16, kTpuLanes});
  const Value lane = ir::iota(f, shape, 1);
  const Value byte_of_lane =
      ir::and_(ir::shift_right_logical(lane, full_like(lane, 3)), full_like(lane, 3));
  const Value source = ir::shift_left(byte_of_lane, full_like(lane, 2)) +
                       ir::shift_right_logical(lane, full_like(lane, 5));
  const Value ones = is(ir::iota(f, shape, 0), ComparisonDirection::kEq, source);
  const Value spread =
      ir::convert(ir::dot_general(ir::concatenate(bytes, 2), ir::convert(ones, DType::kBF16),
                                  {.lhs_contracting = {2}, .rhs_contracting = {0}}, DType::kF32),
                  DType::kU32);
  const Value bit = ir::and_(ir::iota(f, spread.shape(), 2), full_like(spread, 7));
  const Value set = is(ir::and_(ir::shift_right_logical(spread, bit), full_like(spread, 1)),
                       ComparisonDirection::kEq, 1);
  const Value flat = ir::slice(ir::reshape(set, {rows, groups * kTpuLanes}), {0, 0}, x.dims());
  return ir::select(flat, x, full_like(x, -kInfinity));
}

// Threefry-2x32 with 20 rounds; all of one shape.
std::pair<Value, Value> threefry(Value key0, Value key1, Value c0, Value c1) {
  static constexpr std::array<int, 8> kRotations = {13, 15, 26, 6, 17, 29, 16, 24};
  const std::array<Value, 3> keys = {key0, key1,
                                     ir::xor_(ir::xor_(key0, key1), full_like(key0, 0x1BD11BDA))};
  Value x0 = c0 + key0, x1 = c1 + key1;
  for (size_t round = 0; round < 20; ++round) {
    const int turn = kRotations[round % 8];
    x0 = x0 + x1;
    x1 = ir::xor_(ir::or_(ir::shift_left(x1, full_like(x1, turn)),
                          ir::shift_right_logical(x1, full_like(x1, 32 - turn))),
                  x0);
    if (round % 4 != 3) continue;
    const size_t group = round / 4 + 1;
    x0 = x0 + keys[group % 3];
    x1 = x1 + keys[(group + 1) % 3] + full_like(x1, static_cast<double>(group));
  }
  return {x0, x1};
}

// -ln(-ln(1 - u)) for each token of `tokens` [rows, n].
Value gumbel(const SamplingInputs& in, Value tokens) {
  const Value token = ir::convert(tokens, DType::kU32);
  const auto key = [&](int64_t i) {
    const int64_t rows = tokens.dim(0);
    return down(ir::reshape(ir::slice(in.seeds, {0, i}, {rows, i + 1}), {rows}), token);
  };
  const auto [even, odd] =
      threefry(key(0), key(1), ir::shift_right_logical(token, full_like(token, 1)),
               down(in.position, token));
  const Value is_odd = is(ir::and_(token, full_like(token, 1)), ComparisonDirection::kEq, 1);
  const Value bits = ir::convert(ir::select(is_odd, odd, even), DType::kF32);
  const Value u = ir::minimum(bits * 0x1p-32 + 0x1p-33, full_like(bits, 1 - 0x1p-24));
  return -ir::log(-ir::log_plus_one(-u));
}

// Integers (s32) in the order of the numbers, equal ones for equal numbers.
Value ordered(Value x) {
  const Value bits = ir::bitcast_convert(
      ir::select(is(x, ComparisonDirection::kEq, 0), full_like(x, 0), x), DType::kS32);
  const Value below = ir::xor_(bits, full_like(bits, 0x7fffffff));
  return ir::select(is(bits, ComparisonDirection::kLt, 0), below, bits);
}

Value sum_where(Value chosen, Value x) {
  return ir::reduce_sum(ir::select(chosen, x, full_like(x, 0)), {1});
}

// Of each row the largest number for which the weights of the keys (s32) that are no smaller reach
// what is wanted, found two bits at a time; the lowest there is where none does. Weights are no
// less than 0.
Value last_that_reaches(Value wanted, Value weights, Value keys, int bits = 32) {
  const Value none = ir::full(keys.function(), Shape(DType::kS32, wanted.dims()), 0);
  const Value lowest = full_like(none, bits == 32 ? kLowest : 0);
  return ir::repeat(bits / 2, {lowest}, [&](Value turn, const ir::Values& found) -> ir::Values {
    const Value shift =
        ir::broadcast_to(ir::scalar_like(turn, bits - 2) - turn - turn, none.dims());
    Value reached = none;
    for (const double digit : {1, 2, 3}) {
      const Value least = found[0] + ir::shift_left(full_like(none, digit), shift);
      const Value sum = sum_where(is(keys, ComparisonDirection::kGe, down(least, keys)), weights);
      reached = reached + ir::convert(is(sum, ComparisonDirection::kGe, wanted), DType::kS32);
    }
    return {found[0] + ir::shift_left(reached, shift)};
  })[0];
}

// Of logits [rows, vocab] over their temperatures, without a sort, which takes a TPU many times
// longer.
KeptTokens filtered(const SamplingInputs& in, Value scaled) {
  const auto vocab = static_cast<double>(scaled.dim(1));
  const Value keys = ordered(scaled);
  const Value first = ir::reduce_max(scaled, {1});
  const Value share = ir::minimum(in.min_p, full_like(first, 1));
  const Value least = first + ir::select(is(share, ComparisonDirection::kGt, 0), ir::log(share),
                                         full_like(first, -kInfinity));
  const Value all = full_like(first, vocab);
  const Value k = ir::select(is(in.top_k, ComparisonDirection::kLt, 1), all,
                             ir::minimum(ir::convert(in.top_k, DType::kF32), all));
  const Value last = ir::maximum(ordered(least), last_that_reaches(k, full_like(scaled, 1), keys));

  const Value weights =
      ir::select(is(keys, ComparisonDirection::kGe, down(last, keys)),
                 ir::exponential(scaled - down(first, scaled)), full_like(scaled, 0));
  const Value part = ir::maximum(in.top_p * ir::reduce_sum(weights, {1}), full_like(first, 1e-30));
  const Value limit =
      ir::select(is(in.top_p, ComparisonDirection::kGe, 1), full_like(first, kInfinity), part);
  const Value end = ir::maximum(last, last_that_reaches(limit, weights, keys));

  // Of equals at the end as many as are needed.
  const Value above = is(keys, ComparisonDirection::kGt, down(end, keys));
  const Value equal = is(keys, ComparisonDirection::kEq, down(end, keys));
  const Value from_behind = full_like(keys, vocab - 1) - column_numbers(scaled);
  const int bits = std::bit_width(static_cast<uint64_t>(scaled.dim(1) - 1));
  const Value found = last_that_reaches(limit - sum_where(above, weights),
                                        ir::select(equal, weights, full_like(weights, 0)),
                                        from_behind, std::max(bits + bits % 2, 2));
  return {end, full_like(found, vocab - 1) - found};
}

Value is_kept(const KeptTokens& kept, Value scaled) {
  const Value keys = ordered(scaled), end = down(kept.end, scaled);
  const Value early = is(column_numbers(scaled), ComparisonDirection::kLe, down(kept.last, scaled));
  return ir::or_(is(keys, ComparisonDirection::kGt, end),
                 ir::and_(is(keys, ComparisonDirection::kEq, end), early));
}

Value is_greedy(const SamplingInputs& in) {
  return is(in.temperature, ComparisonDirection::kLt, kGreedyBelow);
}
Value inverse_temperature(const SamplingInputs& in) {
  return ir::select(is_greedy(in), full_like(in.temperature, 1), 1.0 / in.temperature);
}

// A row's token is the one with the largest sum of its scaled logit and noise.
Value draw(const SamplingInputs& in, Value logits, Value filters, TpuKernels* kernels) {
  const Value scaled = logits * down(inverse_temperature(in), logits);
  const ir::Values kept = ir::if_(
      filters,
      [&]() -> ir::Values {
        const auto made =
            kernels != nullptr ? tpu_token_filter(*kernels, in, scaled) : std::nullopt;
        const KeptTokens tokens = made ? *made : filtered(in, scaled);
        return {tokens.end, tokens.last};
      },
      [&]() -> ir::Values {
        const Value all = full_like(in.top_k, 0);
        return {all + kLowest, all + static_cast<double>(logits.dim(1) - 1)};
      });
  const Value noisy = scaled + gumbel(in, column_numbers(logits));
  return ir::argmax(
      ir::select(is_kept({kept[0], kept[1]}, scaled), noisy, full_like(noisy, -kInfinity)), 1);
}

// The tokens of all rows. Noise for the whole vocabulary takes longer than the largest number, and
// filters take longer than all else: each only where a row of the batch asks for it.
Value pick(const SamplingInputs& in, Value logits, TpuKernels* kernels) {
  const Value most = ir::argmax(logits, 1);
  const Value draws = ir::not_(is_greedy(in));
  const Value filters = ir::or_(
      ir::or_(is(in.top_k, ComparisonDirection::kGe, 1), is(in.top_p, ComparisonDirection::kLt, 1)),
      is(in.min_p, ComparisonDirection::kGt, 0));
  const auto any = [](Value rows) { return ir::reduce_or(rows, {0}); };
  return ir::if_(
      any(draws),
      [&]() -> ir::Values {
        const Value drawn = draw(in, logits, any(ir::and_(draws, filters)), kernels);
        return {ir::select(draws, drawn, most)};
      },
      [&]() -> ir::Values { return {most}; })[0];
}

}  // namespace

Value count_tokens(Value counts, Value slots, Value tokens) {
  const Value where = ir::concatenate({ir::expand_dims(slots, 1), ir::expand_dims(tokens, 1)}, 1);
  const Value once = ir::full(tokens.function(), Shape(DType::kU16, tokens.dims()), 2);
  return ir::scatter({counts}, where, {once},
                     {.inserted_window_dims = {0, 1},
                      .scatter_dims_to_operand_dims = {0, 1},
                      .index_vector_dim = 1},
                     [](const ir::Values& v) -> ir::Values {
                       const Value full = is(v[0], ComparisonDirection::kGe, 65534);
                       return {ir::select(full, v[0], v[0] + v[1])};
                     })[0];
}

LogprobsResult token_logprobs(Value logits, Value tokens, int64_t top) {
  const Value x = numbers_only(logits);
  const Value most = ir::reduce_max(x, {1});
  const Value total = most + ir::log(ir::reduce_sum(ir::exponential(x - down(most, x)), {1}));
  LogprobsResult result;
  result.logprobs = at_column(x, tokens) - total;
  if (top > 0) {
    const auto [values, ids] = ir::top_k(x, top);
    result.top_tokens = ids;
    result.top_logprobs = values - down(total, values);
  }
  return result;
}

SamplingResult sample(const SamplingInputs& in, const SamplingOptions& options,
                      TpuKernels* kernels) {
  Value x = numbers_only(in.logits);
  if (in.history) x = penalized(x, *in.history);
  if (in.bias) x = biased(x, *in.bias);
  if (in.allowed) x = masked(x, *in.allowed);
  SamplingResult result;
  result.tokens = pick(in, numbers_only(x), kernels);
  if (options.logprobs) {
    const LogprobsResult logprobs = token_logprobs(in.logits, result.tokens, options.top);
    result.logprobs = logprobs.logprobs;
    result.top_tokens = logprobs.top_tokens;
    result.top_logprobs = logprobs.top_logprobs;
  }
  if (in.history)
    result.counts = count_tokens(in.history->counts, in.history->slots, result.tokens);
  return result;
}

}  // namespace ttpu::kernels::reference
