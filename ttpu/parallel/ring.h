// All-gather and reduce-scatter taken apart into steps between neighbours, so that products of the
// rows that have come run while the next ones travel: S. Wang et al., "Overlap Communication with
// Dependent Computation via Decomposition in Large Deep Learning Models" (ASPLOS 2023).
//
// Rows are divided by `division`, each device having one part. Links carry both directions at once:
// half of a part travels one way round the ring and half the other way, or, where products take
// longer than the way, whole parts go the shorter one, which are fewer and larger products.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "ttpu/ir/value.h"
#include "ttpu/parallel/mesh.h"

namespace ttpu::parallel {

class Ring {
 public:
  // What travels in the place of rows: themselves, or values that say the same, row by row.
  using Form = std::function<ir::Values(ir::Value rows)>;
  // What is computed of each row by itself, given its form.
  using Product = std::function<ir::Value(const ir::Values& rows)>;
  using Products = std::function<ir::Values(const ir::Values& rows)>;

  // `allocates`: the compiler gives memory without filling it.
  Ring(const Mesh& mesh, const Division& division, bool allocates);

  // products(the rows of all parts, in order), given the device's own rows. In halves.
  ir::Values gather(ir::Value own, const Form& form, const Products& products) const;
  // Of the sum over devices of product(x), the device's own rows. x: the rows of all parts. In
  // halves.
  ir::Value sum_scatter(const ir::Values& x, const Product& product) const;
  // sum_scatter by `outer` of what `inner` makes of the gathered rows, which never stand together.
  // In whole parts.
  ir::Value gather_sum_scatter(ir::Value own, const Form& form, const Product& inner,
                               const std::function<ir::Value(ir::Value)>& outer) const;
  // From each device what it made for this one, the k-th from that k places before it. `made(k)`:
  // for the device k places after.
  using ForDevice = std::function<ir::Values(int64_t places)>;
  std::vector<ir::Values> trade(const ForDevice& made) const;
  // The rows of all parts in order, given those of the devices k places before, for each k.
  ir::Value in_order(const ir::Values& received) const;
  // Of all rows in order those of the device k places after.
  ir::Value rows_of(ir::Value all, int64_t places) const;

 private:
  using Rows = std::function<ir::Value(int64_t ahead)>;

  // What comes by of parts or halves of them, from the device's own on: after k turns that of the
  // device that is k places before it, for a direction of 1.
  std::vector<ir::Values> passing(const ir::Values& own, int64_t direction, int64_t turns) const;
  // `rows(k)`: what the device adds for the one k places after it.
  ir::Value sum(const Rows& rows, int64_t direction) const;
  // What is to be written over: so many rows like those of `like`.
  ir::Value memory(ir::Value like, int64_t rows) const;
  // To the device so many places after.
  ir::Value send(ir::Value x, int64_t places) const;
  // The first row of the part that is `places` after the device's own, where parts have `rows`.
  ir::Value first_row(ir::Function& function, int64_t places, int64_t rows) const;

  Mesh mesh_;
  Division division_;
  bool allocates_ = false;
};

}  // namespace ttpu::parallel
