// The linear kernels for AVX2 with FMA and F16C: everything in f32.
#include "ttpu/kernels/linear/cpu/generic.h"

#if defined(__x86_64__)

namespace ttpu::kernels::cpu {

const IsaKernels kAvx2Kernels = {
    .few_rows_form = always_f32,
    .rows_at_once = always_few,
    .many_rows_form = always_f32,
    .f32_from_bf16 = expand_bf16,
    .quantize = nullptr,
    .few_rows = few_rows_only_f32,
    .panel = kPanel,
    .row_block = kRowBlock,
    .panel_bytes = panel_bytes_f32,
    .pack = pack_only_f32,
    .many_rows = many_rows_only_f32,
    .store = store_row,
};

}  // namespace ttpu::kernels::cpu

#endif
