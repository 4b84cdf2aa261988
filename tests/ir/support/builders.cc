// The builders of ttpu::ir by name, for the declarative tests.
#include "op_case.h"

namespace ttpu::ir::testing {
namespace {

using Arguments = const CallArguments&;
using Builder = std::function<Values(Arguments)>;

template <typename Enum, size_t N>
Enum parse_enum(const std::string& text, const Enum (&values)[N]) {
  for (const Enum value : values) {
    if (text == to_string(value)) return value;
  }
  fail(Code::kInvalidArgument, "'{}' is not known", text);
}

constexpr ComparisonDirection kDirections[] = {ComparisonDirection::kEq, ComparisonDirection::kNe,
                                               ComparisonDirection::kGe, ComparisonDirection::kGt,
                                               ComparisonDirection::kLe, ComparisonDirection::kLt};
constexpr ComparisonType kTypes[] = {ComparisonType::kFloat, ComparisonType::kTotalOrder,
                                     ComparisonType::kSigned, ComparisonType::kUnsigned};
constexpr RngAlgorithm kAlgorithms[] = {RngAlgorithm::kDefault, RngAlgorithm::kThreeFry,
                                        RngAlgorithm::kPhilox};
constexpr Transpose kTransposes[] = {Transpose::kNoTranspose, Transpose::kTranspose,
                                     Transpose::kAdjoint};

Builder unary(Value (*builder)(Value)) {
  return [builder](Arguments a) { return Values{builder(a.value(0))}; };
}
Builder binary(Value (*builder)(Value, Value)) {
  return [builder](Arguments a) { return Values{builder(a.value(0), a.value(1))}; };
}
Builder reduction(Value (*builder)(Value, const Dims&, bool)) {
  return [builder](Arguments a) {
    return Values{builder(a.value(0), a.dims("axes"), a.flag("keep_dims"))};
  };
}
Builder one(std::function<Value(Arguments)> builder) {
  return [builder](Arguments a) { return Values{builder(a)}; };
}

void add_elementwise(std::map<std::string, Builder>& all) {
  all["abs"] = unary(abs);
  all["cbrt"] = unary(cbrt);
  all["ceil"] = unary(ceil);
  all["cosine"] = unary(cosine);
  all["count_leading_zeros"] = unary(count_leading_zeros);
  all["exponential"] = unary(exponential);
  all["exponential_minus_one"] = unary(exponential_minus_one);
  all["floor"] = unary(floor);
  all["is_finite"] = unary(is_finite);
  all["log"] = unary(log);
  all["log_plus_one"] = unary(log_plus_one);
  all["logistic"] = unary(logistic);
  all["negate"] = unary(negate);
  all["not"] = unary(not_);
  all["popcnt"] = unary(popcnt);
  all["round_nearest_afz"] = unary(round_nearest_afz);
  all["round_nearest_even"] = unary(round_nearest_even);
  all["rsqrt"] = unary(rsqrt);
  all["sign"] = unary(sign);
  all["sine"] = unary(sine);
  all["sqrt"] = unary(sqrt);
  all["tan"] = unary(tan);
  all["tanh"] = unary(tanh);
  all["erf"] = unary(erf);
  all["add"] = binary(add);
  all["and"] = binary(and_);
  all["atan2"] = binary(atan2);
  all["divide"] = binary(divide);
  all["maximum"] = binary(maximum);
  all["minimum"] = binary(minimum);
  all["multiply"] = binary(multiply);
  all["or"] = binary(or_);
  all["power"] = binary(power);
  all["remainder"] = binary(remainder);
  all["shift_left"] = binary(shift_left);
  all["shift_right_arithmetic"] = binary(shift_right_arithmetic);
  all["shift_right_logical"] = binary(shift_right_logical);
  all["subtract"] = binary(subtract);
  all["xor"] = binary(xor_);
  all["plus"] = binary([](Value x, Value y) { return x + y; });
  all["minus"] = binary([](Value x, Value y) { return x - y; });
  all["times"] = binary([](Value x, Value y) { return x * y; });
  all["over"] = binary([](Value x, Value y) { return x / y; });
  all["clamp"] = one([](Arguments a) { return clamp(a.value(0), a.value(1), a.value(2)); });
  all["compare"] = one([](Arguments a) {
    std::optional<ComparisonType> type;
    if (a.has("type")) type = parse_enum(a.text("type"), kTypes);
    return compare(a.value(0), a.value(1), parse_enum(a.text("direction"), kDirections), type);
  });
  all["select"] = one([](Arguments a) { return select(a.value(0), a.value(1), a.value(2)); });
  all["map"] = one([](Arguments a) {
    return map(a.values(0), [&](const Values& values) { return a.regions.at(0)(values).at(0); });
  });
}

void add_shapes(std::map<std::string, Builder>& all) {
  all["convert"] = one([](Arguments a) { return convert(a.value(0), parse_dtype(a.text("to"))); });
  all["bitcast_convert"] =
      one([](Arguments a) { return bitcast_convert(a.value(0), parse_dtype(a.text("to"))); });
  all["reduce_precision"] = one([](Arguments a) {
    return reduce_precision(a.value(0), static_cast<int>(a.integer("exponent")),
                            static_cast<int>(a.integer("mantissa")));
  });
  all["constant"] = one([](Arguments a) {
    std::vector<double> values;
    for (const Json& item : a.named.at("value")) values.push_back(item.get<double>());
    return constant(*a.function, Literal::from_doubles(a.shape("shape"), values));
  });
  all["full"] = one([](Arguments a) {
    return full(*a.function, a.shape("shape"), a.named.at("value").get<double>());
  });
  all["lowest"] =
      one([](Arguments a) { return lowest(*a.function, parse_dtype(a.text("dtype"))); });
  all["highest"] =
      one([](Arguments a) { return highest(*a.function, parse_dtype(a.text("dtype"))); });
  all["iota"] =
      one([](Arguments a) { return iota(*a.function, a.shape("shape"), a.integer("dim")); });
  all["reshape"] = one([](Arguments a) { return reshape(a.value(0), a.dims("dims")); });
  all["transpose"] = one([](Arguments a) { return transpose(a.value(0), a.dims("permutation")); });
  all["broadcast_in_dim"] = one([](Arguments a) {
    return broadcast_in_dim(a.value(0), a.dims("dims"), a.dims("broadcast_dimensions"));
  });
  all["broadcast_to"] = one([](Arguments a) { return broadcast_to(a.value(0), a.dims("dims")); });
  all["expand_dims"] =
      one([](Arguments a) { return expand_dims(a.value(0), static_cast<int>(a.integer("axis"))); });
  all["squeeze"] =
      one([](Arguments a) { return squeeze(a.value(0), static_cast<int>(a.integer("axis"))); });
  all["slice"] = one([](Arguments a) {
    return slice(a.value(0), a.dims("start"), a.dims("limit"), a.dims("strides"));
  });
  all["dynamic_slice"] =
      one([](Arguments a) { return dynamic_slice(a.value(0), a.values(1), a.dims("sizes")); });
  all["dynamic_update_slice"] =
      one([](Arguments a) { return dynamic_update_slice(a.value(0), a.value(1), a.values(2)); });
  all["concatenate"] = one([](Arguments a) { return concatenate(a.values(0), a.integer("axis")); });
  all["pad"] = one([](Arguments a) {
    return pad(a.value(0), a.value(1), a.dims("low"), a.dims("high"), a.dims("interior"));
  });
  all["reverse"] = one([](Arguments a) { return reverse(a.value(0), a.dims("dims")); });
}

void add_products(std::map<std::string, Builder>& all) {
  all["dot_general"] = one([](Arguments a) {
    std::optional<DType> dtype;
    if (a.has("dtype")) dtype = parse_dtype(a.text("dtype"));
    return dot_general(a.value(0), a.value(1),
                       {a.dims("lhs_batching"), a.dims("rhs_batching"), a.dims("lhs_contracting"),
                        a.dims("rhs_contracting")},
                       dtype, a.flag("highest") ? Precision::kHighest : Precision::kDefault);
  });
  all["matmul"] = one([](Arguments a) { return matmul(a.value(0), a.value(1)); });
  all["convolution"] = one([](Arguments a) {
    ConvolutionDimensionNumbers d;
    const Dims input = a.dims("input"), kernel = a.dims("kernel"), output = a.dims("output");
    d.input_batch = input.at(0);
    d.input_feature = input.at(1);
    d.input_spatial.assign(input.begin() + 2, input.end());
    d.kernel_output_feature = kernel.at(0);
    d.kernel_input_feature = kernel.at(1);
    d.kernel_spatial.assign(kernel.begin() + 2, kernel.end());
    d.output_batch = output.at(0);
    d.output_feature = output.at(1);
    d.output_spatial.assign(output.begin() + 2, output.end());
    ConvolutionOptions options;
    options.window_strides = a.dims("strides");
    options.padding = a.pairs("padding");
    options.lhs_dilation = a.dims("lhs_dilation");
    options.rhs_dilation = a.dims("rhs_dilation");
    for (const int64_t reversed : a.dims("reversal")) {
      options.window_reversal.push_back(reversed != 0);
    }
    options.feature_group_count = a.integer_or("feature_groups", 1);
    options.batch_group_count = a.integer_or("batch_groups", 1);
    return convolution(a.value(0), a.value(1), d, options);
  });
  all["cholesky"] = one([](Arguments a) { return cholesky(a.value(0), a.flag("lower")); });
  all["triangular_solve"] = one([](Arguments a) {
    const Transpose transpose =
        a.has("transpose") ? parse_enum(a.text("transpose"), kTransposes) : Transpose::kNoTranspose;
    return triangular_solve(a.value(0), a.value(1), a.flag("left_side"), a.flag("lower"),
                            a.flag("unit_diagonal"), transpose);
  });
}

void add_reductions(std::map<std::string, Builder>& all) {
  all["reduce"] = [](Arguments a) {
    return reduce(a.values(0), a.values(1), a.dims("dimensions"), a.regions.at(0));
  };
  all["reduce_sum"] = reduction(reduce_sum);
  all["reduce_max"] = reduction(reduce_max);
  all["reduce_min"] = reduction(reduce_min);
  all["reduce_and"] = reduction(reduce_and);
  all["reduce_or"] = reduction(reduce_or);
  all["reduce_window"] = [](Arguments a) {
    const WindowOptions options{a.dims("strides"), a.dims("base_dilations"),
                                a.dims("window_dilations"), a.pairs("padding")};
    return reduce_window(a.values(0), a.values(1), a.dims("window"), options, a.regions.at(0));
  };
  all["select_and_scatter"] = one([](Arguments a) {
    return select_and_scatter(a.value(0), a.value(1), a.value(2), a.dims("window"),
                              a.dims("strides"), a.pairs("padding"), a.binary(0), a.binary(1));
  });
  all["sort"] = [](Arguments a) {
    return sort(a.values(0), a.integer("dimension"), a.flag("stable"),
                [&](const Values& values) { return a.regions.at(0)(values).at(0); });
  };
  all["argmax"] =
      one([](Arguments a) { return argmax(a.value(0), static_cast<int>(a.integer("axis"))); });
  all["top_k"] = [](Arguments a) {
    const auto [values, indices] = top_k(a.value(0), a.integer("k"));
    return Values{values, indices};
  };
  all["batch_norm_inference"] = one([](Arguments a) {
    return batch_norm_inference(a.value(0), a.value(1), a.value(2), a.value(3), a.value(4),
                                a.named.at("epsilon").get<double>(), a.integer("feature_index"));
  });
  all["gather"] = one([](Arguments a) {
    const GatherDimensionNumbers dims{
        a.dims("offset_dims"),           a.dims("collapsed_slice_dims"),
        a.dims("operand_batching_dims"), a.dims("start_indices_batching_dims"),
        a.dims("start_index_map"),       a.integer("index_vector_dim")};
    return gather(a.value(0), a.value(1), dims, a.dims("slice_sizes"), a.flag("sorted"));
  });
  all["scatter"] = [](Arguments a) {
    const ScatterDimensionNumbers dims{
        a.dims("update_window_dims"),           a.dims("inserted_window_dims"),
        a.dims("input_batching_dims"),          a.dims("scatter_indices_batching_dims"),
        a.dims("scatter_dims_to_operand_dims"), a.integer("index_vector_dim")};
    return scatter(a.values(0), a.value(1), a.values(2), dims, a.regions.at(0), a.flag("sorted"),
                   a.flag("unique"));
  };
  all["take"] = one([](Arguments a) {
    return take(a.value(0), a.value(1), static_cast<int>(a.integer("axis")));
  });
}

void add_control(std::map<std::string, Builder>& all) {
  all["while"] = [](Arguments a) {
    return while_loop(
        a.values(0), [&](const Values& values) { return a.regions.at(0)(values).at(0); },
        a.regions.at(1));
  };
  all["if"] = [](Arguments a) {
    return if_(
        a.value(0), [&] { return a.regions.at(0)({}); }, [&] { return a.regions.at(1)({}); });
  };
  all["case"] = [](Arguments a) {
    std::vector<Branch> branches;
    for (const auto& region : a.regions) branches.push_back([&region] { return region({}); });
    return case_(a.value(0), branches);
  };
  // Calls a function that doubles its argument.
  all["call_double"] = [](Arguments a) {
    Function& callee = a.function->module().add_function("double");
    const Value x = callee.add_argument(a.value(0).shape());
    callee.set_results({add(x, x)});
    return call(callee, {a.value(0)});
  };
  all["optimization_barrier"] = [](Arguments a) { return optimization_barrier(a.values(0)); };
  all["rng_bit_generator"] = [](Arguments a) {
    const auto [state, bits] = rng_bit_generator(a.value(0), a.shape("shape"),
                                                 parse_enum(a.text("algorithm"), kAlgorithms));
    return Values{state, bits};
  };
  all["uniform_from_bits"] = unary(uniform_from_bits);
  all["custom_call"] = [](Arguments a) {
    CustomCallOptions options;
    options.has_side_effect = a.flag("has_side_effect");
    options.api_version = static_cast<int>(a.integer_or("api_version", 4));
    options.operand_layouts = a.rows("operand_layouts");
    options.result_layouts = a.rows("result_layouts");
    return custom_call(*a.function, a.text("target"), a.values(0), a.shapes("results"), options);
  };
}

CollectiveOptions collective_options(Arguments a) {
  CollectiveOptions options;
  options.groups = a.rows("groups");
  options.channel = a.integer_or("channel", 0);
  return options;
}

void add_collectives(std::map<std::string, Builder>& all) {
  all["all_reduce"] =
      one([](Arguments a) { return all_reduce(a.value(0), collective_options(a), a.binary(0)); });
  all["all_gather"] = one(
      [](Arguments a) { return all_gather(a.value(0), a.integer("axis"), collective_options(a)); });
  all["reduce_scatter"] = one([](Arguments a) {
    return reduce_scatter(a.value(0), a.integer("axis"), collective_options(a), a.binary(0));
  });
  all["all_to_all"] = one([](Arguments a) {
    return all_to_all(a.value(0), a.integer("split_axis"), a.integer("concat_axis"),
                      collective_options(a));
  });
  all["collective_permute"] = one([](Arguments a) {
    return collective_permute(a.value(0), a.pairs("pairs"), a.integer_or("channel", 0));
  });
  all["collective_broadcast"] = one([](Arguments a) {
    return collective_broadcast(a.value(0), a.rows("groups"), a.integer_or("channel", 0));
  });
  all["partition_id"] = one([](Arguments a) { return partition_id(*a.function); });
  all["replica_id"] = one([](Arguments a) { return replica_id(*a.function); });
  all["sharding_constraint"] =
      one([](Arguments a) { return sharding_constraint(a.value(0), a.sharding("sharding")); });
  all["manual_computation"] = [](Arguments a) {
    return manual_computation(a.values(0), {a.sharding("in")}, {a.sharding("out")},
                              {a.text("axis")}, a.regions.at(0));
  };
}

const std::map<std::string, Builder>& builders() {
  static const std::map<std::string, Builder> all = [] {
    std::map<std::string, Builder> map;
    add_elementwise(map);
    add_shapes(map);
    add_products(map);
    add_reductions(map);
    add_control(map);
    add_collectives(map);
    return map;
  }();
  return all;
}

}  // namespace

Value CallArguments::value(size_t index) const {
  const Values& list = values(index);
  require(list.size() == 1, "argument {} is a list of {}", index, list.size());
  return list[0];
}
const Values& CallArguments::values(size_t index) const {
  require(index < positional.size(), "argument {} is missing", index);
  return positional[index];
}
int64_t CallArguments::integer(const std::string& name) const {
  require(has(name), "'{}' is missing", name);
  return named.at(name).get<int64_t>();
}
int64_t CallArguments::integer_or(const std::string& name, int64_t fallback) const {
  return has(name) ? integer(name) : fallback;
}
bool CallArguments::flag(const std::string& name) const {
  return has(name) && named.at(name).get<bool>();
}
std::string CallArguments::text(const std::string& name) const {
  require(has(name), "'{}' is missing", name);
  return named.at(name).get<std::string>();
}
Dims CallArguments::dims(const std::string& name) const {
  return has(name) ? named.at(name).get<Dims>() : Dims{};
}
std::vector<Dims> CallArguments::rows(const std::string& name) const {
  return has(name) ? named.at(name).get<std::vector<Dims>>() : std::vector<Dims>{};
}
std::vector<std::pair<int64_t, int64_t>> CallArguments::pairs(const std::string& name) const {
  std::vector<std::pair<int64_t, int64_t>> result;
  for (const Dims& row : rows(name)) result.emplace_back(row.at(0), row.at(1));
  return result;
}
Shape CallArguments::shape(const std::string& name) const { return parse_shape(text(name)); }
std::vector<Shape> CallArguments::shapes(const std::string& name) const {
  std::vector<Shape> result;
  for (const Json& item : named.at(name)) result.push_back(parse_shape(item.get<std::string>()));
  return result;
}
Sharding CallArguments::sharding(const std::string& name) const {
  const auto items =
      named.at(name).get<std::vector<std::string>>();  // mesh, then an axis a dimension
  Sharding sharding{items.at(0), {}};
  for (size_t i = 1; i < items.size(); ++i) {
    sharding.dims.push_back(
        {items[i] == "none" ? std::vector<std::string>{} : std::vector{items[i]}});
  }
  return sharding;
}
BinaryBody CallArguments::binary(size_t region) const {
  return [this, region](Value x, Value y) { return regions.at(region)({x, y}).at(0); };
}

Values call_builder(const std::string& name, const CallArguments& arguments) {
  const auto found = builders().find(name);
  require(found != builders().end(), "no builder is called '{}'", name);
  return found->second(arguments);
}

}  // namespace ttpu::ir::testing
