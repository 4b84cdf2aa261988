#include "ttpu/plan/cost.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "ttpu/base/error.h"
#include "ttpu/plan/trip_count.h"

namespace ttpu::plan {
namespace {

struct Access {
  Shape shape;
  bool whole = false;  // read in full by some operator
  double sliced = 0;   // bytes taken by gathers and slices
  double looped = 0;   // bytes read in loops, all turns together
  double written = 0;  // bytes put in place
};

double read_bytes(const Access& access) {
  const auto size = static_cast<double>(access.shape.byte_size());
  return (access.whole ? size : std::min(size, access.sliced)) + access.looped;
}

double bytes_of(ir::Value value) { return static_cast<double>(value.shape().byte_size()); }

double dot_flops(const ir::Operation& op) {
  const auto& numbers = op.attributes.get<ir::DotDimensionNumbers>("dot_dimension_numbers");
  double flops = 2.0 * static_cast<double>(op.result().shape().num_elements());
  for (const int64_t axis : numbers.lhs_contracting) {
    flops *= static_cast<double>(op.operands.at(0).dim(static_cast<int>(axis)));
  }
  return flops;
}

// Follows the arguments of a function through operators that only rename them or change them in
// place.
class Counter {
 public:
  explicit Counter(std::vector<Access>* accesses) : accesses_(accesses) {}

  using Roots = std::unordered_map<int32_t, size_t>;  // value id to argument

  void count(const ir::Region& region, Roots* roots) {
    for (const ir::Operation* op : region.operations) count(*op, roots);
  }

  Compute compute;
  int64_t uncounted_loops = 0;

 private:
  void count_product(const ir::Operation& op) {
    const DType dtype = op.operands.at(0).dtype();
    const bool fp8 = dtype == DType::kF8E4M3FN || dtype == DType::kF8E5M2;
    double& kind = is_integer(dtype) ? compute.int8_ops : fp8 ? compute.fp8_flops : compute.flops;
    kind += dot_flops(op);
  }

  static std::optional<size_t> root(const Roots& roots, ir::Value value) {
    const auto found = roots.find(value.id());
    return found == roots.end() ? std::nullopt : std::optional(found->second);
  }

  void count(const ir::Operation& op, Roots* roots) {
    switch (op.kind) {
      case ir::OpKind::kReturn:
        return;
      case ir::OpKind::kCall:
        return count_call(op, roots);
      case ir::OpKind::kWhile:
        return count_loop(op, roots);
      case ir::OpKind::kReshape:
      case ir::OpKind::kOptimizationBarrier:
      case ir::OpKind::kShardingConstraint:
        return rename(op, roots);
      case ir::OpKind::kScatter:
      case ir::OpKind::kDynamicUpdateSlice:
        return update(op, roots);
      case ir::OpKind::kGather:
      case ir::OpKind::kSlice:
      case ir::OpKind::kDynamicSlice:
        return slice(op, *roots);
      case ir::OpKind::kDotGeneral:
        count_product(op);
        break;
      default:
        break;
    }
    read_operands(op, 0, *roots);
    for (const ir::Region* region : op.regions) count(*region, roots);
  }

  void read_operands(const ir::Operation& op, size_t first, const Roots& roots) {
    for (size_t i = first; i < op.operands.size(); ++i) {
      if (const auto argument = root(roots, op.operands[i])) (*accesses_)[*argument].whole = true;
    }
  }

  static void rename(const ir::Operation& op, Roots* roots) {
    for (size_t i = 0; i < op.results.size() && i < op.operands.size(); ++i) {
      if (const auto argument = root(*roots, op.operands[i])) {
        roots->emplace(op.results[i].id(), *argument);
      }
    }
  }

  void update(const ir::Operation& op, Roots* roots) {
    const size_t updates = op.kind == ir::OpKind::kScatter ? op.operands.size() - 1 : 1;
    if (const auto argument = root(*roots, op.operands[0])) {
      (*accesses_)[*argument].written += bytes_of(op.operands[updates]);
      roots->emplace(op.result().id(), *argument);
    }
    read_operands(op, 1, *roots);
  }

  void slice(const ir::Operation& op, const Roots& roots) {
    if (const auto argument = root(roots, op.operands[0])) {
      (*accesses_)[*argument].sliced += bytes_of(op.result());
    }
    read_operands(op, 1, roots);
  }

  void count_loop(const ir::Operation& op, Roots* roots) {
    const std::optional<int64_t> turns = trip_count(op);
    const auto times = static_cast<double>(turns.value_or(1));
    std::vector<Access> one_turn(accesses_->size());
    for (size_t i = 0; i < one_turn.size(); ++i) one_turn[i].shape = (*accesses_)[i].shape;
    Counter inner(&one_turn);
    for (const ir::Region* region : op.regions) {
      for (size_t i = 0; i < op.operands.size() && i < region->arguments.size(); ++i) {
        if (const auto argument = root(*roots, op.operands[i])) {
          roots->emplace(region->arguments[i].id(), *argument);
        }
      }
      inner.count(*region, roots);
    }
    compute.flops += times * inner.compute.flops;
    compute.int8_ops += times * inner.compute.int8_ops;
    compute.fp8_flops += times * inner.compute.fp8_flops;
    uncounted_loops += inner.uncounted_loops + (turns ? 0 : 1);
    for (size_t i = 0; i < one_turn.size(); ++i) {
      (*accesses_)[i].looped += times * read_bytes(one_turn[i]);
      (*accesses_)[i].written += times * one_turn[i].written;
    }
    rename(op, roots);
  }

  void count_call(const ir::Operation& op, Roots* roots) {
    const auto& symbol = op.attributes.get<ir::Symbol>("callee");
    const ir::Function* callee =
        op.operands.empty() ? nullptr
                            : op.operands[0].function().module().find_function(symbol.name);
    if (callee == nullptr) return;
    if (callee->text() != nullptr) return count_text(op, *callee->text(), roots);
    Roots inner;
    for (size_t i = 0; i < op.operands.size(); ++i) {
      if (const auto argument = root(*roots, op.operands[i])) {
        inner.emplace(callee->arguments().at(i).id(), *argument);
      }
    }
    count(callee->body(), &inner);
    for (size_t i = 0; i < op.results.size(); ++i) {
      if (const auto argument = root(inner, callee->results().at(i))) {
        roots->emplace(op.results[i].id(), *argument);
      }
    }
  }

  void count_text(const ir::Operation& op, const ir::TextBody& body, Roots* roots) {
    compute.flops += body.flops;
    for (size_t i = 0; i < op.operands.size(); ++i) {
      const auto argument = root(*roots, op.operands[i]);
      if (!argument) continue;
      const auto of = [i](const auto& one) { return one.argument == i; };
      const auto update = std::find_if(body.updates.begin(), body.updates.end(), of);
      const auto read = std::find_if(body.reads.begin(), body.reads.end(), of);
      Access& access = (*accesses_)[*argument];
      if (read != body.reads.end()) access.sliced += read->bytes;
      if (update == body.updates.end()) {
        access.whole = access.whole || read == body.reads.end();
        continue;
      }
      access.sliced += update->read_bytes;
      access.written += update->written_bytes;
      roots->emplace(op.results.at(update->result).id(), *argument);
    }
  }

  std::vector<Access>* accesses_;
};

}  // namespace

ProgramCost program_cost(const ir::Function& function, std::span<const ArgumentRole> roles) {
  const ir::Values& arguments = function.arguments();
  require(roles.size() == arguments.size(), "[cost] {} roles for the {} arguments of @{}",
          roles.size(), arguments.size(), function.name());
  std::vector<Access> accesses(arguments.size());
  Counter::Roots roots;
  for (size_t i = 0; i < arguments.size(); ++i) {
    accesses[i].shape = arguments[i].shape();
    roots.emplace(arguments[i].id(), i);
  }
  Counter counter(&accesses);
  counter.count(function.body(), &roots);

  ProgramCost cost;
  cost.flops = counter.compute.flops;
  cost.int8_ops = counter.compute.int8_ops;
  cost.fp8_flops = counter.compute.fp8_flops;
  cost.uncounted_loops = counter.uncounted_loops;
  for (size_t i = 0; i < accesses.size(); ++i) {
    if (roles[i] == ArgumentRole::kWeight) cost.weight_bytes += read_bytes(accesses[i]);
    if (roles[i] != ArgumentRole::kCache) continue;
    cost.cache_read_bytes += read_bytes(accesses[i]);
    cost.cache_written_bytes += accesses[i].written;
  }
  return cost;
}

StepEstimate estimate_step(const Chip& chip, const Compute& compute, double hbm_bytes,
                           double ici_bytes) {
  StepEstimate estimate;
  estimate.compute_seconds = compute.seconds(chip);
  estimate.hbm_seconds = hbm_bytes / chip.hbm_bandwidth;
  estimate.interconnect_seconds = ici_bytes / chip.ici_bandwidth;
  estimate.seconds =
      std::max({estimate.compute_seconds, estimate.hbm_seconds, estimate.interconnect_seconds});
  estimate.bound = estimate.seconds == estimate.hbm_seconds       ? "HBM"
                   : estimate.seconds == estimate.compute_seconds ? "compute"
                                                                  : "interconnect";
  return estimate;
}

}  // namespace ttpu::plan
