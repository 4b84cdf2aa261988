// The linear kernels on the shapes of SmolLM2-135M (hidden 576, kv 192, intermediate 1536,
// vocabulary 49152, 30 layers), without XLA: one decode step's worth of products from memory (GB/s
// of weights), and the products of a prefill (FLOP/s).
//   build: cmake -DTTPU_BUILD_BENCHMARKS=ON; run: ttpu_kernels_linear_benchmark
#include <array>
#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "ttpu/kernels/linear/cpu/kernel.h"

namespace {

using namespace ttpu::kernels;
using ttpu::DType;
using ttpu::Encoding;

constexpr int64_t kHidden = 576, kKv = 192, kIntermediate = 1536, kVocabulary = 49152;
constexpr int kLayers = 30;
constexpr int kThreads = 2;

// Memory as XLA gives it: from a cache line's beginning on.
template <typename T>
struct Lines {
  using value_type = T;
  T* allocate(size_t count) {
    return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{64}));
  }
  void deallocate(T* at, size_t) { ::operator delete (at, std::align_val_t{64}); }
  bool operator==(const Lines&) const = default;
};
using Bytes = std::vector<char, Lines<char>>;

// Storage of one matrix, filled with plausible bytes (small bf16 values, small block scales).
struct Matrix {
  Matrix(Encoding encoding, int64_t out, int64_t in)
      : weight{.encoding = encoding, .dtype = DType::kBF16, .out = out, .in = in} {
    bytes.resize(static_cast<size_t>(out * cpu::row_bytes(weight)));
    std::minstd_rand random(static_cast<unsigned>(out * in));
    if (encoding == Encoding::kDense) {
      auto* values = reinterpret_cast<uint16_t*>(bytes.data());
      for (size_t i = 0; i < bytes.size() / 2; ++i) {
        values[i] = static_cast<uint16_t>(0x3c00 | (random() & 0x80ff));
      }
    } else {
      for (size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<char>((i * 2654435761u >> 13) & 0x3f);
    }
    weight.data = bytes.data();
  }
  cpu::Weight weight;
  Bytes bytes;
};

struct Layer {
  Layer(Encoding e)
      : q(e, kHidden, kHidden),
        k(e, kKv, kHidden),
        v(e, kKv, kHidden),
        o(e, kHidden, kHidden),
        gate(e, kIntermediate, kHidden),
        up(e, kIntermediate, kHidden),
        down(e, kHidden, kIntermediate) {}
  Matrix q, k, v, o, gate, up, down;
};

struct Model {
  // The head of a file with 4-bit or 5-bit blocks is stored in 8 bits, as in the published files.
  explicit Model(Encoding encoding)
      : head(encoding == Encoding::kDense ? encoding : Encoding::kQ8_0, kVocabulary, kHidden) {
    for (int i = 0; i < kLayers; ++i) layers.emplace_back(encoding);
  }
  int64_t bytes() const {
    size_t sum = head.bytes.size();
    for (const Layer& l : layers) {
      for (const Matrix* m : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) {
        sum += m->bytes.size();
      }
    }
    return static_cast<int64_t>(sum);
  }
  std::vector<Layer> layers;
  Matrix head;
};

void run(const void* x, DType dtype, int64_t rows, std::vector<std::pair<Matrix*, void*>> products,
         cpu::Activation gate, TaskPool* pool) {
  std::array<cpu::Product, 3> list;
  for (size_t i = 0; i < products.size(); ++i) {
    list[i] = {.weight = products[i].first->weight, .y = products[i].second};
  }
  cpu::linear({.x = x,
               .x_dtype = dtype,
               .y_dtype = dtype,
               .rows = rows,
               .products = {list.data(), products.size()},
               .gate = gate},
              pool);
}

// The products of one step, layer after layer; `head` with rows = 1.
void step(Model& model, DType dtype, int64_t rows, std::vector<Bytes>& buffers, TaskPool* pool,
          bool head) {
  auto at = [&](size_t i) -> void* { return buffers[i].data(); };
  for (Layer& l : model.layers) {
    run(at(0), dtype, rows, {{&l.q, at(1)}, {&l.k, at(2)}, {&l.v, at(3)}}, cpu::Activation::kNone,
        pool);
    run(at(1), dtype, rows, {{&l.o, at(4)}}, cpu::Activation::kNone, pool);
    run(at(4), dtype, rows, {{&l.gate, at(5)}, {&l.up, nullptr}}, cpu::Activation::kSilu, pool);
    run(at(5), dtype, rows, {{&l.down, at(6)}}, cpu::Activation::kNone, pool);
  }
  if (head) run(at(0), dtype, 1, {{&model.head, at(7)}}, cpu::Activation::kNone, pool);
}

std::vector<Bytes> make_buffers(DType dtype, int64_t rows) {
  std::vector<Bytes> buffers;
  for (int64_t width : {kHidden, kHidden, kKv, kKv, kHidden, kIntermediate, kHidden}) {
    buffers.emplace_back(static_cast<size_t>(rows * width * 4));
  }
  buffers.emplace_back(static_cast<size_t>(kVocabulary * 4));
  std::minstd_rand random(7);
  for (int64_t i = 0; i < rows * kHidden; ++i) {
    const float value = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
    if (dtype == DType::kF32) {
      std::memcpy(buffers[0].data() + 4 * i, &value, 4);
    } else {
      const uint16_t bits = ttpu::bf16_from_f32(value);
      std::memcpy(buffers[0].data() + 2 * i, &bits, 2);
    }
  }
  return buffers;
}

void decode(benchmark::State& state, Encoding encoding, DType dtype) {
  Model model(encoding);
  auto pool = make_thread_pool(kThreads);
  auto buffers = make_buffers(dtype, state.range(0));
  for (auto _ : state) step(model, dtype, state.range(0), buffers, pool.get(), true);
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(model.bytes()) * 1e-9,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

void prefill(benchmark::State& state, Encoding encoding, DType dtype) {
  Model model(encoding);
  auto pool = make_thread_pool(kThreads);
  auto buffers = make_buffers(dtype, state.range(0));
  for (auto _ : state) step(model, dtype, state.range(0), buffers, pool.get(), false);
  const double products =
      kLayers * (2.0 * kHidden * (2 * kHidden + 2 * kKv) / 2 + 3.0 * kHidden * kIntermediate);
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * products * static_cast<double>(state.range(0)),
                         benchmark::Counter::kIsIterationInvariantRate);
}

// What the memory gives: both threads read a buffer far larger than the caches.
void memory(benchmark::State& state) {
  typedef uint64_t Line __attribute__((vector_size(64)));
  std::vector<Line> data(size_t{4} << 20, Line{} + 1);
  auto pool = make_thread_pool(kThreads);
  for (auto _ : state) {
    parallel_for(pool.get(), static_cast<int64_t>(data.size()), 512,
                 [&](int64_t begin, int64_t end) {
                   Line sums[2] = {};
                   for (int64_t i = begin; i < end; i += 2) {
                     sums[0] += data[static_cast<size_t>(i)];
                     sums[1] += data[static_cast<size_t>(i) + 1];
                   }
                   benchmark::DoNotOptimize(sums);
                 });
  }
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(data.size()) * 64e-9,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

// One product [rows, in] x [out, in] over and over, from copies that do not fit the caches.
void shape(benchmark::State& state, Encoding encoding, int64_t out, int64_t in) {
  const int64_t rows = state.range(0);
  std::vector<Matrix> copies;
  const int64_t count = 1 + (64 << 20) / (out * in);
  for (int64_t i = 0; i < count; ++i) copies.emplace_back(encoding, out, in);
  auto pool = make_thread_pool(kThreads);
  Bytes x(static_cast<size_t>(rows * in * 2), 0x3c);
  Bytes y(static_cast<size_t>(rows * out * 2));
  size_t next = 0;
  for (auto _ : state) {
    run(x.data(), DType::kBF16, rows, {{&copies[next], y.data()}}, cpu::Activation::kNone,
        pool.get());
    next = (next + 1) % copies.size();
  }
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(copies[0].bytes.size()) * 1e-9,
                                              benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(rows * out * in),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

// The fixed cost of a call: hardly any work, one piece (alone) or two (both threads).
void smallest_call(benchmark::State& state) {
  Matrix w(Encoding::kDense, state.range(0), 32);
  auto pool = make_thread_pool(kThreads);
  Bytes x(64), y(static_cast<size_t>(state.range(0) * 2));
  for (auto _ : state) {
    run(x.data(), DType::kBF16, 1, {{&w, y.data()}}, cpu::Activation::kNone, pool.get());
  }
}

// A loop of little work that both threads take part in: its cost over that of the work itself.
void loop_overhead(benchmark::State& state) {
  auto pool = make_thread_pool(kThreads);
  for (auto _ : state) {
    parallel_for(pool.get(), 8, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int spin = 0; spin < 1000; ++spin) benchmark::DoNotOptimize(spin);
      }
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::RegisterBenchmark("memory", memory)->Unit(benchmark::kMillisecond)->UseRealTime();
  benchmark::RegisterBenchmark("loop_of_8x1000_spins", loop_overhead)->UseRealTime();
  benchmark::RegisterBenchmark("smallest_call", smallest_call)->Arg(64)->Arg(128)->UseRealTime();
  for (Encoding e : {Encoding::kDense, Encoding::kQ8_0, Encoding::kQ4_1}) {
    const std::string name = e == Encoding::kDense ? "bf16" : std::string(ttpu::encoding_name(e));
    for (auto [out, in] : {std::pair(kHidden, kHidden),
                           {kKv, kHidden},
                           {kIntermediate, kHidden},
                           {kHidden, kIntermediate},
                           {kVocabulary, kHidden}}) {
      const std::string what =
          "shape/" + name + "/" + std::to_string(out) + "x" + std::to_string(in);
      benchmark::RegisterBenchmark(what.c_str(), shape, e, out, in)
          ->Arg(1)
          ->Arg(32)
          ->Arg(512)
          ->Unit(benchmark::kMicrosecond)
          ->UseRealTime();
    }
  }
  for (Encoding e :
       {Encoding::kDense, Encoding::kQ8_0, Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ5_1}) {
    const std::string name = e == Encoding::kDense ? "bf16" : std::string(ttpu::encoding_name(e));
    const auto add = [&](const char* what, auto function, DType dtype, int64_t rows) {
      benchmark::RegisterBenchmark(
          (std::string(what) + "/" + name + "/x_" + std::string(ttpu::dtype_name(dtype))).c_str(),
          function, e, dtype)
          ->Arg(rows)
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    };
    add("decode", decode, DType::kBF16, 1);
    add("decode", decode, DType::kBF16, 4);
    add("decode", decode, DType::kF32, 1);
    add("prefill", prefill, DType::kBF16, 2048);
    for (int64_t rows : {8, 32, 128, 256}) add("prefill", prefill, DType::kBF16, rows);
    if (e == Encoding::kDense) add("prefill", prefill, DType::kF32, 256);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
