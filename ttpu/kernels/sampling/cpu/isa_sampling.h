// What each instruction set compiles for itself: passes over one row of logits.
#pragma once

#include <cstdint>

namespace ttpu::kernels::cpu {

inline constexpr int64_t kLogitBlock = 64;
inline int64_t logit_blocks(int64_t vocab) { return (vocab + kLogitBlock - 1) / kLogitBlock; }

struct Draw {
  float threshold = 0;  // logits above it may be chosen, and equal ones up to tie_token
  int32_t tie_token = 0;
  int32_t best = 0;  // the token of the largest logit
  uint32_t seed[2] = {0, 0};
  uint32_t position = 0;
};

struct SamplingIsa {
  // out [whole blocks] = x * factor where allowed (null: everywhere), -inf elsewhere, for NaN and
  // behind the end; most [blocks]: the largest of each block.
  void (*prepare)(const float* x, const uint32_t* allowed, float factor, int64_t vocab, float* out,
                  float* most);
  // Penalties; out may be x.
  void (*penalize)(const float* x, const uint16_t* counts, float repetition, float frequency,
                   float presence, int64_t vocab, float* out);
  // The sum of e^(x - top) over the x of at least `least`. x and most as prepare left them.
  double (*sum_exp)(const float* x, const float* most, int64_t blocks, float top, float least);
  // The token of the largest x + Gumbel noise.
  int32_t (*draw)(const float* x, const float* most, int64_t blocks, const Draw& draw);
};

extern const SamplingIsa kPortableSampling;
#if defined(__x86_64__)
extern const SamplingIsa kAvx2Sampling;
extern const SamplingIsa kAvx512Sampling;
#endif

}  // namespace ttpu::kernels::cpu
