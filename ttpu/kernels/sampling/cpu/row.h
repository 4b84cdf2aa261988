// The passes over a row, in the compiler's vector types.
#pragma once

#include <limits>

#include "ttpu/kernels/cpu/simd.h"
#include "ttpu/kernels/sampling/cpu/isa_sampling.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr float kLog2e = 1.44269504f;

void prepare(const float* x, const uint32_t* allowed, float factor, int64_t vocab, float* out,
             float* most) {
  const VecI lane = lane_numbers();
  for (int64_t begin = 0; begin < vocab; begin += kLogitBlock) {
    VecF high = all(kNothing);
    for (int64_t i = begin; i < begin + kLogitBlock; i += kLanes) {
      VecF v = all(kNothing);
      if (i + kLanes <= vocab) {
        v = load<VecF>(x + i);
      } else {
        for (int j = 0; j < kLanes && i + j < vocab; ++j) v[j] = x[i + j];
      }
      v *= factor;
      VecI keep = v == v;  // NOLINT(misc-redundant-expression): not where it is NaN
      if (allowed != nullptr && i < vocab) {
        const VecI bit = lane + static_cast<int32_t>(i % 32);
        const VecI word = all(static_cast<int32_t>(allowed[i / 32]));
        keep &= ((word >> bit) & 1) != 0;
      }
      v = keep ? v : all(kNothing);
      store(out + i, v);
      high = larger(v, high);
    }
    most[begin / kLogitBlock] = largest_of(high);
  }
}

void penalize(const float* x, const uint16_t* counts, float repetition, float frequency,
              float presence, int64_t vocab, float* out) {
  const auto one = [&](VecF v, VecI count) {
    const VecF repeated = v > 0.f ? v / repetition : v * repetition;
    v = count > 0 ? repeated : v;
    const VecI times = count >> 1;
    v -= __builtin_convertvector(times, VecF) * frequency;
    return v - (times > 0 ? all(presence) : VecF{});
  };
  int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) {
    store(out + i, one(load<VecF>(x + i), __builtin_convertvector(load<VecH>(counts + i), VecI)));
  }
  if (i == vocab) return;
  VecF v{};
  VecI count{};
  for (int64_t j = i; j < vocab; ++j) {
    v[j - i] = x[j];
    count[j - i] = counts[j];
  }
  store_some(out + i, one(v, count), vocab - i);
}

double sum_exp(const float* x, const float* most, int64_t blocks, float top, float least) {
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    if (most[b] < least) continue;
    VecF sum{};
    for (int64_t i = b * kLogitBlock; i < (b + 1) * kLogitBlock; i += kLanes) {
      const VecF v = load<VecF>(x + i);
      sum += v >= least ? exp2_of((v - top) * kLog2e) : VecF{};
    }
    total += static_cast<double>(sum_of(sum));
  }
  return total;
}

inline bool any(VecI mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(mask), reinterpret_cast<__m512i>(mask)) !=
         0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8(reinterpret_cast<__m256i>(mask)) != 0;
#else
  int32_t together = 0;
  for (int i = 0; i < kLanes; ++i) together |= mask[i];
  return together != 0;
#endif
}

inline VecU turned(VecU x, int by) { return (x << by) | (x >> (32 - by)); }

struct Words {
  VecU even, odd;
};
// Threefry-2x32, 20 rounds.
inline Words threefry(const Draw& draw, VecU counter) {
  constexpr int kRotations[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  const uint32_t keys[3] = {draw.seed[0], draw.seed[1], draw.seed[0] ^ draw.seed[1] ^ 0x1BD11BDAu};
  VecU x0 = counter + keys[0];
  VecU x1 = all(draw.position + keys[1]);
#pragma GCC unroll 20
  for (uint32_t round = 0; round < 20; ++round) {
    x0 += x1;
    x1 = turned(x1, kRotations[round % 8]) ^ x0;
    if (round % 4 != 3) continue;
    const uint32_t group = round / 4 + 1;
    x0 += keys[group % 3];
    x1 += keys[(group + 1) % 3] + group;
  }
  return {x0, x1};
}

// Of numbers below 2^31.
inline VecF as_floats(VecU x) {
  return __builtin_convertvector(__builtin_convertvector(x, VecI), VecF);
}

// -ln(-ln(1 - u)), u from the bits.
inline VecF gumbel(VecU bits) {
  // Exact halves, one rounding: as one conversion of an unsigned number.
  const VecF high = as_floats(bits >> 16);
  const VecF low = as_floats(bits & 0xffffu);
  VecF u = (high * 65536.f + low) * 0x1p-32f + 0x1p-33f;
  u = -larger(-u, all(-(1.f - 0x1p-24f)));
  // ln(1 - u) without loss where u is small (Kahan): y - 1 is exact.
  const VecF y = 1.f - u;
  const VecF away = 1.f - y;
  const VecF exponential = away == 0.f ? u : -log_of(y) * u / away;
  return -log_of(exponential);
}

struct Best {
  VecF score = all(kNothing);
  VecI token{};
  void take(VecF scores, VecI tokens) {
    const VecI better = scores > score;
    token = better ? tokens : token;
    score = better ? scores : score;
  }
};

// Noise above -ln(e) needs an e > -ln(1 - u) >= u: bits beyond `limit` need no logarithms.
inline void draw_block(const float* x, int64_t block, const Draw& draw, uint32_t limit,
                       Best& best) {
  const VecI lane = lane_numbers();
  for (int64_t i = block * kLogitBlock; i < (block + 1) * kLogitBlock; i += 2 * kLanes) {
    const VecI token = 2 * lane + static_cast<int32_t>(i);
    const VecI counter = token >> 1;
    const Words words = threefry(draw, __builtin_convertvector(counter, VecU));
    if (!any((words.even <= limit) | (words.odd <= limit))) continue;
    const VecF a = load<VecF>(x + i), b = load<VecF>(x + i + kLanes);
    const auto kept = [&](VecF v, VecI t) {
      const VecI keep = (v > draw.threshold) | ((v == draw.threshold) & (t <= draw.tie_token));
      return keep ? v : all(kNothing);
    };
    best.take(kept(even_lanes(a, b), token) + gumbel(words.even), token);
    best.take(kept(odd_lanes(a, b), token + 1) + gumbel(words.odd), token + 1);
  }
}

int32_t draw(const float* x, const float* most, int64_t blocks, const Draw& draw) {
  Best best;
  const int64_t first = draw.best / kLogitBlock;
  draw_block(x, first, draw, ~0u, best);
  float high = largest_of(best.score);
  for (int64_t b = 0; b < blocks; ++b) {
    if (b == first || most[b] < draw.threshold) continue;
    // What noise must lift the block's largest above what was found, with room for rounding.
    const float behind = exp2_of(all((most[b] - high) * kLog2e))[0] * 1.001f;
    const uint32_t limit = behind < 1.f ? static_cast<uint32_t>(behind * 0x1p32f) : ~0u;
    draw_block(x, b, draw, limit, best);
    high = largest_of(best.score);
  }
  int32_t token = draw.best;
  for (int i = kLanes - 1; i >= 0; --i) {
    if (best.score[i] == high) token = best.token[i];
  }
  return token;
}

constexpr SamplingIsa kSampling = {prepare, penalize, sum_exp, draw};

}  // namespace
}  // namespace ttpu::kernels::cpu
