// One micro-batch, forward and back.
#pragma once

#include <vector>

#include "ttpu/train/parts.h"
#include "ttpu/train/state.h"

namespace ttpu::train {

// The weights that the functions of a part take, as places among the state's.
struct PlacedPart {
  Part part;
  std::vector<size_t> weights;
};

struct PlacedRun {
  Run run;
  std::vector<const Part*> parts;            // one for each layer of the period
  std::vector<std::vector<size_t>> weights;  // of each of them
};

// What the passes of a program share.
struct Model {
  Model(const nn::DecoderSpec& of, const parallel::Layout& on, Sharding by)
      : spec(of), layout(on), sharding(std::move(by)) {}

  const nn::DecoderSpec& spec;
  const parallel::Layout& layout;
  Sharding sharding;
  std::vector<StateWeight> weights;
  PlacedPart embedding, head;
  std::vector<PlacedRun> runs;
  int64_t head_rows = 0;
  int64_t token_parts = 1;
};

// Gradients are sums over micro-batches, as Sharding::collected gives them.
struct Sums {
  ir::Value loss;  // of the replica's tokens
  ir::Values gradients;
};

// ready: all weights; in the form of the state where they are gathered by layer, else as they are
// computed with. tokens, targets: [tokens] i32. scale: of the loss.
Sums add_micro_batch(const Model& model, const ir::Values& ready, ir::Value tokens,
                     ir::Value targets, ir::Value scale, Sums sums);

}  // namespace ttpu::train
