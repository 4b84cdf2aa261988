// Sampling on CPU as a plain function over memory, without sorting a row: maxima of blocks of
// logits bound what can be chosen, and few blocks are looked into.
#pragma once

#include <cstdint>

#include "ttpu/kernels/cpu/isa.h"
#include "ttpu/kernels/cpu/parallel.h"

namespace ttpu::kernels::cpu {

// Arrays as in kernels::SamplingInputs, dense and row-major. Optional ones are null.
struct Sampling {
  int64_t rows = 0, vocab = 0;
  const float* logits = nullptr;
  const float* temperature = nullptr;
  const int32_t* top_k = nullptr;
  const float* top_p = nullptr;
  const float* min_p = nullptr;
  const uint32_t* seeds = nullptr;
  const uint32_t* position = nullptr;
  // History
  uint16_t* counts = nullptr;  // [slots, vocab], updated
  int64_t slot_count = 0;
  const int32_t* slots = nullptr;
  const float* repetition = nullptr;
  const float* frequency = nullptr;
  const float* presence = nullptr;
  // Bias
  int64_t biases = 0;  // a row
  const int32_t* bias_tokens = nullptr;
  const float* bias_values = nullptr;
  const uint32_t* allowed = nullptr;  // [rows, ceil(vocab / 32)]
  int32_t* tokens = nullptr;          // result
};

struct Logprobs {
  int64_t rows = 0, vocab = 0;
  const float* logits = nullptr;
  const int32_t* tokens = nullptr;
  int64_t top = 0;
  float* logprobs = nullptr;
  int32_t* top_tokens = nullptr;  // [rows, top]
  float* top_logprobs = nullptr;
};

void sample(const Sampling& call, TaskPool* pool, Isa isa = best_isa());
void token_logprobs(const Logprobs& call, TaskPool* pool, Isa isa = best_isa());

}  // namespace ttpu::kernels::cpu
