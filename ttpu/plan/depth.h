// The cost of a deep program, from two shallow ones: compiling takes as long as a program is long,
// and layers that are alike cost alike.
#pragma once

#include <optional>
#include <vector>

#include "ttpu/nn/decoder.h"
#include "ttpu/plan/report.h"

namespace ttpu::plan {

struct Depths {
  int64_t layers = 0;  // of the model
  int64_t first = 0;   // layers of the shallower program
  int64_t second = 0;  // of the other: one turn of the pattern of layers more (the sliding and full
                       // attention of Gemma 3: six)
};

// Of a program of so many stages of a pipeline. Nothing for a model whose layers repeat in no
// pattern, or that is no deeper than the second.
std::optional<Depths> depths_of(const nn::DecoderSpec& spec, int64_t stages = 1);

// Into how many stages of a pipeline, more than one, the layers divide so that layer i of each is
// like layer i of the others.
std::vector<int64_t> stages_of(const nn::DecoderSpec& spec);

// What the whole model's program would be said to cost: every figure goes on as a straight line.
// `layers` says from where. Of the two, programs of one phase for one slice.
ProgramReport at_depth(const ProgramReport& first, const ProgramReport& second,
                       const Depths& depths);

}  // namespace ttpu::plan
