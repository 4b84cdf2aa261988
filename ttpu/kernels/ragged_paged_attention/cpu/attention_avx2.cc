// Attention for AVX2 with FMA: everything in f32.
#include "ttpu/kernels/ragged_paged_attention/cpu/plain.h"

#if defined(__x86_64__)

namespace ttpu::kernels::cpu {

const AttentionIsa kAvx2Attention = kPlainAttention;

}  // namespace ttpu::kernels::cpu

#endif
