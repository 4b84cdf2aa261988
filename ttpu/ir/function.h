// A function under construction: arguments, results, body, and the point where operators go.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/ir/operation.h"

namespace ttpu::ir {

class Module;

struct ArgumentInfo {
  std::string name;
  std::optional<Sharding> sharding;
  std::optional<int> aliases_result;  // tf.aliasing_output
  bool donated = false;               // jax.buffer_donor: the plugin may reuse it for any output
};

struct ResultInfo {
  std::string name;
  std::optional<Sharding> sharding;
};

// A body given as text: functions of StableHLO, the first with the function's name, arguments and
// results. What it costs is said beside it, since nobody looks into the text.
struct TextBody {
  struct Update {  // an argument that is changed in place and becomes a result
    size_t argument = 0;
    size_t result = 0;
    double read_bytes = 0;
    double written_bytes = 0;
  };
  struct Read {  // an argument that is read in part
    size_t argument = 0;
    double bytes = 0;
  };
  std::string text;
  double flops = 0;  // of one call
  std::vector<Update> updates = {};
  std::vector<Read> reads = {};
};

// How a function is differentiated where it has a way of its own (JAX's custom_vjp). Both append
// operators to the function of the values they are given, and keep no values between them.
struct CustomGradient {
  // The function's results, then whatever `backward` wants to know besides.
  std::function<Values(const Values& arguments)> forward;
  // kept: what `forward` gave. cotangents: one a result. Returns one an argument; an empty Value
  // where there is none.
  std::function<Values(const Values& arguments, const Values& kept, const Values& cotangents)>
      backward;
};

class Function {
 public:
  Function(Module* module, std::string name);
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;

  const std::string& name() const { return name_; }
  Module& module() const { return *module_; }

  Value add_argument(Shape shape, std::string name = "");
  // Closes the body. Throws if it is closed already, or inside an open region.
  void set_results(const Values& values, std::vector<std::string> names = {});
  bool is_finished() const { return finished_; }
  // Closes a body that has arguments alone; calls then have results of these shapes.
  void set_text(TextBody body, const std::vector<Shape>& results);
  const TextBody* text() const { return text_ ? &*text_ : nullptr; }  // null: operators

  void set_gradient(CustomGradient gradient) { gradient_ = std::move(gradient); }
  // Null: its operators are differentiated.
  const CustomGradient* gradient() const { return gradient_ ? &*gradient_ : nullptr; }

  // The argument's memory becomes that of result `result_index`. Shapes must be equal (checked when
  // the results are known, and by verify).
  void alias(Value argument, int result_index);
  void donate(Value argument);
  void set_sharding(Value argument, Sharding sharding);
  void set_result_sharding(int result_index, Sharding sharding);

  const Values& arguments() const { return body_.arguments; }
  const Values& results() const;
  const ArgumentInfo& argument_info(size_t index) const { return arguments_.at(index); }
  // Its name, sharding and donation; entries exist for all results once they are set.
  ResultInfo result_info(size_t index) const;

  Region& body() { return body_; }
  const Region& body() const { return body_; }

  // The general way to add an operator, for passes; the builders of each family are for people.
  // Checks the operands, infers the results (result_shapes: only for operators whose results do not
  // follow from operands and attributes) and appends to the innermost open region.
  Operation& append(OpKind kind, Values operands, Attributes attributes = {},
                    std::vector<Region*> regions = {},
                    const std::vector<Shape>& result_shapes = {});

  // Builds a region: opens it, calls `build` with its arguments, closes it with what `build`
  // returns. `op` begins messages.
  Region* build_region(const std::vector<Shape>& argument_shapes, bool isolated,
                       const std::function<Values(const Values&)>& build);

  // Whether code at the insertion point may use `value`.
  bool is_visible(Value value) const;
  // For each value id the operators that use it (one entry a use).
  std::vector<std::vector<Operation*>> users() const;
  size_t num_values() const { return values_.size(); }

  const Shape& shape_of(int32_t id) const { return values_.at(static_cast<size_t>(id)).shape; }
  Operation* producer_of(int32_t id) const { return values_.at(static_cast<size_t>(id)).producer; }
  const Region* region_of(int32_t id) const { return values_.at(static_cast<size_t>(id)).region; }

 private:
  struct ValueData {
    Shape shape;
    Operation* producer = nullptr;
    const Region* region = nullptr;
  };

  Value new_value(Shape shape, Operation* producer, const Region* region);
  size_t argument_index(Value argument, const char* what) const;

  Module* module_;
  std::string name_;
  std::deque<ValueData> values_;  // stable references
  std::deque<Operation> operations_;
  std::deque<Region> regions_;
  Region body_;
  std::vector<Region*> open_;  // innermost last
  std::vector<ArgumentInfo> arguments_;
  std::vector<ResultInfo> results_;
  std::optional<TextBody> text_;
  std::optional<CustomGradient> gradient_;
  bool finished_ = false;
};

}  // namespace ttpu::ir
