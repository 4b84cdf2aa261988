// One layer of a decoder, and a loop over layers that are alike.
#pragma once

#include <vector>

#include "ttpu/nn/decoder.h"

namespace ttpu::nn {

LayerResult layer_step(Context& context, const LayerSpec& layer, ir::Value x, ir::Value cache,
                       const StepInputs& inputs, RotaryTables& tables);

// cache: [layers * pages, page_size, ...]. See Layers::kScanned.
LayerResult scan_layers(Context& context, const std::vector<LayerSpec>& layers, ir::Value x,
                        ir::Value cache, const StepInputs& inputs, RotaryTables& tables);

}  // namespace ttpu::nn
