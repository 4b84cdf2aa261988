// Splits a call into pieces of columns, and chooses between few and many rows.
#include <algorithm>
#include <atomic>
#include <span>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/kernels/cpu/look_ahead.h"
#include "ttpu/kernels/cpu/scratch.h"
#include "ttpu/kernels/linear/cpu/isa_kernels.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr int64_t kFewRowsBytes = 24 << 10;  // weight bytes of a piece of work
constexpr int64_t kMaxColumns = 64;          // columns of a piece, few rows
constexpr int64_t kColumnsOfRows = 32;       // the same where many rows are taken at once
constexpr int64_t kTileBytes = 320 << 10;    // a tile stays in a core's L2
constexpr int64_t kBlocksOfGroup = 8;        // row blocks that a piece of work takes, many rows
constexpr int64_t kPiecesOfThread = 4;       // at least, so that threads end together

const IsaKernels& kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Kernels;
  if (isa == Isa::kAvx2) return kAvx2Kernels;
#endif
  static_cast<void>(isa);
  return kPortableKernels;
}

int64_t divide_up(int64_t count, int64_t parts) { return (count + parts - 1) / parts; }
int64_t size_of(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }
bool is_activation(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF32; }
template <typename T>
const T* at(const void* base, int64_t bytes) {
  return reinterpret_cast<const T*>(static_cast<const char*>(base) + bytes);
}

// Columns [first, first + count) of one product; of both products when the call is gated.
struct Piece {
  const Product* product;
  const Product* up;
  int64_t first;
  int64_t count;
};

// A call's columns, cut into pieces of at most `columns` of one product.
class Pieces {
 public:
  Pieces(const LinearCall& call, int64_t columns) : call_(call), columns_(columns) {}
  int64_t count() const {
    int64_t sum = 0;
    for (size_t i = 0; i < products(); ++i) sum += pieces_of(call_.products[i]);
    return sum;
  }
  Piece operator[](int64_t index) const {
    size_t i = 0;
    for (; index >= pieces_of(call_.products[i]); ++i) index -= pieces_of(call_.products[i]);
    const Product& product = call_.products[i];
    const int64_t first = index * columns_;
    return {&product, gated() ? &call_.products[1] : nullptr, first,
            std::min(columns_, product.weight.out - first)};
  }

 private:
  bool gated() const { return call_.gate != Activation::kNone; }
  size_t products() const { return gated() ? 1 : call_.products.size(); }
  int64_t pieces_of(const Product& product) const {
    return divide_up(product.weight.out, columns_);
  }

  const LinearCall& call_;
  int64_t columns_;
};

void store(const IsaKernels& isa, const LinearCall& call, const Piece& piece, int64_t row,
           const float* values, const float* up) {
  const auto bias = [&](const Product* product) -> const void* {
    if (product == nullptr || product->bias == nullptr) return nullptr;
    return at<char>(product->bias, piece.first * size_of(product->bias_dtype));
  };
  const Product& product = *piece.product;
  const int64_t stride = product.y_stride == 0 ? product.weight.out : product.y_stride;
  char* y = static_cast<char*>(product.y) + (row * stride + piece.first) * size_of(call.y_dtype);
  isa.store(values, up, call.gate, bias(&product), bias(piece.up), product.bias_dtype,
            piece.up != nullptr ? piece.up->bias_dtype : DType::kF32, piece.count, y, call.y_dtype);
}

// The forms of the activations that the call's weights ask for, in the caller's scratch memory.
FewRows prepare(const IsaKernels& isa, const LinearCall& call, int64_t in) {
  FewRows x{.rows = call.rows, .in = in};
  bool wanted[kForms] = {};
  for (const Product& product : call.products) {
    wanted[static_cast<int>(isa.few_rows_form(product.weight, call.x_dtype))] = true;
  }
  const int64_t count = call.rows * in;
  const bool narrow = call.x_dtype == DType::kBF16;
  if (narrow) x.bf16 = static_cast<const uint16_t*>(call.x);
  if (!narrow) x.f32 = static_cast<const float*>(call.x);
  if (narrow && wanted[static_cast<int>(Form::kF32)]) {
    float* wide = thread_scratch_of<float>(0, count);
    isa.f32_from_bf16(x.bf16, count, wide);
    x.f32 = wide;
  }
  if (wanted[static_cast<int>(Form::kInt8)]) {
    const int64_t groups = (in / 32 + kGroupsAtOnce - 1) / kGroupsAtOnce * kGroupsAtOnce;
    const int64_t all = call.rows * groups;
    float* floats = thread_scratch_of<float>(1, 4 * all);
    int8_t* codes = thread_scratch_of<int8_t>(2, 64 * all);
    x.int8 = {.groups = groups,
              .codes = codes,
              .quads = codes + 32 * all,
              .scales = floats,
              .sums = floats + all,
              .half_sums = floats + 2 * all};
    isa.quantize(x.bf16, call.rows, in, x.int8);
  }
  return x;
}

// Rows [first, first + count) of x.
FewRows some_rows(const FewRows& x, int64_t first, int64_t count) {
  FewRows part{.rows = count, .in = x.in, .int8 = x.int8};
  if (x.f32 != nullptr) part.f32 = x.f32 + first * x.in;
  if (x.bf16 != nullptr) part.bf16 = x.bf16 + first * x.in;
  if (x.int8.codes != nullptr) {
    const int64_t groups = first * x.int8.groups;
    part.int8.codes += 32 * groups;
    part.int8.quads += 32 * groups;
    part.int8.scales += groups;
    part.int8.sums += groups;
    part.int8.half_sums += 2 * groups;
  }
  return part;
}

// The weights that few rows go through; of a call with many weights, the first.
Reads reads_of(const LinearCall& call) {
  Reads reads;
  reads.side_by_side = call.gate != Activation::kNone;
  for (size_t i = 0; i < std::min(call.products.size(), reads.arrays.size()); ++i) {
    const Weight& weight = call.products[i].weight;
    reads.arrays[i] = {static_cast<const char*>(weight.data), weight.out * row_bytes(weight)};
  }
  return reads;
}

// How many rows the call's weights all take at once.
int64_t rows_at_once(const IsaKernels& isa, const LinearCall& call) {
  int64_t rows = isa.rows_at_once(call.products[0].weight, call.x_dtype);
  for (const Product& product : call.products.subspan(1)) {
    rows = std::min(rows, isa.rows_at_once(product.weight, call.x_dtype));
  }
  return std::min(rows, call.rows);
}

void few_rows(const IsaKernels& isa, const LinearCall& call, int64_t in, int64_t at_once,
              TaskPool* pool) {
  const FewRows x = prepare(isa, call, in);
  const int64_t bytes = std::max<int64_t>(row_bytes(call.products[0].weight), 1);
  const int64_t columns = at_once > kFewRowsAtOnce
                              ? kColumnsOfRows
                              : std::clamp<int64_t>(kFewRowsBytes / bytes / 4 * 4, 4, kMaxColumns);
  const Pieces pieces(call, columns);
  const auto body = [&](int64_t begin, int64_t end) {
    float* const values = thread_scratch_of<float>(3, 2 * at_once * kMaxColumns);
    float* const up = values + at_once * kMaxColumns;
    for (int64_t i = begin; i < end; ++i) {
      const Piece piece = pieces[i];
      for (int64_t row = 0; row < call.rows; row += at_once) {
        const FewRows part = some_rows(x, row, std::min(at_once, call.rows - row));
        const Product* products[2] = {piece.product, piece.up};
        for (int p = 0; p < 2 && products[p] != nullptr; ++p) {
          const Weight& weight = products[p]->weight;
          isa.few_rows(weight, isa.few_rows_form(weight, call.x_dtype), part, piece.first,
                       piece.count, p == 0 ? values : up, kMaxColumns);
        }
        for (int64_t r = 0; r < part.rows; ++r) {
          store(isa, call, piece, row + r, values + r * kMaxColumns, up + r * kMaxColumns);
        }
      }
    }
  };
  parallel_for(pool, pieces.count(), 1, body, reads_after(reads_of(call)));
}

// A row block of x as `form` asks: in place, or widened into the thread's scratch memory.
const void* block_of_x(const IsaKernels& isa, const LinearCall& call, int64_t in, Form form,
                       int64_t row, int64_t rows) {
  const void* from = at<char>(call.x, row * in * size_of(call.x_dtype));
  if (form == Form::kBf16 || call.x_dtype == DType::kF32) return from;
  float* wide = thread_scratch_of<float>(2, rows * in);
  isa.f32_from_bf16(static_cast<const uint16_t*>(from), rows * in, wide);
  return wide;
}

// How a call with many rows is cut: tiles of columns, and groups of rows of each tile.
struct Cut {
  int64_t columns;        // of a tile
  int64_t rows_of_group;  // a multiple of the row block
  int64_t groups;         // of rows
};

Cut cut_of(const IsaKernels& isa, const LinearCall& call, int64_t in, int64_t threads) {
  const int parts = call.gate == Activation::kNone ? 1 : 2;
  int64_t total = 0;
  for (const Product& product : call.products) total += product.weight.out;
  const Form form = isa.many_rows_form(call.products[0].weight, call.x_dtype);
  const int64_t blocks = divide_up(call.rows, isa.row_block);
  const int64_t groups = divide_up(blocks, kBlocksOfGroup);
  const int64_t fitting = kTileBytes / (parts * isa.panel_bytes(form, in));
  const int64_t tiles = divide_up(kPiecesOfThread * threads, groups);
  const int64_t fair = divide_up(total / parts, tiles * isa.panel);
  return {.columns = std::max<int64_t>(std::min(fitting, fair), 1) * isa.panel,
          .rows_of_group = divide_up(blocks, groups) * isa.row_block,
          .groups = groups};
}

// A tile of a call, packed into the memory of the thread that multiplies with it; groups of rows
// that follow each other find it there.
class Tile {
 public:
  Tile(const IsaKernels& isa, const LinearCall& call, int64_t in, const Piece& piece)
      : isa_(isa), call_(call), in_(in), piece_(piece) {
    panels_ = divide_up(piece.count, isa.panel);
    const Product* products[2] = {piece.product, piece.up};
    parts_ = piece.up == nullptr ? 1 : 2;
    int64_t bytes = 0;
    for (int p = 0; p < parts_; ++p) {
      forms_[p] = isa.many_rows_form(products[p]->weight, call.x_dtype);
      starts_[p] = bytes;
      bytes += panels_ * isa.panel_bytes(forms_[p], in);
    }
    packed_ = thread_scratch_of<char>(0, bytes);
  }

  void pack() {
    const Product* products[2] = {piece_.product, piece_.up};
    for (int p = 0; p < parts_; ++p) {
      isa_.pack(products[p]->weight, forms_[p], piece_.first, piece_.count, packed_ + starts_[p]);
    }
  }

  void multiply(int64_t first_row, int64_t last_row) {
    const int64_t width = panels_ * isa_.panel;
    float* values = thread_scratch_of<float>(1, parts_ * isa_.row_block * width);
    float* up = values + isa_.row_block * width;
    for (int64_t row = first_row; row < last_row; row += isa_.row_block) {
      const int64_t rows = std::min(isa_.row_block, last_row - row);
      ask_for_next(row + rows, std::min(isa_.row_block, last_row - row - rows));
      for (int p = 0; p < parts_; ++p) {
        isa_.many_rows(forms_[p], block_of_x(isa_, call_, in_, forms_[p], row, rows), in_, rows,
                       in_, packed_ + starts_[p], panels_, p == 0 ? values : up, width);
      }
      for (int64_t r = 0; r < rows; ++r) {
        store(isa_, call_, piece_, row + r, values + r * width, up + r * width);
      }
    }
  }

 private:
  void ask_for_next(int64_t row, int64_t rows) const {
    const int64_t bytes = in_ * size_of(call_.x_dtype);
    const char* x = at<char>(call_.x, row * bytes);
    for (int64_t line = 0; line < rows * bytes; line += 64) __builtin_prefetch(x + line, 0, 2);
  }

  const IsaKernels& isa_;
  const LinearCall& call_;
  int64_t in_;
  Piece piece_;
  int64_t panels_;
  int parts_;
  Form forms_[2] = {};
  int64_t starts_[2] = {};
  char* packed_;
};

void many_rows(const IsaKernels& isa, const LinearCall& call, int64_t in, TaskPool* pool) {
  static std::atomic<uint64_t> calls{0};
  const uint64_t serial = calls.fetch_add(1, std::memory_order_relaxed) + 1;
  const Cut cut = cut_of(isa, call, in, pool == nullptr ? 1 : std::max(pool->num_threads(), 1));
  const Pieces tiles(call, cut.columns);
  const int64_t count = tiles.count() * cut.groups;
  parallel_for(pool, count, 1, [&](int64_t begin, int64_t end) {
    // Which tile this thread's memory holds.
    thread_local uint64_t packed_call = 0;
    thread_local int64_t packed_tile = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t index = i / cut.groups, first = i % cut.groups * cut.rows_of_group;
      Tile tile(isa, call, in, tiles[index]);
      if (packed_call != serial || packed_tile != index) tile.pack();
      packed_call = serial;
      packed_tile = index;
      tile.multiply(first, std::min(first + cut.rows_of_group, call.rows));
    }
  });
}

// Rows sorted by their expert, in order within each; those with an id outside [0, experts) are the
// rows of `experts`.
class RowsByExpert {
 public:
  void sort(std::span<const int32_t> ids, int64_t experts) {
    const auto place = [&](int32_t id) -> size_t {
      return static_cast<size_t>(id >= 0 && id < experts ? id : experts);
    };
    // First the number of rows before each expert, then, as rows are placed, the end of each.
    ends_.assign(static_cast<size_t>(experts) + 2, 0);
    for (const int32_t id : ids) ++ends_[place(id) + 1];
    for (size_t e = 1; e < ends_.size(); ++e) ends_[e] += ends_[e - 1];
    order_.resize(ids.size());
    for (size_t t = 0; t < ids.size(); ++t) {
      order_[static_cast<size_t>(ends_[place(ids[t])]++)] = static_cast<int64_t>(t);
    }
  }
  std::span<const int64_t> of(int64_t expert) const {
    const size_t e = static_cast<size_t>(expert);
    const int64_t begin = e == 0 ? 0 : ends_[e - 1];
    return {order_.data() + begin, static_cast<size_t>(ends_[e] - begin)};
  }

 private:
  std::vector<int64_t> ends_;
  std::vector<int64_t> order_;
};

const char* gather(const void* from, std::span<const int64_t> rows, int64_t bytes,
                   std::vector<char>& to) {
  const size_t all = rows.size() * static_cast<size_t>(bytes);
  if (to.size() < all) to.resize(all);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(at<char>(from, rows[i] * bytes), bytes,
                to.data() + static_cast<int64_t>(i) * bytes);
  }
  return to.data();
}

void check(const LinearCall& call) {
  require(!call.products.empty(), "[linear] no weight was given");
  require(is_activation(call.x_dtype) && is_activation(call.y_dtype),
          "[linear] activations are {} and results {}; expected bf16 or f32",
          dtype_name(call.x_dtype), dtype_name(call.y_dtype));
  require(call.rows >= 0, "[linear] {} rows", call.rows);
  for (const Product& product : call.products) {
    row_bytes(product.weight);
    require(product.weight.in == call.products[0].weight.in,
            "[linear] weights of one call have {} and {} columns; they share x",
            call.products[0].weight.in, product.weight.in);
    require(product.bias == nullptr || is_activation(product.bias_dtype),
            "[linear] bias is {}; expected bf16 or f32", dtype_name(product.bias_dtype));
  }
  if (call.gate == Activation::kNone) return;
  require(call.products.size() == 2 && call.products[0].weight.out == call.products[1].weight.out,
          "[linear] a gated call takes two weights with the same number of rows");
}

}  // namespace

int64_t row_bytes(const Weight& weight) {
  require(weight.in >= 0 && weight.out >= 0, "[linear] weight is [{}, {}]", weight.out, weight.in);
  if (weight.encoding != Encoding::kDense) {
    const int64_t elements = block_elements(weight.encoding);
    require(weight.in % elements == 0,
            "[linear] a row of {} elements is no whole number of {} blocks of {}", weight.in,
            encoding_name(weight.encoding), elements);
    return weight.in / elements * block_bytes(weight.encoding);
  }
  switch (weight.dtype) {
    case DType::kF32:
      return weight.in * 4;
    case DType::kBF16:
    case DType::kF16:
      return weight.in * 2;
    case DType::kS8:
      require(weight.row_scales != nullptr, "[linear] an int8 weight needs one f32 scale a row");
      return weight.in;
    default:
      fail(Code::kInvalidArgument, "[linear] weight is {}; expected bf16, f16, f32 or i8",
           dtype_name(weight.dtype));
  }
}

void linear(const LinearCall& call, TaskPool* pool, Isa isa) {
  check(call);
  if (call.rows == 0) return;
  const int64_t in = call.products[0].weight.in;
  const IsaKernels& kernels = kernels_of(isa);
  const int64_t at_once = rows_at_once(kernels, call);
  if (call.rows < kGemmRows || call.rows <= at_once) {
    return few_rows(kernels, call, in, at_once, pool);
  }
  many_rows(kernels, call, in, pool);
}

void expert_linear(const ExpertCall& call, TaskPool* pool, Isa isa) {
  const int64_t in = call.first.in, out = call.first.out;
  const int64_t bytes = row_bytes(call.first) * out;
  require(is_activation(call.x_dtype) && is_activation(call.y_dtype),
          "[expert_linear] activations are {} and results {}; expected bf16 or f32",
          dtype_name(call.x_dtype), dtype_name(call.y_dtype));
  const int64_t x_row = in * size_of(call.x_dtype), y_row = out * size_of(call.y_dtype);
  // The rows of each expert, gathered, multiplied as one product, scattered. The memory is the
  // thread's, kept from call to call.
  thread_local RowsByExpert rows_by_expert;
  thread_local std::vector<char> x_rows, y_rows;
  rows_by_expert.sort({call.expert_ids, static_cast<size_t>(call.rows)}, call.experts);
  for (const int64_t row : rows_by_expert.of(call.experts)) {
    std::fill_n(static_cast<char*>(call.y) + row * y_row, y_row, '\0');
  }
  for (int64_t e = 0; e < call.experts; ++e) {
    const std::span<const int64_t> rows = rows_by_expert.of(e);
    if (rows.empty()) continue;
    const int64_t count = static_cast<int64_t>(rows.size());
    const char* x = at<char>(call.x, rows[0] * x_row);
    char* y = static_cast<char*>(call.y) + rows[0] * y_row;
    // Rows that follow each other (a single one above all) are used where they are.
    const bool in_place = rows.back() - rows.front() == count - 1;
    if (!in_place) {
      x = gather(call.x, rows, x_row, x_rows);
      if (static_cast<int64_t>(y_rows.size()) < count * y_row) {
        y_rows.resize(static_cast<size_t>(count * y_row));
      }
      y = y_rows.data();
    }
    Product product{.weight = call.first, .bias_dtype = call.bias_dtype, .y = y};
    product.weight.data = at<char>(call.first.data, e * bytes);
    if (call.first.row_scales != nullptr) product.weight.row_scales += e * out;
    if (call.bias != nullptr) {
      product.bias = at<char>(call.bias, e * out * size_of(call.bias_dtype));
    }
    linear({.x = x,
            .x_dtype = call.x_dtype,
            .y_dtype = call.y_dtype,
            .rows = count,
            .products = {&product, 1}},
           pool, isa);
    for (int64_t i = 0; !in_place && i < count; ++i) {
      std::copy_n(y + i * y_row, y_row,
                  static_cast<char*>(call.y) + rows[static_cast<size_t>(i)] * y_row);
    }
  }
}

}  // namespace ttpu::kernels::cpu
