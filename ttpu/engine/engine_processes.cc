// The engine as one of several processes that run the same steps.
#include "ttpu/engine/bundle.h"
#include "ttpu/engine/followers.h"
#include "ttpu/engine/live_request.h"

namespace ttpu::engine {

bool Engine::leads() const {
  return options_.control != nullptr && options_.control->process() == 0;
}

bool Engine::follows() const { return options_.control != nullptr && !leads(); }

// Before anything large is loaded.
void Engine::agree_on_model(const std::filesystem::path& path,
                            const std::filesystem::path& draft) const {
  parallel::ControlPlane& control = *options_.control;
  const auto weights = [](const std::filesystem::path& model) {
    return model.empty() ? "none" : weights_digest(*io::Checkpoint::open(model));
  };
  Json own = program_flags(options_);
  own["num-blocks"] = options_.num_blocks;
  own["bundle"] = options_.bundle.empty() ? "none" : Bundle::open(options_.bundle)->fingerprint();
  own["config.json"] = config_digest(files_.config);
  own["weights of the model"] = weights(path);
  own["weights of the draft model"] = weights(draft);
  require_same(control, "model", own);
}

void Engine::agree_on_programs() const {
  require_same(*options_.control, "programs", runner_->identity());
  if (draft_) require_same(*options_.control, "draft programs", draft_->runner().identity());
}

std::shared_ptr<StepSender> Engine::add_sender() {
  if (!leads()) return nullptr;
  const auto number = static_cast<int32_t>(senders_.size());
  const auto send = [control = options_.control](std::string bytes) {
    control->broadcast(std::move(bytes));
  };
  return senders_.emplace_back(std::make_shared<StepSender>(send, number));
}

// The last steps are compared, too.
void Engine::end_senders() {
  for (const std::shared_ptr<StepSender>& sender : senders_) {
    try {
      sender->end();
    } catch (const Error&) {  // who is lost has been named
    }
  }
}

int64_t Engine::follow() {
  require(follows(), "[processes] this process follows no other");
  std::vector<Runner*> runners = {runner_.get()};
  if (draft_) runners.push_back(&draft_->runner());
  return engine::follow(*options_.control, runners);
}

}  // namespace ttpu::engine
