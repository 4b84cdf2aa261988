#include "ttpu/engine/draft_model.h"

#include <algorithm>
#include <numeric>

#include "ttpu/base/error.h"
#include "ttpu/engine/cache_shape.h"
#include "ttpu/engine/capacity.h"
#include "ttpu/engine/device.h"
#include "ttpu/io/config.h"
#include "ttpu/models/registry.h"

namespace ttpu::engine {
namespace {

int64_t blocks_of_slot(const DraftModelOptions& options) {
  return (options.max_model_len + options.block_size - 1) / options.block_size;
}

nn::DecoderSpec spec_of(const std::filesystem::path& path) {
  return models::decoder_from_config(io::load_model_files(path).config);
}

RunnerOptions runner_options(const nn::DecoderSpec& spec, const DraftModelOptions& options) {
  const int64_t blocks = blocks_of_slot(options);
  RunnerOptions runner = options.runner;
  runner.shape.slots = options.max_num_seqs;
  runner.shape.block_size = options.block_size;
  runner.shape.blocks_per_sequence = blocks;
  runner.shape.group_blocks.assign(kv_windows(spec).size(), options.max_num_seqs * blocks);
  runner.shape.cache_dtype = options.cache_dtype;
  runner.shape.top_logprobs = std::min(runner.shape.top_logprobs, spec.vocab);
  runner.layout = {};
  runner.buckets = plan_buckets(options.max_num_seqs, options.max_num_batched_tokens, 0);
  return runner;
}

}  // namespace

int64_t DraftModel::bytes(const std::filesystem::path& path, const DraftModelOptions& options,
                          const kernels::Target& target) {
  const nn::DecoderSpec spec = spec_of(path);
  int64_t bytes = 0;
  for (const nn::LayerSpec& layer : spec.layers) {
    bytes += options.max_num_seqs * blocks_of_slot(options) *
             block_bytes(layer, options.block_size, options.cache_dtype, {}, target.platform);
  }
  if (target.platform == kernels::Platform::kCpu) return bytes;
  const auto checkpoint = io::Checkpoint::open(path);
  const WeightOptions weights{options.runner.dtype, options.runner.expand_weights,
                              options.runner.quantization};
  const RunnerOptions runner = runner_options(spec, options);
  const EngineProgram program = build_engine_program(
      spec, runner.shape, runner.buckets.front(), target, runner.dtype,
      format_of_weights(*checkpoint, weights, spec.name_prefixes), runner.layout);
  return bytes + program.weight_bytes();
}

DraftModel::DraftModel(const std::filesystem::path& path, const DraftModelOptions& options,
                       const Progress& progress)
    : options_(options) {
  const nn::DecoderSpec spec = spec_of(path);
  require(spec.vocab == options.vocab,
          "[speculation] '{}' has {} tokens, the model that it guesses for has {}; a draft model "
          "needs the same vocabulary",
          path.string(), spec.vocab, options.vocab);
  require(spec.max_positions >= options.max_model_len,
          "[speculation] '{}' takes {} tokens, --max-model-len is {}; lower it", path.string(),
          spec.max_positions, options.max_model_len);
  const int64_t blocks = blocks_of_slot(options);
  const size_t groups = kv_windows(spec).size();
  const RunnerOptions runner = runner_options(spec, options);
  runner_ = std::make_unique<Runner>(spec, path, runner, progress);
  slots_.resize(static_cast<size_t>(options.max_num_seqs));
  for (size_t s = 0; s < slots_.size(); ++s) {
    std::vector<int32_t> own(static_cast<size_t>(blocks));
    std::iota(own.begin(), own.end(), static_cast<int32_t>(s) * static_cast<int32_t>(blocks));
    slots_[s].sequence.blocks.assign(groups, own);
    slots_[s].sequence.slot = static_cast<int32_t>(s);
  }
}

void DraftModel::reset() {
  runner_->reset();
  for (Slot& slot : slots_) slot.id = -1;
  running_.clear();
}

// Brings a slot up to date: Sequence::computed is what is right in it, Sequence::drafts are the
// guesses of the last time, whose keys and values are in the cache as far as they were right.
void DraftModel::take_tokens(const Wanted& wanted) {
  const Sequence& from = *wanted.sequence;
  Slot& slot = slots_[static_cast<size_t>(from.slot)];
  Sequence& held = slot.sequence;
  if (slot.id != from.id) {
    slot.id = from.id;
    held.tokens.clear();
    held.drafts.clear();
    held.computed = 0;
  }
  const size_t known = held.tokens.size();
  held.tokens.insert(held.tokens.end(), from.tokens.begin() + static_cast<std::ptrdiff_t>(known),
                     from.tokens.end());
  // The last guess was not computed.
  for (size_t i = 0; i + 1 < held.drafts.size() && known + i < held.tokens.size() &&
                     held.drafts[i] == held.tokens[known + i];
       ++i) {
    ++held.computed;
  }
  held.computed = std::min(held.computed, static_cast<int64_t>(held.tokens.size()) - 1);
  held.drafts.clear();
}

void DraftModel::add_row(const Wanted& wanted, int64_t token, int64_t place) {
  Row row;
  row.token = token;
  row.slot = wanted.sequence->slot;
  row.sampling = wanted.sampling;
  row.position =
      static_cast<int64_t>(wanted.sequence->tokens.size()) - wanted.sequence->prompt_length + place;
  rows_.push_back(row);
  targets_.push_back(&wanted.sequence->drafts);
}

void DraftModel::launch() {
  if (items_.empty()) return;
  if (runner_->in_flight() == Runner::kMostInFlight) finish();
  runner_->launch(items_, rows_, false);
  running_.push_back(targets_);
  items_.clear();
  rows_.clear();
  targets_.clear();
}

void DraftModel::finish() {
  const StepResult result = runner_->finish();
  const std::vector<std::vector<int32_t>*>& targets = running_.front();
  for (size_t i = 0; i < targets.size(); ++i) targets[i]->push_back(result.tokens[i]);
  running_.erase(running_.begin());
}

// What the model has not seen of each sequence, in steps as large as they may be; the first guess
// comes of a sequence's last token.
void DraftModel::read_and_guess(std::span<const Wanted> wanted) {
  std::vector<const Wanted*> order;
  for (const Wanted& one : wanted) order.push_back(&one);
  const auto held = [&](const Wanted* one) -> Sequence& {
    return slots_[static_cast<size_t>(one->sequence->slot)].sequence;
  };
  const auto missing = [&](const Wanted* one) {
    return static_cast<int64_t>(held(one).tokens.size()) - held(one).computed;
  };
  // Decodes stand first in a step.
  std::stable_partition(order.begin(), order.end(),
                        [&](const Wanted* one) { return missing(one) == 1; });
  int64_t token = 0;
  for (const Wanted* one : order) {
    while (missing(one) > 0) {
      if (token == options_.max_num_batched_tokens) {
        launch();
        token = 0;
      }
      Sequence& sequence = held(one);
      const int64_t count = std::min(missing(one), options_.max_num_batched_tokens - token);
      const bool last = count == missing(one);
      items_.push_back({&sequence, sequence.computed, count, last, 0});
      sequence.computed += count;
      token += count;
      if (last) add_row(*one, token - 1, 0);
    }
  }
  launch();
}

// One token each, which the device alone knows.
void DraftModel::guess_more(std::span<const Wanted> wanted, int64_t place) {
  for (const Wanted& one : wanted) {
    if (one.most <= place) continue;
    Sequence& held = slots_[static_cast<size_t>(one.sequence->slot)].sequence;
    const auto first = static_cast<int64_t>(held.tokens.size()) + place - 1;
    items_.push_back({&held, first, 1, true, 0});
    add_row(one, static_cast<int64_t>(items_.size()) - 1, place);
  }
  launch();
}

void DraftModel::propose(std::span<const Wanted> wanted) {
  int64_t most = 0;
  for (const Wanted& one : wanted) {
    take_tokens(one);
    most = std::max(most, one.most);
  }
  read_and_guess(wanted);
  for (int64_t place = 1; place < most; ++place) guess_more(wanted, place);
  while (runner_->in_flight() > 0) finish();
  for (const Wanted& one : wanted) {
    slots_[static_cast<size_t>(one.sequence->slot)].sequence.drafts = one.sequence->drafts;
  }
}

}  // namespace ttpu::engine
