#include "ttpu/train/step.h"

#include <map>
#include <set>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/parallel/collectives.h"
#include "ttpu/parallel/spmd.h"
#include "ttpu/train/loss.h"
#include "ttpu/train/optimizer.h"
#include "ttpu/train/passes.h"

namespace ttpu::train {
namespace {

using ir::Value;
using ir::Values;

constexpr size_t kArguments = static_cast<size_t>(StepArgument::kNumArguments);

void check_options(const nn::DecoderSpec& spec, const StepOptions& options,
                   const std::string& strategy) {
  require(
      options.seq_len > 1 && options.micro_batch > 0 && options.accumulation > 0,
      "[train] sequences of {} tokens, {} at once, {} micro-batches; give 2 tokens or more, and "
      "1 or more of the others",
      options.seq_len, options.micro_batch, options.accumulation);
  require(options.seq_len <= spec.max_positions,
          "[train] sequences of {} tokens, the model allows {}; lower --seq-len", options.seq_len,
          spec.max_positions);
  require(strategy == "tensor" || strategy == "sequence",
          "[train] the strategy '{}' is not one of training; give tensor or sequence", strategy);
}

// The state's weights, each once.
class Weights {
 public:
  explicit Weights(const Sharding& sharding) : sharding_(sharding) {}

  size_t add(const nn::WeightDecl& decl, std::vector<std::string> names, int64_t turns) {
    const auto [known, is_new] =
        places_.emplace(std::pair(names.at(0), decl.row_offset), weights_.size());
    if (is_new) weights_.push_back(sharding_.state_of(decl, std::move(names), turns));
    return known->second;
  }
  PlacedPart place(Part part) {
    PlacedPart placed{std::move(part), {}};
    for (const nn::WeightDecl& decl : placed.part.weights) {
      placed.weights.push_back(add(decl, decl.names, 1));
    }
    return placed;
  }
  std::vector<StateWeight> take() { return std::move(weights_); }

 private:
  const Sharding& sharding_;
  std::map<std::pair<std::string, int64_t>, size_t> places_;
  std::vector<StateWeight> weights_;
};

// The functions of layers that differ; owns them.
class LayerParts {
 public:
  LayerParts(const PartBuilder& builder, const nn::DecoderSpec& spec, nn::Layers layers)
      : builder_(builder) {
    for (size_t i = 0; i < spec.layers.size(); ++i) traces_.push_back(builder.trace(i));
    runs_ = runs_of(traces_, layers);
  }

  std::vector<PlacedRun> place(Weights& weights) {
    std::vector<PlacedRun> placed;
    for (const Run& run : runs_) {
      PlacedRun own{run, {}, {}};
      for (size_t j = 0; j < run.period; ++j) {
        const size_t layer = run.first + j;
        own.parts.push_back(&part_of(layer, run.turns == 1));
        std::vector<size_t>& places = own.weights.emplace_back();
        for (const nn::WeightDecl& decl : traces_[layer].weights) {
          places.push_back(
              weights.add(decl, names(run, layer, decl), static_cast<int64_t>(run.turns)));
        }
      }
      placed.push_back(std::move(own));
    }
    return placed;
  }

 private:
  // Those of all turns.
  std::vector<std::string> names(const Run& run, size_t layer, const nn::WeightDecl& decl) const {
    const auto begin = traces_.begin() + static_cast<std::ptrdiff_t>(layer);
    const auto end =
        traces_.begin() + static_cast<std::ptrdiff_t>(run.first + run.period * run.turns);
    return nn::names_in_all({begin, end}, 0, run.period, decl);
  }

  const Part& part_of(size_t layer, bool barrier) {
    for (const Made& made : parts_) {
      if (made.barrier == barrier && nn::alike(traces_[made.layer], traces_[layer])) {
        return *made.part;
      }
    }
    parts_.push_back({layer, barrier, std::make_unique<Part>(builder_.layer(layer, barrier))});
    return *parts_.back().part;
  }

  const PartBuilder& builder_;
  std::vector<nn::LayerTrace> traces_;
  std::vector<Run> runs_;
  struct Made {
    size_t layer;
    bool barrier;
    std::unique_ptr<Part> part;
  };
  std::vector<Made> parts_;
};

// The sums of all micro-batches.
Sums all_micro_batches(const Model& model, const StepOptions& options, const Values& ready,
                       Value tokens, Value targets, Value scale) {
  ir::Function& function = tokens.function();
  Values inits = {ir::scalar(function, DType::kF32, 0)};
  for (const StateWeight& weight : model.weights) {
    inits.push_back(ir::full(function, model.sharding.gradient_shape(weight), 0));
  }
  const auto add = [&](Value index, const Values& sums) {
    Sums next = add_micro_batch(model, ready, ir::dynamic_index(tokens, index),
                                ir::dynamic_index(targets, index), scale,
                                {sums[0], {sums.begin() + 1, sums.end()}});
    next.gradients.insert(next.gradients.begin(), next.loss);
    return next.gradients;
  };
  const Values end = ir::repeat(options.accumulation, inits, add);
  return {end[0], {end.begin() + 1, end.end()}};
}

// Adds the state's arguments to the function: weights, first moments, second moments.
std::vector<OptimizerState> add_state(ir::Function& function, const Model& model) {
  std::vector<OptimizerState> state(model.weights.size());
  const auto add = [&](const char* suffix, Value OptimizerState::*member) {
    for (size_t i = 0; i < state.size(); ++i) {
      const nn::WeightDecl& decl = model.weights[i].decl;
      state[i].*member = function.add_argument({DType::kF32, decl.local}, decl.names[0] + suffix);
    }
  };
  add("", &OptimizerState::weight);
  add(".exp_avg", &OptimizerState::mean);
  add(".exp_avg_sq", &OptimizerState::square);
  return state;
}

ir::Function& build_device(ir::Module& module, const Model& model, const StepOptions& options,
                           const std::string& name) {
  ir::Function& function = module.add_function(name);
  const parallel::Mesh& mesh = model.sharding.mesh();
  const Shape ids(DType::kS32, {options.accumulation, options.tokens()});
  const Value tokens = function.add_argument(ids, "input_ids");
  const Value targets = function.add_argument(ids, "labels");
  const Value rate = function.add_argument({DType::kF32, {}}, "learning_rate");
  const Value step = function.add_argument({DType::kF32, {}}, "step");
  const std::vector<OptimizerState> state = add_state(function, model);

  const parallel::Division batch = batch_division(mesh);
  const Value counted = ir::convert(is_counted(targets), DType::kF32);
  const Value count = ir::maximum(parallel::sum(ir::reduce_sum(counted, {0, 1}), mesh, batch),
                                  ir::scalar(function, DType::kF32, 1));
  Values ready;
  for (size_t i = 0; i < state.size(); ++i) {
    const StateWeight& weight = model.weights[i];
    ready.push_back(model.sharding.gathers_by_layer()
                        ? state[i].weight
                        : model.sharding.gathered(weight, state[i].weight, weight.stacked ? 1 : 0));
  }
  const Sums sums = all_micro_batches(model, options, ready, tokens, targets, 1.0 / count);
  Values gradients;
  for (size_t i = 0; i < state.size(); ++i) {
    gradients.push_back(model.sharding.summed(model.weights[i], sums.gradients[i]));
  }
  const Value norm = gradient_norm(model.sharding, model.weights, gradients);
  const UpdateInputs inputs{rate, step, clip_factor(options.optimizer, norm)};
  Values weights, means, squares;
  for (size_t i = 0; i < state.size(); ++i) {
    const OptimizerState next =
        update(options.optimizer, state[i], gradients[i], inputs, model.weights[i].decays);
    weights.push_back(next.weight);
    means.push_back(next.mean);
    squares.push_back(next.square);
  }
  Values results = {parallel::sum(sums.loss, mesh, batch) / count, norm};
  for (const Values& part : {weights, means, squares}) {
    results.insert(results.end(), part.begin(), part.end());
  }
  function.set_results(results);
  return function;
}

// Of the arguments, in their order; the state's take the place of the results.
std::vector<parallel::SpmdValue> placements(const Model& model) {
  const parallel::Division batch = batch_division(model.sharding.mesh());
  std::vector<parallel::SpmdValue> all = {{{{}, batch}}, {{{}, batch}}, {}, {}};
  auto result = static_cast<int>(StepResult::kNumResults);
  for (int part = 0; part < 3; ++part) {
    for (const StateWeight& weight : model.weights) {
      all.push_back({weight.decl.placement, result++});
    }
  }
  return all;
}

void finish(ir::Module& module, ir::Function& device, const Model& model) {
  const std::vector<parallel::SpmdValue> arguments = placements(model);
  if (model.layout.one_device()) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].aliases_result) {
        device.alias(device.arguments()[i], *arguments[i].aliases_result);
      }
    }
    return;
  }
  std::vector<parallel::SpmdValue> results(static_cast<size_t>(StepResult::kNumResults));
  for (size_t i = kArguments; i < arguments.size(); ++i) {
    results.push_back({arguments[i].placement});
  }
  parallel::add_spmd_main(module, model.sharding.mesh(), device, arguments, results);
}

// Functions that served to make gradients are called by nobody.
void remove_uncalled(ir::Module& module) {
  std::set<std::string> called = {"main"};
  for (const auto& function : module.functions()) {
    ir::walk(function->body(), [&](ir::Operation& operation) {
      if (operation.kind != ir::OpKind::kCall) return;
      called.insert(operation.attributes.get<ir::Symbol>("callee").name);
    });
  }
  std::vector<const ir::Function*> uncalled;
  for (const auto& function : module.functions()) {
    if (!called.contains(function->name())) uncalled.push_back(function.get());
  }
  for (const ir::Function* function : uncalled) module.remove_function(*function);
  if (!uncalled.empty()) remove_uncalled(module);
}

}  // namespace

int64_t TrainProgram::state_elements() const {
  int64_t elements = 0;
  for (const StateWeight& weight : weights)
    elements += Shape(DType::kF32, weight.decl.local).num_elements();
  return elements;
}

TrainProgram build_train_program(const nn::DecoderSpec& spec, const StepOptions& options,
                                 const kernels::Target& target, const parallel::Mesh& mesh,
                                 const std::string& strategy) {
  check_options(spec, options, strategy);
  TrainProgram program;
  program.layout = parallel::Layout(mesh, parallel::find_strategy(strategy));
  program.module = std::make_unique<ir::Module>("train_step");
  ir::Module& module = *program.module;
  const PartBuilder builder(module, spec, target, program.layout, options);
  Model model(spec, program.layout, Sharding(mesh, options));
  Weights weights(model.sharding);
  model.embedding = weights.place(builder.embedding());
  LayerParts layers(builder, spec, options.layers);
  model.runs = layers.place(weights);
  model.head = weights.place(builder.head());
  model.weights = weights.take();
  model.head_rows = builder.head_rows();
  model.token_parts = builder.token_parts();
  ir::Function& device =
      build_device(module, model, options, program.layout.one_device() ? "main" : "device");
  finish(module, device, model);
  remove_uncalled(module);
  program.device = &device;
  program.weights = std::move(model.weights);
  return program;
}

}  // namespace ttpu::train
