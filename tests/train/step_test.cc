// Steps of training against torch: losses, gradients and what AdamW makes of them, in float32
// (tests/fixtures/training.json), on one device and on several.
#include "ttpu/train/step.h"

#include <cmath>
#include <filesystem>
#include <map>

#include <gtest/gtest.h>

#include "ttpu/engine/device.h"
#include "ttpu/engine/weight_loader.h"
#include "ttpu/models/registry.h"

namespace ttpu::train {
namespace {

const std::filesystem::path kFixtures = std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures";

const Json& fixtures() {
  static const Json json = read_json(kFixtures / "training.json");
  return json;
}

const Json& case_of(const std::string& model) {
  for (const Json& one : fixtures().at("cases")) {
    if (one.at("model") == model) return one;
  }
  throw std::runtime_error("no case of " + model);
}

struct How {
  int64_t data = 1;
  int64_t fsdp = 1;
  int64_t tensor = 1;
  ZeroStage zero_stage = ZeroStage::kParameters;
  std::string strategy = "tensor";
  grad::Remat remat = grad::Remat::kFull;
  nn::Layers layers = nn::Layers::kScanned;
  int64_t accumulation = 1;
  DType compute = DType::kF32;

  std::string to_string() const {
    return fmt::format("data {} fsdp {} tensor {} zero {} {} remat {} {} accumulation {}", data,
                       fsdp, tensor, static_cast<int>(zero_stage), strategy,
                       static_cast<int>(remat),
                       layers == nn::Layers::kScanned ? "scanned" : "unrolled", accumulation);
  }
};

std::vector<int32_t> numbers(const Json& rows) {
  std::vector<int32_t> all;
  for (const Json& row : rows) {
    for (const Json& number : row) all.push_back(number.get<int32_t>());
  }
  return all;
}

// A model that is trained on its case's batch.
class Training {
 public:
  Training(const std::string& model, const How& how)
      : case_(case_of(model)),
        mesh_(train_mesh(how.data, how.fsdp, how.tensor)),
        client_(engine::make_client("cpu", mesh_.num_devices())),
        devices_(engine::own_devices(client_, mesh_)) {
    const std::filesystem::path folder = kFixtures / "models" / model;
    spec_ = models::decoder_from_config(read_json(folder / "config.json"));
    const auto sequences = static_cast<int64_t>(case_.at("input_ids").size());
    options_.seq_len = static_cast<int64_t>(case_.at("input_ids").at(0).size());
    options_.accumulation = how.accumulation;
    options_.micro_batch = sequences / (how.data * how.fsdp * how.accumulation);
    options_.zero_stage = how.zero_stage;
    options_.remat = how.remat;
    options_.layers = how.layers;
    options_.compute = how.compute;
    options_.optimizer.weight_decay = fixtures().at("settings").at("weight_decay");
    options_.optimizer.max_grad_norm = fixtures().at("settings").at("max_grad_norm");
    program_ = build_train_program(spec_, options_, engine::target_of(client_, false), mesh_,
                                   how.strategy);
    program_.module->verify();
    executable_ =
        client_.compile(program_.module->to_string(), engine::compile_options(client_, mesh_));
    load(folder);
  }

  struct Result {
    float loss = 0;
    float norm = 0;
  };
  Result step() {
    ++steps_;
    const auto scalar = [&](float value, const pjrt::Device& device) {
      return client_.to_device(&value, Shape(DType::kF32, {}), device);
    };
    std::vector<std::vector<pjrt::Buffer>> inputs(devices_.size());
    std::vector<std::vector<const pjrt::Buffer*>> arguments(devices_.size());
    for (size_t d = 0; d < devices_.size(); ++d) {
      const auto& [place, device] = devices_[d];
      inputs[d].push_back(tokens("input_ids", place, device));
      inputs[d].push_back(tokens("labels", place, device));
      inputs[d].push_back(scalar(fixtures().at("settings").at("learning_rate"), device));
      inputs[d].push_back(scalar(static_cast<float>(steps_), device));
      for (const pjrt::Buffer& input : inputs[d]) arguments[d].push_back(&input);
      for (const pjrt::Buffer& state : state_[d]) arguments[d].push_back(&state);
    }
    std::vector<std::vector<pjrt::Buffer>> results = executable_.execute(arguments);
    const Result result{results[0][0].to_vector<float>()[0], results[0][1].to_vector<float>()[0]};
    for (size_t d = 0; d < devices_.size(); ++d) {
      state_[d].clear();
      for (size_t i = 2; i < results[d].size(); ++i) state_[d].push_back(std::move(results[d][i]));
    }
    return result;
  }

  const std::vector<StateWeight>& weights() const { return program_.weights; }
  // Of a part of the state: 0 the weights, 1 and 2 the moments.
  std::vector<float> state(size_t part, size_t index) const {
    return state_[0][part * weights().size() + index].to_vector<float>();
  }

 private:
  // Micro-batches of one replica follow each other; those of all replicas make a global batch.
  pjrt::Buffer tokens(const char* field, int64_t place, const pjrt::Device& device) const {
    const std::vector<int32_t> all = numbers(case_.at(field));
    const int64_t replica = parallel::part_of(mesh_, batch_division(mesh_), place);
    const int64_t replicas = batch_division(mesh_).parts;
    const int64_t size = options_.tokens();
    std::vector<int32_t> own;
    for (int64_t i = 0; i < options_.accumulation; ++i) {
      const auto begin = all.begin() + (i * replicas + replica) * size;
      own.insert(own.end(), begin, begin + size);
    }
    return client_.to_device(own.data(), Shape(DType::kS32, {options_.accumulation, size}), device);
  }

  void load(const std::filesystem::path& folder) {
    const std::shared_ptr<const io::Checkpoint> checkpoint = io::Checkpoint::open(folder);
    const engine::WeightLoader loader(*checkpoint,
                                      {.compute = DType::kF32, .expand = true, .donated = true},
                                      spec_.name_prefixes);
    state_.resize(devices_.size());
    for (const StateWeight& weight : weights()) {
      std::vector<pjrt::Buffer> parts =
          loader.load_parts(weight.decl, mesh_, client_, devices_, checkpoint);
      for (size_t d = 0; d < parts.size(); ++d) state_[d].push_back(std::move(parts[d]));
    }
    for (int moment = 0; moment < 2; ++moment) {
      for (const StateWeight& weight : weights()) {
        for (size_t d = 0; d < devices_.size(); ++d) {
          state_[d].push_back(
              client_.zeros(Shape(DType::kF32, weight.decl.local), devices_[d].device));
        }
      }
    }
  }

  const Json& case_;
  parallel::Mesh mesh_;
  pjrt::Client client_;
  std::vector<engine::OwnDevice> devices_;
  nn::DecoderSpec spec_;
  StepOptions options_;
  TrainProgram program_;
  pjrt::LoadedExecutable executable_;
  std::vector<std::vector<pjrt::Buffer>> state_;  // of each device
  int steps_ = 0;
};

// Later steps amplify rounding: AdamW gives the smallest gradients the same weight as others.
void expect_step(const std::string& model, const How& how, size_t step, Training::Result result) {
  const Json& expected = case_of(model).at("steps").at(step);
  EXPECT_NEAR(result.loss, expected.at(0).get<float>(), step == 0 ? 2e-5 : 2e-3)
      << model << ": " << how.to_string();
  EXPECT_NEAR(result.norm, expected.at(1).get<float>(), step == 0 ? 1e-3 : 2e-2)
      << model << ": " << how.to_string();
}

void expect_steps(const std::string& model, const How& how) {
  Training training(model, how);
  for (size_t step = 0; step < case_of(model).at("steps").size(); ++step) {
    expect_step(model, how, step, training.step());
  }
}

class Families : public testing::TestWithParam<std::string> {};

std::vector<std::string> models_of_cases() {
  std::vector<std::string> names;
  for (const Json& one : fixtures().at("cases")) names.push_back(one.at("model"));
  return names;
}

TEST_P(Families, GradientsAndStepsEqualTorch) {
  const std::string model = GetParam();
  Training training(model, {});
  const Json& gradients = case_of(model).at("gradients");
  const float norm = case_of(model).at("steps").at(0).at(1);
  std::vector<std::vector<float>> before;
  for (size_t i = 0; i < training.weights().size(); ++i) before.push_back(training.state(0, i));
  expect_step(model, {}, 0, training.step());
  // After one step from zero the first moment is a tenth of the gradient, as it was cut.
  const double factor = 10.0 * std::max(1.0F, norm);
  struct Sums {
    double square = 0, product = 0;
  };
  std::map<std::string, Sums> found;  // a tensor may be two weights
  for (size_t i = 0; i < training.weights().size(); ++i) {
    const StateWeight& weight = training.weights()[i];
    const std::vector<float> moment = training.state(1, i);
    const size_t each = moment.size() / weight.decl.names.size();
    for (size_t k = 0; k < moment.size(); ++k) {
      Sums& sums = found[weight.decl.names[k / each]];
      sums.square += std::pow(moment[k] * factor, 2);
      sums.product += moment[k] * factor * before[i][k];
    }
  }
  size_t compared = 0;
  for (const auto& [name, sums] : found) {
    auto known = gradients.find(name);
    if (known == gradients.end()) known = gradients.find("transformer." + name);  // GPT-2
    if (known == gradients.end()) continue;  // transformers has experts in one tensor
    const double expected = known->at(0);
    EXPECT_NEAR(std::sqrt(sums.square), expected, 1e-4 + 1e-3 * expected) << name;
    EXPECT_NEAR(sums.product, known->at(1).get<double>(), 1e-3 + 1e-3 * expected) << name;
    ++compared;
  }
  EXPECT_GT(compared, 10);
  for (const size_t step : {1, 2}) expect_step(model, {}, step, training.step());
}

INSTANTIATE_TEST_SUITE_P(Tiny, Families, testing::ValuesIn(models_of_cases()),
                         [](const auto& one) { return one.param; });

TEST(Steps, EveryPolicyOfRematerialization) {
  for (const grad::Remat remat : {grad::Remat::kFull, grad::Remat::kMinimal, grad::Remat::kNone}) {
    for (const nn::Layers layers : {nn::Layers::kScanned, nn::Layers::kUnrolled}) {
      expect_steps("qwen3", {.remat = remat, .layers = layers});
    }
  }
}

// As it is on TPUs: state and sums in f32, the rest rounded.
TEST(Steps, RoundedToBfloat16) {
  for (const std::string model : {"llama", "gemma3_text", "qwen3_moe"}) {
    const How how{.fsdp = 2,
                  .tensor = 2,
                  .strategy = "sequence",
                  .remat = grad::Remat::kMinimal,
                  .compute = DType::kBF16};
    Training training(model, how);
    for (size_t step = 0; step < 3; ++step) {
      const Training::Result result = training.step();
      const Json& expected = case_of(model).at("steps").at(step);
      EXPECT_NEAR(result.loss, expected.at(0).get<float>(), 0.05) << model << " " << step;
      EXPECT_NEAR(result.norm, expected.at(1).get<float>(), 0.5) << model << " " << step;
    }
  }
}

TEST(Steps, GradientsAccumulate) {
  expect_steps("llama_tied", {.accumulation = 4});
  expect_steps("gemma2", {.fsdp = 2, .accumulation = 2});
}

TEST(Steps, EveryZeroStage) {
  for (const ZeroStage stage :
       {ZeroStage::kNone, ZeroStage::kOptimizer, ZeroStage::kGradients, ZeroStage::kParameters}) {
    expect_steps("llama", {.fsdp = 4, .zero_stage = stage});
    expect_steps("phi3", {.data = 2, .fsdp = 2, .tensor = 2, .zero_stage = stage});
    expect_steps("gpt2_untied", {.fsdp = 2, .zero_stage = stage, .accumulation = 2});
  }
}

TEST(Steps, EveryStrategyDividesLayers) {
  for (const std::string strategy : {"tensor", "sequence"}) {
    for (const int64_t tensor : {2, 4}) {
      for (const std::string model : {"llama", "gemma3_text", "gpt_neox", "olmo2", "granite"}) {
        expect_steps(model, {.tensor = tensor, .strategy = strategy});
      }
    }
    expect_steps("llama_bias", {.fsdp = 2, .tensor = 2, .strategy = strategy});
    expect_steps(
        "starcoder2",
        {.data = 2, .fsdp = 2, .tensor = 2, .strategy = strategy, .remat = grad::Remat::kMinimal});
    expect_steps("qwen3_moe", {.fsdp = 2, .tensor = 2, .strategy = strategy});
    expect_steps("deepseek_v3", {.fsdp = 2, .tensor = 2, .strategy = strategy});
  }
}

}  // namespace
}  // namespace ttpu::train
