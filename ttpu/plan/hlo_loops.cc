#include <charconv>

#include "ttpu/plan/hlo.h"

namespace ttpu::plan {
namespace {

// What a value of a loop's body or condition is: an element of the carried tuple and a number added
// to it, or a number alone.
struct Term {
  std::optional<int64_t> element;
  int64_t offset = 0;
};

// A computation, and where it was called from: its parameters are the caller's operands.
struct Frame {
  const HloComputation* computation;
  const Frame* caller = nullptr;
  const HloInstruction* call = nullptr;
};

class Resolver {
 public:
  explicit Resolver(const HloModule& module) : module_(module) {}

  std::optional<Term> term(const Frame& frame, int64_t id, int depth = 0) const {
    const HloInstruction* op = frame.computation->find(id);
    if (op == nullptr || depth > 32) return std::nullopt;
    if (op->constant) return Term{std::nullopt, *op->constant};
    if (op->opcode == "parameter") {
      if (frame.caller == nullptr) return std::nullopt;
      return term(*frame.caller, operand(*frame.call, op->parameter_number), depth + 1);
    }
    if (op->opcode == "get-tuple-element") return carried(frame, *op);
    if (op->opcode == "copy" || op->opcode == "bitcast" || op->opcode == "convert" ||
        op->opcode == "reshape") {
      return term(frame, operand(*op, 0), depth + 1);
    }
    if (op->opcode == "add") return sum(frame, *op, depth);
    if (op->opcode == "fusion" || op->opcode == "call") {
      const HloComputation* inner = called(*op);
      if (inner == nullptr) return std::nullopt;
      return term(Frame{inner, &frame, op}, inner->root, depth + 1);
    }
    return std::nullopt;
  }

  // The comparison that a condition ends with, and the frame that it stands in; `keep` holds frames
  // of fusions.
  const HloInstruction* comparison(const Frame& frame, Frame* inner) const {
    const HloInstruction* root = frame.computation->find(frame.computation->root);
    *inner = frame;
    if (root != nullptr && (root->opcode == "fusion" || root->opcode == "call")) {
      const HloComputation* target = called(*root);
      if (target == nullptr) return nullptr;
      *inner = Frame{target, &frame, root};
      root = target->find(target->root);
    }
    return root != nullptr && root->opcode == "compare" ? root : nullptr;
  }

  const HloComputation* called(const HloInstruction& op, size_t index = 0) const {
    if (op.called.size() <= index) return nullptr;
    return module_.find(op.called[index]);
  }

  static int64_t operand(const HloInstruction& op, int64_t index) {
    const auto at = static_cast<size_t>(index);
    return index >= 0 && at < op.operands.size() ? op.operands[at] : -1;
  }

 private:
  // An element of the tuple that the loop carries: the parameter of the outermost frame.
  std::optional<Term> carried(const Frame& frame, const HloInstruction& op) const {
    const HloInstruction* tuple = frame.computation->find(operand(op, 0));
    if (frame.caller != nullptr || tuple == nullptr || tuple->opcode != "parameter") {
      return std::nullopt;
    }
    return Term{op.tuple_index, 0};
  }

  std::optional<Term> sum(const Frame& frame, const HloInstruction& op, int depth) const {
    const auto a = term(frame, operand(op, 0), depth + 1);
    const auto b = term(frame, operand(op, 1), depth + 1);
    if (!a || !b || (a->element && b->element)) return std::nullopt;
    return Term{a->element ? a->element : b->element, a->offset + b->offset};
  }

  const HloModule& module_;
};

// "known_trip_count":{"n":"12"}
std::optional<int64_t> noted(std::string_view config) {
  constexpr std::string_view kKey = "known_trip_count";
  size_t at = config.find(kKey);
  if (at == std::string_view::npos) return std::nullopt;
  at = config.find_first_of("0123456789", at + kKey.size());
  if (at == std::string_view::npos) return std::nullopt;
  int64_t count = 0;
  std::from_chars(config.data() + at, config.data() + config.size(), count);
  return count;
}

// The number that element `index` of the loop's first tuple is.
std::optional<int64_t> initial(const Resolver& resolver, const HloComputation& around,
                               const HloInstruction& loop, int64_t index) {
  const HloInstruction* tuple = around.find(Resolver::operand(loop, 0));
  if (tuple == nullptr || tuple->opcode != "tuple") return std::nullopt;
  const auto term = resolver.term(Frame{&around}, Resolver::operand(*tuple, index));
  return term && !term->element ? std::optional(term->offset) : std::nullopt;
}

}  // namespace

std::optional<int64_t> hlo_trip_count(const HloModule& module, const HloComputation& around,
                                      const HloInstruction& loop) {
  if (const auto count = noted(loop.backend_config)) return count;
  const Resolver resolver(module);
  const HloComputation* body = resolver.called(loop, 0);
  const HloComputation* condition = resolver.called(loop, 1);
  if (body == nullptr || condition == nullptr) return std::nullopt;
  const Frame outer{condition};
  Frame inner{condition};
  const HloInstruction* compare = resolver.comparison(outer, &inner);
  if (compare == nullptr || (compare->direction != "LT" && compare->direction != "GT")) {
    return std::nullopt;
  }
  auto counter = resolver.term(inner, Resolver::operand(*compare, 0));
  auto bound = resolver.term(inner, Resolver::operand(*compare, 1));
  if (compare->direction == "GT") std::swap(counter, bound);  // bound > counter
  if (!counter || !bound || !counter->element) return std::nullopt;
  // The element that the next turn gets in the place of `index`.
  const auto next = [&](int64_t index) -> std::optional<Term> {
    const HloInstruction* root = body->find(body->root);
    if (root == nullptr || root->opcode != "tuple") return std::nullopt;
    return resolver.term(Frame{body}, Resolver::operand(*root, index));
  };
  const auto is_kept = [&](int64_t index) {
    const auto term = next(index);
    return term && term->element == index && term->offset == 0;
  };
  if (bound->element) {  // a constant that the loop carries
    const auto value =
        is_kept(*bound->element) ? initial(resolver, around, loop, *bound->element) : std::nullopt;
    if (!value) return std::nullopt;
    bound = Term{std::nullopt, bound->offset + *value};
  }
  const auto start = initial(resolver, around, loop, *counter->element);
  const auto step = next(*counter->element);
  if (!start || !step || step->element != counter->element || step->offset <= 0) {
    return std::nullopt;
  }
  const int64_t distance = bound->offset - (*start + counter->offset);
  return distance <= 0 ? 0 : (distance + step->offset - 1) / step->offset;
}

}  // namespace ttpu::plan
