#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ttpu/kernels/cpu/scratch.h"
#include "ttpu/kernels/sampling/cpu/isa_sampling.h"
#include "ttpu/kernels/sampling/cpu/kernel.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr float kEverything = -kNothing;
constexpr float kGreedyBelow = 1e-5f;
// Where the end of a nucleus is looked for first: weights below e^-32 seldom matter. So many
// halvings leave few logits to sort.
constexpr float kFar = 32;
constexpr int kHalvings = 12;

const SamplingIsa& isa_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Sampling;
  if (isa == Isa::kAvx2) return kAvx2Sampling;
#endif
  static_cast<void>(isa);
  return kPortableSampling;
}

struct Candidate {
  float logit;
  int32_t token;
};
bool before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}
using Candidates = std::vector<Candidate>;

// A row of logits as prepare left it.
struct Row {
  const float* x;
  const float* most;
  int64_t blocks;
  float top = kNothing;
  int32_t best = 0;  // the lowest token of the largest logit
};

Row prepare_row(const SamplingIsa& isa, const float* x, const uint32_t* allowed, float factor,
                int64_t vocab) {
  const int64_t blocks = logit_blocks(vocab);
  auto* out = thread_scratch_of<float>(0, blocks * kLogitBlock);
  auto* most = thread_scratch_of<float>(1, blocks);
  isa.prepare(x, allowed, factor, vocab, out, most);
  Row row{out, most, blocks};
  const int64_t block = std::max_element(most, most + blocks) - most;
  row.top = most[block];
  if (row.top == kNothing) return row;
  const float* at = out + block * kLogitBlock;
  row.best = static_cast<int32_t>(std::find(at, at + kLogitBlock, row.top) - out);
  return row;
}

// All tokens of at least `bound` and below `end`.
void collect(const Row& row, float bound, float end, Candidates& out) {
  out.clear();
  for (int64_t b = 0; b < row.blocks; ++b) {
    if (row.most[b] < bound) continue;
    for (int64_t i = b * kLogitBlock; i < (b + 1) * kLogitBlock; ++i) {
      if (row.x[i] >= bound && row.x[i] < end && row.x[i] > kNothing) {
        out.push_back({row.x[i], static_cast<int32_t>(i)});
      }
    }
  }
}

// The k largest and what equals the last of them; fewer where there are no more. Gives the last.
float collect_largest(const Row& row, int64_t k, Candidates& out) {
  float bound = kNothing;
  if (k <= row.blocks) {
    // The k-th largest of all is no smaller than the k-th largest of the blocks' maxima.
    auto* most = thread_scratch_of<float>(2, row.blocks);
    std::copy(row.most, row.most + row.blocks, most);
    std::nth_element(most, most + k - 1, most + row.blocks, std::greater<>());
    bound = most[k - 1];
  }
  collect(row, bound, kEverything, out);
  if (static_cast<int64_t>(out.size()) < k) return kNothing;
  std::nth_element(out.begin(), out.begin() + (k - 1), out.end(), before);
  const float last = out[static_cast<size_t>(k - 1)].logit;
  std::erase_if(out, [&](const Candidate& c) { return c.logit < last; });
  return last;
}

// The last of the most likely tokens whose weights reach `p` of all that are at least `least`.
Candidate last_of_nucleus(const SamplingIsa& isa, const Row& row, float least, double p,
                          Candidates& candidates) {
  const auto sum_from = [&](float from) {
    return isa.sum_exp(row.x, row.most, row.blocks, row.top, from);
  };
  const double wanted = p * sum_from(least);
  // The sum from `low` on reaches what is wanted, that from `high` on does not.
  float low = std::max(least, row.top - kFar), high = kEverything;
  double sum = 0;
  if (low > least && sum_from(low) < wanted) {
    high = low;
    low = least;
    sum = sum_from(high);
  }
  for (int i = 0; i < kHalvings && low > kNothing; ++i) {
    const float middle = low + (std::min(high, row.top) - low) / 2;
    if (middle <= low) break;
    const double from_middle = sum_from(middle);
    if (from_middle >= wanted) {
      low = middle;
    } else {
      high = middle;
      sum = from_middle;
    }
  }
  collect(row, low, high, candidates);
  std::sort(candidates.begin(), candidates.end(), before);
  Candidate last{row.top, row.best};
  for (const Candidate& one : candidates) {
    if (sum >= wanted) break;
    last = one;
    sum += std::exp(static_cast<double>(one.logit) - static_cast<double>(row.top));
  }
  return last;
}

Draw filter(const Sampling& c, int64_t r, const SamplingIsa& isa, const Row& row) {
  static thread_local Candidates candidates;
  Draw draw;
  draw.best = row.best;
  draw.tie_token = std::numeric_limits<int32_t>::max();
  draw.threshold = c.min_p[r] > 0 ? row.top + std::log(c.min_p[r]) : kNothing;
  const int64_t k = c.top_k[r];
  const bool limited = k >= 1 && k < c.vocab;
  if (limited) draw.threshold = std::max(draw.threshold, collect_largest(row, k, candidates));
  const double p = static_cast<double>(c.top_p[r]);
  if (!(p < 1) || draw.threshold > row.top) return draw;
  const Candidate last = last_of_nucleus(isa, row, draw.threshold, p, candidates);
  draw.threshold = last.logit;
  draw.tie_token = last.token;
  return draw;
}

bool has_history(const Sampling& c, int64_t r) {
  return c.counts != nullptr && c.slots[r] >= 0 && c.slots[r] < c.slot_count;
}

// The row's logits with penalties and bias: where they lie, or in scratch memory.
const float* changed_logits(const Sampling& c, int64_t r, const SamplingIsa& isa) {
  const float* x = c.logits + r * c.vocab;
  float* out = nullptr;
  const auto room = [&] { return thread_scratch_of<float>(3, c.vocab); };
  if (has_history(c, r) && (c.repetition[r] != 1 || c.frequency[r] != 0 || c.presence[r] != 0)) {
    out = room();
    isa.penalize(x, c.counts + c.slots[r] * c.vocab, c.repetition[r], c.frequency[r], c.presence[r],
                 c.vocab, out);
  }
  for (int64_t i = r * c.biases; i < (r + 1) * c.biases; ++i) {
    const int32_t token = c.bias_tokens[i];
    if (token < 0 || token >= c.vocab) continue;
    if (out == nullptr) {
      out = room();
      std::memcpy(out, x, static_cast<size_t>(c.vocab) * sizeof(float));
    }
    out[token] += c.bias_values[i];
  }
  return out == nullptr ? x : out;
}

int32_t sample_row(const Sampling& c, int64_t r, const SamplingIsa& isa) {
  const bool greedy = c.temperature[r] < kGreedyBelow;
  const uint32_t* allowed = c.allowed == nullptr ? nullptr : c.allowed + r * ((c.vocab + 31) / 32);
  const Row row = prepare_row(isa, changed_logits(c, r, isa), allowed,
                              greedy ? 1.f : 1.f / c.temperature[r], c.vocab);
  if (greedy || row.top == kNothing) return row.best;
  Draw draw = filter(c, r, isa, row);
  draw.seed[0] = c.seeds[2 * r];
  draw.seed[1] = c.seeds[2 * r + 1];
  draw.position = c.position[r];
  return isa.draw(row.x, row.most, row.blocks, draw);
}

void count_tokens(const Sampling& c) {
  for (int64_t r = 0; r < c.rows; ++r) {
    if (!has_history(c, r)) continue;
    uint16_t& count = c.counts[c.slots[r] * c.vocab + c.tokens[r]];
    if (count < 65534) count = static_cast<uint16_t>(count + 2);
  }
}

void logprobs_of_row(const Logprobs& c, int64_t r, const SamplingIsa& isa) {
  static thread_local Candidates candidates;
  const Row row = prepare_row(isa, c.logits + r * c.vocab, nullptr, 1, c.vocab);
  const auto total =
      static_cast<float>(static_cast<double>(row.top) +
                         std::log(isa.sum_exp(row.x, row.most, row.blocks, row.top, kNothing)));
  const int32_t token = c.tokens[r];
  c.logprobs[r] = token >= 0 && token < c.vocab ? row.x[token] - total : kNothing;
  if (c.top == 0) return;
  collect_largest(row, c.top, candidates);
  // Where too few are possible, impossible ones follow.
  for (int32_t t = 0; static_cast<int64_t>(candidates.size()) < c.top; ++t) {
    if (row.x[t] == kNothing) candidates.push_back({kNothing, t});
  }
  std::partial_sort(candidates.begin(), candidates.begin() + c.top, candidates.end(), before);
  for (int64_t i = 0; i < c.top; ++i) {
    const Candidate& one = candidates[static_cast<size_t>(i)];
    c.top_tokens[r * c.top + i] = one.token;
    c.top_logprobs[r * c.top + i] = one.logit - total;
  }
}

}  // namespace

void sample(const Sampling& c, TaskPool* pool, Isa isa) {
  const SamplingIsa& kernels = isa_kernels(isa);
  parallel_for(pool, c.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) c.tokens[r] = sample_row(c, r, kernels);
  });
  if (c.counts != nullptr) count_tokens(c);
}

void token_logprobs(const Logprobs& c, TaskPool* pool, Isa isa) {
  const SamplingIsa& kernels = isa_kernels(isa);
  parallel_for(pool, c.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) logprobs_of_row(c, r, kernels);
  });
}

}  // namespace ttpu::kernels::cpu
