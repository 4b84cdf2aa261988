// Whether layers are alike is decided by what they compute: each is built into a program of its
// own, and these must read the same.
#pragma once

#include <string>
#include <vector>

#include "ttpu/nn/decoder.h"

namespace ttpu::nn {

struct LayerTrace {
  std::string program;
  std::vector<WeightDecl> weights;  // in the order in which the layer asks for them
};

// The layer alone. Names of weights stand only in the declarations.
LayerTrace trace_layer(const Context& context, const LayerSpec& layer, ir::Value x, ir::Value cache,
                       const StepInputs& inputs);

bool alike(const LayerTrace& a, const LayerTrace& b);

// The names of what is `decl` in layer `first`, in the layers `first`, `first` + `period`, ..., all
// of them alike.
std::vector<std::string> names_in_all(const std::vector<LayerTrace>& traces, size_t first,
                                      size_t period, const WeightDecl& decl);

}  // namespace ttpu::nn
