#include "ttpu/train/parts.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/nn/decoder_states.h"
#include "ttpu/nn/layer.h"

namespace ttpu::train {
namespace {

constexpr int64_t kMostLogitBytes = int64_t{256} << 20;
constexpr size_t kLongestPeriod = 12;

nn::Context context_of(const kernels::Target& target, const parallel::Layout& layout,
                       DType compute) {
  return {nullptr, target, compute,
          [compute](const nn::WeightDecl&) {
            return nn::WeightFormat{compute, Encoding::kDense};
          },
          layout};
}

// The largest part of `rows` that divides them, is no more than `most`, and no less than `least`;
// the smallest that is no less where there is none.
int64_t dividing_rows(int64_t rows, int64_t most, int64_t least) {
  int64_t best = 0;
  for (int64_t size = least; size <= rows; ++size) {
    if (rows % size == 0 && (best == 0 || size <= most)) best = size;
  }
  return best == 0 ? rows : best;
}

}  // namespace

PartBuilder::PartBuilder(ir::Module& module, const nn::DecoderSpec& spec,
                         const kernels::Target& target, const parallel::Layout& layout,
                         const StepOptions& options)
    : module_(module),
      spec_(spec),
      options_(options),
      context_(context_of(target, layout, options.compute)) {
  context_.divide_tokens(options.tokens());
  const int64_t vocab_parts = layout.division("vocab").parts;
  const int64_t row_bytes = (spec.vocab + vocab_parts - 1) / vocab_parts * token_parts() *
                            static_cast<int64_t>(sizeof(float));
  head_rows_ = dividing_rows(options.tokens() / token_parts(),
                             std::max<int64_t>(1, kMostLogitBytes / row_bytes),
                             token_parts() > 1 ? context_.least_tokens() : 1);
}

Shape PartBuilder::states() const {
  return {options_.compute, {options_.tokens() / token_parts(), spec_.hidden}};
}

nn::StepInputs PartBuilder::inputs(ir::Function& function) const {
  nn::StepInputs inputs;
  const Shape shape(DType::kS32, {options_.tokens()});
  inputs.positions =
      ir::remainder(ir::iota(function, shape, 0),
                    ir::full(function, shape, static_cast<double>(options_.seq_len)));
  inputs.sequence_length = options_.seq_len;
  return inputs;
}

Part PartBuilder::make(const std::string& name, const Shape& input, bool wants_input,
                       grad::Remat remat, bool barrier,
                       const std::function<ir::Value(nn::Context&, ir::Value)>& build) const {
  ir::Function& function = module_.add_function(name);
  nn::Context context = context_.sibling(&function);
  const ir::Value x = function.add_argument(input);
  function.set_results({build(context, x)});
  Part part;
  part.weights = context.weights();
  std::vector<size_t> wanted;
  for (size_t i = wants_input ? 0 : 1; i < function.arguments().size(); ++i) wanted.push_back(i);
  part.pullback = grad::make_pullback(function, std::move(wanted), remat, barrier);
  return part;
}

Part PartBuilder::embedding() const {
  const Shape tokens(DType::kS32, {options_.tokens()});
  return make("embedding", tokens, false, grad::Remat::kFull, false,
              [&](nn::Context& context, ir::Value ids) {
                nn::StepInputs own = inputs(context.function());
                own.tokens = ids;
                return nn::embedded(context, spec_, own);
              });
}

Part PartBuilder::head() const {
  const Shape rows(options_.compute, {head_rows_, spec_.hidden});
  return make("head", rows, true, grad::Remat::kMinimal, false,
              [&](nn::Context& context, ir::Value x) {
                context.divide_tokens(head_rows_ * token_parts());
                const ir::Value normed = nn::norm(context, spec_.final_norm, x);
                return nn::logits(context, spec_, nn::all_tokens(context, normed));
              });
}

ir::Value PartBuilder::layer_output(nn::Context& context, size_t index, ir::Value x) const {
  const nn::StepInputs own = inputs(context.function());
  nn::RotaryTables tables(own.positions);
  return nn::layer_step(context, spec_.layers.at(index), x, {}, own, tables).output;
}

nn::LayerTrace PartBuilder::trace(size_t index) const {
  ir::Module module("layer");
  ir::Function& function = module.add_function("layer");
  nn::Context context = context_.sibling(&function);
  const ir::Value x = function.add_argument(states());
  function.set_results({layer_output(context, index, x)});
  return {module.to_string(), context.weights()};
}

Part PartBuilder::layer(size_t index, bool barrier) const {
  return make(fmt::format("layer_{}{}", index, barrier ? "_alone" : ""), states(), true,
              options_.remat, barrier,
              [&](nn::Context& context, ir::Value x) { return layer_output(context, index, x); });
}

std::vector<Run> runs_of(const std::vector<nn::LayerTrace>& traces, nn::Layers layers) {
  std::vector<Run> runs;
  for (size_t first = 0; first < traces.size();) {
    Run best{first, 1, 1};
    const size_t longest = layers == nn::Layers::kScanned ? kLongestPeriod : 0;
    for (size_t period = 1; period <= longest; ++period) {
      size_t end = first + period;
      while (end < traces.size() && nn::alike(traces[end], traces[end - period])) ++end;
      const size_t turns = end <= traces.size() ? (end - first) / period : 0;
      if (turns > 1 && turns * period > best.turns * best.period) best = {first, period, turns};
    }
    runs.push_back(best);
    first += best.period * best.turns;
  }
  return runs;
}

}  // namespace ttpu::train
