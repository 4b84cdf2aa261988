// Picks the next token of every row of logits, on the device.
//
// The order of filters is vLLM's: penalties, logit bias, allowed tokens, temperature, min-p, top-k,
// top-p. A row's token depends on that row's inputs alone, never on what else is in the batch.
//
// Randomness is a function of (seed, position, token): a row's token is the one with the largest
//     logit / temperature - ln(-ln(1 - u))                      (the Gumbel-max trick)
// among those that the filters keep, which draws from their softmax. u is made of the 32 bits b of
// word (token % 2) of Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as
// easy as 1, 2, 3", 2011), key = seed, counter = (token / 2, position): u = min((b + 1/2) / 2^32,
// 1 - 2^-24), computed in f32 as f32(b) * 2^-32 + 2^-33. Hence:
// - the same seed and position give the same token on every platform, but for what differs in the
//   last bits of the logits;
// - speculative decoding needs no rejection sampling of its own: sample every verified position as
//   if it were decoded alone and keep drafts for as long as they are equal to what was sampled. A
//   draft is then accepted with exactly its probability, and the text is the one that would have
//   come without it. A draft model that samples with the seed of its request agrees often.
#pragma once

#include <optional>

#include "ttpu/ir/value.h"
#include "ttpu/kernels/registry.h"

namespace ttpu::kernels {

// Penalties, from counts that stay on the device: nothing has to come back between two steps.
struct TokenHistory {
  // u16 [slots, vocab], one row a running sequence: 2 * (times in the output) + (1 if the prompt
  // has it). Write a sequence's row when it is admitted; sampling adds the tokens it picks. Donate
  // it: it is then updated in place.
  ir::Value counts;
  ir::Value slots;  // s32 [rows]: the row's sequence; outside [0, slots) the row has no history
  // f32 [rows]. A token that occurred (prompt or output) has its logit divided by `repetition` when
  // positive and multiplied when negative; 1: none. Then frequency * (times in the output) and, for
  // one that is in the output, `presence` are subtracted; 0: none.
  ir::Value repetition;
  ir::Value frequency;
  ir::Value presence;
};

// Added to the logits of some tokens; -inf forbids one (bad words, end tokens before min_tokens).
struct LogitBias {
  ir::Value tokens;  // s32 [rows, k]; outside [0, vocab): ignored. Repeated ones add up
  ir::Value values;  // f32 [rows, k]
};

struct SamplingInputs {
  ir::Value logits;       // f32 [rows, vocab]; NaN counts as -inf
  ir::Value temperature;  // f32 [rows]; below 1e-5: the largest logit, the lowest token of equals
  ir::Value top_k;        // s32 [rows]; keeps the k largest and what equals the last; < 1: all
  // f32 [rows]; keeps the most likely tokens until their probabilities reach it, at least one;
  // equals in the order of their ids; 1 (or more): all
  ir::Value top_p;
  ir::Value min_p;     // f32 [rows]; keeps tokens of at least this times the largest probability
  ir::Value seeds;     // u32 [rows, 2]: the request's seed, low word first
  ir::Value position;  // u32 [rows]: which token of the request this is
  std::optional<TokenHistory> history = {};
  std::optional<LogitBias> bias = {};
  // u32 [rows, ceil(vocab / 32)]: token t is allowed where bit t % 32 of word t / 32 is set.
  std::optional<ir::Value> allowed = {};
};

struct SamplingOptions {
  // Natural log probabilities under the softmax of `logits` as they came (vLLM's raw_logprobs).
  bool logprobs = false;
  int64_t top = 0;  // with logprobs: also so many of the most likely tokens, lowest token first
};

struct SamplingResult {
  ir::Value tokens;                       // s32 [rows]; 0 where the filters leave nothing
  std::optional<ir::Value> logprobs;      // f32 [rows]: of `tokens`
  std::optional<ir::Value> top_tokens;    // s32 [rows, top], most likely first
  std::optional<ir::Value> top_logprobs;  // f32 [rows, top]
  std::optional<ir::Value> counts;        // updated TokenHistory::counts
};

// Throws kInvalidArgument for shapes or dtypes that do not fit.
SamplingResult sample(const Target& target, const SamplingInputs& inputs,
                      const SamplingOptions& options = {});

// TokenHistory::counts with one more of each row's token, for rows that were sampled apart.
ir::Value count_tokens(ir::Value counts, ir::Value slots, ir::Value tokens);

struct LogprobsResult {
  ir::Value logprobs;                     // f32 [rows]: of the given tokens
  std::optional<ir::Value> top_tokens;    // s32 [rows, top]
  std::optional<ir::Value> top_logprobs;  // f32 [rows, top]
};

// Log probabilities of given tokens (s32 [rows]), as for the log probabilities of a prompt.
// -inf for a token outside the vocabulary.
LogprobsResult token_logprobs(const Target& target, ir::Value logits, ir::Value tokens,
                              int64_t top = 0);

}  // namespace ttpu::kernels
