#include "ttpu/parallel/ring.h"

#include <utility>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::parallel {
namespace {

constexpr int64_t kDirections[] = {1, -1};

int64_t modulo(int64_t a, int64_t n) { return (a % n + n) % n; }

ir::Values starts_at(ir::Value row, int rank) {
  ir::Values starts(static_cast<size_t>(rank), ir::scalar_like(row, 0));
  starts[0] = row;
  return starts;
}

// So many rows of x, from `row` on.
ir::Value taken(ir::Value x, ir::Value row, int64_t rows) {
  Dims dims = x.dims();
  dims[0] = rows;
  return ir::dynamic_slice(x, starts_at(row, x.rank()), dims);
}

// [begin, end) of a part's rows that travel in this direction.
std::pair<int64_t, int64_t> half(int64_t rows, int64_t direction) {
  return direction > 0 ? std::pair(int64_t{0}, rows / 2) : std::pair(rows / 2, rows);
}

}  // namespace

Ring::Ring(const Mesh& mesh, const Division& division, bool allocates)
    : mesh_(mesh), division_(division), allocates_(allocates) {
  require(!division.whole(), "[parallel] a ring needs at least two parts");
}

ir::Value Ring::memory(ir::Value like, int64_t rows) const {
  Dims dims = like.dims();
  dims[0] = rows;
  const Shape shape(like.dtype(), dims);
  if (!allocates_) return ir::full(like.function(), shape, 0);
  return ir::custom_call(like.function(), "AllocateBuffer", {}, {shape}, {.api_version = 1})[0];
}

ir::Value Ring::send(ir::Value x, int64_t places) const {
  std::vector<std::pair<int64_t, int64_t>> pairs;
  for (const Dims& group : groups_of(mesh_, division_)) {
    const auto size = static_cast<int64_t>(group.size());
    for (int64_t i = 0; i < size; ++i) {
      pairs.emplace_back(group[static_cast<size_t>(i)],
                         group[static_cast<size_t>(modulo(i + places, size))]);
    }
  }
  return ir::collective_permute(x, pairs);
}

ir::Value Ring::first_row(ir::Function& function, int64_t places, int64_t rows) const {
  const ir::Value own = part_index(function, mesh_, division_);
  const auto parts = static_cast<double>(division_.parts);
  const ir::Value part = ir::remainder(own + static_cast<double>(modulo(places, division_.parts)),
                                       ir::scalar_like(own, parts));
  return part * static_cast<double>(rows);
}

std::vector<ir::Values> Ring::passing(const ir::Values& own, int64_t direction,
                                      int64_t turns) const {
  std::vector<ir::Values> parts = {own};
  while (static_cast<int64_t>(parts.size()) <= turns) {
    ir::Values next;
    for (const ir::Value value : parts.back()) next.push_back(send(value, direction));
    parts.push_back(std::move(next));
  }
  return parts;
}

ir::Value Ring::sum(const Rows& rows, int64_t direction) const {
  // What has k places still to go is the sum for the device k places on.
  ir::Value sum = rows(division_.parts - 1);
  for (int64_t k = division_.parts - 2; k >= 0; --k) sum = send(sum, direction) + rows(k);
  return sum;
}

ir::Values Ring::gather(ir::Value own, const Form& form, const Products& products) const {
  const int64_t rows = own.dim(0);
  ir::Values results;
  for (const int64_t direction : kDirections) {
    const auto [begin, end] = half(rows, direction);
    const auto halves =
        passing(form(ir::slice_in_dim(own, 0, begin, end)), direction, division_.parts - 1);
    for (int64_t k = 0; k < division_.parts; ++k) {
      const ir::Values made = products(halves[static_cast<size_t>(k)]);
      if (results.empty()) {
        for (const ir::Value value : made) {
          results.push_back(memory(value, rows * division_.parts));
        }
      }
      const ir::Value row = first_row(own.function(), -k * direction, rows);
      const ir::Value start = row + static_cast<double>(begin);
      for (size_t i = 0; i < made.size(); ++i) {
        results[i] =
            ir::dynamic_update_slice(results[i], made[i], starts_at(start, made[i].rank()));
      }
    }
  }
  return results;
}

ir::Value Ring::sum_scatter(const ir::Values& x, const Product& product) const {
  const ir::Value all = x.at(0);
  require(all.dim(0) % division_.parts == 0, "[parallel] {} rows do not divide by {}", all.dim(0),
          division_.parts);
  const int64_t rows = all.dim(0) / division_.parts;
  ir::Values sums;
  for (const int64_t direction : kDirections) {
    const auto [begin, end] = half(rows, direction);
    const auto own = [&, begin = begin, end = end](int64_t places) {
      const ir::Value row = first_row(all.function(), places * direction, rows);
      ir::Values part;
      for (const ir::Value value : x) {
        part.push_back(taken(value, row + static_cast<double>(begin), end - begin));
      }
      return product(part);
    };
    sums.push_back(sum(own, direction));
  }
  return ir::concatenate(sums, 0);
}

ir::Value Ring::gather_sum_scatter(ir::Value own, const Form& form, const Product& inner,
                                   const std::function<ir::Value(ir::Value)>& outer) const {
  const int64_t farthest = division_.parts / 2;
  const int64_t after = division_.parts - 1 - farthest;  // those that are nearer the other way
  const ir::Values part = form(own);
  const std::vector<ir::Values> forward = passing(part, 1, farthest);
  const std::vector<ir::Values> backward = passing(part, -1, after);
  // Of the device so many places after, in the order in which they come.
  std::vector<std::pair<int64_t, ir::Value>> made = {{0, inner(part)}};
  const auto make = [&](int64_t places, ir::Values rows) {
    rows.push_back(made.back().second);
    rows = ir::optimization_barrier(rows);
    made.back().second = rows.back();
    rows.pop_back();
    made.emplace_back(places, inner(rows));
  };
  for (int64_t k = 1; k <= farthest; ++k) {
    make(-k, forward[static_cast<size_t>(k)]);
    if (k <= after) make(k, backward[static_cast<size_t>(k)]);
  }
  // Sums go the way that the rows came, the farthest first; what arrives is waited for when there
  // is something to add it to.
  ir::Values sums(2);
  for (size_t i = made.size() - 1; i > 0; --i) {
    ir::Value& sum = sums[made[i].first > 0 ? 0 : 1];
    const ir::Value product = outer(made[i].second);
    const ir::Values next =
        ir::optimization_barrier({sum ? product + sum : product, made[i - 1].second});
    made[i - 1].second = next[1];
    sum = send(next[0], made[i].first > 0 ? 1 : -1);
  }
  ir::Values last = {outer(made[0].second), sums[1]};
  if (sums[0]) last.push_back(sums[0]);
  last = ir::optimization_barrier(last);
  const ir::Value sum = last[0] + last[1];
  return sums[0] ? sum + last[2] : sum;
}

std::vector<ir::Values> Ring::trade(const ForDevice& made) const {
  std::vector<ir::Values> received(static_cast<size_t>(division_.parts));
  // The longest ways first: what is made for the others runs beside them.
  for (int64_t i = division_.parts - 1; i >= 0; --i) {
    const int64_t k = i % 2 == 0 ? i / 2 : division_.parts - (i + 1) / 2;
    for (const ir::Value value : made(k)) {
      received[static_cast<size_t>(k)].push_back(k == 0 ? value : send(value, k));
    }
  }
  return received;
}

ir::Value Ring::in_order(const ir::Values& received) const {
  const ir::Value own = received.at(0);
  ir::Value all = memory(own, own.dim(0) * division_.parts);
  for (int64_t k = 0; k < division_.parts; ++k) {
    const ir::Value row = first_row(own.function(), -k, own.dim(0));
    all =
        ir::dynamic_update_slice(all, received[static_cast<size_t>(k)], starts_at(row, own.rank()));
  }
  return all;
}

ir::Value Ring::rows_of(ir::Value all, int64_t places) const {
  const int64_t rows = all.dim(0) / division_.parts;
  return taken(all, first_row(all.function(), places, rows), rows);
}

}  // namespace ttpu::parallel
