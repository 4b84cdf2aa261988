// Normalization for the instruction set of this file's name.
#include "ttpu/kernels/norm/cpu/row.h"

#if defined(__x86_64__)

namespace ttpu::kernels::cpu {

const NormRow kAvx512Norm = norm_row;

}  // namespace ttpu::kernels::cpu

#endif
