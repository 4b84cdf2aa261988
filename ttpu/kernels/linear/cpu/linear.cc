// Splits a call into pieces of columns, and chooses between few and many rows.
#include <algorithm>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/kernels/cpu/scratch.h"
#include "ttpu/kernels/linear/cpu/isa_kernels.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr int64_t kFewRowsAtOnce = 4;
constexpr int64_t kFewRowsBytes = 24 << 10;  // weight bytes of a piece of work
constexpr int64_t kMaxColumns = 64;          // columns of a piece, few rows
constexpr int64_t kTileBytes = 448 << 10;    // a tile stays in a core's L2

const IsaKernels& kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Kernels;
  if (isa == Isa::kAvx2) return kAvx2Kernels;
#endif
  static_cast<void>(isa);
  return kPortableKernels;
}

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

void cut(const LinearCall& call, int64_t columns, std::vector<Piece>& pieces) {
  const bool gated = call.gate != Activation::kNone;
  const size_t count = gated ? 1 : call.products.size();
  for (size_t i = 0; i < count; ++i) {
    const Product& product = call.products[i];
    for (int64_t j = 0; j < product.weight.out; j += columns) {
      pieces.push_back({&product, gated ? &call.products[1] : nullptr, j,
                        std::min(columns, product.weight.out - j)});
    }
  }
}

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
    float* floats = thread_scratch_of<float>(1, count / 32 * 4);
    int8_t* codes = thread_scratch_of<int8_t>(2, count);
    float *scales = floats, *sums = floats + count / 32, *half_sums = sums + count / 32;
    isa.quantize(x.bf16, call.rows, in, codes, scales, sums, half_sums);
    x.int8 = {codes, scales, sums, half_sums};
  }
  return x;
}

// Rows [first, first + count) of x.
FewRows some_rows(const FewRows& x, int64_t first, int64_t count) {
  FewRows part{.rows = count, .in = x.in};
  if (x.f32 != nullptr) part.f32 = x.f32 + first * x.in;
  if (x.bf16 != nullptr) part.bf16 = x.bf16 + first * x.in;
  if (x.int8.codes != nullptr) {
    const int64_t groups = first * (x.in / 32);
    part.int8 = {x.int8.codes + first * x.in, x.int8.scales + groups, x.int8.sums + groups,
                 x.int8.half_sums + 2 * groups};
  }
  return part;
}

void few_rows(const IsaKernels& isa, const LinearCall& call, int64_t in, TaskPool* pool) {
  const FewRows x = prepare(isa, call, in);
  const int64_t bytes = std::max<int64_t>(row_bytes(call.products[0].weight), 1);
  const int64_t columns = std::clamp<int64_t>(kFewRowsBytes / bytes / 4 * 4, 4, kMaxColumns);
  thread_local std::vector<Piece> pieces;
  pieces.clear();
  cut(call, columns, pieces);
  const Piece* work = pieces.data();
  parallel_for(pool, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    float values[2][kFewRowsAtOnce][kMaxColumns];
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = work[i];
      for (int64_t row = 0; row < call.rows; row += kFewRowsAtOnce) {
        const FewRows part = some_rows(x, row, std::min(kFewRowsAtOnce, call.rows - row));
        const Product* products[2] = {piece.product, piece.up};
        for (int p = 0; p < 2 && products[p] != nullptr; ++p) {
          const Weight& weight = products[p]->weight;
          isa.few_rows(weight, isa.few_rows_form(weight, call.x_dtype), part, piece.first,
                       piece.count, values[p][0], kMaxColumns);
        }
        for (int64_t r = 0; r < part.rows; ++r) {
          store(isa, call, piece, row + r, values[0][r], values[1][r]);
        }
      }
    }
  });
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

void many_rows_piece(const IsaKernels& isa, const LinearCall& call, int64_t in,
                     const Piece& piece) {
  const Product* products[2] = {piece.product, piece.up};
  const int parts = piece.up == nullptr ? 1 : 2;
  const int64_t panels = (piece.count + isa.panel - 1) / isa.panel;
  Form forms[2];
  int64_t sizes[2] = {};
  for (int p = 0; p < parts; ++p) {
    forms[p] = isa.many_rows_form(products[p]->weight, call.x_dtype);
    sizes[p] = panels * isa.panel_bytes(forms[p], in);
  }
  char* tile = thread_scratch_of<char>(0, sizes[0] + sizes[1]);
  for (int p = 0; p < parts; ++p) {
    isa.pack(products[p]->weight, forms[p], piece.first, piece.count, tile + (p ? sizes[0] : 0));
  }
  const int64_t width = panels * isa.panel;
  float* values = thread_scratch_of<float>(1, parts * isa.row_block * width);
  for (int64_t row = 0; row < call.rows; row += isa.row_block) {
    const int64_t rows = std::min(isa.row_block, call.rows - row);
    for (int p = 0; p < parts; ++p) {
      isa.many_rows(forms[p], block_of_x(isa, call, in, forms[p], row, rows), in, rows, in,
                    tile + (p ? sizes[0] : 0), panels, values + p * isa.row_block * width, width);
    }
    for (int64_t r = 0; r < rows; ++r) {
      store(isa, call, piece, row + r, values + r * width, values + (isa.row_block + r) * width);
    }
  }
}

void many_rows(const IsaKernels& isa, const LinearCall& call, int64_t in, TaskPool* pool) {
  const int parts = call.gate == Activation::kNone ? 1 : 2;
  int64_t total = 0;
  for (const Product& product : call.products) total += product.weight.out;
  total /= parts;
  const int64_t threads = pool == nullptr ? 1 : std::max(pool->num_threads(), 1);
  const Form form = isa.many_rows_form(call.products[0].weight, call.x_dtype);
  const int64_t fitting = kTileBytes / (parts * isa.panel_bytes(form, in));
  const int64_t fair = (total / (4 * threads) + isa.panel - 1) / isa.panel;
  const int64_t columns = std::max<int64_t>(std::min(fitting, fair), 1) * isa.panel;
  std::vector<Piece> pieces;
  cut(call, columns, pieces);
  parallel_for(pool, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      many_rows_piece(isa, call, in, pieces[static_cast<size_t>(i)]);
  });
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
  if (call.rows < kGemmRows) return few_rows(kernels, call, in, pool);
  many_rows(kernels, call, in, pool);
}

void expert_linear(const ExpertCall& call, TaskPool* pool, Isa isa) {
  const int64_t in = call.first.in, out = call.first.out;
  const int64_t bytes = row_bytes(call.first) * out;
  require(is_activation(call.x_dtype) && is_activation(call.y_dtype),
          "[expert_linear] activations are {} and results {}; expected bf16 or f32",
          dtype_name(call.x_dtype), dtype_name(call.y_dtype));
  const int64_t x_row = in * size_of(call.x_dtype), y_row = out * size_of(call.y_dtype);
  // The rows of each expert, gathered, multiplied as one product, scattered.
  std::vector<std::vector<int64_t>> rows_of(static_cast<size_t>(call.experts));
  for (int64_t t = 0; t < call.rows; ++t) {
    const int32_t id = call.expert_ids[t];
    if (id >= 0 && id < call.experts) {
      rows_of[static_cast<size_t>(id)].push_back(t);
    } else {
      std::fill_n(static_cast<char*>(call.y) + t * y_row, y_row, '\0');
    }
  }
  std::vector<char> x, y;
  for (int64_t e = 0; e < call.experts; ++e) {
    const std::vector<int64_t>& rows = rows_of[static_cast<size_t>(e)];
    if (rows.empty()) continue;
    const int64_t count = static_cast<int64_t>(rows.size());
    x.resize(static_cast<size_t>(count * x_row));
    y.resize(static_cast<size_t>(count * y_row));
    for (int64_t i = 0; i < count; ++i) {
      std::copy_n(at<char>(call.x, rows[static_cast<size_t>(i)] * x_row), x_row,
                  x.data() + i * x_row);
    }
    Product product{.weight = call.first, .bias_dtype = call.bias_dtype, .y = y.data()};
    product.weight.data = at<char>(call.first.data, e * bytes);
    if (call.first.row_scales != nullptr) product.weight.row_scales += e * out;
    if (call.bias != nullptr) {
      product.bias = at<char>(call.bias, e * out * size_of(call.bias_dtype));
    }
    linear({.x = x.data(),
            .x_dtype = call.x_dtype,
            .y_dtype = call.y_dtype,
            .rows = count,
            .products = {&product, 1}},
           pool, isa);
    for (int64_t i = 0; i < count; ++i) {
      std::copy_n(y.data() + i * y_row, y_row,
                  static_cast<char*>(call.y) + rows[static_cast<size_t>(i)] * y_row);
    }
  }
}

}  // namespace ttpu::kernels::cpu
