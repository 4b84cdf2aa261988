// Attention tiles in plain C++.
#include "ttpu/kernels/ragged_paged_attention/cpu/tile.h"

namespace ttpu::kernels::cpu {

const AttentionIsa kPortableAttention = {run_tile<PlainPacking>, join_parts};

}  // namespace ttpu::kernels::cpu
