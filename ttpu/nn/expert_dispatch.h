// Tokens and the experts they chose, where devices have different experts: rows go to the experts
// and are added up, in rounds of a fixed number of rows that go on until none is left. Routing that
// is about even takes one round; no row is ever dropped.
#pragma once

#include <functional>

#include "ttpu/ir/value.h"
#include "ttpu/parallel/mesh.h"

namespace ttpu::nn {

// What each token chose.
struct Routing {
  ir::Value experts;  // [tokens, top_k] i32, of all experts
  ir::Value weights;  // [tokens, top_k] f32
};

// As one array [tokens, 2 * top_k] of f32, to be sent; experts' numbers are small enough to be
// exact.
ir::Value packed(const Routing& routing);
Routing unpacked(ir::Value both);

// y[r] = what the device's expert ids[r] gives for x[r % tokens], f32, x being [tokens, hidden] and
// ids one or several times as many; zeros for an id outside its experts. sorted: as
// kernels::ExpertRows has it. Declares no weights: it is called inside loops.
using Experts = std::function<ir::Value(ir::Value x, ir::Value ids, bool sorted)>;

struct ExpertParts {
  parallel::Mesh mesh;
  parallel::Division division;
  int64_t own = 0;  // experts that a device has
  Experts run;

  int64_t none() const { return own * division.parts; }  // what padding chose
};

// Rows that a round has room for, where `expected` of `most` come if routing is even: half as many
// again, and a few more, since few rows vary more.
int64_t round_size(double expected, int64_t most);

// For each token (x: [tokens, hidden]) the weighted sum of what the device's experts give: a part
// of a sum over `division`. A round has `size` of the rows that chose them; where that is all rows
// there are, those that chose others are computed too, as zeros.
ir::Value sum_of_own_experts(const ExpertParts& parts, ir::Value x, const Routing& routing,
                             int64_t size);

// For each of the device's own tokens the weighted sum of what all its experts give. In a round a
// device sends each other one `size` tokens, once each, and gets back what its experts gave.
ir::Value sum_by_all_to_all(const ExpertParts& parts, ir::Value x, const Routing& routing,
                            int64_t size);

// Of `tokens` on each of `devices`, how many a device sends another if routing is even.
double tokens_for_each(int64_t tokens, int64_t top_k, int64_t devices);

// Whether all-to-alls of `size` tokens for each device take the links of a TPU slice for less time
// than an all-gather of each device's `tokens`, and a reduce-scatter, do.
bool all_to_all_is_shorter(int64_t size, int64_t tokens, int64_t devices);

}  // namespace ttpu::nn
