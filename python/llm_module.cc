#include "python/llm_module.h"

#include <future>
#include <type_traits>
#include <utility>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "python/batch.h"
#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/engine/capacity.h"
#include "ttpu/io/hub.h"

namespace nb = nanobind;

namespace ttpu::python {
namespace {

using engine::EngineOptions;
using engine::SamplingParams;

DType dtype_of(const std::string& name) {
  require(name == "bf16" || name == "f32", "[LLM] dtype is '{}', expected 'bf16' or 'f32'", name);
  return name == "f32" ? DType::kF32 : DType::kBF16;
}

void set_dtype(EngineOptions& options, const std::string& name) {
  options.dtype = dtype_of(name);
  options.expand_weights = options.dtype == DType::kF32;
}

// Their names are those of LLM's arguments.
void bind_engine_options(nb::module_& module) {
  const auto parallel = [](auto member) {
    return [member](const EngineOptions& options) { return options.parallel.*member; };
  };
  const auto set_parallel = [](auto member) {
    using Value = std::remove_cvref_t<decltype(std::declval<engine::ParallelOptions>().*member)>;
    return [member](EngineOptions& options, Value value) { options.parallel.*member = value; };
  };
  using Parallel = engine::ParallelOptions;
  nb::class_<EngineOptions>(module, "_EngineOptions")
      .def(nb::init<>())
      .def_rw("device", &EngineOptions::device)
      .def_prop_rw(
          "dtype", [](const EngineOptions& o) { return std::string(dtype_name(o.dtype)); },
          &set_dtype)
      .def_rw("quantization", &EngineOptions::quantization)
      .def_rw("max_model_len", &EngineOptions::max_model_len)
      .def_rw("max_num_seqs", &EngineOptions::max_num_seqs)
      .def_rw("max_num_batched_tokens", &EngineOptions::max_num_batched_tokens)
      .def_rw("enable_prefix_caching", &EngineOptions::prefix_caching)
      .def_prop_rw(
          "kv_cache_dtype",
          [](const EngineOptions& o) {
            return o.cache_dtype ? std::string(dtype_name(*o.cache_dtype)) : "auto";
          },
          [](EngineOptions& o, const std::string& name) {
            o.cache_dtype = engine::cache_dtype_of(name);
          })
      .def_prop_rw(
          "num_speculative_tokens",
          [](const EngineOptions& o) { return o.speculation.num_speculative_tokens; },
          [](EngineOptions& o, int64_t count) { o.speculation.num_speculative_tokens = count; })
      .def_prop_rw(
          "speculative_model", [](const EngineOptions& o) { return o.speculation.model; },
          [](EngineOptions& o, const std::string& model) { o.speculation.model = model; })
      .def_prop_rw("tensor_parallel_size", parallel(&Parallel::tensor_parallel_size),
                   set_parallel(&Parallel::tensor_parallel_size))
      .def_prop_rw("pipeline_parallel_size", parallel(&Parallel::pipeline_parallel_size),
                   set_parallel(&Parallel::pipeline_parallel_size))
      .def_prop_rw("data_parallel_size", parallel(&Parallel::data_parallel_size),
                   set_parallel(&Parallel::data_parallel_size))
      .def_prop_rw("enable_expert_parallel", parallel(&Parallel::enable_expert_parallel),
                   set_parallel(&Parallel::enable_expert_parallel))
      .def_prop_rw("strategy", parallel(&Parallel::strategy), set_parallel(&Parallel::strategy));
}

// Runs on a thread of its own, with an eye on Python's signals: Control-C ends the answers.
std::vector<BatchResult> generate(BatchEngine& batch,
                                  const std::vector<std::vector<int32_t>>& prompts,
                                  const std::vector<SamplingParams>& params) {
  require(prompts.size() == params.size(), "[LLM] {} prompts with {} sampling parameters",
          prompts.size(), params.size());
  std::vector<engine::Request> requests(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    requests[i].prompt = prompts[i];
    requests[i].sampling = params[i];
  }
  std::atomic<bool> cancelled = false;
  auto running = std::async(std::launch::async,
                            [&] { return batch.generate(std::move(requests), cancelled); });
  while (true) {
    {
      const nb::gil_scoped_release release;
      if (running.wait_for(std::chrono::milliseconds(50)) == std::future_status::ready) break;
    }
    if (PyErr_CheckSignals() != 0) {
      nb::python_error interrupt;
      {
        const nb::gil_scoped_release release;
        cancelled = true;
        running.wait();
      }
      throw nb::python_error(std::move(interrupt));
    }
  }
  return running.get();
}

std::vector<int32_t> encode_chat(const BatchEngine& batch, const std::string& messages) {
  const nb::gil_scoped_release release;
  return batch.encode_chat(parse_json(messages, "the messages"));
}

using TextOrTokens = std::variant<std::string, std::vector<int32_t>>;

std::vector<std::vector<float>> embed(engine::Embedder& embedder,
                                      const std::vector<TextOrTokens>& texts) {
  const nb::gil_scoped_release release;
  std::vector<std::vector<int32_t>> tokens;
  for (const TextOrTokens& text : texts) {
    const auto* words = std::get_if<std::string>(&text);
    tokens.push_back(words != nullptr ? embedder.encode(*words)
                                      : std::get<std::vector<int32_t>>(text));
  }
  return embedder.embed(tokens);
}

}  // namespace

void bind_llm(nb::module_& module) {
  bind_engine_options(module);
  nb::class_<SamplingParams>(module, "_SamplingParams")
      .def(nb::init<>())
      .def_rw("temperature", &SamplingParams::temperature)
      .def_rw("top_k", &SamplingParams::top_k)
      .def_rw("top_p", &SamplingParams::top_p)
      .def_rw("min_p", &SamplingParams::min_p)
      .def_rw("repetition_penalty", &SamplingParams::repetition_penalty)
      .def_rw("frequency_penalty", &SamplingParams::frequency_penalty)
      .def_rw("presence_penalty", &SamplingParams::presence_penalty)
      .def_rw("logit_bias", &SamplingParams::logit_bias)
      .def_rw("seed", &SamplingParams::seed)
      .def_rw("max_tokens", &SamplingParams::max_tokens)
      .def_rw("min_tokens", &SamplingParams::min_tokens)
      .def_rw("stop_token_ids", &SamplingParams::stop_token_ids)
      .def_rw("stop", &SamplingParams::stop)
      .def_rw("include_stop_str_in_output", &SamplingParams::include_stop_str_in_output)
      .def_rw("ignore_eos", &SamplingParams::ignore_eos)
      .def_rw("logprobs", &SamplingParams::logprobs)
      .def_rw("skip_special_tokens", &SamplingParams::skip_special_tokens)
      .def(
          "set_structured_outputs",
          [](SamplingParams& self, std::optional<std::string> json,
             std::optional<std::string> regex, std::vector<std::string> choice,
             std::optional<std::string> grammar, bool json_object) {
            self.structured_outputs =
                engine::StructuredOutputsParams{std::move(json), std::move(regex),
                                                std::move(choice), std::move(grammar), json_object};
          },
          nb::kw_only(), nb::arg("json").none(), nb::arg("regex").none(), nb::arg("choice"),
          nb::arg("grammar").none(), nb::arg("json_object"));

  nb::class_<engine::TokenLogprobs>(module, "_TokenLogprobs")
      .def_ro("token", &engine::TokenLogprobs::token)
      .def_ro("logprob", &engine::TokenLogprobs::logprob)
      .def_ro("top", &engine::TokenLogprobs::top);

  nb::class_<BatchResult>(module, "_BatchResult")
      .def_ro("prompt_token_ids", &BatchResult::prompt)
      .def_prop_ro("text", [](const BatchResult& r) { return r.result.text; })
      .def_prop_ro("token_ids", [](const BatchResult& r) { return r.result.token_ids; })
      .def_prop_ro("logprobs", [](const BatchResult& r) { return r.result.logprobs; })
      .def_prop_ro("finish_reason", [](const BatchResult& r) {
        return std::string(to_string(r.result.finish_reason));
      });

  nb::class_<BatchEngine>(module, "_BatchEngine")
      .def(
          "__init__",
          [](BatchEngine* self, const std::string& model, const EngineOptions& options) {
            const nb::gil_scoped_release release;
            new (self) BatchEngine(model, options);
          },
          nb::arg("model"), nb::arg("options"))
      .def("encode", &BatchEngine::encode, nb::arg("text"),
           nb::call_guard<nb::gil_scoped_release>())
      .def("encode_chat", &encode_chat, nb::arg("messages"))
      .def("generate", &generate, nb::arg("prompts"), nb::arg("params"))
      .def("decode", &BatchEngine::decode, nb::arg("tokens"))
      .def(
          "beam_search",
          [](BatchEngine& engine, const std::vector<int32_t>& prompt, int64_t beam_width,
             int64_t max_tokens, double length_penalty, bool early_stopping, bool ignore_eos) {
            engine::BeamSearchParams params;
            params.beam_width = beam_width;
            params.max_tokens = max_tokens;
            params.length_penalty = length_penalty;
            params.early_stopping = early_stopping;
            params.ignore_eos = ignore_eos;
            const nb::gil_scoped_release release;
            std::vector<std::pair<std::vector<int32_t>, double>> answers;
            for (const auto& answer : engine.beam_search(prompt, params)) {
              answers.emplace_back(answer.tokens, answer.logprob);
            }
            return answers;
          },
          nb::arg("prompt"), nb::kw_only(), nb::arg("beam_width"), nb::arg("max_tokens"),
          nb::arg("length_penalty"), nb::arg("early_stopping"), nb::arg("ignore_eos"));

  nb::class_<engine::Embedder>(module, "_Embedder")
      .def(
          "__init__",
          [](engine::Embedder* self, const std::string& model, const std::string& dtype,
             const std::string& device, int64_t max_model_len) {
            engine::EmbedderOptions options;
            options.dtype = dtype_of(dtype);
            options.expand_weights = options.dtype == DType::kF32;
            options.device = device;
            options.max_model_len = max_model_len;
            const nb::gil_scoped_release release;
            new (self) engine::Embedder(io::resolve_model(model), options);
          },
          nb::arg("model"), nb::kw_only(), nb::arg("dtype"), nb::arg("device"),
          nb::arg("max_model_len"))
      .def("embed", &embed, nb::arg("texts"));
}

}  // namespace ttpu::python
