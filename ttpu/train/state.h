// The state of training: master weights in f32 and what the optimizer keeps beside them, and how
// both are divided among the devices.
#pragma once

#include <vector>

#include "ttpu/ir/value.h"
#include "ttpu/nn/weights.h"
#include "ttpu/train/options.h"

namespace ttpu::train {

// Devices that divide the batch: of replicas.
parallel::Division batch_division(const parallel::Mesh& mesh);
parallel::Division all_devices(const parallel::Mesh& mesh);

struct StateWeight {
  // `local` and `placement`: of the state. Of layers that are scanned, those of all turns are
  // stacked on a first dimension.
  nn::WeightDecl decl;
  bool stacked = false;
  bool decays = false;
  parallel::Placement whole;  // how the weight is divided where it is computed with
  int64_t shard_axis = -1;  // of the weight of one layer, divided along fsdp in the state besides;
                            // -1: the state is not divided

  Dims layer_dims(bool sharded) const;  // of one layer, on a device
};

// What moves weights and gradients between the state's form and the one that is computed with.
class Sharding {
 public:
  Sharding(parallel::Mesh mesh, const StepOptions& options);

  const parallel::Mesh& mesh() const { return mesh_; }
  // The state of a weight as a layer declares it, of `turns` layers that are scanned; `names`: of
  // all of them.
  StateWeight state_of(const nn::WeightDecl& decl, std::vector<std::string> names,
                       int64_t turns) const;

  bool gathers_by_layer() const { return stage_ == ZeroStage::kParameters; }
  bool divides_gradients() const { return stage_ >= ZeroStage::kGradients; }
  // Of a layer's weight in the state's form, or of all of them stacked (`axis_shift` 1), the one to
  // compute with.
  ir::Value gathered(const StateWeight& weight, ir::Value shard, int64_t axis_shift) const;
  // Of the gradient of one layer's weight, which every replica has of its own tokens, the form in
  // which it is summed up over micro-batches, f32.
  ir::Value collected(const StateWeight& weight, ir::Value gradient) const;
  // Of the sum over micro-batches the sum over all devices, in the form of the state.
  ir::Value summed(const StateWeight& weight, ir::Value gradient) const;
  Shape gradient_shape(const StateWeight& weight) const;
  // How many devices have an element of the state.
  double copies(const StateWeight& weight) const;

 private:
  ir::Value scattered(const StateWeight& weight, ir::Value gradient, int64_t axis_shift) const;

  parallel::Mesh mesh_;
  parallel::Division fsdp_;
  std::vector<parallel::Division> phases_;  // in which gradients are scattered
  ZeroStage stage_;
  DType compute_;
};

}  // namespace ttpu::train
