#include "ttpu/nn/pipeline.h"

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/nn/layer.h"
#include "ttpu/nn/layer_trace.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::nn {
namespace {

using ir::ComparisonDirection;
using ir::Value;

Value number(Value like, int64_t n) { return ir::scalar_like(like, static_cast<double>(n)); }

Value rows_from(Value x, Value start, int64_t count) {
  return ir::dynamic_slice(x, {start, number(start, 0)}, {count, x.dim(1)});
}

// As many as there are stages, where each has enough tokens to pay.
int64_t count_microbatches(const Context& context, int64_t tokens, int64_t stages) {
  const bool pays = tokens % stages == 0 && tokens / stages >= context.least_tokens();
  return pays ? stages : 1;
}

// From each stage to the next; the first gets zeros.
Value hand_on(Value x, const parallel::Mesh& mesh, const parallel::Division& stages) {
  std::vector<std::pair<int64_t, int64_t>> pairs;
  for (const Dims& group : groups_of(mesh, stages)) {
    for (size_t i = 0; i + 1 < group.size(); ++i) pairs.emplace_back(group[i], group[i + 1]);
  }
  return ir::collective_permute(x, pairs);
}

bool repeat_every(const std::vector<LayerTrace>& traces, size_t period) {
  for (size_t i = period; i < traces.size(); ++i) {
    if (!alike(traces[i], traces[i - period])) return false;
  }
  return true;
}

// All stages run one program: layer i must compute what layer i + `each` does.
void check_stages(const std::vector<LayerTrace>& traces, size_t each) {
  if (repeat_every(traces, each)) return;
  std::vector<size_t> possible;
  for (size_t stages = 1; stages <= traces.size(); ++stages) {
    if (traces.size() % stages == 0 && repeat_every(traces, traces.size() / stages)) {
      possible.push_back(stages);
    }
  }
  fail(Code::kUnimplemented,
       "[parallel] --pipeline-parallel-size is {}, but the {} layers of the model are not alike, "
       "and its stages of {} would compute different things; give one of {}, or more to "
       "--tensor-parallel-size",
       traces.size() / each, traces.size(), each, fmt::join(possible, ", "));
}

// What the layers compute, whatever form their weights have: equal weights of different forms
// become dense (FormatOf).
std::vector<LayerTrace> trace_layers(const Context& context, const std::vector<LayerSpec>& layers,
                                     Value x, const std::vector<Value>& caches,
                                     const StepInputs& inputs) {
  const Context dense =
      context.sibling(&context.function(), [compute = context.compute()](const WeightDecl&) {
        return WeightFormat{compute, Encoding::kDense};
      });
  std::vector<LayerTrace> traces;
  for (size_t i = 0; i < layers.size(); ++i) {
    traces.push_back(trace_layer(dense, layers[i], x, caches[i % caches.size()], inputs));
  }
  return traces;
}

// The layers of the device's stage.
PipelineResult stage_step(Context& context, const std::vector<LayerSpec>& layers, Value x,
                          const std::vector<Value>& caches, const StepInputs& inputs) {
  const std::vector<LayerTrace> traces = trace_layers(context, layers, x, caches, inputs);
  const size_t each = caches.size();
  check_stages(traces, each);
  const parallel::Division stages = context.layout().division("stages");
  RotaryTables tables(inputs.positions);
  PipelineResult all{x, {}};
  for (size_t i = 0; i < each; ++i) {
    context.enter({{}, [&](const WeightDecl& decl) {
                     WeightDecl staged = decl;
                     staged.names = names_in_all(traces, i, each, decl);
                     staged.stages = stages;
                     return staged;
                   }});
    const LayerResult result =
        layer_step(context, layers[i], all.states, caches[i], inputs, tables);
    all.states = result.output;
    all.caches.push_back(result.cache);
  }
  context.leave();
  return all;
}

}  // namespace

PipelineResult pipeline(Context& context, const std::vector<LayerSpec>& layers, Value x,
                        const std::vector<Value>& caches, const StepInputs& inputs, Value rows) {
  ir::Function& function = context.function();
  const parallel::Mesh& mesh = context.layout().mesh();
  const parallel::Division stages = context.layout().division("stages");
  const int64_t tokens = x.dim(0);
  const int64_t count = count_microbatches(context, tokens, stages.parts);
  const int64_t size = tokens / count;
  context.divide_tokens(size);
  const int64_t own_size = size / context.tokens().parts;
  const Value stage = parallel::part_index(function, mesh, stages);
  const auto is_stage = [&](int64_t n) {
    return ir::compare(stage, number(stage, n), ComparisonDirection::kEq);
  };
  const auto states = [&](int64_t count_of_rows) {
    return ir::full(function, Shape(x.dtype(), {count_of_rows, x.dim(1)}), 0);
  };

  // The round, what has come from the stage before, what has left the stage, and the caches.
  ir::Values state = {number(stage, 0), states(own_size), states(count * own_size)};
  state.insert(state.end(), caches.begin(), caches.end());
  const auto more = [&](const ir::Values& v) {
    return ir::compare(v[0], number(v[0], count + stages.parts - 1), ComparisonDirection::kLt);
  };
  const auto round = [&](const ir::Values& v) -> ir::Values {
    const Value turn = v[0] - stage;
    // Rounds before the first microbatch write where it will, those after the last are not the last
    // stage's.
    const Value index = ir::clamp(number(turn, 0), turn, number(turn, count - 1));
    const Value works = ir::compare(turn, index, ComparisonDirection::kEq);
    const Value begin = index * static_cast<double>(size);
    StepInputs own = microbatch(inputs, begin, size);
    const Value distribution = own.batch.distribution;
    own.batch.distribution =
        ir::select(works, distribution, ir::full(function, distribution.shape(), 0));
    const Value entering = own_tokens(context, rows_from(x, begin, size));
    const PipelineResult result = stage_step(
        context, layers, ir::select(is_stage(0), entering, v[1]), {v.begin() + 3, v.end()}, own);
    ir::Values next = {
        v[0] + 1.0, hand_on(result.states, mesh, stages),
        ir::dynamic_update_slice(v[2], result.states,
                                 {index * static_cast<double>(own_size), number(index, 0)})};
    next.insert(next.end(), result.caches.begin(), result.caches.end());
    return next;
  };
  const ir::Values end = ir::while_loop(state, more, round);

  const Value parts = ir::reshape(end[2], {count, own_size, x.dim(1)});
  const Value left =
      ir::reshape(parallel::gather(parts, 1, mesh, context.tokens()), {tokens, x.dim(1)});
  const Value wanted = ir::take(left, rows, 0);
  const Value known = ir::select(is_stage(stages.parts - 1), wanted, states(wanted.dim(0)));
  return {parallel::sum(known, mesh, stages), {end.begin() + 3, end.end()}};
}

}  // namespace ttpu::nn
