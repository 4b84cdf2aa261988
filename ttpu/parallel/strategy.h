// Strategies: along which axes of the mesh each logical axis of a model is divided. A strategy is
// data; the table of strategies() holds those that have names.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ttpu/parallel/mesh.h"

namespace ttpu::parallel {

// Logical axes of weights: "vocab", "heads", "kv_heads", "mlp" (inner dimension of a dense MLP),
// "experts", "expert_mlp" (that of each expert). Of what is computed: "batch" (sequences), "tokens"
// (between attention and MLP), "projected_tokens" (in the projections of the attention), "context"
// (positions of a sequence in the cache), "stages" (runs of layers).
struct Strategy {
  std::string name;
  std::string summary;
  std::map<std::string, std::vector<std::string>> rules;  // logical axis to axes of the mesh
};

inline constexpr const char* kDataAxis = "data";
inline constexpr const char* kPipeAxis = "pipe";
inline constexpr const char* kTensorAxis = "tensor";

const std::vector<Strategy>& strategies();
// Throws kInvalidArgument, with the known names.
const Strategy& find_strategy(const std::string& name);

// A mesh and a strategy: answers how anything is divided. The default: one device, nothing is.
class Layout {
 public:
  Layout() = default;
  Layout(Mesh mesh, Strategy strategy) : mesh_(std::move(mesh)), strategy_(std::move(strategy)) {}

  const Mesh& mesh() const { return mesh_; }
  const Strategy& strategy() const { return strategy_; }
  bool one_device() const { return mesh_.factors().empty(); }

  // By all axes that the strategy has for it; who divides by it fills up what does not divide.
  Division division(const std::string& logical_axis) const;
  // By as many of their factors, from the first on, as leave each device whole units.
  Division division(const std::string& logical_axis, int64_t units) const;
  // Replicas of the model that have sequences of their own.
  int64_t replicas() const { return division("batch").parts; }

 private:
  Mesh mesh_;
  Strategy strategy_;
};

}  // namespace ttpu::parallel
