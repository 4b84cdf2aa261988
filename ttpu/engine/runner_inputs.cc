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
void Runner::divide(std::span<const Scheduled> items, std::span<const Row> rows) {
  int64_t token = 0;
  size_t item = 0;
  size_t row = 0;
  for (size_t replica = 0; replica < shares_.size(); ++replica) {
    Share& share = shares_[replica];
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

void Runner::fill_step(const Step& step, const Share& share, bool logprobs,
                       ReplicaInputs& inputs) const {
  const std::span<const Scheduled> items = share.items;
  std::vector<int32_t>& packed = inputs.step;
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
  inputs.rows = static_cast<int64_t>(share.rows.size());
  fill_rows(step, share, inputs);
  fill_biases(step, share.rows, inputs);
  fill_allowed(step, share.rows, inputs);
}

void Runner::fill_rows(const Step& step, const Share& share, ReplicaInputs& inputs) const {
  const std::span<const Row> rows = share.rows;
  const auto field = [&](StepField which) {
    return inputs.step.data() + step.layout.offset(which);
  };
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

void Runner::fill_biases(const Step& step, std::span<const Row> rows, ReplicaInputs& inputs) const {
  inputs.bias_tokens.clear();
  inputs.bias_values.clear();
  if (std::none_of(rows.begin(), rows.end(), [](const Row& row) {
        return !row.bias.empty() || (row.sampling != nullptr && !row.sampling->logit_bias.empty());
      })) {
    return;
  }
  const auto width = static_cast<size_t>(options_.shape.biases);
  const auto padded = static_cast<size_t>(step.bucket.rows);
  inputs.bias_tokens.assign(padded * width, -1);
  inputs.bias_values.assign(padded * width, 0);
  for (size_t r = 0; r < rows.size(); ++r) {
    size_t next = r * width;
    const auto add = [&](std::span<const std::pair<int32_t, float>> biases) {
      for (const auto& [token, value] : biases) {
        require(next < (r + 1) * width, "[engine] more than {} biased tokens", width);
        inputs.bias_tokens[next] = token;
        inputs.bias_values[next++] = value;
      }
    };
    if (rows[r].sampling != nullptr) add(rows[r].sampling->logit_bias);
    add(rows[r].bias);
  }
}

void Runner::fill_allowed(const Step& step, std::span<const Row> rows,
                          ReplicaInputs& inputs) const {
  inputs.allowed.clear();
  if (std::all_of(rows.begin(), rows.end(), [](const Row& row) { return row.allowed.empty(); })) {
    return;
  }
  const auto words = static_cast<size_t>((vocab_ + 31) / 32);
  inputs.allowed.assign(static_cast<size_t>(step.bucket.rows) * words, ~uint32_t{0});
  for (size_t r = 0; r < rows.size(); ++r) {
    std::copy(rows[r].allowed.begin(), rows[r].allowed.end(),
              inputs.allowed.begin() + static_cast<std::ptrdiff_t>(r * words));
  }
}

void Runner::check(const StepInputs& inputs) const {
  const auto program = static_cast<size_t>(inputs.program);  // of a negative one, a large one
  bool fits = program < steps_.size() && inputs.replicas.size() == shares_.size();
  for (size_t i = 0; fits && i < inputs.replicas.size(); ++i) {
    const ReplicaInputs& replica = inputs.replicas[i];
    const Step& step = steps_[program];
    const auto rows = static_cast<size_t>(step.bucket.rows);
    const auto either = [](size_t size, size_t whole) { return size == 0 || size == whole; };
    fits = replica.rows >= 0 && replica.rows <= step.bucket.rows &&
           replica.step.size() == static_cast<size_t>(step.layout.total()) &&
           either(replica.bias_tokens.size(), rows * static_cast<size_t>(options_.shape.biases)) &&
           replica.bias_values.size() == replica.bias_tokens.size() &&
           either(replica.allowed.size(), rows * static_cast<size_t>((vocab_ + 31) / 32));
  }
  require(fits, "[engine] the inputs of a step are not those of program {}", inputs.program);
}

}  // namespace ttpu::engine
