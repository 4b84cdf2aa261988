// Reads the text that XLA prints.
#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "ttpu/base/error.h"
#include "ttpu/plan/hlo.h"

namespace ttpu::plan {
namespace {

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// The first integer in `text`.
std::optional<int64_t> integer(std::string_view text) {
  const size_t first = text.find_first_of("-0123456789");
  if (first == std::string_view::npos) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + first, text.data() + text.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

std::vector<int64_t> integers(std::string_view text) {
  std::vector<int64_t> values;
  while (!text.empty()) {
    const size_t first = text.find_first_of("-0123456789");
    if (first == std::string_view::npos) break;
    text.remove_prefix(first);
    if (const auto value = integer(text)) values.push_back(*value);
    const size_t end = text.find_first_not_of("-0123456789");
    text.remove_prefix(std::min(end, text.size()));
  }
  return values;
}

// Follows brackets and strings, in which brackets do not count.
class Nesting {
 public:
  void read(char c) {
    if (!escaped_ && c == '"') quoted_ = !quoted_;
    escaped_ = quoted_ && !escaped_ && c == '\\';
    if (quoted_) return;
    if (c == '(' || c == '{' || c == '[') ++depth_;
    if (c == ')' || c == '}' || c == ']') --depth_;
  }
  bool open() const { return quoted_ || depth_ > 0; }

 private:
  int depth_ = 0;
  bool quoted_ = false;
  bool escaped_ = false;
};

// The position of the bracket that closes the one at `open`.
size_t closing(std::string_view text, size_t open) {
  Nesting nesting;
  for (size_t i = open; i < text.size(); ++i) {
    nesting.read(text[i]);
    if (!nesting.open()) return i;
  }
  return std::string_view::npos;
}

// Where an instruction ends: attributes that are JSON may have line breaks in them.
size_t end_of_instruction(std::string_view text) {
  Nesting nesting;
  for (size_t i = 0; i < text.size(); ++i) {
    nesting.read(text[i]);
    if (text[i] == '\n' && !nesting.open()) return i;
  }
  return std::string_view::npos;
}

// Split at commas outside of brackets; comments such as /*index=5*/ are dropped.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  int depth = 0;
  size_t start = 0;
  const auto add = [&](size_t end) {
    std::string_view part = trim(text.substr(start, end - start));
    while (part.starts_with("/*")) {
      const size_t close = part.find("*/");
      part = close == std::string_view::npos ? "" : trim(part.substr(close + 2));
    }
    if (!part.empty()) parts.push_back(part);
    start = end + 1;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '(' || c == '{' || c == '[') ++depth;
    if (c == ')' || c == '}' || c == ']') --depth;
    if (c == ',' && depth == 0) add(i);
  }
  add(text.size());
  return parts;
}

// {1,0:T(8,128)(2,1)S(1)}
void read_layout(std::string_view text, HloShape* shape) {
  const size_t colon = text.find(':');
  shape->minor_to_major = integers(text.substr(0, colon));
  if (colon == std::string_view::npos) return;
  const std::string_view more = text.substr(colon + 1);
  if (const size_t space = more.find("S("); space != std::string_view::npos) {
    shape->memory_space = integer(more.substr(space)).value_or(0);
  }
  size_t at = more.find("T(");
  if (at == std::string_view::npos) return;
  for (at += 1; at < more.size() && more[at] == '(';) {
    const size_t close = closing(more, at);
    if (close == std::string_view::npos) return;
    shape->tiles.push_back(integers(more.substr(at, close - at)));
    at = close + 1;
  }
}

// Takes a shape off the front of `text`; nothing when there is none.
std::optional<HloShape> take_shape(std::string_view* text) {
  HloShape shape;
  if (text->starts_with("(")) {
    const size_t close = closing(*text, 0);
    if (close == std::string_view::npos) return std::nullopt;
    shape.is_tuple = true;
    for (std::string_view part : split(text->substr(1, close - 1))) {
      auto inner = take_shape(&part);
      if (!inner) return std::nullopt;
      shape.parts.push_back(std::move(*inner));
    }
    text->remove_prefix(close + 1);
    return shape;
  }
  const size_t open = text->find('[');
  if (open == std::string_view::npos) return std::nullopt;
  const size_t close = text->find(']', open);
  if (close == std::string_view::npos) return std::nullopt;
  set_element_type(text->substr(0, open), &shape);
  shape.dims = integers(text->substr(open, close - open));
  text->remove_prefix(close + 1);
  if (text->starts_with("{")) {
    const size_t end = closing(*text, 0);
    if (end == std::string_view::npos) return std::nullopt;
    read_layout(text->substr(1, end - 1), &shape);
    text->remove_prefix(end + 1);
  }
  return shape;
}

// The value of `key=` in the attributes, up to the comma that ends it.
std::string_view attribute(std::string_view attributes, std::string_view key) {
  for (const std::string_view part : split(attributes)) {
    if (part.starts_with(key) && part.substr(key.size()).starts_with("=")) {
      return part.substr(key.size() + 1);
    }
  }
  return {};
}

// bf_io->bf, b01f_01io->b01f
void read_labels(std::string_view labels, HloContraction* out) {
  const size_t under = labels.find('_');
  const size_t arrow = labels.find("->");
  if (under == std::string_view::npos || arrow == std::string_view::npos) return;
  const std::string_view input = labels.substr(0, under);
  const std::string_view kernel = labels.substr(under + 1, arrow - under - 1);
  const std::string_view output = labels.substr(arrow + 2);
  out->kernel_input_feature = static_cast<int64_t>(kernel.find('i'));
  for (char digit = '0'; digit <= '9'; ++digit) {
    if (input.find(digit) == std::string_view::npos) break;
    out->input_spatial.push_back(static_cast<int64_t>(input.find(digit)));
    out->kernel_spatial.push_back(static_cast<int64_t>(kernel.find(digit)));
    out->output_spatial.push_back(static_cast<int64_t>(output.find(digit)));
  }
}

// {size=1x8 stride=1x1 pad=0_0x7_7 lhs_dilate=1x2 rhs_dilate=1x2}
std::vector<HloWindowDim> read_window(std::string_view text) {
  std::vector<HloWindowDim> dims;
  const auto read = [&](std::string_view key, int64_t HloWindowDim::*field) {
    const size_t at = text.find(key);
    if (at == std::string_view::npos) return;
    std::string_view value = text.substr(at + key.size());
    value = value.substr(0, value.find_first_of(" }"));
    for (size_t i = 0; !value.empty(); ++i) {
      const size_t end = value.find('x');
      if (dims.size() <= i) dims.emplace_back();
      dims[i].*field = integer(value.substr(0, end)).value_or(1);
      value = end == std::string_view::npos ? "" : value.substr(end + 1);
    }
  };
  read("size=", &HloWindowDim::size);
  read("stride=", &HloWindowDim::stride);
  read("pad=", &HloWindowDim::padding_low);
  read("rhs_dilate=", &HloWindowDim::dilation);
  read("lhs_dilate=", &HloWindowDim::base_dilation);
  return dims;
}

// {{0,1},{2,3}}
DeviceGroups read_lists(std::string_view text) {
  DeviceGroups lists;
  for (size_t at = 1; (at = text.find('{', at)) != std::string_view::npos; ++at) {
    lists.push_back(integers(text.substr(at, text.find('}', at) - at)));
  }
  return lists;
}

// [2,4]<=[8], [4,2]<=[2,4]T(1,0)
DeviceGroups read_iota(std::string_view text) {
  const std::vector<int64_t> shape = integers(text.substr(0, text.find(']')));
  const size_t arrow = text.find("<=");
  if (shape.size() < 2 || arrow == std::string_view::npos) return {};
  const size_t transposed = text.find('T', arrow);
  const std::vector<int64_t> dims = integers(text.substr(arrow, transposed - arrow));
  std::vector<int64_t> order;
  if (transposed != std::string_view::npos) order = integers(text.substr(transposed));
  return iota_groups(dims, order, shape[1]);
}

// mesh['x'=4,'y'=2] {'x'}
DeviceGroups read_mesh(std::string_view text) {
  const size_t open = text.find('[');
  const size_t close = text.find(']');
  const size_t braces = text.find('{');
  if (close == std::string_view::npos || braces == std::string_view::npos) return {};
  const auto known = split(text.substr(open + 1, close - open - 1));
  std::vector<int64_t> sizes;
  std::vector<int64_t> axes;
  for (const std::string_view axis : known) {
    sizes.push_back(integer(axis.substr(axis.rfind('='))).value_or(1));
  }
  for (const std::string_view name : split(text.substr(braces + 1, text.find('}') - braces - 1))) {
    for (size_t i = 0; i < known.size(); ++i) {
      if (known[i].substr(0, known[i].rfind('=')) == name) axes.push_back(static_cast<int64_t>(i));
    }
  }
  return mesh_groups(sizes, axes);
}

DeviceGroups read_groups(std::string_view text) {
  if (text.starts_with("{{")) return read_lists(text);
  if (text.starts_with("[")) return read_iota(text);
  if (text.starts_with("mesh")) return read_mesh(text);
  return {};
}

class TextReader {
 public:
  HloModule read(std::string_view text) {
    while (!text.empty()) {
      const size_t end = computation_ != nullptr ? end_of_instruction(text) : text.find('\n');
      line_ = text.substr(0, end);
      text = end == std::string_view::npos ? "" : text.substr(end + 1);
      read_line(trim(line_));
      number_ += 1 + static_cast<int>(std::count(line_.begin(), line_.end(), '\n'));
    }
    require_line(module_.entry != 0, "no ENTRY");
    // Computations may stand after their callers.
    for (auto& [id, computation] : module_.computations) {
      for (auto& [key, op] : computation.instructions) {
        for (int64_t& called : op.called) called = resolved_.at(static_cast<size_t>(-called - 1));
      }
    }
    return std::move(module_);
  }

 private:
  void require_line(bool condition, const char* what) const {
    if (condition) return;
    fail(Code::kDataLoss, "[cost] line {} of the compiled program cannot be read ({}): {}", number_,
         what, line_.substr(0, 200));
  }

  void read_line(std::string_view line) {
    if (line.empty() || line.starts_with("HloModule") || line.starts_with("//")) return;
    if (line.starts_with("}")) {
      computation_ = nullptr;
      return;
    }
    if (computation_ != nullptr) return read_instruction(line);
    if (!line.ends_with("{")) return;  // tables of files and frames
    const bool entry = line.starts_with("ENTRY");
    if (entry) line = trim(line.substr(5));
    const std::string_view name = line.substr(0, line.find_first_of(" ("));
    const int64_t id = computation_id(name);
    if (entry) module_.entry = id;
    computation_ = &module_.computations[id];
    names_.clear();
  }

  int64_t computation_id(std::string_view name) {
    if (name.starts_with("%")) name.remove_prefix(1);
    const auto [at, added] = computations_.try_emplace(name, next_);
    if (added) ++next_;
    return at->second;
  }

  // A place that read() fills in.
  int64_t later(std::string_view name) {
    resolved_.push_back(computation_id(name));
    return -static_cast<int64_t>(resolved_.size());
  }

  void read_instruction(std::string_view line) {
    const bool root = line.starts_with("ROOT ");
    if (root) line = trim(line.substr(5));
    const size_t equals = line.find(" = ");
    require_line(equals != std::string_view::npos, "no name");
    HloInstruction op;
    op.name = line.substr(0, equals);
    if (op.name.starts_with("%")) op.name.remove_prefix(1);
    line.remove_prefix(equals + 3);
    auto shape = take_shape(&line);
    require_line(shape.has_value(), "no shape");
    op.shape = std::move(*shape);
    line = trim(line);
    const size_t open = line.find('(');
    const size_t close = open == std::string_view::npos ? open : closing(line, open);
    require_line(close != std::string_view::npos, "no operands");
    op.opcode = line.substr(0, open);
    op.id = next_++;
    read_operands(line.substr(open + 1, close - open - 1), &op);
    read_attributes(line.substr(close + 1), &op);
    names_[op.name] = op.id;
    if (root) computation_->root = op.id;
    add(std::move(op));
  }

  void add(HloInstruction op) {
    const int64_t id = op.id;
    computation_->order.push_back(id);
    computation_->instructions.emplace(id, std::move(op));
  }

  void read_operands(std::string_view text, HloInstruction* op) {
    if (op->opcode == "constant") {
      if (op->shape.dims.empty()) op->constant = integer(text);
      return;
    }
    if (op->opcode == "parameter") {
      op->parameter_number = integer(text).value_or(0);
      return;
    }
    for (std::string_view part : split(text)) {
      if (const size_t space = part.rfind(' '); space != std::string_view::npos) {
        part = part.substr(space + 1);
      }
      if (part.starts_with("%")) part.remove_prefix(1);
      op->operands.push_back(operand(part));
    }
  }

  // "name", or "name#1": an element of it.
  int64_t operand(std::string_view text) {
    const size_t hash = text.find('#');
    const auto found = names_.find(text.substr(0, hash));
    if (found == names_.end()) return 0;
    int64_t id = found->second;
    while (hash != std::string_view::npos) {
      const HloInstruction* tuple = computation_->find(id);
      const auto index = static_cast<size_t>(integer(text.substr(hash)).value_or(0));
      if (index >= tuple->shape.parts.size()) break;
      HloInstruction element;
      element.name = text;
      element.opcode = "get-tuple-element";
      element.shape = tuple->shape.parts[index];
      element.operands = {id};
      element.tuple_index = static_cast<int64_t>(index);
      id = element.id = next_++;
      add(std::move(element));
      break;
    }
    return id;
  }

  void read_attributes(std::string_view text, HloInstruction* op) {
    const size_t config = text.find("backend_config=");
    if (config != std::string_view::npos) op->backend_config = text.substr(config);
    text = text.substr(0, std::min(config, text.find(", metadata=")));
    for (const std::string_view key : {"calls", "body", "condition"}) {
      const std::string_view name = attribute(text, key);
      if (!name.empty()) op->called.push_back(later(name));
    }
    if (op->opcode == "call") op->called.push_back(later(attribute(text, "to_apply")));
    for (const std::string_view key :
         {"branch_computations", "true_computation", "false_computation", "called_computations"}) {
      std::string_view names = attribute(text, key);
      if (names.starts_with("{")) names = names.substr(1, names.size() - 2);
      for (const std::string_view name : split(names)) op->called.push_back(later(name));
    }
    op->direction = attribute(text, "direction");
    op->target = attribute(text, "custom_call_target");
    if (op->target.starts_with("\"")) op->target = op->target.substr(1, op->target.size() - 2);
    op->tuple_index = integer(attribute(text, "index")).value_or(0);
    op->groups = read_groups(attribute(text, "replica_groups"));
    for (const std::vector<int64_t>& pair : read_lists(attribute(text, "source_target_pairs"))) {
      if (pair.size() == 2) op->pairs.emplace_back(pair[0], pair[1]);
    }
    // {{}: (1, {}), {1}: (3, {})}
    std::string_view aliased = attribute(text, "output_to_operand_aliasing");
    for (size_t at = 0; (at = aliased.find(": (")) != std::string_view::npos;) {
      aliased.remove_prefix(at + 3);
      if (const auto index = integer(aliased)) op->aliased.push_back(*index);
    }
    op->contraction.lhs = integers(attribute(text, "lhs_contracting_dims"));
    op->contraction.window = read_window(attribute(text, "window"));
    op->contraction.batch_groups = integer(attribute(text, "batch_group_count")).value_or(1);
    read_labels(attribute(text, "dim_labels"), &op->contraction);
  }

  HloModule module_;
  HloComputation* computation_ = nullptr;
  std::unordered_map<std::string_view, int64_t> names_;  // of the computation
  std::unordered_map<std::string_view, int64_t> computations_;
  std::vector<int64_t> resolved_;
  int64_t next_ = 1;
  std::string_view line_;
  int number_ = 1;
};

}  // namespace

HloModule parse_hlo_text(std::string_view text) { return TextReader().read(text); }

}  // namespace ttpu::plan
