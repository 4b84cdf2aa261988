// What the host writes for a step: the tokens and tables of its sequences, and the parameters of
// its rows.
#include <algorithm>
#include <bit>

#include "ttpu/base/error.h"
#include "ttpu/engine/runner.h"

namespace ttpu::engine {
namespace {

int32_t bits(double value) { return std::bit_cast<int32_t>(static_cast<float>(value)); }

// What stands at a position: known, a draft, or known to the device alone.
int32_t token_at(const Sequence& sequence, int64_t position) {
  const auto known = static_cast<int64_t>(sequence.tokens.size());
  if (position < known) return sequence.tokens[static_cast<size_t>(position)];
  const auto draft = static_cast<size_t>(position - known);
  return draft < sequence.drafts.size() ? sequence.drafts[draft] : -1 - sequence.slot;
}

}  // namespace

// Items and rows of each replica lie together.
void Runner::divide(Flight& flight, std::span<const Scheduled> items,
                    std::span<const Row> rows) const {
  int64_t token = 0;
  size_t item = 0;
  size_t row = 0;
  for (size_t replica = 0; replica < flight.shares.size(); ++replica) {
    Share& share = flight.shares[replica];
    const size_t first_item = item;
    const size_t first_row = row;
    share.first_token = token;
    while (item < items.size() && items[item].sequence->replica == static_cast<int32_t>(replica)) {
      token += items[item++].count;
    }
    while (row < rows.size() && rows[row].token < token) ++row;
    share.items = items.subspan(first_item, item - first_item);
    share.rows = rows.subspan(first_row, row - first_row);
    share.tokens = token - share.first_token;
  }
  require(item == items.size() && row == rows.size(),
          "[engine] a step's items are not in the order of their replicas");
}

void Runner::fill_step(const Step& step, bool logprobs, Share& share) const {
  const std::span<const Scheduled> items = share.items;
  std::vector<int32_t>& packed = share.step;
  const StepLayout& layout = step.layout;
  const Bucket& bucket = step.bucket;
  packed.assign(static_cast<size_t>(layout.total()), 0);
  const auto field = [&](StepField which) { return packed.data() + layout.offset(which); };
  int32_t* tokens = field(StepField::kTokens);
  int32_t* positions = field(StepField::kPositions);
  int32_t* kv_lens = field(StepField::kKvLens);
  int32_t* cu_q_lens = field(StepField::kCuQLens);
  int32_t* pages = field(StepField::kPages);
  int32_t count = 0;
  int32_t decodes = 0;
  for (size_t s = 0; s < items.size(); ++s) {
    const Scheduled& item = items[s];
    const Sequence& sequence = *item.sequence;
    for (int64_t i = item.first; i < item.first + item.count; ++i) {
      positions[count] = static_cast<int32_t>(i);
      tokens[count++] = token_at(sequence, i);
    }
    kv_lens[s] = static_cast<int32_t>(item.first + item.count);
    cu_q_lens[s + 1] = count;
    if (item.count == 1 && decodes == static_cast<int32_t>(s)) ++decodes;
    for (int64_t g = 0; g < groups_; ++g) {
      int32_t* table = pages + (g * bucket.sequences + static_cast<int64_t>(s)) *
                                   options_.shape.blocks_per_sequence;
      const std::vector<int32_t>& blocks = sequence.blocks[static_cast<size_t>(g)];
      for (size_t b = 0; b < blocks.size(); ++b) table[b] = std::max(blocks[b], 0);
    }
  }
  std::fill(cu_q_lens + items.size() + 1, cu_q_lens + bucket.sequences + 1, count);
  int32_t* distribution = field(StepField::kDistribution);
  distribution[0] = distribution[1] = decodes;
  distribution[2] = static_cast<int32_t>(items.size());
  *field(StepField::kLogprobs) = logprobs ? 1 : 0;
  fill_rows(step, share);
}

void Runner::fill_rows(const Step& step, Share& share) const {
  const std::span<const Row> rows = share.rows;
  const auto field = [&](StepField which) { return share.step.data() + step.layout.offset(which); };
  static const SamplingParams kGreedy;
  for (size_t r = 0; r < static_cast<size_t>(step.bucket.rows); ++r) {
    Row padding;
    padding.token = share.first_token;
    const Row& row = r < rows.size() ? rows[r] : padding;
    const SamplingParams& params = row.sampling == nullptr ? kGreedy : *row.sampling;
    field(StepField::kRows)[r] = static_cast<int32_t>(row.token - share.first_token);
    field(StepField::kRowSlots)[r] = row.slot;
    field(StepField::kRowTargets)[r] = row.target;
    field(StepField::kTemperature)[r] = bits(params.temperature);
    field(StepField::kTopK)[r] = static_cast<int32_t>(params.top_k);
    field(StepField::kTopP)[r] = bits(params.top_p);
    field(StepField::kMinP)[r] = bits(params.min_p);
    field(StepField::kSeeds)[2 * r] = static_cast<int32_t>(params.seed & 0xffffffff);
    field(StepField::kSeeds)[2 * r + 1] = static_cast<int32_t>(params.seed >> 32);
    field(StepField::kSamplePosition)[r] = static_cast<int32_t>(row.position);
    field(StepField::kHistorySlots)[r] = params.has_penalties() ? row.slot : -1;
    field(StepField::kRepetition)[r] = bits(params.repetition_penalty);
    field(StepField::kFrequency)[r] = bits(params.frequency_penalty);
    field(StepField::kPresence)[r] = bits(params.presence_penalty);
  }
}

}  // namespace ttpu::engine
