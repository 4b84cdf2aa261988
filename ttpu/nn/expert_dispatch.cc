#include "ttpu/nn/expert_dispatch.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/expert_order.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::nn {
namespace {

using enum ir::ComparisonDirection;
using ir::Value;

Value all_of(Value like, int64_t value) { return ir::full_like(like, static_cast<double>(value)); }

Value numbers(ir::Function& function, const Dims& dims, int64_t axis) {
  return ir::iota(function, Shape(DType::kS32, dims), axis);
}

// Sorted along `axis` by the first.
ir::Values sorted(const ir::Values& values, int64_t axis) {
  return ir::sort(values, axis, true,
                  [](const ir::Values& v) { return ir::compare(v[0], v[1], kLt); });
}

Value padded(Value x, int64_t axis, int64_t size, int64_t value) {
  Dims high(x.dims().size(), 0);
  high[static_cast<size_t>(axis)] = size - x.dim(static_cast<int>(axis));
  return ir::pad(x, ir::scalar(x.function(), x.dtype(), static_cast<double>(value)),
                 Dims(high.size(), 0), high);
}

// sums[indices[i]] += rows[i]; indices outside are skipped.
Value add_rows(Value sums, Value indices, Value rows) {
  const ir::ScatterDimensionNumbers dims{.update_window_dims = {1},
                                         .inserted_window_dims = {0},
                                         .scatter_dims_to_operand_dims = {0},
                                         .index_vector_dim = 1};
  return ir::scatter({sums}, ir::expand_dims(indices, 1), {rows}, dims,
                     [](const ir::Values& v) { return ir::Values{v[0] + v[1]}; })[0];
}

// `turn` adds round `i` to the sums; `rounds` is a scalar, or nothing for one round.
Value sum_of_rounds(Value zeros, std::optional<Value> rounds,
                    const std::function<Value(Value sums, Value i)>& turn) {
  const Value first = ir::scalar(zeros.function(), DType::kS32, 0);
  if (!rounds) return turn(zeros, first);
  const auto more = [&](const ir::Values& v) { return ir::compare(v[0], *rounds, kLt); };
  return ir::while_loop({first, zeros}, more, [&](const ir::Values& v) -> ir::Values {
    return {v[0] + 1.0, turn(v[1], v[0])};
  })[1];
}

// ceil(count / size), count being a scalar.
Value rounds_of(Value count, int64_t size) {
  return ir::divide(count + static_cast<double>(size - 1),
                    ir::scalar_like(count, static_cast<double>(size)));
}

int64_t whole_rounds(int64_t most, int64_t size) { return (most + size - 1) / size * size; }

// Of all experts' ids, those of the device's own experts from 0 on; others lie outside of them.
Value own_ids(const ExpertParts& parts, Value ids) {
  if (parts.division.whole()) return ids;
  const Value part = parallel::part_index(ids.function(), parts.mesh, parts.division);
  return ids - ir::broadcast_to(part * static_cast<double>(parts.own), ids.dims());
}

// All at once: the tokens with their first experts, then with their second ones, and so on, since a
// sum over the last dimension but one is slow on TPU where that is short.
Value sum_of_rows(const ExpertParts& parts, Value x, Value experts, Value weights) {
  const Dims dims = {experts.dim(1), experts.dim(0), x.dim(1)};
  const auto turned = [](Value v) { return ir::transpose(v, {1, 0}); };
  const Value ids = ir::reshape(turned(experts), {dims[0] * dims[1]});
  const Value y = ir::reshape(parts.run(x, ids, false), dims);
  return ir::convert(ir::reduce_sum(y * ir::expand_dims(turned(weights), 2), {0}), x.dtype());
}

// [devices, tokens]: the tokens that chose an expert of each device, in order; behind them
// `tokens`. And how many they are: [devices].
struct Destinations {
  Value tokens;
  Value counts;
};

Destinations destinations_of(const ExpertParts& parts, Value experts) {
  ir::Function& function = experts.function();
  const int64_t devices = parts.division.parts;
  const int64_t tokens = experts.dim(0);
  const Value device = ir::divide(experts, all_of(experts, parts.own));
  const Dims all = {devices, tokens, experts.dim(1)};
  const Value chosen = ir::reduce_or(
      ir::compare(ir::broadcast_in_dim(device, all, {1, 2}), numbers(function, all, 0), kEq), {2});
  const Dims dims = {devices, tokens};
  const Value own = numbers(function, dims, 1);
  const Value keys = ir::select(chosen, own, all_of(own, tokens));
  return {sorted({keys}, 1)[0], ir::reduce_sum(ir::convert(chosen, DType::kS32), {1})};
}

}  // namespace

Value packed(const Routing& routing) {
  return ir::concatenate({ir::convert(routing.experts, DType::kF32), routing.weights}, 1);
}

Routing unpacked(Value both) {
  const int64_t tokens = both.dim(0);
  const int64_t top_k = both.dim(1) / 2;
  return {ir::convert(ir::slice(both, {0, 0}, {tokens, top_k}), DType::kS32),
          ir::slice(both, {0, top_k}, {tokens, 2 * top_k})};
}

int64_t round_size(double expected, int64_t most) {
  constexpr int64_t kRows = 8;  // of a tile
  const auto size = static_cast<int64_t>(std::ceil(1.5 * expected / kRows)) * kRows + kRows;
  return std::min(size, most);
}

double tokens_for_each(int64_t tokens, int64_t top_k, int64_t devices) {
  const double other = 1 - 1 / static_cast<double>(devices);
  return static_cast<double>(tokens) * (1 - std::pow(other, static_cast<double>(top_k)));
}

bool all_to_all_is_shorter(int64_t size, int64_t tokens, int64_t devices) {
  // In a square of devices half of what all send crosses the middle, which sqrt(devices) links do;
  // what is gathered comes to each device once, over the links of both dimensions.
  const auto n = static_cast<double>(devices);
  return static_cast<double>(size) * n * std::sqrt(n) / 2 < static_cast<double>(tokens) * (n - 1);
}

Value sum_of_own_experts(const ExpertParts& parts, Value x, const Routing& routing, int64_t size) {
  ir::Function& function = x.function();
  const Dims rows = {routing.experts.shape().num_elements()};
  const Value all_ids = own_ids(parts, routing.experts);
  if (size >= rows[0]) return sum_of_rows(parts, x, all_ids, routing.weights);
  const Value ids = ir::reshape(all_ids, rows);
  const Value all_weights = ir::reshape(routing.weights, rows);
  const Value has = kernels::has_expert(ids, parts.own);
  // The device's rows first, by expert; behind them those of no token and no expert.
  const Value keys = ir::select(has, ids, all_of(ids, parts.own));
  const Value known = ir::select(has, numbers(function, rows, 0), all_of(ids, rows[0]));
  const ir::Values own = sorted({keys, known, all_weights}, 0);
  const int64_t most = whole_rounds(rows[0], size);
  const Value places = padded(own[1], 0, most, rows[0]);
  const Value experts = padded(own[0], 0, most, parts.own);
  const Value weights = padded(own[2], 0, most, 0);
  const Value rounds = rounds_of(ir::reduce_sum(ir::convert(has, DType::kS32), {0}), size);
  const Value zeros = ir::full(function, Shape(DType::kF32, x.dims()), 0);
  const Value sums = sum_of_rounds(zeros, rounds, [&](Value sum, Value i) {
    const auto of_round = [&](Value all) {
      return ir::dynamic_slice(all, {i * static_cast<double>(size)}, {size});
    };
    const Value place = of_round(places);
    const Value token = ir::divide(place, all_of(place, routing.experts.dim(1)));
    const Value y = parts.run(ir::take(x, token, 0), of_round(experts), true);
    return add_rows(sum, token, y * ir::expand_dims(of_round(weights), 1));
  });
  return ir::convert(sums, x.dtype());
}

Value sum_by_all_to_all(const ExpertParts& parts, Value x, const Routing& routing, int64_t size) {
  ir::Function& function = x.function();
  const int64_t devices = parts.division.parts;
  const int64_t tokens = x.dim(0);
  const int64_t top_k = routing.experts.dim(1);
  const int64_t sent = devices * size;
  const int64_t most = whole_rounds(tokens, size);
  const Destinations to = destinations_of(parts, routing.experts);
  const Value places = padded(to.tokens, 1, most, tokens);
  // As many rounds as the fullest block of any device needs: all take part in each.
  std::optional<Value> rounds;
  if (size < tokens) {
    rounds = rounds_of(
        parallel::maximum(ir::reduce_max(to.counts, {0}), parts.mesh, parts.division), size);
  }
  const auto exchanged = [&](Value rows) {
    return parallel::trade(rows, 0, parts.mesh, parts.division);
  };
  const int64_t own_rows = round_size(static_cast<double>(tokens * top_k), sent * top_k);
  // Places without a token take the row behind them, which is padding.
  const Value choices = packed({padded(routing.experts, 0, tokens + 1, parts.none()),
                                padded(routing.weights, 0, tokens + 1, 0)});
  const Value zeros = ir::full(function, Shape(DType::kF32, x.dims()), 0);
  const Value sums = sum_of_rounds(zeros, rounds, [&](Value sum, Value i) {
    const Value first = ir::scalar_like(i, 0);
    const Value token = ir::reshape(
        ir::dynamic_slice(places, {first, i * static_cast<double>(size)}, {devices, size}), {sent});
    const Routing chosen = unpacked(exchanged(ir::take(choices, token, 0)));
    const Value came = exchanged(ir::take(x, token, 0));
    const Value part = sum_of_own_experts(parts, came, chosen, own_rows);
    return add_rows(sum, token, ir::convert(exchanged(part), DType::kF32));
  });
  return ir::convert(sums, x.dtype());
}

}  // namespace ttpu::nn
