// What the searches for serving and for training share: slices, prices, who can share a layer.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/plan/chips.h"
#include "ttpu/plan/model_facts.h"

namespace ttpu::plan {

inline constexpr double kGiB = 1 << 30;

// "v5e:2x4": that one; "v5e:auto": the slices of v5e that are offered; "auto": those of all chips.
// Throws kInvalidArgument for what is none of them.
std::vector<Slice> slices_of(const std::string& topology);

// Of a chip for an hour, by the chip's name ("v5e"), or one for any chip under "".
using Prices = std::map<std::string, double>;
// "1.2", or "v5e=1.2,v6e=2.7". Throws kInvalidArgument for what is no price or no chip.
Prices parse_prices(const std::string& text);
std::optional<double> price_of(const Prices& prices, const Chip& chip);
// Leaves those whose chips have a price, where there are prices. Throws kInvalidArgument where that
// is none.
void keep_priced(const Prices& prices, const std::string& topology, std::vector<Slice>* slices);
// A sentence where there are prices but none for this chip; else empty.
std::string unpriced(const Prices& prices, const Chip& chip);
// Of a million tokens on a slice; nothing for a chip without a price.
std::optional<double> price_per_million(const Prices& prices, const Slice& slice,
                                        double tokens_per_second);

// Of a plan's rows some were to be compiled, and none was.
template <typename Rows>
bool no_compile_succeeded(const Rows& rows) {
  return std::ranges::none_of(rows, [](const auto& row) { return row.compiled(); }) &&
         std::ranges::any_of(rows, [](const auto& row) { return !row.failure.empty(); });
}

// How many of `devices` can share a layer: what divides them and all heads.
std::vector<int64_t> tensor_sizes(const ModelFacts& facts, int64_t devices);
// Throws kInvalidArgument where `tensor` is none of them.
void check_tensor_size(const ModelFacts& facts, const Slice& slice, int64_t tensor);

// Whether a layer keeps a latent that all heads share (MLA).
bool has_latent(const ModelFacts& facts);

std::string percent(double part, double whole);  // "12%"

}  // namespace ttpu::plan
