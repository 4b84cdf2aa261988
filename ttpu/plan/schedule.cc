#include "ttpu/plan/schedule.h"

#include <algorithm>
#include <charconv>
#include <deque>
#include <optional>
#include <set>
#include <unordered_map>

#include "ttpu/plan/hlo_work.h"
#include "ttpu/plan/links.h"

namespace ttpu::plan {
namespace {

constexpr int kDeepest = 32;
constexpr int64_t kSemaphores = 2;  // HloShape::memory_space

std::string_view base_of(std::string_view opcode) {
  for (const std::string_view end : {"-start", "-done"}) {
    if (opcode.ends_with(end)) return opcode.substr(0, opcode.size() - end.size());
  }
  return opcode;
}

// A number in JSON: "key":"1234" or "key":1234.
std::optional<double> number_of(std::string_view config, std::string_view key) {
  const size_t at = config.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  const size_t first = config.find_first_of("-0123456789", at + key.size());
  if (first == std::string_view::npos) return std::nullopt;
  double value = 0;
  std::from_chars(config.data() + first, config.data() + config.size(), value);
  return value;
}

bool is_free(const HloInstruction& op) {
  static const std::set<std::string_view> kFree = {
      "parameter", "constant",     "tuple",       "get-tuple-element",    "bitcast",
      "after-all", "partition-id", "replica-id",  "optimization-barrier", "add-dependency",
      "domain",    "iota",         "async-update"};
  if (op.opcode == "custom-call") return op.target != "tpu_custom_call";
  return kFree.contains(op.opcode);
}

// Bytes that are copied beside the program, one copy after another.
struct Queue {
  struct Item {
    int64_t id;
    double left;
  };
  std::deque<Item> items;

  void drain(double amount) {
    while (!items.empty() && amount > 0) {
      const double taken = std::min(amount, items.front().left);
      items.front().left -= taken;
      amount -= taken;
      if (items.front().left <= 0) items.pop_front();
    }
  }
  // What is left until `id` is done, and all that stands before it.
  double left_of(int64_t id) const {
    double sum = 0;
    for (const Item& item : items) {
      sum += item.left;
      if (item.id == id) return sum;
    }
    return 0;
  }
};

class Player {
 public:
  Player(const HloModule& module, const Slice& slice, Links* links)
      : module_(module),
        slice_(slice),
        links_(links),
        free_at_(links->count()),
        sent_(links->count()) {}

  void play(int64_t id, double weight, int depth = 0) {
    const HloComputation* computation = module_.find(id);
    if (computation == nullptr || depth > kDeepest) return;
    find_caches(*computation);
    for (const int64_t key : computation->order) {
      const HloInstruction* op = computation->find(key);
      if (op != nullptr) step(*computation, *op, weight, depth);
    }
  }

  ScheduleCost cost;
  double now = 0;

 private:
  void step(const HloComputation& around, const HloInstruction& op, double weight, int depth) {
    if (op.opcode == "while") return loop(around, op, weight, depth);
    if (op.opcode == "conditional") return branch(op, weight, depth);
    if (op.opcode == "call") return call(op, weight, depth);
    if (op.opcode == "copy-start") return start_copy(around, op, weight);
    if (op.opcode == "async-start") return start_async(op, weight, depth);
    if (op.opcode == "async-update") return update_async(around, op, weight);
    if (op.opcode == "slice-start" || op.opcode == "dynamic-slice-start") {
      return start_slice(op, weight);
    }
    if (op.opcode.ends_with("-done")) return finish(around, op, weight);
    if (is_free(op)) return;
    if (op.opcode == "custom-call") return kernel(around, op, weight);
    if (is_collective(op.opcode)) {
      const Transfer transfer = send(op, weight);
      if (op.opcode.ends_with("-start")) {
        under_way_[op.id] = transfer;
        return;
      }
      count(work_of(module_, around, op), weight);
      return wait(transfer, weight);
    }
    if (op.opcode == "fusion" && fused_collective(around, op, weight)) return;
    operate(around, op, weight);
  }

  void find_caches(const HloComputation& computation) {
    for (const auto& [id, op] : computation.instructions) {
      if (op.opcode != "custom-call" || op.target != "tpu_custom_call") continue;
      for (const int64_t index : op.aliased) {
        const auto at = static_cast<size_t>(index);
        if (at < op.operands.size()) caches_.insert(memory_of(computation, op.operands[at]));
      }
    }
  }

  // Time passes for everything that runs beside; `hbm_bytes` is what the program itself moves.
  void advance(double seconds, double hbm_bytes) {
    now += seconds;
    copies_.drain(std::max(0.0, seconds * slice_.chip.hbm_bandwidth - hbm_bytes));
  }

  double compute_seconds(const HloWork& work) const {
    return Compute{work.flops, work.int8_ops, work.fp8_flops}.seconds(slice_.chip);
  }

  void count(const HloWork& work, double weight) {
    cost.flops += weight * work.flops;
    cost.int8_ops += weight * work.int8_ops;
    cost.fp8_flops += weight * work.fp8_flops;
    cost.hbm_bytes += weight * work.hbm_bytes;
  }

  void operate(const HloComputation& around, const HloInstruction& op, double weight) {
    const HloWork work = work_of(module_, around, op);
    count(work, weight);
    const auto cycles = number_of(op.backend_config, "\"estimated_cycles\":");
    double seconds = 0;
    if (cycles) {
      seconds = *cycles / slice_.chip.clock;
      cost.cycles += weight * *cycles;
      cost.cycle_seconds += weight * seconds;
    } else {
      seconds = std::max(work.all_bytes / slice_.chip.hbm_bandwidth, compute_seconds(work));
      cost.unpriced_seconds += weight * seconds;
      unpriced_.insert(op.id);
      cost.unpriced_count = static_cast<int64_t>(unpriced_.size());
    }
    advance(seconds, work.hbm_bytes);
  }

  void start_copy(const HloComputation& around, const HloInstruction& op, double weight) {
    // (destination, source, context)
    double bytes = 0;
    for (size_t i = 0; i < 2 && i < op.shape.parts.size(); ++i) {
      if (op.shape.parts[i].memory_space == 0) bytes += op.shape.parts[i].padded_bytes();
    }
    if (op.shape.parts.empty()) bytes = work_of(module_, around, op).hbm_bytes;
    queue_copy(op.id, bytes, weight);
  }

  // As XLA's text writes an asynchronous slice: ((operands), result, context).
  void start_slice(const HloInstruction& op, double weight) {
    if (op.shape.parts.size() < 2) return;
    const HloShape& from = op.shape.parts[0];
    const HloShape& part = op.shape.parts[1];
    const HloShape& whole = from.is_tuple && !from.parts.empty() ? from.parts[0] : from;
    double bytes = 0;
    for (const int64_t space : {whole.memory_space, part.memory_space}) {
      if (space == 0) bytes += part.padded_bytes();
    }
    queue_copy(op.id, bytes, weight);
  }

  void queue_copy(int64_t id, double bytes, double weight) {
    cost.hbm_bytes += weight * bytes;
    copies_.items.push_back({id, bytes});
  }

  // The collective that a computation is there for: its root, or, where SparseCores run it, inside
  // of the custom calls around it.
  std::pair<const HloComputation*, const HloInstruction*> collective_in(
      const HloComputation& computation, int deep) const {
    const HloInstruction* root = computation.find(computation.root);
    if (root == nullptr || deep > kDeepest) return {};
    if (is_collective(root->opcode)) return {&computation, root};
    if (root->opcode != "custom-call" || root->called.empty()) return {};
    const HloComputation* inner = module_.find(root->called[0]);
    return inner == nullptr ? std::pair<const HloComputation*, const HloInstruction*>{}
                            : collective_in(*inner, deep + 1);
  }

  // One that was set up before its operands were there sets out with them.
  void update_async(const HloComputation& around, const HloInstruction& op, double weight) {
    const auto found = set_up_.find(maker_of(around, op.id));
    if (found == set_up_.end()) return;
    under_way_[found->first] = send(*found->second, weight);
    set_up_.erase(found);
  }

  void start_async(const HloInstruction& op, double weight, int depth) {
    const HloComputation* inner = op.called.empty() ? nullptr : module_.find(op.called[0]);
    const HloInstruction* root = inner == nullptr ? nullptr : inner->find(inner->root);
    if (root == nullptr) return;
    if (const auto [holder, collective] = collective_in(*inner, 0); collective != nullptr) {
      count(work_of(module_, *holder, *collective), weight);
      if (op.operands.empty()) {
        set_up_[op.id] = collective;
      } else {
        under_way_[op.id] = send(*collective, weight);
      }
      return;
    }
    if (root->opcode == "call" || root->opcode == "while")
      return play(op.called[0], weight, depth + 1);
    if (root->opcode == "custom-call" && !root->called.empty()) {
      // Rows that SparseCores take from a table: they are read and written, the table is not.
      return queue_copy(op.id, 2 * root->shape.padded_bytes(), weight);
    }
    HloWork work = work_of(module_, *inner, *root);
    // Where the result stands is said by the start alone: ((operands), result, context).
    if (op.shape.parts.size() > 1 && !op.shape.parts[1].is_tuple && root->shape.memory_space == 0 &&
        op.shape.parts[1].memory_space != 0) {
      work.hbm_bytes -= std::min(work.hbm_bytes, op.shape.parts[1].padded_bytes());
    }
    cost.flops += weight * work.flops;
    queue_copy(op.id, work.hbm_bytes, weight);
  }

  // The part of a collective's shape that is its result. A start gives (operand, result, ...), but
  // that of an all-reduce the result alone.
  static double result_bytes(const HloInstruction& op) {
    if (!op.shape.is_tuple || op.shape.parts.empty()) return op.shape.bytes();
    if (!op.opcode.ends_with("-start") || op.opcode.starts_with("all-reduce")) {
      return op.shape.bytes();
    }
    double largest = 0;
    for (const HloShape& part : op.shape.parts) largest = std::max(largest, part.bytes());
    return largest;
  }

  CollectiveCost* entry_of(const HloInstruction& op) {
    const std::string_view name = base_of(op.opcode);
    const int64_t group = group_size(op, slice_);
    for (CollectiveCost& known : cost.collectives) {
      const bool same_size = known.count > 0 && known.bytes / known.count == result_bytes(op);
      if (known.opcode == name && known.group == group && same_size) return &known;
    }
    cost.collectives.push_back({std::string(name), group});
    return &cost.collectives.back();
  }

  // A collective under way: its place in the list, and when all of it has come.
  struct Transfer {
    size_t index = 0;
    double done = 0;
  };

  // Counts it and puts it on its links, behind what they have to send before.
  Transfer send(const HloInstruction& op, double weight) {
    CollectiveCost* entry = entry_of(op);
    const double bytes = result_bytes(op);
    const LinkLoad load = links_->load_of(op, bytes);
    Transfer transfer{static_cast<size_t>(entry - cost.collectives.data()), now};
    for (size_t link = 0; link < load.seconds.size(); ++link) {
      if (load.seconds[link] == 0) continue;
      sent_[link] += weight * load.seconds[link];
      free_at_[link] = std::max(free_at_[link], now) + load.seconds[link];
      transfer.done = std::max(transfer.done, free_at_[link]);
    }
    transfer.done += load.latency;
    entry->count += weight;
    entry->bytes += weight * bytes;
    entry->sent_bytes += weight * load.sent_bytes;
    entry->seconds += weight * (load.longest() + load.latency);
    cost.ici_bytes += weight * load.sent_bytes;
    cost.ici_limit = *std::max_element(sent_.begin(), sent_.end());
    return transfer;
  }

  void wait(const Transfer& transfer, double weight) {
    const double left = std::max(0.0, transfer.done - now);
    cost.exposed_collective_seconds += weight * left;
    cost.collectives.at(transfer.index).exposed_seconds += weight * left;
    advance(left, 0);
  }

  // How the TPU compiler writes a reduce-scatter: a fusion named all-reduce-scatter, of an
  // all-reduce and a slice of it at the device's own place.
  static bool is_scatter(const HloComputation& inner, const HloInstruction& found,
                         HloInstruction* scatter) {
    const HloInstruction* root = inner.find(inner.root);
    if (found.opcode != "all-reduce" || root == nullptr || root->opcode != "dynamic-slice") {
      return false;
    }
    *scatter = found;
    scatter->opcode = "reduce-scatter";
    scatter->shape = root->shape;
    return true;
  }

  // What made a value that is handed on as it is.
  static int64_t maker_of(const HloComputation& around, int64_t id) {
    for (int i = 0; i < kDeepest; ++i) {
      const HloInstruction* op = around.find(id);
      if (op == nullptr || op->operands.empty()) return id;
      if (op->opcode != "get-tuple-element" && op->opcode != "async-update" &&
          op->opcode != "bitcast") {
        return id;
      }
      id = op->operands[0];
    }
    return id;
  }

  // The collective that the operand is of.
  const Transfer* under_way(const HloComputation& around, int64_t operand) const {
    const auto found = under_way_.find(maker_of(around, operand));
    return found == under_way_.end() ? nullptr : &found->second;
  }

  // A fusion that holds a collective: started, carried on, finished, or run beside its products.
  bool fused_collective(const HloComputation& around, const HloInstruction& op, double weight) {
    const HloComputation* inner = op.called.empty() ? nullptr : module_.find(op.called[0]);
    if (inner == nullptr) return false;
    const HloInstruction* found = nullptr;
    bool starts = false;
    bool ends = false;
    for (const auto& [id, part] : inner->instructions) {
      starts = starts || part.target == "AsyncCollectiveStart";
      ends = ends || part.target == "AsyncCollectiveDone";
      if (!is_collective(part.opcode)) continue;
      if (part.opcode.ends_with("-done")) {
        ends = true;
        continue;
      }
      starts = starts || part.opcode.ends_with("-start");
      found = &part;
    }
    if (found == nullptr && !ends) return false;
    if (found == nullptr) {
      finish(around, op, weight);
      operate(around, op, weight);
      return true;
    }
    for (const int64_t operand : op.operands) {
      // One that another fusion started comes with its semaphores.
      const HloInstruction* source = around.find(operand);
      const Transfer* known = under_way(around, operand);
      if (known == nullptr || source->shape.memory_space != kSemaphores) continue;
      const Transfer transfer = *known;
      if (ends) {
        wait(transfer, weight);
      } else {
        operate(around, op, weight);
        under_way_[op.id] = transfer;
      }
      return true;
    }
    HloInstruction scatter;
    if (is_scatter(*inner, *found, &scatter)) found = &scatter;
    if (op.name.find("start") != std::string_view::npos || (starts && !ends)) {
      under_way_[op.id] = send(*found, weight);
      const HloInstruction* root = inner->find(inner->root);
      if (root != nullptr && root->target == "AsyncCollectiveStart") {
        count(work_of(module_, around, op), weight);  // what comes is written while it comes
      } else {
        operate(around, op, weight);
      }
      return true;
    }
    const Transfer transfer = send(*found, weight);
    operate(around, op, weight);
    wait(transfer, weight);
    return true;
  }

  // Waits for all that the operands started.
  void finish(const HloComputation& around, const HloInstruction& op, double weight) {
    for (const int64_t operand : op.operands) {
      if (const Transfer* found = under_way(around, operand)) {
        wait(*found, weight);
        continue;
      }
      const double left = copies_.left_of(maker_of(around, operand)) / slice_.chip.hbm_bandwidth;
      cost.exposed_copy_seconds += weight * left;
      advance(left, 0);
    }
  }

  // The memory that a value stands in: the argument or operator that it was made by.
  static int64_t memory_of(const HloComputation& around, int64_t id) {
    for (int i = 0; i < kDeepest; ++i) {
      const HloInstruction* op = around.find(id);
      if (op == nullptr || op->operands.empty()) return id;
      if (op->opcode == "bitcast" || op->opcode == "optimization-barrier") {
        id = op->operands[0];
      } else if (op->opcode == "get-tuple-element") {
        const HloInstruction* source = around.find(op->operands[0]);
        if (source == nullptr || source->aliased.empty()) return id;
        const size_t at =
            std::min(static_cast<size_t>(op->tuple_index), source->aliased.size() - 1);
        const auto operand = static_cast<size_t>(source->aliased[at]);
        if (operand >= source->operands.size()) return id;
        id = source->operands[operand];
      } else if (op->opcode == "custom-call" && op->aliased.size() == 1 && !op->shape.is_tuple) {
        const auto operand = static_cast<size_t>(op->aliased[0]);
        if (operand >= op->operands.size()) return id;
        id = op->operands[operand];
      } else {
        return id;
      }
    }
    return id;
  }

  void kernel(const HloComputation& around, const HloInstruction& op, double weight) {
    HloWork work;
    bool has_cache = false;
    for (size_t i = 0; i < op.operands.size(); ++i) {
      const HloInstruction* source = around.find(op.operands[i]);
      if (source == nullptr || source->shape.memory_space != 0) continue;
      const int64_t memory = memory_of(around, op.operands[i]);
      has_cache = has_cache || caches_.contains(memory);
      if (caches_.contains(memory) && !counted_.insert(memory).second) continue;
      work.hbm_bytes += source->shape.padded_bytes();
    }
    const auto add_result = [&work](const HloShape& shape) {
      if (shape.memory_space == 0) work.hbm_bytes += shape.padded_bytes();
    };
    if (!op.shape.is_tuple && op.aliased.empty()) add_result(op.shape);
    // Results that take an operand's place have its size: take them off by shape.
    std::multiset<double> in_place;
    for (const int64_t i : op.aliased) {
      const auto at = static_cast<size_t>(i);
      const HloInstruction* source =
          at < op.operands.size() ? around.find(op.operands[at]) : nullptr;
      if (source != nullptr) in_place.insert(source->shape.bytes());
    }
    for (const HloShape& part : op.shape.parts) {
      const auto same = in_place.find(part.bytes());
      if (same == in_place.end()) {
        add_result(part);
      } else {
        in_place.erase(same);
      }
    }
    const size_t estimate = op.backend_config.find("\"cost_estimate\"");
    if (estimate != std::string_view::npos) {
      const std::string_view own = op.backend_config.substr(estimate);
      work.flops = number_of(own, "\"flops\":").value_or(0);
      // One that reads a part of an operand says so: of many experts' weights those that have rows.
      const double bytes = number_of(own, "\"bytes_accessed\":").value_or(0);
      if (bytes > 0 && !has_cache) work.hbm_bytes = std::min(work.hbm_bytes, bytes);
    }
    count(work, weight);
    const double seconds =
        std::max(work.hbm_bytes / slice_.chip.hbm_bandwidth, compute_seconds(work));
    cost.kernel_seconds += weight * seconds;
    const std::string name(op.name.substr(0, op.name.find('.')));
    auto entry = std::find_if(cost.kernels.begin(), cost.kernels.end(),
                              [&](const KernelCost& known) { return known.name == name; });
    if (entry == cost.kernels.end()) entry = cost.kernels.insert(entry, KernelCost{name});
    entry->count += weight;
    entry->bytes += weight * work.hbm_bytes;
    entry->flops += weight * work.flops;
    entry->seconds += weight * seconds;
    advance(seconds, work.hbm_bytes);
  }

  void loop(const HloComputation& around, const HloInstruction& op, double weight, int depth) {
    const auto counted = hlo_trip_count(module_, around, op);
    if (!counted && loops_.insert(op.id).second) ++cost.uncounted_loops;
    const int64_t turns = counted.value_or(1);
    const auto turn = [&](double times) {
      const double before = now;
      counted_.clear();  // another turn reads its cache again
      for (const int64_t inner : op.called) play(inner, weight * times, depth + 1);
      return now - before;
    };
    if (turns > 0) turn(1);
    if (turns > 1) now += static_cast<double>(turns - 2) * turn(static_cast<double>(turns - 1));
  }

  void call(const HloInstruction& op, double weight, int depth) {
    for (const int64_t inner : op.called) play(inner, weight, depth + 1);
  }

  void branch(const HloInstruction& op, double weight, int depth) {
    std::optional<Player> longest;
    for (const int64_t inner : op.called) {
      Player one = *this;
      one.play(inner, weight, depth + 1);
      if (!longest || one.now > longest->now) longest.emplace(one);
    }
    if (longest) take(std::move(*longest));
  }

  void take(Player&& other) {
    cost = std::move(other.cost);
    now = other.now;
    copies_ = std::move(other.copies_);
    free_at_ = std::move(other.free_at_);
    sent_ = std::move(other.sent_);
    under_way_ = std::move(other.under_way_);
    caches_ = std::move(other.caches_);
    counted_ = std::move(other.counted_);
    loops_ = std::move(other.loops_);
    unpriced_ = std::move(other.unpriced_);
  }

  const HloModule& module_;
  const Slice& slice_;
  Queue copies_;  // bytes
  Links* links_;
  std::vector<double> free_at_;  // of each link: when all that it has to send is sent
  std::vector<double> sent_;     // by each link, seconds
  std::unordered_map<int64_t, Transfer> under_way_;
  std::unordered_map<int64_t, const HloInstruction*> set_up_;  // collectives without operands yet
  std::set<int64_t> caches_;   // memory that some kernel updates in place
  std::set<int64_t> counted_;  // of these, already read
  std::set<int64_t> loops_;
  std::set<int64_t> unpriced_;
};

}  // namespace

void find_limit(ScheduleCost* cost) {
  cost->limit_seconds = std::max({cost->compute_limit, cost->hbm_limit, cost->ici_limit});
  cost->bound = cost->limit_seconds == cost->hbm_limit       ? "HBM"
                : cost->limit_seconds == cost->compute_limit ? "compute"
                                                             : "interconnect";
}

ScheduleCost schedule_cost(const HloModule& module, const Slice& slice) {
  Links links(slice, module.devices);
  Player player(module, slice, &links);
  player.play(module.entry, 1);
  ScheduleCost cost = std::move(player.cost);
  cost.seconds = player.now;
  const Chip& chip = slice.chip;
  cost.compute_limit = Compute{cost.flops, cost.int8_ops, cost.fp8_flops}.seconds(chip);
  cost.hbm_limit = cost.hbm_bytes / chip.hbm_bandwidth;
  find_limit(&cost);
  return cost;
}

ScheduleCost schedule_cost(const pjrt::OptimizedProgram& program, const Slice& slice) {
  if (!program.format.starts_with("hlo")) return {};
  return schedule_cost(parse_hlo(program.code), slice);
}

}  // namespace ttpu::plan
