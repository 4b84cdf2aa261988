// Sampling for the instruction set of this file's name.
#include "ttpu/kernels/sampling/cpu/row.h"

namespace ttpu::kernels::cpu {

const SamplingIsa kPortableSampling = kSampling;

}  // namespace ttpu::kernels::cpu
