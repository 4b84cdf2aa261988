// Experts on several devices give what they give on one, in whichever way tokens come to them.
#include "ttpu/nn/expert_dispatch.h"

#include <map>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/expert_rows.h"
#include "ttpu/nn/moe.h"
#include "ttpu/parallel/collectives.h"
#include "ttpu/parallel/spmd.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::nn {
namespace {

constexpr int64_t kHidden = 8;
constexpr int64_t kTopK = 3;
constexpr int64_t kTokens = 11;  // of a device

const pjrt::Client& client_of(int64_t devices) {
  static std::map<int64_t, pjrt::Client> clients;
  const auto known = clients.find(devices);
  if (known != clients.end()) return known->second;
  const auto plugin = pjrt::load_plugin(pjrt::find_plugin("cpu"));
  return clients.emplace(devices, pjrt::Client::create(plugin, {{"cpu_device_count", devices}}))
      .first->second;
}

// An array of all devices; the first dimension divided among them where `parts` is not one.
struct Whole {
  Shape shape;
  std::vector<float> floats = {};
  std::vector<int32_t> ints = {};

  const void* data(int64_t part, int64_t parts) const {
    const auto at = static_cast<size_t>(part * shape.num_elements() / parts);
    return ints.empty() ? static_cast<const void*>(&floats[at]) : &ints[at];
  }
};

Whole random_floats(const Dims& dims, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  Whole whole{Shape(DType::kF32, dims)};
  whole.floats.resize(static_cast<size_t>(whole.shape.num_elements()));
  for (float& value : whole.floats) value = normal(rng);
  return whole;
}

enum class Choice { kAny, kOneExpert, kOneDevice, kPadding };

struct Case {
  int64_t devices;
  int64_t experts;
  Choice choice;
  int64_t size;  // of a round
};

// The last tokens of each device, of which there are many.
bool is_padding(Choice choice, int64_t token) {
  return choice == Choice::kPadding && token % kTokens > 3;
}

// The experts that tokens choose, different ones each.
Whole choices_of(const Case& c, std::mt19937& rng) {
  Whole whole{Shape(DType::kS32, {c.devices * kTokens, kTopK})};
  const int64_t own = (c.experts + c.devices - 1) / c.devices;
  std::vector<int32_t> all(static_cast<size_t>(c.experts));
  for (int64_t token = 0; token < c.devices * kTokens; ++token) {
    std::iota(all.begin(), all.end(), 0);
    const bool any = c.choice == Choice::kAny || c.choice == Choice::kPadding;
    // The device with the second experts is the one that all want.
    if (!any) std::rotate(all.begin(), all.begin() + own, all.end());
    if (any) std::shuffle(all.begin(), all.end(), rng);
    if (c.choice == Choice::kOneDevice) std::shuffle(all.begin(), all.begin() + own, rng);
    for (int64_t k = 0; k < kTopK; ++k) {
      whole.ints.push_back(all[c.choice == Choice::kOneExpert ? 0 : static_cast<size_t>(k)]);
      if (is_padding(c.choice, token)) whole.ints.back() = static_cast<int32_t>(own * c.devices);
    }
  }
  return whole;
}

struct Problem {
  Whole x, experts, weights, matrices;

  std::vector<float> expected() const {
    std::vector<float> sums(x.floats.size());
    const auto tokens = static_cast<size_t>(x.shape.dims[0]);
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t k = 0; k < kTopK; ++k) {
        const auto expert = static_cast<size_t>(experts.ints[t * kTopK + k]);
        if (expert >= static_cast<size_t>(matrices.shape.dims[0])) continue;
        const float* matrix = &matrices.floats[expert * kHidden * kHidden];
        for (size_t o = 0; o < kHidden; ++o) {
          float sum = 0;
          for (size_t i = 0; i < kHidden; ++i) {
            sum += matrix[o * kHidden + i] * x.floats[t * kHidden + i];
          }
          sums[t * kHidden + o] += weights.floats[t * kTopK + k] * sum;
        }
      }
    }
    return sums;
  }
};

Problem problem_of(const Case& c) {
  std::mt19937 rng(7);
  const int64_t own = (c.experts + c.devices - 1) / c.devices;
  return {random_floats({c.devices * kTokens, kHidden}, rng), choices_of(c, rng),
          random_floats({c.devices * kTokens, kTopK}, rng),
          random_floats({c.devices * own, kHidden, kHidden}, rng)};
}

// The tokens and their choices are divided among the devices.
using Build = std::function<ir::Value(const ExpertParts&, ir::Value x, const Routing&)>;

std::vector<float> run(const Case& c, const Problem& problem, const Build& build) {
  const parallel::Layout layout(parallel::Mesh({{parallel::kDataAxis, c.devices}}),
                                parallel::find_strategy("expert"));
  const parallel::Division division = layout.division("experts");
  const Whole* inputs[] = {&problem.x, &problem.experts, &problem.weights, &problem.matrices};
  ir::Module module;
  ir::Function& device = module.add_function("device");
  ir::Values locals;
  std::vector<parallel::SpmdValue> arguments;
  for (const Whole* input : inputs) {
    Shape local = input->shape;
    local.dims[0] /= c.devices;
    locals.push_back(device.add_argument(local));
    arguments.push_back({.placement = {division}});
  }
  const kernels::Target target{kernels::Platform::kCpu, false};
  const int64_t own = locals[3].dim(0);
  const Experts experts = [&](ir::Value x, ir::Value ids, bool sorted) {
    const kernels::ExpertProduct product{{.value = locals[3], .dims = {own, kHidden, kHidden}}, {}};
    const kernels::ExpertRows rows(target, ids, x.dtype(), {product}, sorted);
    return rows.restored(rows.linear(rows.ordered(x), product));
  };
  device.set_results(
      {build({layout.mesh(), division, own, experts}, locals[0], {locals[1], locals[2]})});
  parallel::add_spmd_main(module, layout.mesh(), device, arguments, {{.placement = {division}}});
  module.verify();

  const pjrt::Client& client = client_of(c.devices);
  pjrt::CompileOptions options;
  options.num_partitions = static_cast<int>(c.devices);
  const pjrt::LoadedExecutable program = client.compile(module.to_string(), options);
  std::vector<std::vector<pjrt::Buffer>> buffers;
  std::vector<std::vector<const pjrt::Buffer*>> pointers;
  for (int64_t part = 0; part < c.devices; ++part) {
    std::vector<pjrt::Buffer>& own_buffers = buffers.emplace_back();
    for (size_t i = 0; i < std::size(inputs); ++i) {
      own_buffers.push_back(client.to_device(inputs[i]->data(part, c.devices), locals[i].shape(),
                                             program.devices().at(static_cast<size_t>(part))));
    }
    std::vector<const pjrt::Buffer*>& own_pointers = pointers.emplace_back();
    for (const pjrt::Buffer& buffer : own_buffers) own_pointers.push_back(&buffer);
  }
  std::vector<float> sums;
  for (const auto& results : program.execute(pointers)) {
    const std::vector<float> part = results.at(0).to_vector<float>();
    sums.insert(sums.end(), part.begin(), part.end());
  }
  return sums;
}

void expect_near(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-4) << i;
}

class ExpertDispatch : public testing::TestWithParam<Case> {};

TEST_P(ExpertDispatch, SumsWhatTheDevicesExpertsGiveInRounds) {
  const Problem problem = problem_of(GetParam());
  expect_near(run(GetParam(), problem,
                  [&](const ExpertParts& parts, ir::Value x, const Routing& own) {
                    const auto all = [&](ir::Value part) {
                      return parallel::gather(part, 0, parts.mesh, parts.division);
                    };
                    const ir::Value sum = sum_of_own_experts(
                        parts, all(x), unpacked(all(packed(own))), GetParam().size);
                    return parallel::sum_scatter(sum, 0, parts.mesh, parts.division);
                  }),
              problem.expected());
}

TEST_P(ExpertDispatch, SumsWhatAllExpertsGiveByAllToAll) {
  const Problem problem = problem_of(GetParam());
  const int64_t size = std::min(GetParam().size, kTokens);
  expect_near(run(GetParam(), problem,
                  [&](const ExpertParts& parts, ir::Value x, const Routing& routing) {
                    return sum_by_all_to_all(parts, x, routing, size);
                  }),
              problem.expected());
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int64_t devices : {2, 4, 8}) {
    for (const Choice choice :
         {Choice::kAny, Choice::kOneExpert, Choice::kOneDevice, Choice::kPadding}) {
      // All at once; a round of those that chose the device's; several, the last one not full.
      for (const int64_t size : {devices * kTokens * kTopK, int64_t{40}, int64_t{4}}) {
        all.push_back({devices, 3 * devices, choice, size});
      }
    }
    all.push_back({devices, 3 * devices - 2, Choice::kAny, 4});  // the last device has fewer
  }
  return all;
}

std::string name_of(const testing::TestParamInfo<Case>& test) {
  static const std::map<Choice, std::string> kNames = {{Choice::kAny, "AnyExperts"},
                                                       {Choice::kOneExpert, "OneExpert"},
                                                       {Choice::kOneDevice, "OneDevice"},
                                                       {Choice::kPadding, "Padding"}};
  const Case& c = test.param;
  return fmt::format("{}Devices{}{}RoundsOf{}", c.devices, kNames.at(c.choice), c.experts, c.size);
}

INSTANTIATE_TEST_SUITE_P(All, ExpertDispatch, testing::ValuesIn(cases()), name_of);

TEST(ExpertDispatchRounds, HaveRoomForUnevenRouting) {
  EXPECT_EQ(round_size(16, 1000), 32);
  EXPECT_EQ(round_size(2048, 1 << 20), 3080);
  EXPECT_EQ(round_size(16, 20), 20);  // no more than there are
  EXPECT_DOUBLE_EQ(tokens_for_each(100, 1, 4), 25);
  EXPECT_DOUBLE_EQ(tokens_for_each(100, 2, 2), 75);
}

// The program of one layer on `devices` replicas that share the experts.
std::string program_of(int64_t devices, int64_t tokens, int64_t top_k) {
  ir::Module module;
  ir::Function& function = module.add_function("device");
  Context context(
      &function, {kernels::Platform::kCpu, false}, DType::kF32,
      [](const WeightDecl&) { return WeightFormat{}; },
      {parallel::Mesh({{parallel::kDataAxis, devices}}), parallel::find_strategy("expert")});
  MoeSpec spec;
  spec.router = "router";
  spec.experts = 64;
  spec.top_k = top_k;
  spec.hidden = spec.intermediate = kHidden;
  const auto matrix = [&](const char* name) {
    WeightDecl decl;
    decl.names = {name};
    decl.dims = {spec.experts, kHidden, kHidden};
    decl.axes = {"experts", "expert_mlp", "embed"};
    return decl;
  };
  spec.gate = matrix("gate");
  spec.up = matrix("up");
  spec.down = matrix("down");
  const ir::Value x = function.add_argument(Shape(DType::kF32, {tokens, kHidden}));
  kernels::RaggedBatch batch;
  batch.cu_q_lens = function.add_argument(Shape(DType::kS32, {5}));
  batch.distribution = function.add_argument(Shape(DType::kS32, {3}));
  function.set_results({moe(context, spec, x, batch)});
  return module.to_string();
}

TEST(ExpertDispatchChoice, IsAllToAllWhereTokensGoToFewOfTheDevices) {
  const auto has = [](const std::string& program, const char* name) {
    return program.find(name) != std::string::npos;
  };
  for (const auto& [devices, top_k, trades] :
       {std::tuple{8, 2, true}, {8, 8, false}, {64, 8, true}, {2, 2, false}}) {
    const std::string program = program_of(devices, 512, top_k);
    EXPECT_EQ(has(program, "stablehlo.all_to_all"), trades) << devices << " " << top_k;
    EXPECT_EQ(has(program, "stablehlo.all_gather"), !trades) << devices << " " << top_k;
  }
}

}  // namespace
}  // namespace ttpu::nn
