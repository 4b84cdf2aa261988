#include "ttpu/plan/train_cost.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <fmt/ranges.h>

namespace ttpu::plan {
namespace {

constexpr int64_t kLeastTokens = 1 << 18;  // of a step whose batch nobody gave
constexpr double kLogitBytes = 1 << 28;    // of a chunk of logits in f32
constexpr double kGaps = 0.05;             // of temporaries: up to so much more the compiler takes
constexpr double kBf16 = 2;
constexpr double kF32 = 4;

double as_double(int64_t value) { return static_cast<double>(value); }

// Parameters of a device before state is divided over replicas.
struct Parameters {
  double layers = 0;
  double vocab = 0;
  double shared = 0;  // of them, those that all `tensor` devices have and train together
  double total() const { return layers + vocab; }
};

// The computation of one micro-batch on one device.
struct MicroBatch {
  double tokens = 0;       // of the replica
  double saved = 0;        // bytes of activations of a layer, kept for the backward pass
  double all = 0;          // of all that the backward pass of a layer reads
  double hidden_rows = 0;  // tokens whose states between blocks a device holds
};

// Collectives, of a micro-batch or of a step.
struct Traffic {
  double seconds = 0;
  double sent = 0;
  Traffic& operator+=(const Traffic& other) {
    seconds += other.seconds;
    sent += other.sent;
    return *this;
  }
};

class Formulas {
 public:
  Formulas(const ModelFacts& facts, const TrainWorkload& work, const TrainCandidate& candidate)
      : facts_(facts), work_(work), candidate_(candidate) {}

  TrainCost cost() const {
    TrainCost cost;
    add_memory(&cost);
    add_time(&cost);
    return cost;
  }

 private:
  double layers() const { return as_double(facts_.layers); }
  // Parameters of a device in the head, whether or not it is tied to the embedding.
  double head() const { return as_double(facts_.vocab) * as_double(facts_.hidden) / tensor(); }
  // Of all tokens of a micro-batch, f32.
  double logit_bytes(const MicroBatch& micro) const {
    return kF32 * micro.tokens * as_double(facts_.vocab) / tensor();
  }
  double tensor() const { return as_double(candidate_.tensor); }
  // States between blocks are divided by tokens.
  bool divides_tokens() const { return candidate_.strategy != "tensor"; }
  // Into how many parts stage `least` and those above it divide.
  double state_parts(int64_t least) const {
    return candidate_.zero_stage >= least ? as_double(candidate_.fsdp) : 1;
  }

  Parameters parameters() const {
    Parameters own;
    double kv = 0;
    double kv_weight = 0;
    for (const ModelFacts::Attention& layer : facts_.attention) {
      const double share = as_double(layer.layers * layer.cache_width);
      kv += share / kv_parts(layer);
      kv_weight += share;
    }
    own.shared = facts_.whole_params;
    own.layers = facts_.kv_params * kv / std::max(1.0, kv_weight) + facts_.whole_params +
                 (facts_.head_params + facts_.mlp_params + facts_.expert_params) / tensor();
    own.vocab = facts_.vocab_params / tensor();
    return own;
  }

  double kv_parts(const ModelFacts::Attention& layer) const {
    return layer.kv_heads == 0 ? tensor() : as_double(std::gcd(layer.kv_heads, candidate_.tensor));
  }

  static double kv_width(const ModelFacts::Attention& layer) {
    return as_double(layer.kv_heads == 0 ? layer.query_width + layer.output_width
                                         : layer.cache_width);
  }

  MicroBatch micro_batch() const {
    MicroBatch micro;
    micro.tokens = as_double(candidate_.micro_batch * work_.seq_len);
    micro.hidden_rows = micro.tokens / (divides_tokens() ? tensor() : 1);
    const double hidden = as_double(facts_.hidden);
    const double inner = as_double(facts_.intermediate) / tensor();
    const double routed = facts_.experts > 0 ? as_double(facts_.top_k) : 1;
    double kept = 0;   // numbers of a token in projections and attention's outputs, of all layers
    double again = 0;  // those that the backward pass reads besides: rotated
    for (const ModelFacts::Attention& layer : facts_.attention) {
      const double own =
          as_double(layer.query_width) / tensor() + kv_width(layer) / kv_parts(layer);
      kept += as_double(layer.layers) * (own + as_double(layer.output_width) / tensor());
      again += as_double(layer.layers) * own;
    }
    const double input = micro.hidden_rows * hidden;
    const double minimal = input + micro.tokens * (kept / layers() + 2 * inner) +
                           input * (1 + routed);  // what the two blocks add
    // Norms are computed in f32.
    const double all = minimal + micro.tokens * (again / layers() + 2 * inner) + 6 * input;
    micro.all = kBf16 * all;
    micro.saved = kBf16 * (candidate_.remat == "full"      ? input
                           : candidate_.remat == "minimal" ? minimal
                                                           : all);
    return micro;
  }

  void add_memory(TrainCost* cost) const {
    const Parameters own = parameters();
    const MicroBatch micro = micro_batch();
    cost->weight_bytes = kF32 * own.total() / state_parts(1);
    cost->optimizer_bytes = 2 * kF32 * own.total() / state_parts(1);
    // A layer and the one that is fetched meanwhile; the head and its gradient.
    const double two_layers = 2 * kBf16 * own.layers / layers();
    const bool gathered = candidate_.zero_stage == 3;
    cost->copy_bytes = gathered ? two_layers + kBf16 * head() : kBf16 * own.total();
    cost->gradient_bytes = kF32 * (own.total() / state_parts(2) + head());
    if (candidate_.zero_stage >= 2) cost->gradient_bytes += two_layers;
    cost->activation_bytes = layers() * micro.saved;
    // A layer computed again with its gradients, or logits and theirs.
    const double gathered_rows = micro.hidden_rows < micro.tokens ? 2 * micro.tokens : 0;
    const double layer = 1.5 * micro.all + kBf16 * gathered_rows * as_double(facts_.hidden);
    const double logits = 3 * std::min(kLogitBytes, logit_bytes(micro));
    cost->working_bytes = std::max(layer, logits);
    cost->gap_bytes = kGaps * cost->temporary_bytes();
  }

  // Of a token, forward, in the attention of all layers: what a causal mask and windows leave.
  double attention_flops() const {
    const double length = as_double(work_.seq_len);
    double flops = 0;
    for (const ModelFacts::Attention& layer : facts_.attention) {
      const double window = layer.window ? std::min(length, as_double(*layer.window)) : length;
      const double seen = window - window * (window - 1) / (2 * length);
      flops +=
          as_double(layer.layers) * 2 * as_double(layer.query_width + layer.output_width) * seen;
    }
    return flops;
  }

  // Of a token on all devices, with what is computed again.
  double hardware_flops() const {
    const bool full = candidate_.remat == "full";
    const double head = as_double(facts_.vocab) * as_double(facts_.hidden);
    const double products =
        6 * facts_.active_params() + (full ? 2 : 0) * (facts_.active_params() - head);
    // A flash kernel's backward pass multiplies five times where its forward pass does twice.
    const double passes = full ? 4.5 : 3.5;
    return products + passes * attention_flops();
  }

  // A ring of `devices`: a reduce-scatter or an all-gather of `bytes` in all.
  Traffic ring(int64_t devices, double bytes, double count) const {
    if (devices == 1) return {};
    const double n = as_double(devices);
    const double sent = (n - 1) / n * bytes;
    return {sent / candidate_.slice.ici_bandwidth(devices) + count * n / 2 * kHopSeconds, sent};
  }

  // Weights and gradients of a micro-batch: layer by layer, beside the computation.
  Traffic of_weights() const {
    const double bytes = kBf16 * parameters().total();
    const double count = layers();
    Traffic traffic;
    if (candidate_.zero_stage == 3) traffic += ring(candidate_.fsdp, 2 * bytes, 2 * count);
    if (candidate_.zero_stage >= 2) traffic += ring(candidate_.fsdp, bytes, count);
    return traffic;
  }

  // What devices that share a layer send in a micro-batch. A block gathers its tokens and scatters
  // its sums, forward and, of gradients, backward, where inputs are gathered once more; and all of
  // it where it is computed again.
  Traffic of_layers(const MicroBatch& micro) const {
    const double states = kBf16 * micro.tokens * as_double(facts_.hidden);
    const bool full = candidate_.remat == "full";
    const double again = divides_tokens() ? 2 : 0;
    const double pairs = full ? 12 : 8;
    const double count = (pairs + again) * layers();
    return ring(candidate_.tensor, count * states, count);
  }

  // The embedding's sum, the head's input and its gradient, which nothing runs beside.
  Traffic of_vocab(const MicroBatch& micro) const {
    const double states = kBf16 * micro.tokens * as_double(facts_.hidden);
    return ring(candidate_.tensor, 4 * states, 4);
  }

  // Once a step, when nothing is left to compute.
  Traffic of_step() const {
    const Parameters own = parameters();
    Traffic traffic;
    const bool divided = candidate_.zero_stage == 1 || candidate_.zero_stage == 2;
    if (divided) traffic += ring(candidate_.fsdp, kBf16 * own.total(), layers());
    if (candidate_.zero_stage == 1) traffic += ring(candidate_.fsdp, kF32 * own.total(), layers());
    traffic += ring(candidate_.data, 2 * kF32 * own.total() / state_parts(1), 2);
    traffic += ring(candidate_.tensor, 2 * kF32 * own.shared / state_parts(2), 2);
    return traffic;
  }

  // Bytes of HBM in a micro-batch.
  double micro_batch_bytes(const MicroBatch& micro) const {
    const double own = parameters().total();
    const bool full = candidate_.remat == "full";
    const double gathers = candidate_.zero_stage == 3 ? 2 : 0;
    double bytes = kBf16 * own * ((full ? 3 : 2) + gathers);
    bytes += 2 * kF32 * own / state_parts(2);                  // accumulators
    if (candidate_.zero_stage >= 2) bytes += 2 * kBf16 * own;  // to and from the links
    // Each value is written and read, its gradient too, and it is read for that.
    bytes += layers() * (micro.all * (full ? 7 : 5) + 2 * micro.saved);
    // A chunk of logits after the other: for each the head is read twice, and its gradient is
    // written and added to the sum.
    const double chunks = std::ceil(logit_bytes(micro) / kLogitBytes);
    bytes += 6 * logit_bytes(micro) + chunks * head() * (3 * kBf16 + kBf16 + 2 * kF32);
    return bytes;
  }

  // Bytes of HBM that AdamW moves: the gradient read for its norm and again, weight and moments
  // read and written, and the copy for the next step.
  double update_bytes() const {
    const double own = parameters().total();
    const double copy = candidate_.zero_stage == 3 ? 0 : kBf16 * own;
    return 8 * kF32 * own / state_parts(1) + copy;
  }

  void add_time(TrainCost* cost) const {
    const Chip& chip = candidate_.slice.chip;
    const double turns = as_double(candidate_.accumulation(work_));
    const MicroBatch micro = micro_batch();
    cost->model_flops = (6 * facts_.active_params() + 3 * attention_flops()) * work_.tokens();
    const double compute = Compute{hardware_flops() * micro.tokens / tensor()}.seconds(chip);
    const double hbm = micro_batch_bytes(micro) / chip.hbm_bandwidth;
    Traffic hidden = of_weights();
    Traffic exposed = of_vocab(micro);
    // All-reduces wait for their product; gathers and scatters go around beside it.
    (divides_tokens() ? hidden : exposed) += of_layers(micro);
    const Traffic last = of_step();
    const double update = update_bytes() / chip.hbm_bandwidth;
    cost->time.compute = turns * compute;
    cost->time.hbm = turns * hbm + update;
    cost->time.interconnect = turns * (hidden.seconds + exposed.seconds) + last.seconds;
    cost->sent_bytes = turns * (hidden.sent + exposed.sent) + last.sent;
    const double busy = std::max(compute, hbm);
    cost->exposed = turns * (exposed.seconds + std::max(0.0, hidden.seconds - busy)) + last.seconds;
    cost->seconds = turns * busy + update + cost->exposed;
  }

  const ModelFacts& facts_;
  const TrainWorkload& work_;
  const TrainCandidate& candidate_;
};

}  // namespace

TrainWorkload TrainWorkload::on_slice(const Slice& slice) const {
  TrainWorkload work = *this;
  if (work.train_batch_size > 0) return work;
  const int64_t a_round = slice.devices() * seq_len;  // tokens, with a sequence for each device
  work.train_batch_size = slice.devices() * ((kLeastTokens + a_round - 1) / a_round);
  return work;
}

double TrainWorkload::tokens() const { return as_double(train_batch_size) * as_double(seq_len); }

std::string TrainCandidate::mesh() const {
  std::vector<std::string> axes;
  if (data > 1) axes.push_back(fmt::format("data={}", data));
  if (fsdp > 1) axes.push_back(fmt::format("fsdp={}", fsdp));
  if (tensor > 1) axes.push_back(fmt::format("tensor={}", tensor));
  return axes.empty() ? "one device" : fmt::format("{}", fmt::join(axes, ", "));
}

std::string TrainCandidate::words() const {
  return fmt::format("{} with {}{}{}, remat {}, micro-batch {}", slice.name, mesh(),
                     tensor > 1 ? fmt::format(" ({})", strategy) : "",
                     fsdp > 1 ? fmt::format(", ZeRO-{}", zero_stage) : "", remat, micro_batch);
}

TrainCost train_cost(const ModelFacts& facts, const TrainWorkload& work,
                     const TrainCandidate& candidate) {
  return Formulas(facts, work, candidate).cost();
}

}  // namespace ttpu::plan
