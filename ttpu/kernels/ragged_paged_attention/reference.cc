#include "ttpu/kernels/ragged_paged_attention/reference.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::kernels {

void check_batch(const char* op, const RaggedBatch& batch, ir::Value q, ir::Value cache) {
  require(batch.kv_lens && batch.page_indices && batch.cu_q_lens && batch.distribution,
          "[{}] the batch lacks a part", op);
  const auto vector_of = [&](const char* name, ir::Value value, int64_t size) {
    require(value.shape() == Shape(DType::kS32, {size}), "[{}] {} is {}, expected {}", op, name,
            value.shape().to_string(), Shape(DType::kS32, {size}).to_string());
  };
  require(batch.kv_lens.rank() == 1 && batch.kv_lens.dim(0) > 0,
          "[{}] kv_lens is {}, expected i32 [sequences]", op, batch.kv_lens.shape().to_string());
  const int64_t sequences = batch.kv_lens.dim(0);
  vector_of("kv_lens", batch.kv_lens, sequences);
  vector_of("cu_q_lens", batch.cu_q_lens, sequences + 1);
  vector_of("distribution", batch.distribution, 3);
  require(batch.page_indices.rank() == 1 && batch.page_indices.dim(0) > 0 &&
              batch.page_indices.dim(0) % sequences == 0,
          "[{}] page_indices is {}, expected i32 [{} sequences * pages]", op,
          batch.page_indices.shape().to_string(), sequences);
  vector_of("page_indices", batch.page_indices, batch.page_indices.dim(0));
  require(is_float(q.dtype()), "[{}] q is {}, not of floats", op, q.shape().to_string());
  require(cache.dim(0) > 0 && cache.dim(1) > 0, "[{}] the cache {} has no pages", op,
          cache.shape().to_string());
}

int64_t cache_elements(DType cache_dtype, int64_t size) {
  switch (cache_dtype) {
    case DType::kBF16:
    case DType::kF32:
    case DType::kF8E4M3FN:
      return size;
    case DType::kS8:
      return size + static_cast<int64_t>(sizeof(float));
    default:
      fail(Code::kInvalidArgument, "[attention] a cache of {}; expected bf16, f32, i8 or f8E4M3FN",
           dtype_name(cache_dtype));
  }
}

namespace {

constexpr int64_t kSmallHead = 64;

// Rows of words that hold the scales of so many slots.
int64_t scale_groups(int64_t slots, int64_t head_dim) {
  const int64_t width = std::min(head_dim, kTpuLanes);
  return (slots + width - 1) / width;
}

// Whether scales stand behind the rows of a cache of rows.
bool has_scale_groups(DType dtype, bool one_head) { return dtype == DType::kS8 && !one_head; }

}  // namespace

Dims row_cache(const Dims& cache, DType dtype) {
  const int64_t together = std::max<int64_t>(1, 32 / bit_width(dtype));
  const bool one_head = cache.size() == 3;
  const bool scales = has_scale_groups(dtype, one_head);
  const int64_t size = cache.back() - (scales ? cache_elements(dtype, 0) : 0);
  const int64_t row = one_head ? size : cache.at(2) * size;
  if (cache.at(1) % together != 0 || (!one_head && row % kTpuLanes != 0)) return cache;
  const int64_t behind = scales ? scale_groups(cache[1], size) : 0;
  return {cache[0], cache[1] / together + behind, together,
          (row + kTpuLanes - 1) / kTpuLanes * kTpuLanes};
}

Dims paired_cache(const Dims& cache) {
  if (cache.size() != 4 || cache[3] != kSmallHead || cache[2] % 2 != 0) return cache;
  return {cache[0], cache[1], cache[2] / 2, 2 * cache[3]};
}

bool wants_row_cache(const Dims& cache, DType dtype, bool divided, bool sinks) {
  if (cache.size() == 3 || divided || dtype == DType::kS8) return true;
  const bool small = cache.at(3) == kSmallHead;
  return (sinks && !small) || cache.at(2) / (small ? 2 : 1) % (32 / bit_width(dtype)) != 0;
}

int64_t slots_of_page(ir::Value cache, const CacheLayout& layout) {
  if (!layout.rows) return cache.dim(1);
  const int64_t together = cache.dim(2);
  int64_t groups = cache.dim(1);
  if (has_scale_groups(cache.dtype(), layout.shared)) {
    const auto whole = [&] { return groups + scale_groups(groups * together, layout.key_dim); };
    while (groups > 0 && whole() > cache.dim(1)) --groups;
  }
  return groups * together;
}

bool is_row_cache(ir::Value cache, int64_t kv_heads, int64_t head_dim) {
  const int64_t slots = slots_of_page(cache, {kv_heads, head_dim, head_dim, false, true});
  const Dims plain = {cache.dim(0), slots, 2 * kv_heads, cache_elements(cache.dtype(), head_dim)};
  const Dims rows = row_cache(plain, cache.dtype());
  return slots > 0 && rows != plain && cache.dims() == rows;
}

namespace reference {
namespace {

using ir::ComparisonDirection;
using ir::Value;

// Queries are taken so many at a time: the scores of all would not fit.
constexpr int64_t kSharedBlock = 256;  // one sequence, one context for all
constexpr int64_t kRaggedBlock = 16;   // every token brings its own context

struct Positions {
  Value sequence;  // [tokens]
  Value position;  // [tokens], any number for padding
  Value real;      // [tokens] i1
};

Value index_full(Value like, Dims dims, int64_t value) {
  return ir::full(like.function(), Shape(DType::kS32, std::move(dims)), static_cast<double>(value));
}

Positions positions_of(const RaggedBatch& batch, int64_t tokens) {
  ir::Function& function = batch.kv_lens.function();
  const int64_t sequences = batch.kv_lens.dim(0);
  const Value token = ir::iota(function, Shape(DType::kS32, {tokens}), 0);
  const Value count = ir::reshape(ir::slice(batch.distribution, {2}, {3}), {});
  const Value ends = ir::slice(batch.cu_q_lens, {1}, {sequences + 1});
  const Dims grid = {tokens, sequences};
  // A sequence that ends at or before the token lies wholly before it.
  const Value ended = ir::compare(ir::broadcast_in_dim(token, grid, {0}),
                                  ir::broadcast_in_dim(ends, grid, {1}), ComparisonDirection::kGe);
  const Value known = ir::compare(ir::iota(function, Shape(DType::kS32, grid), 1),
                                  ir::broadcast_in_dim(count, grid, {}), ComparisonDirection::kLt);
  const Value before = ir::reduce_sum(ir::convert(ir::and_(ended, known), DType::kS32), {1});
  const Value real =
      ir::compare(before, ir::broadcast_in_dim(count, {tokens}, {}), ComparisonDirection::kLt);
  const Value sequence = ir::minimum(before, index_full(before, {tokens}, sequences - 1));
  const Value position = ir::take(batch.kv_lens, sequence, 0) - ir::take(ends, sequence, 0) + token;
  return {sequence, position, real};
}

// [tokens, pages]: the pages of each token's sequence; one row when there is one sequence.
Value page_rows(const RaggedBatch& batch, Value sequence) {
  const int64_t sequences = batch.kv_lens.dim(0);
  const Value table =
      ir::reshape(batch.page_indices, {sequences, batch.page_indices.dim(0) / sequences});
  return sequences == 1 ? table : ir::take(table, sequence, 0);
}

// Rows [tokens, heads, size] as elements of a cache, and the scales [tokens, heads, 1] of int8.
struct Encoded {
  Value elements;
  std::optional<Value> scales = {};
};

Encoded encode(Value rows, DType dtype) {
  if (dtype == DType::kF8E4M3FN) {
    const Value x = ir::convert(rows, DType::kF32);
    const Value most = ir::full_like(x, 448);
    return {ir::convert(ir::clamp(-most, x, most), dtype)};
  }
  if (dtype != DType::kS8) return {ir::convert(rows, dtype)};
  const Value x = ir::convert(rows, DType::kF32);
  const Value most = ir::reduce_max(ir::abs(x), {2}, true);
  const auto like = [&](double value) { return ir::full(x.function(), most.shape(), value); };
  const Value some = ir::compare(most, like(1e-30), ComparisonDirection::kGt);
  const Value inverse = ir::select(some, like(127) / most, like(0));
  return {ir::convert(ir::round_nearest_even(x * inverse), dtype),
          ir::select(some, most * (1.0 / 127), like(0))};
}

// Scales [.., 1] as the bytes [.., 4] of each.
Value bytes_of(Value scales) {
  Dims bytes = scales.dims();
  bytes.back() = sizeof(float);
  return ir::reshape(ir::bitcast_convert(scales, DType::kS8), bytes);
}

// Elements [.., heads, size] and scales [.., heads] as numbers.
Value numbers_of(Value elements, Value scales, DType dtype) {
  const Value numbers = ir::convert(elements, DType::kF32);
  const Value each = ir::expand_dims(scales, numbers.rank() - 1);
  return ir::convert(numbers * ir::broadcast_to(each, numbers.dims()), dtype);
}

// Elements of the cache [.., heads, cache_elements(size)] as numbers [.., heads, size].
Value decode(Value elements, int64_t size, DType dtype) {
  if (elements.dtype() != DType::kS8) return ir::convert(elements, dtype);
  const Value bits = ir::slice_in_dim(elements, -1, size, elements.dim(-1));
  return numbers_of(ir::slice_in_dim(elements, -1, 0, size), ir::bitcast_convert(bits, DType::kF32),
                    dtype);
}

// Pages [contexts, pages, groups, r, row] of int8 whose scales stand behind the rows, as numbers
// [contexts, pages * slots, heads, size].
Value decode_rows(Value pages, int64_t slots, int64_t heads, int64_t size, DType dtype) {
  const int64_t contexts = pages.dim(0), count = pages.dim(1), groups = slots / pages.dim(3);
  const int64_t width = std::min(size, kTpuLanes), behind = pages.dim(2) - groups;
  const Value elements =
      ir::reshape(ir::slice_in_dim(pages, 2, 0, groups), {contexts, count * slots, heads, size});
  const Value bytes =
      ir::transpose(ir::slice_in_dim(pages, 2, groups, groups + behind), {0, 1, 2, 4, 3});
  Value scales =
      ir::reshape(ir::bitcast_convert(bytes, DType::kF32), {contexts, count, behind, heads, size});
  scales = ir::transpose(ir::slice_in_dim(scales, 4, 0, width), {0, 1, 2, 4, 3});
  scales = ir::reshape(scales, {contexts, count, behind * width, heads});
  scales = ir::reshape(ir::slice_in_dim(scales, 2, 0, slots), {contexts, count * slots, heads});
  return numbers_of(elements, scales, dtype);
}

// The scales [tokens, heads, 1] of heads of `size` behind the rows of their pages.
Value write_scales(Value scales, Value cache, int64_t slots, int64_t size, Value page, Value slot) {
  const int64_t tokens = scales.dim(0), heads = scales.dim(1);
  const Dims grid = {tokens, heads};
  const auto of_all = [&](Value x) { return ir::broadcast_in_dim(x, grid, {0}); };
  const Value width = index_full(slot, {tokens}, std::min(size, kTpuLanes));
  const int64_t groups = slots / cache.dim(2);  // of the elements, before those of the scales
  const Value group = ir::divide(slot, width) + static_cast<double>(groups);
  const Value head = ir::iota(slot.function(), Shape(DType::kS32, grid), 1);
  const Value lane = head * static_cast<double>(size) + of_all(ir::remainder(slot, width));
  ir::Values place = {of_all(page), of_all(group), lane};
  for (Value& index : place) index = ir::expand_dims(index, 2);
  return ir::scatter({cache}, ir::concatenate(place, 2), {bytes_of(scales)},
                     {.update_window_dims = {2},
                      .inserted_window_dims = {0, 1, 3},
                      .scatter_dims_to_operand_dims = {0, 1, 3},
                      .index_vector_dim = 2},
                     [](const ir::Values& v) -> ir::Values { return {v[1]}; })[0];
}

// In the cache's own shape: a flat one has another layout on TPU, so that all of it would be
// copied.
Value write_rows(Value rows, Value cache, const CacheLayout& layout, const RaggedBatch& batch,
                 const Positions& at, const AttentionOptions& options) {
  const int64_t tokens = rows.dim(0);
  const int64_t parts = options.context ? options.context->parts : 1;
  const int64_t own_size = slots_of_page(cache, layout);
  const int64_t pages = batch.page_indices.dim(0) / batch.kv_lens.dim(0);
  const Value size = index_full(at.position, {tokens}, own_size * parts);
  const Value entry = at.sequence * static_cast<double>(pages) + ir::divide(at.position, size);
  const Value page = ir::take(batch.page_indices, entry, 0);
  Value slot = ir::remainder(at.position, size);
  Value here = at.real;
  if (options.context) {
    slot = slot - ir::broadcast_in_dim(options.context->index * static_cast<double>(own_size),
                                       {tokens}, {});
    here = ir::and_(
        here, ir::and_(ir::compare(slot, 0, ComparisonDirection::kGe),
                       ir::compare(slot, static_cast<double>(own_size), ComparisonDirection::kLt)));
  }
  // A scatter skips what is out of bounds.
  const Value target = ir::select(here, page, index_full(page, {tokens}, cache.dim(0)));
  ir::Values place = {target};
  if (layout.rows) {
    const Value together = index_full(slot, {tokens}, cache.dim(2));
    place.insert(place.end(), {ir::divide(slot, together), ir::remainder(slot, together)});
  } else {
    place.push_back(slot);
  }
  for (Value& index : place) index = ir::expand_dims(index, 1);
  const auto fixed = static_cast<int64_t>(place.size());
  Dims dims = {tokens};
  dims.insert(dims.end(), cache.dims().begin() + fixed, cache.dims().end());
  Dims window;
  for (int64_t axis = 1; axis + fixed <= cache.rank(); ++axis) window.push_back(axis);
  Dims indexed;
  for (int64_t axis = 0; axis < fixed; ++axis) indexed.push_back(axis);
  const Encoded encoded = encode(rows, cache.dtype());
  const bool apart = layout.rows && has_scale_groups(cache.dtype(), layout.shared);
  Value elements = encoded.elements;
  if (encoded.scales && !apart) {
    elements = ir::concatenate({elements, bytes_of(*encoded.scales)}, -1);
  }
  const Value written =
      ir::scatter({cache}, ir::concatenate(place, 1), {ir::reshape(elements, dims)},
                  {.update_window_dims = window,
                   .inserted_window_dims = indexed,
                   .scatter_dims_to_operand_dims = indexed,
                   .index_vector_dim = 1},
                  [](const ir::Values& v) -> ir::Values { return {v[1]}; })[0];
  if (!apart) return written;
  return write_scales(*encoded.scales, written, own_size, layout.key_dim, target, slot);
}

struct Block {
  Value q;         // [block, q_heads, key_dim]
  Value position;  // [block]
  Value length;    // [block]: of the tokens' sequences
  Value pages;     // [block or 1, pages]
};

// The positions that `dims`, along `axis`, stand for: pages one after another, of each the device's
// own slots.
Value positions_along(ir::Function& function, const Dims& dims, int64_t axis, int64_t own_size,
                      const AttentionOptions& options) {
  const Value index = ir::iota(function, Shape(DType::kS32, dims), axis);
  if (!options.context) return index;
  const Value size = index_full(index, dims, own_size);
  const Value slot =
      ir::remainder(index, size) +
      ir::broadcast_in_dim(options.context->index * static_cast<double>(own_size), dims, {});
  const auto parts = static_cast<double>(options.context->parts);
  return ir::divide(index, size) * (static_cast<double>(own_size) * parts) + slot;
}

// [block, context] i1.
Value visible(const Block& block, int64_t context, int64_t own_size,
              const AttentionOptions& options) {
  const Dims grid = {block.q.dim(0), context};
  const Value j = positions_along(block.q.function(), grid, 1, own_size, options);
  const auto rows = [&](Value v) { return ir::broadcast_in_dim(v, grid, {0}); };
  Value seen = ir::compare(j, rows(block.length), ComparisonDirection::kLt);
  if (options.causal) {
    seen = ir::and_(seen, ir::compare(j, rows(block.position), ComparisonDirection::kLe));
  }
  if (options.sliding_window) {
    const Value first = block.position - static_cast<double>(*options.sliding_window);
    seen = ir::and_(seen, ir::compare(j, rows(first), ComparisonDirection::kGt));
  }
  return seen;
}

// Softmax over the last dimension of [.., .., groups, context].
Value probabilities(Value scores, std::optional<Value> sink, const AttentionOptions& options) {
  Value most = ir::reduce_max(scores, {3}, true);
  if (options.context) most = options.context->maximum(most);
  if (sink) most = ir::maximum(most, *sink);
  const Value weights = ir::exponential(scores - most);
  Value total = ir::reduce_sum(weights, {3}, true);
  if (options.context) total = options.context->sum(total);
  if (sink) total = total + ir::exponential(*sink - most);
  return weights / total;
}

// [block, q_heads, value_dim]
Value attend(const Block& block, Value cache, const CacheLayout& layout,
             const AttentionOptions& options) {
  const int64_t tokens = block.q.dim(0);
  const int64_t heads = block.q.dim(1);
  const int64_t kv_heads = layout.kv_heads;
  const int64_t groups = heads / kv_heads;
  const int64_t contexts = block.pages.dim(0);
  const bool one = contexts == 1;  // all queries share it
  const int64_t own_size = slots_of_page(cache, layout);
  const int64_t context = block.pages.dim(1) * own_size;
  const DType dtype = block.q.dtype();
  ir::Function& function = block.q.function();

  const int64_t heads_in_row = layout.shared ? 1 : 2 * kv_heads;
  const int64_t width = heads_in_row * layout.key_dim;
  Value rows = ir::take(cache, block.pages, 0);
  if (layout.rows && has_scale_groups(cache.dtype(), layout.shared)) {
    rows = decode_rows(rows, own_size, heads_in_row, layout.key_dim, dtype);
  } else {
    const int64_t head = cache_elements(cache.dtype(), layout.key_dim);
    rows =
        decode(ir::reshape(rows, {contexts, context, heads_in_row, head}), layout.key_dim, dtype);
  }
  rows = ir::reshape(rows, {contexts, context, width});
  // What lies behind the end may be anything, and 0 * NaN is no 0.
  const Value length = ir::slice(block.length, {0}, {contexts});
  const Value used =
      ir::compare(positions_along(function, rows.dims(), 1, own_size, options),
                  ir::broadcast_in_dim(length, rows.dims(), {0}), ComparisonDirection::kLt);
  rows = ir::select(used, rows, ir::full(function, rows.shape(), 0));

  Value keys;
  Value values;
  if (layout.shared) {
    keys = ir::reshape(rows, {contexts, context, 1, width});
    values = ir::slice(keys, {0, 0, 0, 0}, {contexts, context, 1, layout.value_dim});
  } else {
    const Value pairs = ir::reshape(rows, {contexts, context, kv_heads, 2 * layout.key_dim});
    keys = ir::slice(pairs, {0, 0, 0, 0}, {contexts, context, kv_heads, layout.key_dim});
    values = ir::slice(pairs, {0, 0, 0, layout.key_dim}, pairs.dims());
  }
  const ir::Precision precision = ir::precision_for(dtype);
  const Value q = ir::reshape(block.q, {tokens, kv_heads, groups, layout.key_dim});
  Value scores;  // one: [kv_heads, tokens, groups, context], else [tokens, kv_heads, ...]
  if (one) {
    keys = ir::squeeze(keys, 0);
    values = ir::squeeze(values, 0);
    scores = ir::dot_general(q, keys, {{1}, {1}, {3}, {2}}, DType::kF32, precision);
  } else {
    scores = ir::dot_general(q, keys, {{0, 1}, {0, 2}, {3}, {3}}, DType::kF32, precision);
  }
  scores = scores * options.scale;
  if (options.soft_cap) scores = ir::tanh(scores / *options.soft_cap) * *options.soft_cap;
  const Value seen = ir::broadcast_in_dim(visible(block, context, own_size, options), scores.dims(),
                                          {one ? 1 : 0, 3});
  scores = ir::select(seen, scores, ir::full(function, scores.shape(), -1e30));
  std::optional<Value> sink;
  if (options.sinks) {
    const Value grouped = ir::reshape(ir::convert(*options.sinks, DType::kF32), {kv_heads, groups});
    const Dims dims = {scores.dim(0), scores.dim(1), groups, 1};
    sink = ir::broadcast_in_dim(grouped, dims, {one ? 0 : 1, 2});
  }
  const Value weights = ir::convert(probabilities(scores, sink, options), dtype);
  if (one) {
    const Value out =
        ir::dot_general(weights, values, {{0}, {1}, {3}, {0}}, DType::kF32, precision);
    return ir::reshape(ir::transpose(out, {1, 0, 2, 3}), {tokens, heads, layout.value_dim});
  }
  const Value out =
      ir::dot_general(weights, values, {{0, 1}, {0, 2}, {3}, {1}}, DType::kF32, precision);
  return ir::reshape(out, {tokens, heads, layout.value_dim});
}

Value rows_from(Value x, Value start, int64_t count) {
  ir::Values starts(static_cast<size_t>(x.rank()), ir::scalar_like(start, 0));
  starts[0] = start;
  Dims sizes = x.dims();
  sizes[0] = count;
  return ir::dynamic_slice(x, starts, sizes);
}

// `attend` for all tokens, some at a time.
Value attend_all(const Block& all, Value cache, const CacheLayout& layout,
                 const AttentionOptions& options) {
  const int64_t tokens = all.q.dim(0);
  const bool one = all.pages.dim(0) == 1;
  const int64_t size = one ? kSharedBlock : kRaggedBlock;
  if (tokens <= size) return attend(all, cache, layout, options);
  ir::Function& function = all.q.function();
  const Shape shape(DType::kF32, {tokens, all.q.dim(1), layout.value_dim});
  const Value zero = ir::scalar(function, DType::kS32, 0);
  const auto more = [&](const ir::Values& v) {
    return ir::compare(v[0], ir::scalar_like(v[0], static_cast<double>(tokens)),
                       ComparisonDirection::kLt);
  };
  const auto step = [&](const ir::Values& v) -> ir::Values {
    // The last block moves back to end with the tokens and repeats some of them.
    const Value start =
        ir::minimum(v[0], ir::scalar_like(v[0], static_cast<double>(tokens - size)));
    const Block block{rows_from(all.q, start, size), rows_from(all.position, start, size),
                      rows_from(all.length, start, size),
                      one ? all.pages : rows_from(all.pages, start, size)};
    const Value part = attend(block, cache, layout, options);
    const Value none = ir::scalar_like(start, 0);
    return {v[0] + static_cast<double>(size),
            ir::dynamic_update_slice(v[1], part, {start, none, none})};
  };
  return ir::while_loop({zero, ir::full(function, shape, 0)}, more, step)[1];
}

}  // namespace

AttentionResult paged_attention(Value q, Value rows, Value cache, const CacheLayout& layout,
                                const RaggedBatch& batch, const AttentionOptions& options) {
  const Positions at = positions_of(batch, q.dim(0));
  const Value updated = write_rows(rows, cache, layout, batch, at, options);
  const Block all{q, at.position, ir::take(batch.kv_lens, at.sequence, 0),
                  page_rows(batch, at.sequence)};
  Value output = attend_all(all, updated, layout, options);
  if (options.context) output = options.context->sum(output);
  const Value real = ir::broadcast_in_dim(at.real, output.dims(), {0});
  const Value zeros = ir::full(q.function(), output.shape(), 0);
  return {ir::convert(ir::select(real, output, zeros), q.dtype()), updated};
}

}  // namespace reference
}  // namespace ttpu::kernels
