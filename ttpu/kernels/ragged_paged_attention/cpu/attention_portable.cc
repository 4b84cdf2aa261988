// Attention in plain C++.
#include "ttpu/kernels/ragged_paged_attention/cpu/plain.h"

namespace ttpu::kernels::cpu {

const AttentionIsa kPortableAttention = kPlainAttention;

}  // namespace ttpu::kernels::cpu
