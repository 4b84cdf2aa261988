// A decoder without its head, for embeddings.
#pragma once

#include "ttpu/nn/decoder.h"

namespace ttpu::nn {

// What the head would see: the last hidden states [tokens, hidden] after the final norm, of texts
// that are whole in one step. `cache` [pages, page_size, ...] is scratch that every layer writes
// anew; it is updated. Throws kUnimplemented when layers have caches of different dimensions.
LayerResult decoder_states(Context& context, const DecoderSpec& spec, const StepInputs& inputs,
                           ir::Value cache);

}  // namespace ttpu::nn
