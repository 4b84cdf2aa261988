// Normalization for the instruction set of this file's name.
#include "ttpu/kernels/norm/cpu/row.h"

namespace ttpu::kernels::cpu {

const NormRow kPortableNorm = norm_row;

}  // namespace ttpu::kernels::cpu
