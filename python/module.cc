// The extension ttpu._ttpu: python/session.h for Python. Whatever computes or waits does so without
// the GIL.
#include <utility>
#include <variant>

#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "python/llm_module.h"
#include "python/session.h"
#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/base/log.h"

namespace nb = nanobind;

namespace {

using ttpu::engine::Request;
using ttpu::python::Session;
using ttpu::python::Stream;

// Text, token ids, or chat messages.
using Prompt = std::variant<std::string, std::vector<int32_t>, nb::sequence>;
using Stop = std::variant<std::string, std::vector<std::string>>;

// Python may let go of a stream that still runs.
struct ReleasedStream : Stream {
  using Stream::Stream;
  ~ReleasedStream() {
    const nb::gil_scoped_release release;
    close();
  }
};

// A finished answer.
struct Generation {
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<int32_t> prompt_token_ids;
  std::string finish_reason;
};

void end_stream(ReleasedStream& stream) {
  const nb::gil_scoped_release release;
  stream.close();
}

// Waits with an eye on Python's signals: Control-C ends the answer.
void wait(ReleasedStream& stream, bool (Stream::*until)(Stream::Duration)) {
  constexpr Stream::Duration kBetweenSignals(50);
  for (bool done = false; !done;) {
    {
      const nb::gil_scoped_release release;
      done = (stream.*until)(kBetweenSignals);
    }
    if (PyErr_CheckSignals() != 0) {
      nb::python_error interrupt;
      end_stream(stream);
      throw nb::python_error(std::move(interrupt));
    }
  }
}

std::string next_piece(ReleasedStream& stream) {
  wait(stream, &Stream::wait_piece);
  const std::optional<std::string> piece = stream.next();
  if (!piece) throw nb::stop_iteration();
  return *piece;
}

Generation stream_result(ReleasedStream& stream) {
  wait(stream, &Stream::wait_end);
  const auto& result = stream.result();
  return {result.text, result.token_ids, stream.request().prompt, to_string(result.finish_reason)};
}

std::vector<int32_t> encode(const Session& session, const Prompt& prompt) {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) return *ids;
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    const nb::gil_scoped_release release;
    return session.encode(*text);
  }
  // What a message may hold is up to the model's template.
  const nb::object dumps = nb::module_::import_("json").attr("dumps");
  const auto json = nb::cast<std::string>(dumps(std::get<nb::sequence>(prompt)));
  const nb::gil_scoped_release release;
  return session.encode_chat(ttpu::parse_json(json, "the messages"));
}

nb::object generate(const std::shared_ptr<Session>& session, const Prompt& prompt,
                    int64_t max_tokens, double temperature, int64_t top_k, double top_p,
                    double min_p, double repetition_penalty, uint64_t seed, const Stop& stop,
                    bool stream) {
  Request request;
  request.prompt = encode(*session, prompt);
  request.sampling.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.top_k = top_k;
  request.sampling.top_p = top_p;
  request.sampling.min_p = min_p;
  request.sampling.repetition_penalty = repetition_penalty;
  request.sampling.seed = seed;
  if (const auto* one = std::get_if<std::string>(&stop)) {
    request.sampling.stop = {*one};
  } else {
    request.sampling.stop = std::get<std::vector<std::string>>(stop);
  }
  session->check(request);
  auto answer = std::make_unique<ReleasedStream>(session, std::move(request));
  return stream ? nb::cast(std::move(answer)) : nb::cast(stream_result(*answer));
}

std::shared_ptr<Session> from_pretrained(const std::filesystem::path& name_or_path,
                                         const std::string& backend, const std::string& task,
                                         const std::string& parallelism_strategy,
                                         bool /*enable_paged_attention*/, const std::string& dtype,
                                         const std::string& device, int64_t max_model_len) {
  const ttpu::python::LoadArguments arguments = {backend, task,   parallelism_strategy,
                                                 dtype,   device, max_model_len};
  const nb::gil_scoped_release release;
  return std::make_shared<Session>(name_or_path.string(), arguments);
}

// ttpu.Error, a RuntimeError with a `code`.
void bind_error(nb::module_& module) {
  const nb::object type = nb::steal(PyErr_NewExceptionWithDoc(
      "ttpu.Error", "What went wrong; `code` is PJRT's.", PyExc_RuntimeError, nullptr));
  module.attr("Error") = type;
  nb::register_exception_translator(
      [](const std::exception_ptr& thrown, void* payload) {
        try {
          std::rethrow_exception(thrown);
        } catch (const ttpu::Error& error) {
          const nb::handle error_type(static_cast<PyObject*>(payload));
          const nb::object value = error_type(error.what());
          value.attr("code") = ttpu::code_name(error.code());
          PyErr_SetObject(error_type.ptr(), value.ptr());
        }
      },
      type.ptr());  // the module keeps it alive
}

}  // namespace

NB_MODULE(_ttpu, module) {
  ttpu::init_logging();
  module.attr("__version__") = TTPU_VERSION;
  bind_error(module);
  ttpu::python::bind_llm(module);

  nb::class_<Generation>(module, "Generation")
      .def_ro("text", &Generation::text)
      .def_ro("token_ids", &Generation::token_ids)
      .def_ro("prompt_token_ids", &Generation::prompt_token_ids)
      .def_ro("finish_reason", &Generation::finish_reason)
      .def("__repr__", [](const Generation& generation) {
        return nb::str("Generation(text={!r}, finish_reason={!r})")
            .attr("format")(generation.text, generation.finish_reason);
      });

  nb::class_<ReleasedStream>(module, "TextStream")
      .def("__iter__", [](nb::handle self) { return nb::borrow(self); })
      .def("__next__", &next_piece)
      .def("__enter__", [](nb::handle self) { return nb::borrow(self); })
      .def("__exit__", [](ReleasedStream& stream, const nb::args&) { end_stream(stream); })
      .def("close", &end_stream)
      .def("result", &stream_result);

  nb::class_<Session>(module, "AutoModelForTPU")
      .def_static("from_pretrained", &from_pretrained, nb::arg("name_or_path"), nb::kw_only(),
                  nb::arg("backend") = "jax", nb::arg("task") = "inference",
                  nb::arg("parallelism_strategy") = "auto",
                  nb::arg("enable_paged_attention") = true, nb::arg("dtype") = "bf16",
                  nb::arg("device") = "cpu", nb::arg("max_model_len") = 0)
      .def("encode", &encode, nb::arg("prompt"))
      .def("generate", &generate, nb::arg("prompt"), nb::kw_only(), nb::arg("max_tokens") = 256,
           nb::arg("temperature") = 0.0, nb::arg("top_k") = 0, nb::arg("top_p") = 1.0,
           nb::arg("min_p") = 0.0, nb::arg("repetition_penalty") = 1.0, nb::arg("seed") = 0,
           nb::arg("stop") = std::vector<std::string>(), nb::arg("stream") = false);
}
