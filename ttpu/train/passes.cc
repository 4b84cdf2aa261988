#include "ttpu/train/passes.h"

#include <optional>

#include "ttpu/ir/ir.h"
#include "ttpu/train/loss.h"

namespace ttpu::train {
namespace {

using ir::Value;
using ir::Values;

Values joined(const Values& first, const Values& second) {
  Values all = first;
  all.insert(all.end(), second.begin(), second.end());
  return all;
}

Values part_of(const Values& all, size_t begin, size_t count) {
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(begin);
  return {first, first + static_cast<std::ptrdiff_t>(count)};
}

Value zeros(ir::Function& function, const Shape& shape) { return ir::full(function, shape, 0); }

class Passes {
 public:
  Passes(const Model& model, const Values& ready) : model_(model), ready_(ready) {}

  Sums add(Value tokens, Value targets, Value scale, Sums sums) {
    const PlacedPart& embedding = model_.embedding;
    const Values embedding_weights = to_compute(embedding.weights);
    const auto [embedded, kept] = part_forward(embedding.part, tokens, embedding_weights);
    std::vector<Saved> saved;
    Value x = embedded;
    for (const PlacedRun& run : model_.runs) {
      saved.push_back(forward(run, x));
      x = saved.back().output;
    }
    Value cotangent = head(x, targets, scale, &sums);
    for (size_t i = model_.runs.size(); i-- > 0;) {
      cotangent = backward(model_.runs[i], saved[i], cotangent, &sums);
    }
    collect(embedding.weights, part_backward(embedding.part, kept, embedding_weights, cotangent),
            &sums.gradients);
    return sums;
  }

 private:
  // Of each layer of a run what its backward takes besides weights: x, then what is kept. Of a
  // loop, stacked by turns.
  struct Saved {
    Value output;
    std::vector<Values> layers;
  };

  // The weights; of those that are stacked, those of one turn.
  Values to_compute(const std::vector<size_t>& indices, std::optional<Value> turn = {}) const {
    Values values;
    for (const size_t index : indices) {
      const Value own = turn ? ir::dynamic_index(ready_[index], *turn) : ready_[index];
      values.push_back(model_.sharding.gathers_by_layer()
                           ? model_.sharding.gathered(model_.weights[index], own, 0)
                           : own);
    }
    return values;
  }

  void collect(const std::vector<size_t>& indices, const Values& gradients, Values* sums) const {
    for (size_t i = 0; i < indices.size(); ++i) {
      Value& sum = sums->at(indices[i]);
      sum = sum + model_.sharding.collected(model_.weights[indices[i]], gradients[i]);
    }
  }

  // What a part gives: its output; and what it takes to go back.
  static std::pair<Value, Values> part_forward(const Part& part, Value x, const Values& weights) {
    const Values all = ir::call(*part.pullback.forward, joined({x}, weights));
    return {all[0], joined({x}, part_of(all, 1, part.pullback.kept))};
  }
  // The cotangent of x, but for the embedding, then those of the weights.
  static Values part_backward(const Part& part, const Values& saved, const Values& weights,
                              Value cotangent) {
    const Values kept(saved.begin() + 1, saved.end());
    return ir::call(*part.pullback.backward,
                    joined(joined({saved[0]}, weights), joined(kept, {cotangent})));
  }

  Saved forward(const PlacedRun& run, Value x) const {
    Saved saved{x, {}};
    if (run.run.turns == 1) {
      for (size_t j = 0; j < run.parts.size(); ++j) {
        auto [y, own] = part_forward(*run.parts[j], saved.output, to_compute(run.weights[j]));
        saved.output = y;
        saved.layers.push_back(own);
      }
      return saved;
    }
    Values inits = {x};
    for (const Part* part : run.parts) {
      inits = joined(inits, stacks_of(*part, x.function(), run.run.turns));
    }
    const Values end =
        ir::repeat(static_cast<int64_t>(run.run.turns), inits, [&](Value turn, const Values& v) {
          Values next = v;
          size_t place = 1;
          for (size_t j = 0; j < run.parts.size(); ++j) {
            const auto [y, own] =
                part_forward(*run.parts[j], next[0], to_compute(run.weights[j], turn));
            next[0] = y;
            for (const Value value : own) {
              next[place] = ir::dynamic_update_index(next[place], value, turn);
              ++place;
            }
          }
          return next;
        });
    saved.output = end[0];
    size_t place = 1;
    for (const Part* part : run.parts) {
      saved.layers.push_back(part_of(end, place, 1 + part->pullback.kept));
      place += 1 + part->pullback.kept;
    }
    return saved;
  }

  // Empty ones for what is saved of a layer.
  static Values stacks_of(const Part& part, ir::Function& function, size_t turns) {
    const ir::Function& forward = *part.pullback.forward;
    Values stacks;
    const auto add = [&](Shape shape) {
      shape.dims.insert(shape.dims.begin(), static_cast<int64_t>(turns));
      stacks.push_back(zeros(function, shape));
    };
    add(forward.arguments()[0].shape());
    for (size_t i = 1; i < forward.results().size(); ++i) add(forward.results()[i].shape());
    return stacks;
  }

  // The cotangent of what the run was given.
  Value backward(const PlacedRun& run, const Saved& saved, Value cotangent, Sums* sums) const {
    if (run.run.turns == 1) {
      for (size_t j = run.parts.size(); j-- > 0;) {
        const Values back =
            part_backward(*run.parts[j], saved.layers[j], to_compute(run.weights[j]), cotangent);
        cotangent = back[0];
        collect(run.weights[j], {back.begin() + 1, back.end()}, &sums->gradients);
      }
      return cotangent;
    }
    std::vector<size_t> own;
    for (const auto& weights : run.weights) own.insert(own.end(), weights.begin(), weights.end());
    Values inits = {cotangent};
    for (const size_t index : own) inits.push_back(sums->gradients[index]);
    const Values end =
        ir::repeat(static_cast<int64_t>(run.run.turns), inits, [&](Value count, const Values& v) {
          return backward_turn(run, saved, static_cast<double>(run.run.turns - 1) - count, v);
        });
    for (size_t i = 0; i < own.size(); ++i) sums->gradients[own[i]] = end[i + 1];
    return end[0];
  }

  // v: the cotangent, then the sums of the run's weights.
  Values backward_turn(const PlacedRun& run, const Saved& saved, Value turn, Values v) const {
    size_t place = v.size();
    for (size_t j = run.parts.size(); j-- > 0;) {
      Values own;
      for (const Value stack : saved.layers[j]) own.push_back(ir::dynamic_index(stack, turn));
      const Values back = part_backward(*run.parts[j], own, to_compute(run.weights[j], turn), v[0]);
      v[0] = back[0];
      place -= run.weights[j].size();
      for (size_t i = 0; i < run.weights[j].size(); ++i) {
        Value& sum = v[place + i];
        const Value collected =
            model_.sharding.collected(model_.weights[run.weights[j][i]], back[i + 1]);
        sum = ir::dynamic_update_index(sum, ir::dynamic_index(sum, turn) + collected, turn);
      }
    }
    return v;
  }

  // A chunk of rows after the other: the scores of all would be too many.
  Value head(Value x, Value targets, Value scale, Sums* sums) const {
    const PlacedPart& head = model_.head;
    const Values weights = to_compute(head.weights);
    const int64_t rows = model_.head_rows;
    const int64_t chunks = x.dim(0) / rows;
    const Value by_device = ir::reshape(targets, {model_.token_parts, x.dim(0)});
    // The cotangent of x, the loss, the gradients.
    Values inits = {zeros(x.function(), x.shape()), sums->loss};
    for (const Value weight : weights) {
      inits.push_back(zeros(x.function(), Shape(DType::kF32, weight.dims())));
    }
    const auto chunk = [&](Value index, const Values& v) {
      const Value first = index * static_cast<double>(rows);
      const Value zero = ir::scalar_like(index, 0);
      const Value own = ir::dynamic_slice(x, {first, zero}, {rows, x.dim(1)});
      const Value wanted =
          ir::reshape(ir::dynamic_slice(by_device, {zero, first}, {model_.token_parts, rows}),
                      {model_.token_parts * rows});
      const auto [logits, saved] = part_forward(head.part, own, weights);
      const CrossEntropy entropy =
          cross_entropy(model_.layout, model_.spec.vocab, logits, wanted, scale);
      const Values back = part_backward(head.part, saved, weights, entropy.cotangent);
      Values next = {ir::dynamic_update_slice(v[0], back[0], {first, zero}), v[1] + entropy.loss};
      for (size_t i = 0; i < weights.size(); ++i) {
        next.push_back(v[i + 2] + ir::convert(back[i + 1], DType::kF32));
      }
      return next;
    };
    const Values end = ir::repeat(chunks, inits, chunk);
    sums->loss = end[1];
    collect(head.weights, {end.begin() + 2, end.end()}, &sums->gradients);
    return end[0];
  }

  const Model& model_;
  const Values& ready_;
};

}  // namespace

Sums add_micro_batch(const Model& model, const Values& ready, Value tokens, Value targets,
                     Value scale, Sums sums) {
  return Passes(model, ready).add(tokens, targets, scale, std::move(sums));
}

}  // namespace ttpu::train
