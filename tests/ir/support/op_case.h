// The declarative operator tests: text files of cases.
//
//   case add: integers
//   arg a: i32[3] = 1 2 3
//   arg b: i32[3] = 10 20 30
//   y = add(a, b)
//   expect y: i32[3] = 11 22 33
//   fails add(a, y) with "element types differ"
//
// A statement calls a builder of ttpu::ir: positional values (or lists of them), named attributes,
// and regions: `s = reduce([a], [zero], dimensions=[0]) { |x, y| z = add(x, y) return z }`.
// `expect y ~ 1e-3: ...` sets the tolerance. `replicas 2` or `mesh m x=2` before the arguments runs
// on so many devices; then `|` parts what each device has, and `arg a (x): f32[4] = 1 2 | 3 4`
// shards the dimensions of an argument over mesh axes (- for none).
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/ir/ir.h"

namespace ttpu::ir::testing {

// A call of a builder, parsed.
struct CallArguments {
  Function* function = nullptr;
  std::vector<Values> positional;
  std::map<std::string, Json> named;
  std::vector<std::function<Values(const Values&)>> regions;

  Value value(size_t index) const;
  const Values& values(size_t index) const;
  bool has(const std::string& name) const { return named.count(name) > 0; }
  int64_t integer(const std::string& name) const;
  int64_t integer_or(const std::string& name, int64_t fallback) const;
  bool flag(const std::string& name) const;
  std::string text(const std::string& name) const;
  Dims dims(const std::string& name) const;  // empty when missing
  std::vector<Dims> rows(const std::string& name) const;
  std::vector<std::pair<int64_t, int64_t>> pairs(const std::string& name) const;
  Shape shape(const std::string& name) const;
  std::vector<Shape> shapes(const std::string& name) const;
  Sharding sharding(const std::string& name) const;
  BinaryBody binary(size_t region) const;
};

// "f32[2,3]"
Shape parse_shape(const std::string& text);
// By name; throws ttpu::Error for an unknown one.
Values call_builder(const std::string& name, const CallArguments& arguments);

struct Argument {
  std::string name;
  Shape shape;                              // of the whole
  std::vector<std::vector<double>> values;  // one list, or one a device
};

struct Expectation {
  std::string name;
  Shape shape;  // what one device holds
  std::vector<std::vector<double>> values;
  double tolerance = -1;  // negative: by dtype
};

// A case with its program built. Building throws what is wrong with the text.
struct OpCase {
  std::string name;
  std::unique_ptr<Module> module;
  int replicas = 1;
  int partitions = 1;
  std::string refused;  // what every CPU plugin says instead of running it; "" when it runs
  std::vector<Argument> arguments;
  std::vector<Expectation> expectations;  // the results of main, in order
};

std::vector<OpCase> read_cases(const std::filesystem::path& path);

}  // namespace ttpu::ir::testing
