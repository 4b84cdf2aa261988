#include "ttpu/kernels/sampling/reference.h"

#include <array>
#include <limits>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/tpu/lanes.h"

namespace ttpu::kernels::reference {
namespace {

using ir::ComparisonDirection;
using ir::full_like;
using ir::Value;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kGreedyBelow = 1e-5;

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

// The sums of what stands before each column of x [rows, n]: within blocks of the width of a TPU's
// lanes by a product with a triangle of ones, and so again for the sums of whole blocks.
Value sums_before(Value x) {
  constexpr int64_t kBlock = 128;
  const int64_t rows = x.dim(0), columns = x.dim(1);
  const int64_t blocks = (columns + kBlock - 1) / kBlock;
  const Value padded = ir::pad(x, ir::scalar_like(x, 0), {0, 0}, {0, blocks * kBlock - columns});
  const Value in_blocks = ir::reshape(padded, {rows, blocks, kBlock});
  const Shape square(DType::kS32, {kBlock, kBlock});
  const Value before = ir::compare(ir::iota(x.function(), square, 0),
                                   ir::iota(x.function(), square, 1), ComparisonDirection::kLt);
  Value sums = ir::dot_general(in_blocks, ir::convert(before, x.dtype()), {{}, {}, {2}, {0}},
                               std::nullopt, ir::Precision::kHighest);
  if (blocks > 1) {
    const Value of_blocks = sums_before(ir::reduce_sum(in_blocks, {2}));
    sums = sums + ir::broadcast_in_dim(of_blocks, sums.dims(), {0, 1});
  }
  return ir::slice(ir::reshape(sums, padded.dims()), {0, 0}, x.dims());
}

// Which of the sorted [rows, vocab] logits stay.
Value kept(const SamplingInputs& in, Value sorted) {
  const Value first = ir::reduce_max(sorted, {1});
  const Value least = ir::select(is(in.min_p, ComparisonDirection::kGt, 0), ir::log(in.min_p),
                                 full_like(in.min_p, -kInfinity));
  Value keep = is(sorted, ComparisonDirection::kGe, down(first + least, sorted));
  const Value all = full_like(in.top_k, static_cast<double>(sorted.dim(1)));
  const Value k =
      ir::select(is(in.top_k, ComparisonDirection::kLt, 1), all, ir::minimum(in.top_k, all));
  const Value last = at_column(sorted, k - full_like(k, 1));
  keep = ir::and_(keep, is(sorted, ComparisonDirection::kGe, down(last, sorted)));
  const Value weights =
      ir::select(keep, ir::exponential(sorted - down(first, sorted)), full_like(sorted, 0));
  const Value limit =
      ir::select(is(in.top_p, ComparisonDirection::kGe, 1), full_like(in.top_p, kInfinity),
                 in.top_p * ir::reduce_sum(weights, {1}));
  const Value reached = is(sums_before(weights), ComparisonDirection::kLt, down(limit, sorted));
  const Value is_first = is(column_numbers(sorted), ComparisonDirection::kEq, 0);
  return ir::and_(keep, ir::or_(reached, is_first));
}

Value is_greedy(const SamplingInputs& in) {
  return is(in.temperature, ComparisonDirection::kLt, kGreedyBelow);
}
Value inverse_temperature(const SamplingInputs& in) {
  return ir::select(is_greedy(in), full_like(in.temperature, 1), 1.0 / in.temperature);
}

// Where no row keeps only some of the tokens.
Value pick_of_all(const SamplingInputs& in, Value logits) {
  const Value scaled = logits * down(inverse_temperature(in), logits);
  const Value drawn = ir::argmax(scaled + gumbel(in, column_numbers(logits)), 1);
  return ir::select(is_greedy(in), ir::argmax(logits, 1), drawn);
}

Value pick_of_kept(const SamplingInputs& in, Value logits) {
  const ir::Values sorted = ir::sort(
      {logits, column_numbers(logits)}, 1, true,
      [](const ir::Values& v) { return ir::compare(v[0], v[1], ComparisonDirection::kGt); });
  const Value best = sorted[0];
  const Value most = ir::reshape(ir::slice(best, {0, 0}, {best.dim(0), 1}), {best.dim(0)});
  // A row without a token left is settled with the greedy ones: token 0 was sorted first.
  const Value greedy = ir::or_(is_greedy(in), is(most, ComparisonDirection::kEq, -kInfinity));
  const Value scaled = best * down(inverse_temperature(in), best);
  const Value scores =
      ir::select(kept(in, scaled), scaled + gumbel(in, sorted[1]), full_like(scaled, -kInfinity));
  const Value drawn = ir::argmax(scores, 1);
  return at_column(sorted[1], ir::select(greedy, full_like(drawn, 0), drawn));
}

// The tokens of all rows. Sorting takes many times longer than all else, and noise for the whole
// vocabulary longer than the largest number: each only where a row of the batch asks for it.
Value pick(const SamplingInputs& in, Value logits) {
  const Value draws = ir::not_(is_greedy(in));
  const Value filters = ir::or_(
      ir::or_(is(in.top_k, ComparisonDirection::kGe, 1), is(in.top_p, ComparisonDirection::kLt, 1)),
      is(in.min_p, ComparisonDirection::kGt, 0));
  const auto any = [](Value rows) { return ir::convert(ir::reduce_or(rows, {0}), DType::kS32); };
  return ir::case_(any(draws) + any(ir::and_(draws, filters)),
                   {[&] { return ir::Values{ir::argmax(logits, 1)}; },
                    [&] { return ir::Values{pick_of_all(in, logits)}; },
                    [&] { return ir::Values{pick_of_kept(in, logits)}; }})[0];
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

SamplingResult sample(const SamplingInputs& in, const SamplingOptions& options) {
  Value x = numbers_only(in.logits);
  if (in.history) x = penalized(x, *in.history);
  if (in.bias) x = biased(x, *in.bias);
  if (in.allowed) x = masked(x, *in.allowed);
  SamplingResult result;
  result.tokens = pick(in, numbers_only(x));
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
