#include "ttpu/engine/weight_parts.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

// A stretch of a dimension: `count` of the whole from `begin` on, for `local` places of a device;
// the rest is zero.
struct Piece {
  int64_t begin = 0;
  int64_t count = 0;
  int64_t local = 0;
  auto operator<=>(const Piece&) const = default;  // NOLINT(modernize-use-nullptr): clang 14 errs
};
using Pieces = std::vector<Piece>;
using Part = std::vector<Pieces>;  // of each dimension

Piece piece_of(int64_t index, int64_t size, int64_t local, int64_t offset) {
  const int64_t begin = std::min(index * local, size);
  return {offset + begin, std::clamp<int64_t>(size - begin, 0, local), local};
}

Part part_of_device(const nn::WeightDecl& decl, const parallel::Mesh& mesh, int64_t device) {
  if (decl.places > 0) device = parallel::device_after(mesh, decl.ring, decl.places, device);
  Part part;
  const size_t rank = decl.dims.size();
  const size_t rows = nn::segments_axis(decl);
  for (size_t i = 0; i < rank; ++i) {
    const parallel::Division division =
        decl.placement.empty() ? parallel::Division{} : decl.placement[i];
    const int64_t index = parallel::part_of(mesh, division, device);
    if (i != rows || decl.segments.empty()) {
      part.push_back({piece_of(index, decl.dims[i], decl.local[i], 0)});
      continue;
    }
    Pieces pieces;
    int64_t offset = 0;
    for (size_t s = 0; s < decl.segments.size(); ++s) {
      // A segment may be divided by the major factors alone.
      const int64_t own = index / (division.parts / decl.segment_parts[s][0]);
      pieces.push_back(piece_of(own, decl.segments[s].rows, decl.segment_parts[s][1], offset));
      offset += decl.segments[s].rows;
    }
    part.push_back(std::move(pieces));
  }
  return part;
}

bool is_filled(const Part& part) {
  return std::all_of(part.begin(), part.end(), [](const Pieces& pieces) {
    return std::all_of(pieces.begin(), pieces.end(),
                       [](const Piece& piece) { return piece.count == piece.local; });
  });
}

// Bytes of `count` numbers of a row.
int64_t row_bytes(const nn::WeightDecl& decl, int64_t count) {
  if (decl.encoding == Encoding::kDense) return count * std::max(bit_width(decl.dtype) / 8, 1);
  return count / block_elements(decl.encoding) * block_bytes(decl.encoding);
}

int64_t local_size(const Pieces& pieces) {
  int64_t size = 0;
  for (const Piece& piece : pieces) size += piece.local;
  return size;
}

}  // namespace

// Reads the parts of one weight.
class PartLoader {
 public:
  PartLoader(const WeightLoader& loader, const nn::WeightDecl& decl)
      : loader_(loader),
        decl_(decl),
        by_rows_(decl.is_matrix && !reordered(decl) && !decl.quantization &&
                 !loader.find(decl.names[0]).transform.transpose) {
    if (by_rows_) return;
    const nn::WeightDecl all = whole(decl);
    whole_ = aligned_bytes(host_bytes(all));
    loader.fill(all, whole_.get());
  }

  // Where the part lies in the mapped file, if it can be used there.
  const std::byte* in_place(const Part& part) const {
    if (!by_rows_ || decl_.names.size() != 1 || !is_filled(part)) return nullptr;
    const io::Tensor& tensor = loader_.find(decl_.names[0]);
    if (!loader_.is_as_stored(decl_, tensor)) return nullptr;
    // Only the first dimension may be a part, and one piece of it.
    for (size_t i = 0; i < part.size(); ++i) {
      if (part[i].size() != 1 || (i > 0 && part[i][0].count != decl_.dims[i])) return nullptr;
    }
    int64_t bytes = row_bytes(decl_, decl_.dims.back());
    for (size_t i = 1; i + 1 < decl_.dims.size(); ++i) bytes *= decl_.dims[i];
    const std::byte* at = tensor.bytes.data() + part[0][0].begin * bytes;
    return reinterpret_cast<uintptr_t>(at) % kAlignment == 0 ? at : nullptr;
  }

  void read(const Part& part, std::byte* out) const {
    if (by_rows_) return read_rows(part, out);
    copy_box(part, 0, whole_.get(), out);
  }

  void release() const {
    for (const std::string& name : decl_.names) io::Checkpoint::release(loader_.find(name));
  }

 private:
  void copy_box(const Part& part, size_t dim, const std::byte* from, std::byte* to) const {
    if (dim + 1 == part.size()) {
      for (const Piece& piece : part[dim]) {
        std::memcpy(to, from + row_bytes(decl_, piece.begin),
                    static_cast<size_t>(row_bytes(decl_, piece.count)));
        to += row_bytes(decl_, piece.local);
      }
      return;
    }
    int64_t from_stride = row_bytes(decl_, decl_.dims.back());
    int64_t to_stride = row_bytes(decl_, local_size(part.back()));
    for (size_t i = dim + 1; i + 1 < part.size(); ++i) {
      from_stride *= decl_.dims[i];
      to_stride *= local_size(part[i]);
    }
    for (const Piece& piece : part[dim]) {
      for (int64_t i = 0; i < piece.count; ++i) {
        copy_box(part, dim + 1, from + (piece.begin + i) * from_stride, to + i * to_stride);
      }
      to += piece.local * to_stride;
    }
  }

  // A matrix, or one for each expert.
  void read_rows(const Part& part, std::byte* out) const {
    const size_t rank = part.size();
    const Pieces& rows = part[rank - 2];
    const Piece& columns = part[rank - 1][0];
    const int64_t out_row = row_bytes(decl_, columns.local);
    static const Pieces kOne = {{0, 1, 1}};
    const Piece& experts = rank == 3 ? part[0][0] : kOne[0];
    for (int64_t e = experts.begin; e < experts.begin + experts.count; ++e) {
      const bool apart = decl_.names.size() > 1;
      const io::Tensor& tensor = loader_.find(decl_.names[apart ? static_cast<size_t>(e) : 0]);
      const int64_t first = apart ? 0 : e * decl_.dims[rank - 2];
      for (const Piece& piece : rows) {
        copy_matrix(tensor, first + piece.begin, piece.count, columns, out);
        out += piece.local * out_row;
      }
    }
  }

  void copy_matrix(const io::Tensor& tensor, int64_t begin, int64_t count, const Piece& columns,
                   std::byte* out) const {
    constexpr int64_t kRowsAtOnce = 64;
    if (columns.count == decl_.dims.back() && columns.local == columns.count) {
      return copy(tensor, begin, begin + count, out);
    }
    const auto stride = static_cast<size_t>(row_bytes(decl_, decl_.dims.back()));
    const auto offset = static_cast<size_t>(row_bytes(decl_, columns.begin));
    const auto own = static_cast<size_t>(row_bytes(decl_, columns.count));
    std::vector<std::byte> some(stride * kRowsAtOnce);
    for (int64_t done = 0; done < count;) {
      const int64_t now = std::min(count - done, kRowsAtOnce);
      copy(tensor, begin + done, begin + done + now, some.data());
      for (size_t r = 0; r < static_cast<size_t>(now); ++r) {
        std::memcpy(out, some.data() + r * stride + offset, own);
        out += row_bytes(decl_, columns.local);
      }
      done += now;
    }
  }

  void copy(const io::Tensor& tensor, int64_t begin, int64_t end, std::byte* out) const {
    if (decl_.encoding != Encoding::kDense) return io::copy_encoded_rows(tensor, begin, end, out);
    io::copy_rows(tensor, begin, end, decl_.dtype, out);
  }

  const WeightLoader& loader_;
  const nn::WeightDecl& decl_;
  bool by_rows_;
  std::shared_ptr<std::byte> whole_;
};

std::vector<pjrt::Buffer> WeightLoader::load_stages(
    const nn::WeightDecl& decl, const parallel::Mesh& mesh, const pjrt::Client& client,
    std::span<const OwnDevice> devices,
    const std::shared_ptr<const io::Checkpoint>& keep_alive) const {
  std::vector<pjrt::Buffer> buffers(devices.size());
  for (int64_t stage = 0; stage < decl.stages.parts; ++stage) {
    std::vector<OwnDevice> own;
    std::vector<size_t> places;
    for (size_t i = 0; i < devices.size(); ++i) {
      if (parallel::part_of(mesh, decl.stages, devices[i].place) != stage) continue;
      own.push_back(devices[i]);
      places.push_back(i);
    }
    if (own.empty()) continue;
    std::vector<pjrt::Buffer> loaded =
        load_parts(nn::of_stage(decl, stage), mesh, client, own, keep_alive);
    for (size_t i = 0; i < places.size(); ++i) buffers[places[i]] = std::move(loaded[i]);
  }
  return buffers;
}

std::vector<pjrt::Buffer> WeightLoader::load_parts(
    const nn::WeightDecl& decl, const parallel::Mesh& mesh, const pjrt::Client& client,
    std::span<const OwnDevice> devices,
    const std::shared_ptr<const io::Checkpoint>& keep_alive) const {
  if (!decl.stages.whole()) return load_stages(decl, mesh, client, devices, keep_alive);
  std::vector<pjrt::Buffer> buffers;
  if (decl.placement.empty() && (decl.local.empty() || decl.local == decl.dims)) {
    buffers.push_back(load(decl, client, keep_alive));
    return buffers;
  }
  const Shape shape = nn::argument_shape(decl);
  const PartLoader parts(*this, decl);
  std::map<Part, std::shared_ptr<const std::byte>> known;
  bool copied = false;
  for (const auto& [place, device] : devices) {
    const Part part = part_of_device(decl, mesh, place);
    std::shared_ptr<const std::byte>& bytes = known[part];
    if (bytes == nullptr) {
      if (const std::byte* at = parts.in_place(part)) {
        bytes = {keep_alive, at};
      } else {
        const std::shared_ptr<std::byte> read = aligned_bytes(host_bytes(decl));
        if (!is_filled(part)) std::memset(read.get(), 0, static_cast<size_t>(host_bytes(decl)));
        parts.read(part, read.get());
        bytes = in_argument_order(decl, read);
        copied = true;
      }
    }
    buffers.push_back(
        client.transfer_unpacked(bytes.get(), shape, device, options_.semantics(), bytes).buffer);
  }
  if (copied) parts.release();
  return buffers;
}

}  // namespace ttpu::engine
