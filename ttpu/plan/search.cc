#include "ttpu/plan/search.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/base/strings.h"

namespace ttpu::plan {

std::vector<Slice> slices_of(const std::string& topology) {
  const size_t colon = topology.find(':');
  const bool any = topology == "auto";
  if (!any && (colon == std::string::npos || topology.substr(colon + 1) != "auto")) {
    return {parse_slice(topology)};
  }
  if (!any) chip_of_topology(topology);  // refuses an unknown chip
  std::vector<Slice> slices;
  for (const Chip& chip : chips()) {
    if (!any && chip.name != topology.substr(0, colon)) continue;
    for (const std::string& name : known_slices(chip)) slices.push_back(parse_slice(name));
  }
  return slices;
}

Prices parse_prices(const std::string& text) {
  Prices prices;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    const std::string chip = equals == std::string::npos ? "" : part.substr(0, equals);
    const std::string number = equals == std::string::npos ? part : part.substr(equals + 1);
    double price = 0;
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), price);
    const bool is_price = parsed.ec == std::errc() && std::isfinite(price) && price > 0 &&
                          parsed.ptr == number.data() + number.size();
    const bool is_known =
        chip.empty() ||
        std::any_of(chips().begin(), chips().end(), [&](const Chip& c) { return c.name == chip; });
    require(is_price && is_known,
            "[plan] '{}' is no price of a chip; expected a number above 0 for any chip, or one for "
            "each: v5e=1.2,v6e=2.7",
            part);
    require(prices.emplace(chip, price).second,
            "[plan] --price-per-chip-hour {} has two prices for {}; leave one of them out", text,
            chip.empty() ? "any chip" : chip);
  }
  return prices;
}

std::optional<double> price_of(const Prices& prices, const Chip& chip) {
  for (const std::string& name : {chip.name, std::string()}) {
    const auto found = prices.find(name);
    if (found != prices.end()) return found->second;
  }
  return std::nullopt;
}

void keep_priced(const Prices& prices, const std::string& topology, std::vector<Slice>* slices) {
  if (prices.empty()) return;
  std::erase_if(*slices, [&](const Slice& slice) { return !price_of(prices, slice.chip); });
  require(!slices->empty(), "[plan] --price-per-chip-hour has no price for the chip of {}; add it",
          topology);
}

std::string unpriced(const Prices& prices, const Chip& chip) {
  if (prices.empty() || price_of(prices, chip)) return "";
  return fmt::format("No price was given for {}; add {}=PRICE to --price-per-chip-hour.", chip.name,
                     chip.name);
}

std::optional<double> price_per_million(const Prices& prices, const Slice& slice,
                                        double tokens_per_second) {
  const auto price = price_of(prices, slice.chip);
  if (!price) return std::nullopt;
  return *price * static_cast<double>(slice.chips()) / 3600 / tokens_per_second * 1e6;
}

std::vector<int64_t> tensor_sizes(const ModelFacts& facts, int64_t devices) {
  std::vector<int64_t> sizes;
  for (int64_t tensor = 1; tensor <= devices; ++tensor) {
    const bool divides = devices % tensor == 0 &&
                         std::all_of(facts.attention.begin(), facts.attention.end(),
                                     [&](const auto& layer) { return layer.heads % tensor == 0; });
    if (divides) sizes.push_back(tensor);
  }
  return sizes;
}

void check_tensor_size(const ModelFacts& facts, const Slice& slice, int64_t tensor) {
  require(slice.devices() % tensor == 0,
          "[plan] --tensor-parallel-size is {}, but {} has {} devices; give a number that divides "
          "them",
          tensor, slice.name, slice.devices());
  const std::vector<int64_t> possible = tensor_sizes(facts, slice.devices());
  require(
      std::find(possible.begin(), possible.end(), tensor) != possible.end(),
      "[plan] --tensor-parallel-size is {}, but layers have {} heads, which it does not divide; "
      "of the {} devices of {} these many can share a layer: {}",
      tensor, facts.attention.at(0).heads, slice.devices(), slice.name, fmt::join(possible, ", "));
}

bool has_latent(const ModelFacts& facts) {
  return std::any_of(facts.attention.begin(), facts.attention.end(),
                     [](const auto& layer) { return layer.kv_heads == 0; });
}

std::string percent(double part, double whole) {
  return fmt::format("{:.0f}%", whole > 0 ? 100 * part / whole : 0);
}

}  // namespace ttpu::plan
