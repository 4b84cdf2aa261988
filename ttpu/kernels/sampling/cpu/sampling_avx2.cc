// Sampling for the instruction set of this file's name.
#include "ttpu/kernels/sampling/cpu/row.h"

#if defined(__x86_64__)

namespace ttpu::kernels::cpu {

const SamplingIsa kAvx2Sampling = kSampling;

}  // namespace ttpu::kernels::cpu

#endif
