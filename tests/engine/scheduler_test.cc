// The scheduler and the cache of blocks on a device of numbers: its memory holds tokens in the
// place of keys and values, and it checks that every token sees its own sequence.
#include "ttpu/engine/scheduler.h"

#include <deque>
#include <memory>
#include <numeric>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

struct Arrangement {
  std::vector<KvGroup> groups;
  int64_t block_size = 4;
  SchedulerOptions options;
  bool prefix_caching = true;
};

// The token after these: depends on them all, and on nothing else.
int32_t next_token(std::span<const int32_t> tokens) {
  uint32_t sum = 17;
  for (const int32_t token : tokens) sum = sum * 31 + static_cast<uint32_t>(token);
  return static_cast<int32_t>((sum >> 3) % 4);
}

std::vector<int32_t> expected_tokens(std::vector<int32_t> tokens, int64_t length) {
  while (static_cast<int64_t>(tokens.size()) < length) tokens.push_back(next_token(tokens));
  return tokens;
}

class Device {
 public:
  Device(const Arrangement& setup, KvCache& cache, Scheduler& scheduler)
      : setup_(setup), cache_(cache), scheduler_(scheduler) {
    for (const KvGroup& group : setup.groups) {
      memory_.emplace_back(static_cast<size_t>(group.blocks * setup.block_size), -1);
    }
    last_tokens_.resize(static_cast<size_t>(setup.options.max_num_seqs), -1);
  }

  // Runs what is scheduled, one step ahead of what the host learns. False when nothing is left.
  bool step() {
    const std::span<const Scheduled> items = scheduler_.schedule();
    if (!items.empty()) run({items.begin(), items.end()});
    if (launched_.empty()) return false;
    if (items.empty() || launched_.size() == 2) finish();
    return true;
  }

  int64_t max_tokens_of_a_step() const { return max_tokens_; }
  int64_t computed() const { return computed_; }
  int64_t copies() const { return copies_; }

 private:
  struct Launched {
    std::vector<Scheduled> items;
    std::vector<int32_t> tokens;
  };

  void run(std::vector<Scheduled> items) {
    Launched launched{std::move(items), {}};
    int64_t total = 0;
    for (const BlockCopy& copy : cache_.copies()) {
      const auto at = [&](int32_t block) {
        return memory_[static_cast<size_t>(copy.group)].begin() + block * setup_.block_size;
      };
      std::copy_n(at(copy.from), setup_.block_size, at(copy.to));
      ++copies_;
    }
    // All of a step is written before any of it is read, and the other way round: a block that
    // changes hands within a step would show in one of the two.
    for (const Scheduled& item : launched.items) write(item);
    for (const Scheduled& item : launched.items) {
      total += item.count;
      const std::vector<int32_t> tokens = tokens_of(item);
      launched.tokens.push_back(item.samples ? next_token(tokens) : -1);
    }
    for (size_t i = 0; i < launched.items.size(); ++i) {
      const Scheduled& item = launched.items[i];
      if (item.samples) last_tokens_[static_cast<size_t>(item.sequence->slot)] = launched.tokens[i];
    }
    max_tokens_ = std::max(max_tokens_, total);
    computed_ += total;
    launched_.push_back(std::move(launched));
  }

  int32_t input(const Sequence& sequence, int64_t position) const {
    return position < static_cast<int64_t>(sequence.tokens.size())
               ? sequence.tokens[static_cast<size_t>(position)]
               : last_tokens_[static_cast<size_t>(sequence.slot)];
  }

  int32_t& cell(size_t group, const Sequence& sequence, int64_t position) {
    const int32_t block =
        sequence.blocks[group].at(static_cast<size_t>(position / setup_.block_size));
    EXPECT_NE(block, Sequence::kNoBlock) << "position " << position;
    return memory_[group].at(
        static_cast<size_t>(block * setup_.block_size + position % setup_.block_size));
  }

  void write(const Scheduled& item) {
    for (size_t g = 0; g < memory_.size(); ++g) {
      for (int64_t i = item.first; i < item.first + item.count; ++i) {
        cell(g, *item.sequence, i) = input(*item.sequence, i);
      }
    }
  }

  // What the last token of the item sees, read from the memory of the first group, which has no
  // window; other groups must hold the same as far as their windows reach.
  std::vector<int32_t> tokens_of(const Scheduled& item) {
    const int64_t end = item.first + item.count;
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < end; ++i) tokens.push_back(cell(0, *item.sequence, i));
    for (size_t g = 1; g < memory_.size(); ++g) {
      const int64_t window = *setup_.groups[g].window;
      for (int64_t i = std::max<int64_t>(item.first - window + 1, 0); i < end; ++i) {
        EXPECT_EQ(cell(g, *item.sequence, i), tokens[static_cast<size_t>(i)]);
      }
    }
    return tokens;
  }

  void finish() {
    for (size_t i = 0; i < launched_.front().items.size(); ++i) {
      const Scheduled& item = launched_.front().items[i];
      scheduler_.complete(item, std::span(&launched_.front().tokens[i], 1));
      Sequence& sequence = *item.sequence;
      if (!sequence.finished &&
          static_cast<int64_t>(sequence.tokens.size()) >= sequence.max_length) {
        scheduler_.finish(sequence);
      }
    }
    launched_.pop_front();
  }

  const Arrangement& setup_;
  KvCache& cache_;
  Scheduler& scheduler_;
  std::vector<std::vector<int32_t>> memory_;
  std::vector<int32_t> last_tokens_;
  std::deque<Launched> launched_;
  int64_t max_tokens_ = 0;
  int64_t computed_ = 0;
  int64_t copies_ = 0;
};

std::unique_ptr<Sequence> make_sequence(int64_t id, std::vector<int32_t> prompt, int64_t answer) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->prompt_length = static_cast<int64_t>(prompt.size());
  sequence->max_length = sequence->prompt_length + answer;
  sequence->tokens = std::move(prompt);
  return sequence;
}

struct Case {
  Arrangement setup;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<int64_t> answers;
  std::vector<int64_t> arrivals;  // the step before which each comes
  std::vector<int64_t> copies;    // further answers to the same prompt
};

Case draw_case() {
  Case drawn;
  Arrangement& setup = drawn.setup;
  setup.block_size = *rc::gen::inRange<int64_t>(1, 6);
  setup.options.max_num_seqs = *rc::gen::inRange<int64_t>(1, 6);
  setup.options.max_rows = setup.options.max_num_seqs;
  setup.options.max_num_batched_tokens =
      setup.options.max_num_seqs + *rc::gen::inRange<int64_t>(0, 12);
  setup.prefix_caching = *rc::gen::arbitrary<bool>();
  const auto count = *rc::gen::inRange<size_t>(1, 12);
  int64_t longest = 0;
  for (size_t i = 0; i < count; ++i) {
    // Few symbols, so that prompts share prefixes.
    drawn.prompts.push_back(*rc::gen::container<std::vector<int32_t>>(
        *rc::gen::inRange<size_t>(1, 24), rc::gen::inRange(0, 2)));
    drawn.answers.push_back(*rc::gen::inRange<int64_t>(1, 16));
    drawn.arrivals.push_back(*rc::gen::inRange<int64_t>(0, 30));
    drawn.copies.push_back(*rc::gen::weightedElement<int64_t>({{3, 0}, {1, 1}, {1, 3}}));
    longest =
        std::max(longest, static_cast<int64_t>(drawn.prompts.back().size()) + drawn.answers.back());
  }
  // At least one sequence fits; more or less often they get in each other's way.
  const int64_t least = (longest + setup.block_size - 1) / setup.block_size;
  setup.groups.push_back({least + *rc::gen::inRange<int64_t>(0, 12), std::nullopt});
  if (*rc::gen::arbitrary<bool>()) {
    const int64_t window = *rc::gen::inRange<int64_t>(1, 9);
    const int64_t most =
        blocks_of_sequence(window, longest, setup.options.max_num_batched_tokens, setup.block_size);
    setup.groups.push_back({most + *rc::gen::inRange<int64_t>(0, 6), window});
  }
  return drawn;
}

RC_GTEST_PROP(Scheduler, EverySequenceIsServedAsIfItWereAlone, ()) {
  const Case drawn = draw_case();
  KvCache cache(drawn.setup.groups, drawn.setup.block_size, drawn.setup.prefix_caching);
  Scheduler scheduler(drawn.setup.options, cache);
  Device device(drawn.setup, cache, scheduler);
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<size_t> order(drawn.prompts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return drawn.arrivals[a] < drawn.arrivals[b]; });
  size_t arrived = 0;
  int64_t steps = 0;
  while (true) {
    for (; arrived < order.size() && drawn.arrivals[order[arrived]] <= steps; ++arrived) {
      const size_t which = order[arrived];
      const Sequence* leader = nullptr;
      for (int64_t copy = 0; copy <= drawn.copies[which]; ++copy) {
        sequences.push_back(make_sequence(static_cast<int64_t>(sequences.size()),
                                          drawn.prompts[which], drawn.answers[which]));
        sequences.back()->leader = leader;
        if (leader == nullptr) leader = sequences.back().get();
        scheduler.add(*sequences.back());
      }
    }
    const bool more = device.step();
    ++steps;
    RC_ASSERT(steps < 10000);  // nobody starves
    if (!more && arrived == order.size()) break;
  }
  for (const auto& sequence : sequences) {
    const std::vector<int32_t> prompt(sequence->tokens.begin(),
                                      sequence->tokens.begin() + sequence->prompt_length);
    RC_ASSERT(sequence->finished);
    RC_ASSERT(sequence->tokens == expected_tokens(prompt, sequence->max_length));
    RC_ASSERT(sequence->in_flight == 0);
  }
  RC_ASSERT(cache.usage() == 0);  // no block leaks
  RC_ASSERT(device.max_tokens_of_a_step() <= drawn.setup.options.max_num_batched_tokens);
}

TEST(Scheduler, DecodesGoOnWhileALongPromptIsRead) {
  Arrangement setup;
  setup.groups = {{64, std::nullopt}};
  setup.options = {2, 8, 2};
  KvCache cache(setup.groups, setup.block_size, true);
  Scheduler scheduler(setup.options, cache);
  const auto prompt = make_sequence(0, std::vector<int32_t>(40, 1), 4);
  const auto other = make_sequence(1, {2, 3}, 8);
  scheduler.add(*prompt);
  scheduler.add(*other);
  Device device(setup, cache, scheduler);
  for (int i = 0; i < 5; ++i) device.step();
  EXPECT_LT(prompt->computed, 40);
  EXPECT_GT(other->tokens.size(), 2u) << "the short one answers before the long one is read";
}

TEST(Scheduler, ASecondRequestWithTheSamePrefixComputesOnlyTheRest) {
  Arrangement setup;
  setup.groups = {{64, std::nullopt}};
  setup.options = {1, 64, 1};
  KvCache cache(setup.groups, setup.block_size, true);
  Scheduler scheduler(setup.options, cache);
  Device device(setup, cache, scheduler);
  std::vector<int32_t> prompt(18, 1);
  const auto first = make_sequence(0, prompt, 2);
  scheduler.add(*first);
  while (device.step()) {
  }
  const auto second = make_sequence(1, prompt, 2);
  scheduler.add(*second);
  while (device.step()) {
  }
  EXPECT_EQ(second->cached_prefix, 16) << "four blocks of four";
  const auto salted = make_sequence(2, prompt, 2);
  salted->salt = salt_hash("another user");
  scheduler.add(*salted);
  while (device.step()) {
  }
  EXPECT_EQ(salted->cached_prefix, 0);
}

TEST(Scheduler, SeveralAnswersToAPromptComputeItOnceAndCopyItsLastBlock) {
  Arrangement setup;
  setup.groups = {{64, std::nullopt}};
  setup.options = {3, 8, 3};
  setup.prefix_caching = false;  // the blocks come from the first sequence, and not by their hashes
  KvCache cache(setup.groups, setup.block_size, setup.prefix_caching);
  Scheduler scheduler(setup.options, cache);
  Device device(setup, cache, scheduler);
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (int64_t i = 0; i < 3; ++i) {
    sequences.push_back(make_sequence(i, std::vector<int32_t>(18, 1), 5));
    if (i > 0) sequences[static_cast<size_t>(i)]->leader = sequences[0].get();
    scheduler.add(*sequences.back());
  }
  while (device.step()) {
  }
  // The prompt, its last token for the two others, and four tokens of each answer.
  EXPECT_EQ(device.computed(), 18 + 2 + 3 * 4);
  EXPECT_EQ(device.copies(), 2) << "the last to write has the block for itself";
  for (const auto& sequence : sequences) {
    EXPECT_EQ(sequence->tokens, expected_tokens(std::vector<int32_t>(18, 1), 23));
  }
  EXPECT_EQ(cache.usage(), 0);
}

TEST(Scheduler, AHigherPriorityGoesFirst) {
  Arrangement setup;
  setup.groups = {{16, std::nullopt}};
  setup.options = {1, 16, 1};
  KvCache cache(setup.groups, setup.block_size, true);
  Scheduler scheduler(setup.options, cache);
  const auto late = make_sequence(0, {1, 2}, 2);
  const auto urgent = make_sequence(1, {3, 4}, 2);
  urgent->priority = -1;
  scheduler.add(*late);
  scheduler.add(*urgent);
  const std::span<const Scheduled> items = scheduler.schedule();
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].sequence, urgent.get());
}

TEST(Scheduler, ASequenceThatCannotEverRunIsRefused) {
  KvCache cache({{2, std::nullopt}}, 4, true);
  Scheduler scheduler({1, 16, 1}, cache);
  const auto sequence = make_sequence(0, std::vector<int32_t>(8, 1), 1);
  EXPECT_THROW(scheduler.add(*sequence), Error);
}

TEST(BlockPool, TheLeastRecentlyUsedBlockIsEvictedFirst) {
  BlockPool pool(3);
  const BlockHash hashes[3] = {{1, 1}, {2, 2}, {3, 3}};
  int32_t blocks[3];
  for (int i = 0; i < 3; ++i) {
    blocks[i] = pool.take();
    pool.publish(blocks[i], hashes[i]);
  }
  pool.release(blocks[1]);
  pool.release(blocks[0]);
  pool.release(blocks[2]);
  EXPECT_EQ(pool.free(), 3);
  pool.take();
  EXPECT_FALSE(pool.find(hashes[1]));
  ASSERT_TRUE(pool.find(hashes[0]));
  pool.share(*pool.find(hashes[0]));  // used again: the next eviction passes it by
  pool.take();
  EXPECT_TRUE(pool.find(hashes[0]));
  EXPECT_FALSE(pool.find(hashes[2]));
  EXPECT_THROW(pool.take(), Error);
}

}  // namespace
}  // namespace ttpu::engine
