#include "ttpu/engine/weight_loader.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>
#include <set>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/engine/weight_parts.h"
#include "ttpu/io/quantization_config.h"
#include "ttpu/io/quantized_matrix.h"

namespace ttpu::engine {

std::shared_ptr<std::byte> aligned_bytes(int64_t size) {
  const auto rounded = (static_cast<size_t>(size) + kAlignment - 1) / kAlignment * kAlignment;
  auto* data =
      static_cast<std::byte*>(std::aligned_alloc(kAlignment, std::max(rounded, kAlignment)));
  if (data == nullptr) throw std::bad_alloc();
  return {data, [](std::byte* p) { std::free(p); }};
}

namespace {

// One tensor of the weight, of so many numbers: [batch, in, out] to [batch, out / stride, in], rows
// from `offset`.
void transpose_rows(const nn::WeightDecl& decl, int64_t elements, const std::byte* from,
                    std::byte* to, size_t width) {
  const auto rank = decl.dims.size();
  const int64_t out = decl.dims[rank - 2];
  const int64_t in = decl.dims[rank - 1];
  const int64_t stored = out * decl.row_stride;
  const int64_t batch = elements / (in * stored);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t r = 0; r < out; ++r) {
      for (int64_t c = 0; c < in; ++c) {
        const int64_t source = (b * in + c) * stored + r * decl.row_stride + decl.row_offset;
        const int64_t target = (b * out + r) * in + c;
        std::memcpy(to + static_cast<size_t>(target) * width,
                    from + static_cast<size_t>(source) * width, width);
      }
    }
  }
}

// Tables that old files hold beside the weights, a head that is the embedding again, and what is
// for images.
bool is_no_weight(const std::string& name) {
  constexpr std::string_view kEnds[] = {
      ".rotary_emb.inv_freq",   ".attn.bias",     ".attn.masked_bias", ".attention.bias",
      ".attention.masked_bias", "lm_head.weight", "embed_out.weight"};
  const bool ends = std::any_of(std::begin(kEnds), std::end(kEnds),
                                [&](std::string_view end) { return name.ends_with(end); });
  return ends || name.find("vision_tower.") != std::string::npos ||
         name.find("multi_modal_projector.") != std::string::npos;
}

// AutoGPTQ writes zeros for layers without a bias.
bool is_no_bias(const io::Tensor& tensor) {
  return tensor.name.ends_with(".bias") && !tensor.bytes.empty() &&
         std::all_of(tensor.bytes.begin(), tensor.bytes.end(),
                     [](std::byte byte) { return byte == std::byte{0}; });
}

// A checkpoint's groups where a device has a part of their columns: cut where that part is no whole
// groups, since scales do not move.
Quantization cut_groups(Quantization stored, const nn::WeightDecl& decl) {
  if (stored.group > 0 && !decl.local.empty()) {
    stored.group = std::gcd(stored.group, decl.local.back());
  }
  return stored;
}

// What config.json promises of a weight; nothing where its names differ, as the loader has it.
std::optional<Quantization> stored_form(const io::QuantizationConfig& config,
                                        const nn::WeightDecl& decl) {
  std::optional<Quantization> form;
  for (std::string_view module : decl.names) {
    if (module.ends_with(".weight")) module.remove_suffix(7);
    const io::QuantScheme* scheme = config.scheme_of(module);
    if (scheme == nullptr) return std::nullopt;
    scheme->require_whole_groups(decl.dims.back(), fmt::format("'{}'", module));
    const Quantization own = scheme->form(decl.dims[decl.dims.size() - 2], decl.dims.back());
    if (form && own != *form) return std::nullopt;
    form = own;
  }
  return form ? std::optional(cut_groups(*form, decl)) : std::nullopt;
}

}  // namespace

nn::FormatOf format_without_weights(const WeightOptions& options, const Json& config) {
  std::optional<Quantization> wanted;
  if (!options.quantization.empty()) wanted = parse_quantization(options.quantization);
  auto stored = io::QuantizationConfig::from_config(config);
  require(!stored || !wanted,
          "[weights] config.json's quantization_config says that weights are quantized already; "
          "leave out --quantization {}",
          options.quantization);
  if (options.expand) stored.reset();
  return [compute = options.compute, wanted, stored](const nn::WeightDecl& decl) {
    if (!decl.quantizable) return nn::WeightFormat{compute, Encoding::kDense};
    const std::optional<Quantization> form = stored ? stored_form(*stored, decl) : wanted;
    if (!form) return nn::WeightFormat{compute, Encoding::kDense};
    return nn::WeightFormat{form->dtype, Encoding::kDense, form};
  };
}

nn::FormatOf format_of_weights(const io::Checkpoint& checkpoint, const WeightOptions& options,
                               const std::vector<std::pair<std::string, std::string>>& prefixes) {
  const auto loader = std::make_shared<WeightLoader>(checkpoint, options, prefixes);
  return [loader](const nn::WeightDecl& decl) { return loader->format_of(decl); };
}

WeightLoader::WeightLoader(const io::Checkpoint& checkpoint, WeightOptions options,
                           std::vector<std::pair<std::string, std::string>> prefixes)
    : checkpoint_(checkpoint), options_(std::move(options)), prefixes_(std::move(prefixes)) {
  if (!options_.quantization.empty()) wanted_ = parse_quantization(options_.quantization);
}

const io::Tensor& WeightLoader::find(const std::string& name) const {
  if (const io::Tensor* tensor = checkpoint_.find(name); tensor != nullptr) return *tensor;
  for (const auto& [from, to] : prefixes_) {
    if (name.compare(0, from.size(), from) != 0) continue;
    const io::Tensor* tensor = checkpoint_.find(to + name.substr(from.size()));
    if (tensor != nullptr) return *tensor;
  }
  return checkpoint_.at(name);
}

void WeightLoader::check_dims(const nn::WeightDecl& decl, const io::Tensor& tensor) const {
  Dims expected = decl.dims;
  if (decl.names.size() > 1) expected.erase(expected.begin());
  if (reordered(decl)) {
    const size_t rank = expected.size();
    expected[rank - 2] *= decl.row_stride;
    if (decl.transposed) std::swap(expected[rank - 2], expected[rank - 1]);
  }
  require(tensor.dims == expected,
          "[weights] '{}' is {} in the checkpoint, and config.json makes it {}; the two belong to "
          "different models or one is damaged",
          tensor.name, dims_to_string(tensor.dims), dims_to_string(expected));
}

void WeightLoader::check_nothing_left(const std::vector<nn::WeightDecl>& decls) const {
  std::set<std::string> used;
  for (const nn::WeightDecl& decl : decls) {
    for (const std::string& name : decl.names) used.insert(find(name).name);
  }
  std::vector<std::string> left;
  std::string predictor;  // the layer of DeepSeek's that predicts the token after the next
  for (const io::Tensor& tensor : checkpoint_.tensors()) {
    if (used.contains(tensor.name) || is_no_weight(tensor.name) || is_no_bias(tensor)) continue;
    left.push_back(tensor.name);
    if (const size_t at = tensor.name.find(".eh_proj."); at != std::string::npos) {
      predictor = tensor.name.substr(0, at + 1);
    }
  }
  if (!predictor.empty()) {
    std::erase_if(left, [&](const std::string& name) { return name.starts_with(predictor); });
  }
  if (left.empty()) return;
  const size_t count = left.size();
  left.resize(std::min<size_t>(count, 3));
  fail(Code::kInvalidArgument,
       "[weights] the checkpoint has {} weights for which the model of config.json has no place: "
       "{}{}. Check num_hidden_layers, tie_word_embeddings and the fields about biases, and that "
       "both are of one model",
       count, fmt::join(left, ", "), count > left.size() ? ", ..." : "");
}

io::QuantizedOutputs quantized_rows(const nn::WeightDecl& decl, const io::Tensor& tensor) {
  if (!decl.transposed) return {io::quantized_of(tensor), decl.row_stride, decl.row_offset};
  return io::quantized_outputs(tensor, decl.row_stride, decl.row_offset);
}

std::optional<Quantization> WeightLoader::stored_form(const nn::WeightDecl& decl,
                                                      const io::Tensor& tensor) const {
  if (const auto* matrix = quantized_rows(decl, tensor).matrix) return matrix->quantization();
  const bool apart = !options_.blocks && !wanted_ && decl.quantizable && !reordered(decl) &&
                     tensor.encoding != Encoding::kDense && tensor.transform.keeps_blocks();
  return apart ? std::optional(io::groups_of(tensor.encoding)) : std::nullopt;
}

std::optional<Quantization> WeightLoader::quantization_of(const nn::WeightDecl& decl) const {
  std::optional<Quantization> stored;
  bool alike = true;
  for (const std::string& name : decl.names) {
    const std::optional<Quantization> own = stored_form(decl, find(name));
    if (!own) {
      alike = false;
      continue;
    }
    require(!wanted_,
            "[weights] '{}' is quantized in the checkpoint already; leave out --quantization {}",
            name, options_.quantization);
    if (!stored) stored = own;
    alike = alike && own == stored;
  }
  if (options_.expand || !decl.is_matrix)
    return wanted_ && decl.quantizable ? wanted_ : std::nullopt;
  if (stored) return alike ? std::optional(cut_groups(*stored, decl)) : std::nullopt;
  return decl.quantizable ? wanted_ : std::nullopt;
}

nn::WeightFormat WeightLoader::format_of(const nn::WeightDecl& decl) const {
  const nn::WeightDecl one = nn::of_stage(decl, 0);  // has the dimensions of all
  if (const std::optional<Quantization> quantization = quantization_of(decl)) {
    for (const std::string& name : decl.names) check_dims(one, find(name));
    const Encoding blocks = options_.blocks && !decl.cut_blocks
                                ? blocks_of(*quantization, decl.dims.back())
                                : Encoding::kDense;
    if (blocks != Encoding::kDense) return {DType::kU8, blocks, quantization};
    return {quantization->dtype, Encoding::kDense, quantization};
  }
  Encoding encoding = Encoding::kDense;
  bool first = true;
  DType stored = options_.compute;
  for (const std::string& name : decl.names) {
    const io::Tensor& tensor = find(name);
    check_dims(one, tensor);
    const bool keep = options_.blocks && !options_.expand && !decl.cut_blocks && decl.is_matrix &&
                      !reordered(decl) && tensor.transform.keeps_blocks();
    const Encoding own = keep ? tensor.encoding : Encoding::kDense;
    if (first) {
      encoding = own;
      stored = tensor.encoding == Encoding::kDense ? tensor.dtype : DType::kBF16;
    }
    if (own != encoding) encoding = Encoding::kDense;  // experts of different forms: expand all
    first = false;
  }
  if (encoding != Encoding::kDense) return {DType::kU8, encoding};
  if (checkpoint_.gguf() != nullptr && options_.expand) return {DType::kBF16, Encoding::kDense};
  if (!decl.is_matrix) return {stored == DType::kF32 ? DType::kF32 : stored, Encoding::kDense};
  if (options_.compute == DType::kBF16) return {DType::kBF16, Encoding::kDense};
  return {stored == DType::kBF16 ? DType::kBF16 : DType::kF32, Encoding::kDense};
}

void WeightLoader::fill(const nn::WeightDecl& decl, std::byte* out) const {
  const auto total = static_cast<size_t>(host_bytes(whole(decl)));
  const size_t part = total / decl.names.size();
  for (size_t i = 0; i < decl.names.size(); ++i) {
    const io::Tensor& tensor = find(decl.names[i]);
    if (decl.quantization) {
      fill_quantized(decl, tensor, out + i * part);
    } else if (decl.encoding != Encoding::kDense) {
      io::copy_encoded_rows(tensor, 0, tensor.rows(), out + i * part);
    } else if (reordered(decl)) {
      const auto width = static_cast<size_t>(bit_width(decl.dtype) / 8);
      std::vector<std::byte> stored(static_cast<size_t>(tensor.num_elements()) * width);
      io::copy_tensor(tensor, decl.dtype, stored.data());
      transpose_rows(decl, tensor.num_elements(), stored.data(), out + i * part, width);
    } else {
      io::copy_tensor(tensor, decl.dtype, out + i * part);
    }
    io::Checkpoint::release(tensor);
  }
}

bool WeightLoader::is_as_stored(const nn::WeightDecl& decl, const io::Tensor& tensor) const {
  return !decl.quantization && tensor.transform == io::Transform{} &&
         tensor.encoding == decl.encoding &&
         (decl.encoding != Encoding::kDense || tensor.dtype == decl.dtype);
}

pjrt::Buffer WeightLoader::load(const nn::WeightDecl& decl, const pjrt::Client& client,
                                const std::shared_ptr<const io::Checkpoint>& keep_alive) const {
  const Shape shape = nn::argument_shape(decl);
  if (decl.names.size() == 1 && !reordered(decl)) {
    const io::Tensor& tensor = find(decl.names[0]);
    const bool as_stored = is_as_stored(decl, tensor);
    const bool aligned = reinterpret_cast<uintptr_t>(tensor.bytes.data()) % kAlignment == 0;
    if (as_stored && aligned) {
      return client.transfer(tensor.bytes.data(), shape, options_.semantics(), keep_alive).buffer;
    }
  }
  std::shared_ptr<std::byte> bytes = aligned_bytes(host_bytes(decl));
  fill(decl, bytes.get());
  bytes = in_argument_order(decl, std::move(bytes));
  return client
      .transfer_unpacked(bytes.get(), shape, client.devices().at(0), options_.semantics(), bytes)
      .buffer;
}

}  // namespace ttpu::engine
