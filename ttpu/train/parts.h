// The parts of a model that a step of training goes through, each as a function and its gradient:
// embedding, layers, head. A device's part of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ttpu/grad/pullback.h"
#include "ttpu/nn/layer_trace.h"
#include "ttpu/train/options.h"

namespace ttpu::train {

// function(x, weights...) -> y; of its gradients the first is that of x, but of the embedding.
struct Part {
  grad::Pullback pullback;
  std::vector<nn::WeightDecl> weights;
};

// What the parts of one program share. Weights have the compute type.
class PartBuilder {
 public:
  PartBuilder(ir::Module& module, const nn::DecoderSpec& spec, const kernels::Target& target,
              const parallel::Layout& layout, const StepOptions& options);

  // How many devices have tokens of their own between the blocks of layers, and so of x.
  int64_t token_parts() const { return context_.tokens().parts; }
  // [tokens / token_parts, hidden]
  Shape states() const;
  // Of the device's rows of x, those that the head takes at once: the scores of all would be too
  // many.
  int64_t head_rows() const { return head_rows_; }

  Part embedding() const;
  // x: head_rows() of the device's rows -> the logits of head_rows() * token_parts() tokens, each
  // device's after those of the one before it, of the device's part of the vocabulary.
  Part head() const;
  // What layer `index` computes, to tell which are alike.
  nn::LayerTrace trace(size_t index) const;
  // With `barrier` for a layer that is not in a loop.
  Part layer(size_t index, bool barrier) const;

 private:
  nn::StepInputs inputs(ir::Function& function) const;
  ir::Value layer_output(nn::Context& context, size_t index, ir::Value x) const;
  Part make(const std::string& name, const Shape& input, bool wants_input, grad::Remat remat,
            bool barrier, const std::function<ir::Value(nn::Context&, ir::Value)>& build) const;

  ir::Module& module_;
  const nn::DecoderSpec& spec_;
  StepOptions options_;
  nn::Context context_;
  int64_t head_rows_ = 0;
};

// Layers that are computed alike, one after another: `period` different ones, `turns` times.
struct Run {
  size_t first = 0;
  size_t period = 1;
  size_t turns = 1;
};
// Unrolled: a run for each layer.
std::vector<Run> runs_of(const std::vector<nn::LayerTrace>& traces, nn::Layers layers);

}  // namespace ttpu::train
