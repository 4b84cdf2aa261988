// Attention tiles for AVX512: pairs of bf16 are multiplied at once where queries and cache are
// bf16.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "ttpu/kernels/ragged_paged_attention/cpu/tile.h"

#if defined(__x86_64__)

namespace ttpu::kernels::cpu {
namespace {

struct PairWords {
  static VecF multiply_add(VecF sum, uint32_t a, VecF b) {
    const __m512i pair = _mm512_set1_epi32(static_cast<int>(a));
    return reinterpret_cast<VecF>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                   reinterpret_cast<__m512bh>(pair),
                                                   reinterpret_cast<__m512bh>(b)));
  }
};

struct PairPacking {
  using Words = PairWords;
  static bool fits(const Attention& c) {
    return c.dtype == DType::kBF16 && c.cache_dtype == DType::kBF16 && c.key_dim % 2 == 0;
  }
  static int64_t key_words(const Attention& c) { return c.key_dim / 2; }
  static int64_t value_depth() { return kKvBlock / 2; }
  static void pack_q(const Attention& c, const void* from, uint32_t* to) {
    std::memcpy(to, from, static_cast<size_t>(c.key_dim) * 2);
  }
  // keys [key_words, kKvBlock] pairs along the key, values [kKvBlock / 2, value_padded] pairs of
  // neighbouring positions.
  static void pack_block(const Attention& c, const AttentionItem& item, Tile& t, int64_t begin,
                         int64_t count) {
    const char* rows[kKvBlock];
    for (int64_t j = 0; j < count; ++j) rows[j] = cache_at(c, item, begin + j);
    auto* keys = reinterpret_cast<uint32_t*>(t.keys);
    const int64_t words = key_words(c);
    for (int64_t w = 0; w < words; ++w) {
      uint32_t* to = keys + w * kKvBlock;
      for (int64_t j = 0; j < count; ++j) std::memcpy(to + j, rows[j] + 4 * w, 4);
      for (int64_t j = count; j < kKvBlock; ++j) to[j] = 0;
    }
    auto* values = reinterpret_cast<uint32_t*>(t.values);
    for (int64_t j = 0; j < kKvBlock; j += 2) {
      uint32_t* to = values + j / 2 * t.value_padded;
      int64_t d = 0;
      if (j < count) {
        const auto* even = reinterpret_cast<const uint16_t*>(rows[j]) + c.value_offset;
        const bool pair = j + 1 < count;
        const auto* odd =
            pair ? reinterpret_cast<const uint16_t*>(rows[j + 1]) + c.value_offset : even;
        const uint32_t keep = pair ? ~0u : 0xffffu;  // a lone position has 0 beside it
        for (; d < c.value_dim; ++d) {
          to[d] = (even[d] | static_cast<uint32_t>(odd[d]) << 16) & keep;
        }
      }
      for (; d < t.value_padded; ++d) to[d] = 0;
    }
  }
  static const uint32_t* pack_weights(Tile& t) {
    for (int64_t i = 0; i < t.padded_rows * kKvBlock; i += 2 * kLanes) {
      const __m512bh halves = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(t.scores + i + kLanes),
                                                  _mm512_loadu_ps(t.scores + i));
      store(t.weights + i / 2, halves);
    }
    return t.weights;
  }
  static int64_t weights_stride() { return kKvBlock / 2; }
};

void run(const Attention& call, const AttentionItem& item) {
  if (PairPacking::fits(call)) return run_tile<PairPacking>(call, item);
  run_tile<PlainPacking>(call, item);
}

}  // namespace

const AttentionIsa kAvx512Attention = {run, join_parts};

}  // namespace ttpu::kernels::cpu

#endif
