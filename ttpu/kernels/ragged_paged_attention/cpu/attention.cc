#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/kernels/cpu/scratch.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/isa_attention.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr int64_t kTileGroups = 4;  // groups of rows that share the packing of keys and values
constexpr int64_t kTilesPerThread = 4;
constexpr int64_t kPartSize = 256;  // positions of a part of a long decode, at least

const AttentionIsa& isa_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Attention;
  if (isa == Isa::kAvx2) return kAvx2Attention;
#endif
  static_cast<void>(isa);
  return kPortableAttention;
}

void check(const Attention& c) {
  const int64_t count = c.distribution[2];
  require(count >= 0 && count <= c.sequences, "[attention] {} real sequences of {}", count,
          c.sequences);
  require(count == 0 || c.cu_q_lens[0] == 0, "[attention] cu_q_lens begins with {}, expected 0",
          c.cu_q_lens[0]);
  for (int64_t s = 0; s < count; ++s) {
    const int64_t begin = c.cu_q_lens[s];
    const int64_t end = c.cu_q_lens[s + 1];
    const int64_t length = c.kv_lens[s];
    require(begin <= end && end <= c.tokens,
            "[attention] sequence {} has tokens {} to {} of {}; cu_q_lens must rise", s, begin, end,
            c.tokens);
    require(length >= end - begin && length <= c.pages_per_sequence * c.page_size,
            "[attention] sequence {} has length {} with {} new tokens and room for {}", s, length,
            end - begin, c.pages_per_sequence * c.page_size);
    for (int64_t page = 0; page * c.page_size < length; ++page) {
      const int32_t index = c.page_indices[s * c.pages_per_sequence + page];
      require(index >= 0 && index < c.pages, "[attention] sequence {} has page {} of {}", s, index,
              c.pages);
    }
  }
}

float element_of(const void* from, DType dtype, int64_t index) {
  return dtype == DType::kF32 ? static_cast<const float*>(from)[index]
                              : f32_from_bf16(static_cast<const uint16_t*>(from)[index]);
}

// A head and its scale behind it: the largest number becomes 127.
void encode_int8(const void* from, DType dtype, char* to, int64_t count) {
  float most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float x = std::fabs(element_of(from, dtype, i));
    most = x > most ? x : most;
  }
  const float inverse = most > 1e-30f ? 127.f / most : 0.f;
  const float scale = most > 1e-30f ? most * (1.f / 127.f) : 0.f;
  for (int64_t i = 0; i < count; ++i) {
    // Adding 1.5 * 2^23 rounds to an integer, to nearest even, in the lowest bits.
    const float rounded = element_of(from, dtype, i) * inverse + 12582912.f;
    to[i] = static_cast<char>(std::bit_cast<uint32_t>(rounded) & 0xff);
  }
  std::memcpy(to + count, &scale, sizeof scale);
}

// To nearest even; what is larger becomes the largest, 448.
void encode_fp8(const void* from, DType dtype, char* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(element_of(from, dtype, i));
    const uint32_t magnitude = bits & 0x7fffffffu;
    // Of a subnormal number: how many times 2^-9 it is.
    const float units = std::bit_cast<float>(magnitude) * 512.f + 12582912.f;
    const uint32_t small = std::bit_cast<uint32_t>(units) & 0xffu;
    const uint32_t rounded = (magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20;
    uint32_t code = magnitude < 0x3c800000u ? small : rounded - (120u << 3);  // below 2^-6
    code = magnitude >= 0x43e00000u ? 0x7eu : code;                           // from 448 on
    code = magnitude > 0x7f800000u ? 0x7fu : code;                            // no number
    to[i] = static_cast<char>(code | (bits >> 31) << 7);
  }
}

void convert_row(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t count) {
  if (to_dtype == DType::kS8) {
    encode_int8(from, from_dtype, static_cast<char*>(to), count);
  } else if (to_dtype == DType::kF8E4M3FN) {
    encode_fp8(from, from_dtype, static_cast<char*>(to), count);
  } else if (from_dtype == to_dtype) {
    std::memcpy(to, from, static_cast<size_t>(count * size_of(to_dtype)));
  } else if (to_dtype == DType::kF32) {
    const auto* half = static_cast<const uint16_t*>(from);
    for (int64_t i = 0; i < count; ++i) static_cast<float*>(to)[i] = f32_from_bf16(half[i]);
  } else {
    const auto* wide = static_cast<const float*>(from);
    for (int64_t i = 0; i < count; ++i) static_cast<uint16_t*>(to)[i] = bf16_from_f32(wide[i]);
  }
}

// What the cache holds of a token.
void write_row(const Attention& c, const AttentionIsa& isa, int64_t token, char* to) {
  const int64_t in = size_of(c.dtype), out = size_of(c.cache_dtype);
  const bool joined = c.values == nullptr;  // a head's value lies behind its key
  const bool shared = c.head_stride == 0;   // there is none
  const int64_t key_stride = joined && !shared ? c.key_dim + c.value_dim : c.key_dim;
  const auto* keys = static_cast<const char*>(c.keys) + token * c.kv_heads * key_stride * in;
  const char* values = keys + c.key_dim * in;
  int64_t value_stride = key_stride;
  if (!joined) {
    values = static_cast<const char*>(c.values) + token * c.kv_heads * c.value_dim * in;
    value_stride = c.value_dim;
  }
  if (c.cos != nullptr) {
    auto* turned = thread_scratch_of<char>(1, c.kv_heads * c.key_dim * in);
    isa.turn(c, token, keys, c.kv_heads, turned);
    keys = turned;
  }
  for (int64_t head = 0; head < c.kv_heads; ++head) {
    char* at = to + head * c.head_stride * out;
    convert_row(keys + head * key_stride * in, c.dtype, at, c.cache_dtype, c.key_dim);
    if (shared) continue;
    convert_row(values + head * value_stride * in, c.dtype, at + c.value_offset * out,
                c.cache_dtype, c.value_dim);
  }
}

void write_rows(const Attention& c, const AttentionIsa& isa, TaskPool* pool) {
  for (int64_t s = 0; s < c.distribution[2]; ++s) {
    const int64_t begin = c.cu_q_lens[s];
    const int64_t tokens = c.cu_q_lens[s + 1] - begin;
    const int64_t position = c.kv_lens[s] - tokens;
    parallel_for(tokens > 64 ? pool : nullptr, tokens, 64, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t at = position + i;
        const int64_t page = c.page_indices[s * c.pages_per_sequence + at / c.page_size];
        const int64_t row = page * c.page_size + at % c.page_size;
        write_row(c, isa, begin + i,
                  static_cast<char*>(c.cache) + row * c.width * size_of(c.cache_dtype));
      }
    });
  }
}

// The queries of the first `tokens` tokens after rotary position embedding.
const void* turned_queries(const Attention& c, const AttentionIsa& isa, int64_t tokens,
                           TaskPool* pool) {
  const int64_t row = c.q_heads * c.key_dim * size_of(c.dtype);
  auto* out = thread_scratch_of<char>(3, std::max<int64_t>(tokens * row, 1));
  parallel_for(tokens > 64 ? pool : nullptr, tokens, 64, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      isa.turn(c, t, static_cast<const char*>(c.q) + t * row, c.q_heads, out + t * row);
    }
  });
  return out;
}

// A split item's parts are items of their own; `joins` says which.
struct Join {
  int64_t first = 0, parts = 0;
  int64_t state = 0;  // offset of its states
};

struct Work {
  std::vector<AttentionItem> items;
  std::vector<Join> joins;
  std::vector<int64_t> states;  // offset of each item's state, -1: none
  int64_t state_floats = 0;
};

class Planner {
 public:
  Planner(const Attention& c, int threads, int64_t group_rows, Work& work)
      : c_(c), threads_(threads), group_rows_(group_rows), work_(work) {
    work.items.clear();
    work.joins.clear();
    work.states.clear();
    work.state_floats = 0;
    tile_ = tile_tokens();
  }

  void plan() {
    for (int64_t s = 0; s < c_.distribution[2]; ++s) {
      const int64_t tokens = tokens_of(s);
      if (tokens == 0) continue;
      // The last tiles see most: first, so that the threads end together.
      for (int64_t at = (tokens - 1) / tile_ * tile_; at >= 0; at -= tile_) {
        AttentionItem item;
        item.sequence = static_cast<int32_t>(s);
        item.token = c_.cu_q_lens[s] + at;
        item.tokens = std::min(tile_, tokens - at);
        item.position = c_.kv_lens[s] - tokens + at;
        set_range(item);
        add_heads(item);
      }
    }
  }

 private:
  int64_t tokens_of(int64_t s) const { return c_.cu_q_lens[s + 1] - c_.cu_q_lens[s]; }

  // Large tiles share more, small ones keep every thread busy.
  int64_t tile_tokens() const {
    const int64_t tokens = c_.cu_q_lens[c_.distribution[2]];
    const int64_t fair = tokens * c_.q_heads / (threads_ * kTilesPerThread);
    const int64_t groups = std::clamp<int64_t>(fair / group_rows_, 1, kTileGroups);
    return std::max<int64_t>(1, groups * group_rows_ / groups_of(c_));
  }

  // The positions that the item's tokens see.
  void set_range(AttentionItem& item) const {
    item.kv_end = c_.causal ? item.position + item.tokens : c_.kv_lens[item.sequence];
    item.kv_begin = 0;
    if (c_.window > 0) {
      const int64_t first = std::max<int64_t>(0, item.position - c_.window + 1);
      item.kv_begin = std::min(first / kKvBlock * kKvBlock, item.kv_end);
    }
  }

  void add_heads(AttentionItem item) {
    if (item.tokens * groups_of(c_) <= kFewRows) {
      item.head_end = c_.kv_heads;
      return add(item);
    }
    for (int64_t head = 0; head < c_.kv_heads; ++head) {
      item.head_begin = head;
      item.head_end = head + 1;
      add(item);
    }
  }

  // Few sequences of few tokens: a part of the positions for each thread.
  int64_t parts_of(const AttentionItem& whole) const {
    const bool many = whole.tokens > 1 && whole.tokens * groups_of(c_) > group_rows_;
    if (threads_ < 2 || many) return 1;
    const int64_t wanted = kTilesPerThread * threads_ / c_.distribution[2];
    const int64_t size = whole.kv_end - whole.kv_begin;
    return std::clamp<int64_t>(size / kPartSize, 1, std::max<int64_t>(wanted, 1));
  }

  void add(const AttentionItem& whole) {
    const int64_t parts = parts_of(whole);
    if (parts == 1) {
      work_.items.push_back(whole);
      work_.states.push_back(-1);
      return;
    }
    const int64_t blocks = (whole.kv_end - whole.kv_begin + kKvBlock - 1) / kKvBlock;
    const int64_t floats = rows_of(c_, whole) * state_size(c_);
    work_.joins.push_back({static_cast<int64_t>(work_.items.size()), parts, work_.state_floats});
    for (int64_t p = 0; p < parts; ++p) {
      AttentionItem part = whole;
      part.kv_begin = whole.kv_begin + p * blocks / parts * kKvBlock;
      part.kv_end = std::min(whole.kv_begin + (p + 1) * blocks / parts * kKvBlock, whole.kv_end);
      work_.items.push_back(part);
      work_.states.push_back(work_.state_floats);
      work_.state_floats += floats;
    }
  }

  const Attention& c_;
  int threads_;
  int64_t group_rows_;
  Work& work_;
  int64_t tile_ = 1;
};

}  // namespace

void attention(const Attention& call, TaskPool* pool, Isa isa) {
  check(call);
  const AttentionIsa& kernels = isa_kernels(isa);
  write_rows(call, kernels, pool);
  Attention c = call;
  const int64_t real = c.distribution[2] == 0 ? 0 : c.cu_q_lens[c.distribution[2]];
  const int64_t row_bytes = c.q_heads * c.value_dim * size_of(c.dtype);
  if (c.tokens > real) {
    std::memset(static_cast<char*>(c.output) + real * row_bytes, 0,
                static_cast<size_t>((c.tokens - real) * row_bytes));
  }
  static thread_local Work work_of_thread;  // a step makes dozens of calls: keep the memory
  Work& work = work_of_thread;
  // Scratch slots: tiles that this thread runs itself use 0 and 1.
  if (c.cos != nullptr) c.q = turned_queries(c, kernels, real, pool);
  const int threads = pool == nullptr ? 1 : std::max(pool->num_threads(), 1);
  Planner(c, threads, kernels.group_rows, work).plan();
  float* states = thread_scratch_of<float>(2, std::max<int64_t>(work.state_floats, 1));
  for (size_t i = 0; i < work.items.size(); ++i) {
    if (work.states[i] >= 0) work.items[i].partial = states + work.states[i];
  }
  const auto count = static_cast<int64_t>(work.items.size());
  int64_t positions = 0;
  for (const AttentionItem& item : work.items)
    positions += item.tokens * (item.kv_end - item.kv_begin);
  // A short context is done before another thread has looked up.
  TaskPool* helpers = positions * c.key_dim > 16384 ? pool : nullptr;
  parallel_for(helpers, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernels.run(c, work.items[static_cast<size_t>(i)]);
  });
  for (const Join& join : work.joins) {
    kernels.join(c, work.items[static_cast<size_t>(join.first)], states + join.state, join.parts);
  }
}

}  // namespace ttpu::kernels::cpu
