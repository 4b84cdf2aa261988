#include "python/batch.h"

#include <utility>

#include "ttpu/base/error.h"
#include "ttpu/io/hub.h"

namespace ttpu::python {

BatchEngine::BatchEngine(const std::string& name, const engine::EngineOptions& options)
    : engine_(io::resolve_model(name), options) {}

std::vector<BatchResult> BatchEngine::generate(std::vector<engine::Request> requests,
                                               const std::atomic<bool>& cancelled) {
  for (engine::Request& request : requests) {
    engine_.check(request);
    const auto& outputs = request.sampling.structured_outputs;
    if (outputs) request.grammar = engine_.compile_grammar(*outputs);
  }
  std::vector<BatchResult> results(requests.size());
  size_t next = 0;
  engine::GenerationCallbacks callbacks;
  callbacks.next = [&]() -> std::optional<engine::Request> {
    if (next == requests.size()) return std::nullopt;
    return std::move(requests[next++]);
  };
  callbacks.on_done = [&](size_t index, const engine::Request& request,
                          engine::GenerationResult result) {
    results[index] = {request.prompt, std::move(result)};
  };
  engine::generate_all(engine_, callbacks, &cancelled);
  for (const BatchResult& result : results) {
    if (!result.result.error.empty()) throw Error(result.result.error_code, result.result.error);
  }
  return results;
}

}  // namespace ttpu::python
