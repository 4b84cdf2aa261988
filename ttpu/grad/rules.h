// The rules of each operator family; rules.cc holds the table.
#pragma once

#include "ttpu/grad/tape.h"

namespace ttpu::grad {

// elementwise
void reverse_unary(const Reverse& reverse);
void reverse_binary(const Reverse& reverse);
void reverse_clamp(const Reverse& reverse);
void reverse_select(const Reverse& reverse);
void reverse_nothing(const Reverse& reverse);  // its derivative is zero
// convert
void reverse_convert(const Reverse& reverse);
void reverse_reduce_precision(const Reverse& reverse);
// shape
void reverse_reshape(const Reverse& reverse);
void reverse_transpose(const Reverse& reverse);
void reverse_broadcast_in_dim(const Reverse& reverse);
void reverse_slice(const Reverse& reverse);
void reverse_dynamic_slice(const Reverse& reverse);
void reverse_dynamic_update_slice(const Reverse& reverse);
void reverse_concatenate(const Reverse& reverse);
void reverse_pad(const Reverse& reverse);
void reverse_reverse(const Reverse& reverse);
// dot
void reverse_dot_general(const Reverse& reverse);
// reduce
void reverse_reduce(const Reverse& reverse);
void reverse_sort(const Reverse& reverse);
// gather, scatter
void reverse_gather(const Reverse& reverse);
void reverse_scatter(const Reverse& reverse);
// collectives: linear maps of what all devices have, whose transposes these are
void reverse_all_reduce(const Reverse& reverse);
void reverse_all_gather(const Reverse& reverse);
void reverse_reduce_scatter(const Reverse& reverse);
void reverse_all_to_all(const Reverse& reverse);
void reverse_collective_permute(const Reverse& reverse);
// others
void reverse_optimization_barrier(const Reverse& reverse);
void reverse_sharding_constraint(const Reverse& reverse);

// `count` numbers from `first` on.
Dims counted(int64_t count, int64_t first = 0);
// The permutation that undoes it.
Dims inverse(const Dims& permutation);
// Whether a region of two scalars gives `kind` of them.
bool combines_by(const ir::Operation& operation, ir::OpKind kind);

}  // namespace ttpu::grad
