// Rows brought together by the experts whose weights they are multiplied with. Internal to the
// linear operators.
#pragma once

#include "ttpu/ir/value.h"

namespace ttpu::kernels {

// [rows, experts] i1: the expert of each row.
ir::Value one_hot(ir::Value ids, int64_t experts);

// Rows sorted by their experts; those without one last. All i32.
struct SortedRows {
  ir::Value order;    // [rows]: the row at each place; none where they were sorted before
  ir::Value experts;  // [rows]: the expert of each place, or the number of experts
  ir::Value counts;   // [experts]: rows of each expert
};
SortedRows sorted_rows(ir::Value ids, int64_t experts, bool sorted);
// What stands at the sorted rows' places, [rows], in the order of the rows.
ir::Value unsorted(const SortedRows& rows, ir::Value x);
// [rows] i1
ir::Value has_expert(ir::Value ids, int64_t experts);

// [n]: for each entry the sum of those before it.
ir::Value sums_before(ir::Value x);

// For each of `count` numbers from 0 on how many of the ends [n], which do not fall, it has
// reached; at most n - 1. Of ranges that follow each other that is the range that it lies in.
ir::Value ranges_of(ir::Value ends, int64_t count);

// Where rows are put; without sources and places they stay where they are.
struct RowPlaces {
  ir::Value sources;  // [places] i32: the row at each place; any where there is none
  ir::Value places;   // [rows] i32: where each row is; any where it has no expert
  ir::Value known;    // [rows] i1: it has one
};

// x [count, n] to [places, n]; there may be several rows for each one of x, row i being of x[i %
// count]. Like from_places() it knows its gradient, and places without a row have none.
ir::Value at_places(ir::Value x, const RowPlaces& rows);
// And back; rows without an expert are zeros.
ir::Value from_places(ir::Value y, const RowPlaces& rows);

}  // namespace ttpu::kernels
