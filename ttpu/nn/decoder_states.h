// A decoder without its head, for embeddings, and its ends alone, for programs that go through the
// layers by themselves.
#pragma once

#include "ttpu/nn/decoder.h"

namespace ttpu::nn {

// What the head would see: the last hidden states [tokens, hidden] after the final norm, of texts
// that are whole in one step. `cache` [pages, page_size, ...] is scratch that every layer writes
// anew; it is updated. Throws kUnimplemented when layers have caches of different dimensions.
LayerResult decoder_states(Context& context, const DecoderSpec& spec, const StepInputs& inputs,
                           ir::Value cache);

// What the first layer sees: of inputs.tokens the device's part, [tokens / parts, hidden].
ir::Value embedded(Context& context, const DecoderSpec& spec, const StepInputs& inputs);
// Of states after the final norm [tokens, hidden] the logits of the device's part of the
// vocabulary, f32 [tokens, vocab / parts]; where that does not divide, the last have columns of
// zeros behind the vocabulary.
ir::Value logits(Context& context, const DecoderSpec& spec, ir::Value states);

}  // namespace ttpu::nn
