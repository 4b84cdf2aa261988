// Brings the weights that a program declares from a checkpoint to the device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ttpu/io/checkpoint.h"
#include "ttpu/nn/decoder.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::engine {

class WeightLoader {
 public:
  // `prefixes`: DecoderSpec::name_prefixes. With `expand`, encoded weights become dense bf16, else
  // they stay in their blocks.
  WeightLoader(const io::Checkpoint& checkpoint, DType compute, bool expand,
               std::vector<std::pair<std::string, std::string>> prefixes)
      : checkpoint_(checkpoint),
        compute_(compute),
        expand_(expand),
        prefixes_(std::move(prefixes)) {}

  // The form that the program's argument has. Throws when the checkpoint lacks the weight (naming
  // near ones) or has it in another shape.
  nn::WeightFormat format_of(const nn::WeightDecl& decl) const;
  // Throws kInvalidArgument when the checkpoint has weights beside `decls`: the model of
  // config.json is not the one that was saved.
  void check_nothing_left(const std::vector<nn::WeightDecl>& decls) const;
  // Aligned mapped bytes are used in place where the plugin can; the rest is copied once.
  pjrt::Buffer load(const nn::WeightDecl& decl, const pjrt::Client& client,
                    const std::shared_ptr<const io::Checkpoint>& keep_alive) const;
  // What each device of the mesh has of the weight (decl.placement), in the order of the devices.
  // Parts are read from the mapped file one at a time; devices with equal parts of a host's memory
  // share them. Only weights that must be put in order first (transposed ones) are made whole.
  std::vector<pjrt::Buffer> load_parts(
      const nn::WeightDecl& decl, const parallel::Mesh& mesh, const pjrt::Client& client,
      const std::shared_ptr<const io::Checkpoint>& keep_alive) const;

 private:
  friend class PartLoader;
  const io::Tensor& find(const std::string& name) const;
  void check_dims(const nn::WeightDecl& decl, const io::Tensor& tensor) const;
  void fill(const nn::WeightDecl& decl, std::byte* out) const;
  bool is_as_stored(const nn::WeightDecl& decl, const io::Tensor& tensor) const;

  const io::Checkpoint& checkpoint_;
  DType compute_;
  bool expand_;
  std::vector<std::pair<std::string, std::string>> prefixes_;
};

// The form of weights when there is no checkpoint: dense in the compute type.
nn::FormatOf dense_format(DType compute);

}  // namespace ttpu::engine
