#include "ttpu/train/state.h"

#include "ttpu/ir/ir.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::train {
namespace {

parallel::Division division_of(const parallel::Mesh& mesh, const std::vector<std::string>& axes) {
  parallel::Division division;
  for (const std::string& axis : axes) {
    for (const parallel::Mesh::Factor& factor : mesh.factors()) {
      if (factor.axis != axis) continue;
      division.factors.push_back(factor.name);
      division.parts *= factor.size;
    }
  }
  return division;
}

// The TPU compiler makes reduce-scatters of at most so many devices; of more, all-reduces that send
// twice as much.
constexpr int64_t kMostInPhase = 8;

// Runs of factors, major first, that divide as the division does one after another, as evenly as
// its factors allow: on a slice, about a dimension each.
std::vector<parallel::Division> phases_of(const parallel::Mesh& mesh,
                                          const parallel::Division& division) {
  size_t count = 1;
  for (int64_t reach = kMostInPhase; reach < division.parts; reach *= kMostInPhase) ++count;
  std::vector<parallel::Division> phases(count);
  const size_t factors = division.factors.size();
  for (size_t i = 0; i < factors; ++i) {
    parallel::Division& phase = phases[((i + 1) * count - 1) / factors];
    phase.factors.push_back(division.factors[i]);
    phase.parts *= mesh.factor(division.factors[i]).size;
  }
  return phases;
}

}  // namespace

parallel::Mesh train_mesh(int64_t data, int64_t fsdp, int64_t tensor) {
  return parallel::Mesh(
      {{parallel::kDataAxis, data}, {kFsdpAxis, fsdp}, {parallel::kTensorAxis, tensor}});
}

parallel::Division batch_division(const parallel::Mesh& mesh) {
  return division_of(mesh, {parallel::kDataAxis, kFsdpAxis});
}

parallel::Division all_devices(const parallel::Mesh& mesh) {
  return division_of(mesh, {parallel::kDataAxis, kFsdpAxis, parallel::kTensorAxis});
}

Dims StateWeight::layer_dims(bool sharded) const {
  Dims dims(decl.local.begin() + (stacked ? 1 : 0), decl.local.end());
  if (shard_axis < 0 || sharded) return dims;
  const auto axis = static_cast<size_t>(shard_axis);
  const parallel::Placement& state = decl.placement;
  dims[axis] *= state[axis + (stacked ? 1 : 0)].parts / whole[axis].parts;
  return dims;
}

Sharding::Sharding(parallel::Mesh mesh, const StepOptions& options)
    : mesh_(std::move(mesh)),
      fsdp_(division_of(mesh_, {kFsdpAxis})),
      phases_(phases_of(mesh_, fsdp_)),
      stage_(options.zero_stage),
      compute_(options.compute) {}

StateWeight Sharding::state_of(const nn::WeightDecl& decl, std::vector<std::string> names,
                               int64_t turns) const {
  StateWeight weight;
  weight.decl = decl;
  nn::WeightDecl& state = weight.decl;
  state.dtype = DType::kF32;
  state.encoding = Encoding::kDense;
  state.is_matrix = false;  // never kept in a checkpoint's blocks
  state.names = std::move(names);
  weight.whole = state.placement;  // none on one device
  weight.decays = decl.dims.size() > 1;
  if (stage_ != ZeroStage::kNone && !fsdp_.whole()) {
    const size_t rank = decl.dims.size();
    for (size_t i = 0; i < rank && weight.shard_axis < 0; ++i) {
      // Where several matrices are stored as one, a stretch of rows is not one of each of them.
      const bool in_segments = !decl.segments.empty() && i == (rank > 1 ? rank - 2 : 0);
      if (in_segments || state.local[i] % fsdp_.parts != 0) continue;
      weight.shard_axis = static_cast<int64_t>(i);
      state.local[i] /= fsdp_.parts;
      state.placement[i] = join(mesh_, state.placement[i], fsdp_);
    }
  }
  weight.stacked = turns > 1;
  if (!weight.stacked) return weight;
  state.dims.insert(state.dims.begin(), turns);
  state.local.insert(state.local.begin(), turns);
  if (!state.placement.empty()) {
    state.placement.insert(state.placement.begin(), parallel::Division());
  }
  state.axes.insert(state.axes.begin(), "layers");
  if (!state.units.empty()) state.units.insert(state.units.begin(), 0);
  return weight;
}

ir::Value Sharding::gathered(const StateWeight& weight, ir::Value shard, int64_t axis_shift) const {
  const ir::Value rounded = ir::convert(shard, compute_);
  if (weight.shard_axis < 0) return rounded;
  ir::Value all = rounded;
  for (size_t i = phases_.size(); i-- > 0;) {
    all = parallel::gather(all, weight.shard_axis + axis_shift, mesh_, phases_[i]);
  }
  return all;
}

ir::Value Sharding::scattered(const StateWeight& weight, ir::Value gradient,
                              int64_t axis_shift) const {
  if (weight.shard_axis < 0) return gradient;
  for (const parallel::Division& phase : phases_) {
    gradient = parallel::sum_scatter(gradient, weight.shard_axis + axis_shift, mesh_, phase);
  }
  return gradient;
}

ir::Value Sharding::collected(const StateWeight& weight, ir::Value gradient) const {
  if (!divides_gradients()) return ir::convert(gradient, DType::kF32);
  // Behind the barrier the TPU compiler does not try to sum up first and send afterwards, for which
  // gradients would have to be whole.
  const ir::Value part = scattered(weight, ir::convert(gradient, compute_), 0);
  return ir::convert(ir::optimization_barrier({part})[0], DType::kF32);
}

ir::Value Sharding::summed(const StateWeight& weight, ir::Value gradient) const {
  ir::Value sum = gradient;
  if (!divides_gradients()) sum = scattered(weight, sum, weight.stacked ? 1 : 0);
  // Devices that have a copy of the weight have gradients of their own.
  parallel::Division left = all_devices(mesh_);
  for (const parallel::Division& division : weight.decl.placement) {
    left = without(mesh_, left, division);
  }
  return parallel::sum(sum, mesh_, left);
}

Shape Sharding::gradient_shape(const StateWeight& weight) const {
  Dims dims = weight.layer_dims(divides_gradients());
  if (weight.stacked) dims.insert(dims.begin(), weight.decl.local[0]);
  return {DType::kF32, dims};
}

double Sharding::copies(const StateWeight& weight) const {
  auto copies = static_cast<double>(mesh_.num_devices());
  for (const parallel::Division& division : weight.decl.placement) {
    copies /= static_cast<double>(division.parts);
  }
  return copies;
}

}  // namespace ttpu::train
