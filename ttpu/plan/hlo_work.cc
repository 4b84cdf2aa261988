#include "ttpu/plan/hlo_work.h"

#include <algorithm>

namespace ttpu::plan {
namespace {

constexpr int kDeepest = 16;  // fusions in fusions

// Pairs of a kernel's and an output's position that meet an element and not padding.
double valid_pairs(int64_t input, int64_t output, const HloWindowDim& window) {
  if (window.size == 1 && window.padding_low == 0) return static_cast<double>(output);
  const int64_t reach = (input - 1) * window.base_dilation + 1;
  double count = 0;
  for (int64_t k = 0; k < window.size; ++k) {
    const int64_t offset = k * window.dilation - window.padding_low;
    if (window.base_dilation == 1) {
      // 0 <= o * stride + offset < reach
      const int64_t first = offset >= 0 ? 0 : (-offset + window.stride - 1) / window.stride;
      const int64_t last =
          reach - 1 - offset < 0 ? -1 : std::min(output - 1, (reach - 1 - offset) / window.stride);
      count += static_cast<double>(std::max<int64_t>(0, last - first + 1));
      continue;
    }
    for (int64_t o = 0; o < output; ++o) {
      const int64_t at = o * window.stride + offset;
      if (at >= 0 && at < reach && at % window.base_dilation == 0) ++count;
    }
  }
  return count;
}

int64_t dim_of(const HloShape& shape, int64_t index) {
  const auto at = static_cast<size_t>(index);
  return index >= 0 && at < shape.dims.size() ? shape.dims[at] : 1;
}

const HloInstruction* operand(const HloComputation& computation, const HloInstruction& op,
                              size_t index) {
  return index < op.operands.size() ? computation.find(op.operands[index]) : nullptr;
}

bool takes_part(std::string_view opcode) {
  return opcode == "slice" || opcode == "dynamic-slice" || opcode == "gather";
}
bool puts_part(std::string_view opcode) {
  return opcode == "dynamic-update-slice" || opcode == "scatter";
}
// What an instruction puts into its first operand.
const HloInstruction* update_of(const HloComputation& computation, const HloInstruction& op) {
  return operand(computation, op, op.opcode == "scatter" ? op.operands.size() - 1 : 1);
}

class Reader {
 public:
  explicit Reader(const HloModule& module) : module_(module) {}

  // Bytes that `user` reads of a value of `whole` bytes that is its operand `index`.
  double read(const HloComputation& computation, const HloInstruction& user, size_t index,
              double whole, int depth) const {
    if (index == 0 && takes_part(user.opcode)) {
      return std::min(whole, user.shape.padded_bytes());
    }
    if (index == 0 && puts_part(user.opcode)) return 0;
    if (user.opcode == "tuple") return 0;  // see work_of
    if (user.opcode == "bitcast") return uses(computation, user.id, whole, depth + 1);
    if (user.opcode == "fusion" && depth < kDeepest && !user.called.empty()) {
      const HloComputation* inner = module_.find(user.called[0]);
      if (inner != nullptr) {
        for (const auto& [id, op] : inner->instructions) {
          if (op.opcode != "parameter" || op.parameter_number != static_cast<int64_t>(index))
            continue;
          double sum = uses(*inner, id, whole, depth + 1);
          // The fusion gives it on as it is: inside another one, to those who use it there.
          if (is_given_on(*inner, id)) {
            sum += depth == 0 ? whole : uses(computation, user.id, whole, depth + 1);
          }
          return std::min(sum, whole);
        }
      }
    }
    return whole;
  }

  // Bytes that the result of `op` takes: of an update in place, what is put in.
  double written(const HloComputation& computation, const HloInstruction& op, double whole,
                 int depth) const {
    if (puts_part(op.opcode)) {
      const HloInstruction* update = update_of(computation, op);
      return update == nullptr ? whole : std::min(whole, update->shape.padded_bytes());
    }
    if (op.opcode == "bitcast" && depth < kDeepest) {
      const HloInstruction* source = operand(computation, op, 0);
      return source == nullptr ? whole : written(computation, *source, whole, depth + 1);
    }
    if (op.opcode == "fusion" && depth < kDeepest && !op.called.empty()) {
      const HloComputation* inner = module_.find(op.called[0]);
      const HloInstruction* root = inner == nullptr ? nullptr : inner->find(inner->root);
      if (root != nullptr && root->opcode != "tuple") {
        return written(*inner, *root, whole, depth + 1);
      }
    }
    return whole;
  }

  void add_flops(const HloComputation& computation, const HloInstruction& op, HloWork* work,
                 int depth) const {
    const double flops = contraction_flops(computation, op);
    if (flops > 0) {
      const HloInstruction* a = operand(computation, op, 0);
      const HloInstruction* b = operand(computation, op, 1);
      const bool int8 = a->shape.is_integer && b->shape.is_integer;
      const bool fp8 = a->shape.is_float8 && b->shape.is_float8;
      (int8 ? work->int8_ops : fp8 ? work->fp8_flops : work->flops) += flops;
    }
    if (op.opcode != "fusion" || depth >= kDeepest) return;
    for (const int64_t id : op.called) {
      const HloComputation* inner = module_.find(id);
      if (inner == nullptr) continue;
      for (const auto& [key, part] : inner->instructions) add_flops(*inner, part, work, depth + 1);
    }
  }

 private:
  static bool is_given_on(const HloComputation& computation, int64_t id) {
    int64_t source = computation.root;
    for (int i = 0; i < kDeepest && source != id; ++i) {
      const HloInstruction* op = computation.find(source);
      if (op == nullptr || op->opcode != "bitcast" || op->operands.empty()) return false;
      source = op->operands[0];
    }
    return source == id;
  }

  double uses(const HloComputation& computation, int64_t id, double whole, int depth) const {
    if (depth >= kDeepest) return whole;
    double sum = 0;
    for (const auto& [key, user] : computation.instructions) {
      for (size_t i = 0; i < user.operands.size(); ++i) {
        if (user.operands[i] == id) sum += read(computation, user, i, whole, depth);
      }
    }
    return std::min(sum, whole);
  }

  const HloModule& module_;
};

}  // namespace

void HloWork::add(const HloWork& other) {
  flops += other.flops;
  int8_ops += other.int8_ops;
  fp8_flops += other.fp8_flops;
  hbm_bytes += other.hbm_bytes;
  all_bytes += other.all_bytes;
}

double contraction_flops(const HloComputation& computation, const HloInstruction& op) {
  if (op.opcode != "convolution" && op.opcode != "dot") return 0;
  const HloInstruction* a = operand(computation, op, 0);
  const HloInstruction* b = operand(computation, op, 1);
  if (a == nullptr || b == nullptr) return 0;
  double flops = 2 * static_cast<double>(op.shape.elements());
  const HloContraction& how = op.contraction;
  if (op.opcode == "dot") {
    for (const int64_t axis : how.lhs) flops *= static_cast<double>(dim_of(a->shape, axis));
    return flops;
  }
  flops *= static_cast<double>(dim_of(b->shape, how.kernel_input_feature));
  for (size_t i = 0; i < how.output_spatial.size(); ++i) {
    const int64_t output = dim_of(op.shape, how.output_spatial[i]);
    const HloWindowDim window = i < how.window.size() ? how.window[i] : HloWindowDim{};
    const double pairs = valid_pairs(dim_of(a->shape, how.input_spatial.at(i)), output, window);
    flops *= pairs / static_cast<double>(std::max<int64_t>(output, 1));
  }
  return flops;
}

HloWork work_of(const HloModule& module, const HloComputation& computation,
                const HloInstruction& op) {
  const Reader reader(module);
  HloWork work;
  const auto add = [&work](const HloShape& shape, double bytes) {
    work.all_bytes += bytes;
    if (shape.memory_space == 0) work.hbm_bytes += bytes;
  };
  for (size_t i = 0; i < op.operands.size(); ++i) {
    const HloInstruction* source = operand(computation, op, i);
    if (source == nullptr || source->shape.is_tuple) continue;
    const auto first = std::find(op.operands.begin(), op.operands.end(), op.operands[i]);
    if (static_cast<size_t>(first - op.operands.begin()) != i) continue;  // named twice, read once
    add(source->shape, reader.read(computation, op, i, source->shape.padded_bytes(), 0));
  }
  if (!op.shape.is_tuple) {
    add(op.shape, reader.written(computation, op, op.shape.padded_bytes(), 0));
  } else {
    const HloComputation* inner =
        op.opcode == "fusion" && !op.called.empty() ? module.find(op.called[0]) : nullptr;
    const HloInstruction* root = inner == nullptr ? nullptr : inner->find(inner->root);
    for (size_t i = 0; i < op.shape.parts.size(); ++i) {
      const HloShape& part = op.shape.parts[i];
      double bytes = part.padded_bytes();
      if (root != nullptr && root->opcode == "tuple") {
        const HloInstruction* source = operand(*inner, *root, i);
        if (source != nullptr && source->opcode == "parameter") {
          // Given on as it is: copied, or nothing where the result takes its place.
          const bool in_place =
              std::ranges::find(op.aliased, source->parameter_number) != op.aliased.end();
          bytes *= in_place ? 0 : 2;
        } else if (source != nullptr) {
          bytes = reader.written(*inner, *source, bytes, 1);
        }
      }
      add(part, bytes);
    }
  }
  reader.add_flops(computation, op, &work, 0);
  return work;
}

}  // namespace ttpu::plan
