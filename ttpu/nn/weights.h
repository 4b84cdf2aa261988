// Weights, declared once where they are used: the name in the checkpoint, the shape and the logical
// axes. Loading, sharding, quantization and export read these declarations.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ttpu/base/encoding.h"
#include "ttpu/base/quantization.h"
#include "ttpu/ir/function.h"
#include "ttpu/kernels/linear/linear.h"
#include "ttpu/kernels/registry.h"
#include "ttpu/kernels/tpu/lanes.h"
#include "ttpu/parallel/ring.h"
#include "ttpu/parallel/strategy.h"

namespace ttpu::nn {

// Logical axes, as MaxText names them; a strategy maps them to mesh axes (parallel::Strategy).
using Axes = std::vector<std::string>;

// Rows that are divided by themselves where several matrices are stored as one (q, k and v).
struct Segment {
  int64_t rows = 0;
  std::string axis;
  int64_t units = 0;  // as WeightDecl::units
};

struct WeightDecl {
  // More than one name: equal tensors that are stacked on new first dimensions (layers that are
  // scanned, then experts), in row-major order.
  std::vector<std::string> names;
  Dims dims;  // of the whole weight as programs see it, the stacking dimensions included
  // Of a layer that stands for one of each stage of a pipeline: `names` are those of all stages,
  // one stage after the other, all else is of one of them. Every device has the weight of its
  // stage.
  parallel::Division stages = {};
  Axes axes;
  // Of each dimension, into how many equal pieces it may be divided (heads of many rows each); 0 or
  // none: between any two numbers. Heads go to devices whole and evenly; of other axes the last
  // devices may have less, which is filled up with zeros.
  Dims units = {};
  std::vector<Segment> segments = {};  // of the rows (the last dimension but one, or the only one)
  bool is_matrix = false;              // may stay in the checkpoint's blocks; else it is dense
  // Of a linear layer whose products may be of low precision: not embeddings, heads and routers.
  bool quantizable = false;
  bool transposed = false;  // the checkpoint holds the last two dimensions the other way round
  // The checkpoint holds [.., 2n, ..] rows that alternate between two weights (GPT-OSS): take every
  // second row from `row_offset`.
  int64_t row_stride = 1;
  int64_t row_offset = 0;
  // Of a weight of which a device has more parts than its own: the part of the device that is
  // `places` after it, in the order of `ring`'s parts.
  parallel::Division ring = {};
  int64_t places = 0;

  // Of dense ones whose columns are not divided: zeros fill them up to a multiple of kTpuLanes.
  bool whole_lanes = false;

  // The form of the program's argument.
  DType dtype = DType::kF32;
  Encoding encoding = Encoding::kDense;
  std::optional<Quantization> quantization;  // whose group and rows divide what a device has
  // A quantized weight's values, and what belongs to them, are arguments of their own.
  enum class Part { kValues, kScales, kZeroPoints };
  Part part = Part::kValues;
  bool cut_blocks = false;          // a device's columns are no whole blocks: must be dense
  parallel::Placement placement;    // how it is divided; empty: not at all
  std::vector<Dims> segment_parts;  // of each segment: parts, and rows that a device has
  Dims local;                       // what a device has of dims
};

struct WeightFormat {
  DType dtype = DType::kF32;
  Encoding encoding = Encoding::kDense;
  std::optional<Quantization> quantization = {};
};

// The same numbers of the checkpoint.
bool same_weight(const WeightDecl& one, const WeightDecl& other);

// Decides the form of a declared weight: from the checkpoint, or from the wish alone when there is
// none.
using FormatOf = std::function<WeightFormat(const WeightDecl&)>;

// The dimension that the segments divide: the last one of a bias, stacked or not, that before it of
// a matrix.
size_t segments_axis(const WeightDecl& decl);
// Values with scales of groups, whose argument is [.., groups, group, out]
// (kernels::WeightOperand).
bool is_by_groups(const WeightDecl& decl);
// The shape of the argument as a device has it: encoded rows are bytes.
Shape argument_shape(const WeightDecl& decl);
// How the argument is divided; those of several stages lie one after another.
parallel::Placement argument_placement(const WeightDecl& decl, const parallel::Mesh& mesh);
// Of a weight of several stages, that of one.
WeightDecl of_stage(const WeightDecl& decl, int64_t stage);

// Fewer rows than fill the matrix unit of a TPU twice do not pay as a part of a step.
inline constexpr int64_t kLeastTokensOnTpu = 256;

// What the layers of one program share while it is built.
class Context {
 public:
  // The function computes what one device of `layout` does.
  Context(ir::Function* function, const kernels::Target& target, DType compute, FormatOf format_of,
          parallel::Layout layout = {})
      : function_(function),
        target_(target),
        compute_(compute),
        format_of_(std::move(format_of)),
        layout_(std::move(layout)) {}

  ir::Function& function() const { return *function_; }
  const kernels::Target& target() const { return target_; }
  DType compute() const { return compute_; }
  const parallel::Layout& layout() const { return layout_; }

  // A small dense weight (norm, bias, table) in the type it is given with.
  ir::Value tensor(const std::string& name, const Dims& dims, const Axes& axes);
  ir::Value tensor(WeightDecl decl);
  // A matrix [out, in], or [experts, out, in].
  kernels::WeightOperand matrix(WeightDecl decl);
  kernels::WeightOperand matrix(const std::string& name, int64_t out, int64_t in, const Axes& axes);
  // A matrix of which rows are taken; `dims` has its columns as they are stored. Of a TPU they fill
  // whole lanes: it would store others the other way round, and turn the table in each step.
  kernels::WeightOperand table(const std::string& name, int64_t rows, int64_t columns,
                               const Axes& axes);

  // For another function; its arguments bear no names, so that equal layers print alike.
  Context sibling(ir::Function* function) const { return sibling(function, format_of_); }
  Context sibling(ir::Function* function, FormatOf format_of) const {
    Context other(function, target_, compute_, std::move(format_of), layout_);
    other.names_arguments_ = false;
    other.tokens_ = tokens_;
    other.ring_ = ring_;
    return other;
  }

  // How the flat batch of `tokens` is divided between attention and MLP (the strategy's "tokens"),
  // if there are enough of them; to be set before layers are built.
  void divide_tokens(int64_t tokens);
  // The fewest tokens that pay as a part of a step.
  int64_t least_tokens() const;
  const parallel::Division& tokens() const { return tokens_; }
  // Where they are divided: what brings them together and takes them apart beside the products.
  const std::optional<parallel::Ring>& ring() const { return ring_; }

  // Inside a loop over layers: a declaration stands for those of all turns, stacked by `stacked`
  // on a new first dimension, and what is given back is the part of the turn `index` (a scalar).
  // Without an index it stands for those of all stages of a pipeline, and nothing is taken apart.
  struct Loop {
    ir::Value index;
    std::function<WeightDecl(const WeightDecl&)> stacked;
  };
  void enter(Loop loop) { loop_ = std::move(loop); }
  void leave() { loop_.reset(); }

  // In the order of the program's arguments. A weight that is used twice stands once.
  const std::vector<WeightDecl>& weights() const { return weights_; }

 private:
  struct Entry {
    ir::Value value;
    size_t index;
  };
  const Entry& declare(WeightDecl decl);
  const Entry& add(WeightDecl decl);
  // What belongs to the values at `index`.
  ir::Value declare_part(size_t index, WeightDecl::Part part);
  bool takes_turns() const { return loop_ && loop_->index; }
  // The value, or the part of it that belongs to the loop's turn.
  ir::Value of_turn(ir::Value value) const;

  ir::Function* function_;
  kernels::Target target_;
  DType compute_;
  FormatOf format_of_;
  parallel::Layout layout_;
  parallel::Division tokens_;
  std::optional<parallel::Ring> ring_;
  bool names_arguments_ = true;
  std::optional<Loop> loop_;
  std::vector<WeightDecl> weights_;
  // By first name, row offset, places and part.
  using Key = std::tuple<std::string, int64_t, int64_t, WeightDecl::Part>;
  static Key key_of(const WeightDecl& decl);
  std::map<Key, Entry> by_name_;
};

}  // namespace ttpu::nn
