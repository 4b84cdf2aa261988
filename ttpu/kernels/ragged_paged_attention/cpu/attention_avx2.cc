// Attention tiles for AVX2 with FMA: everything in f32.
#include "ttpu/kernels/ragged_paged_attention/cpu/tile.h"

#if defined(__x86_64__)

namespace ttpu::kernels::cpu {

const AttentionIsa kAvx2Attention = {run_tile<PlainPacking>, join_parts};

}  // namespace ttpu::kernels::cpu

#endif
