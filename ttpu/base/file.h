// Files: read whole, map, and write so that a good file is never replaced by half a one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace ttpu {

// The whole file. Throws kNotFound or kPermissionDenied with the path.
std::string read_file(const std::filesystem::path& path);

// Writes beside `path`, syncs, then renames over it. On any failure `path` is as it was.
void write_file(const std::filesystem::path& path, std::string_view contents);

// A file mapped read-only; pages are loaded when they are first touched. Movable, not copyable.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that the pages wholly inside [offset, offset + length) will not be read again,
  // so that they stop counting as resident.
  void release(size_t offset, size_t length) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Where TTPU keeps what it downloads and compiles: $TTPU_CACHE, else $XDG_CACHE_HOME/ttpu, else
// ~/.cache/ttpu. Not created.
std::filesystem::path cache_dir();

// The variable, or `fallback` when it is unset or empty.
std::string env_or(const char* name, std::string_view fallback = "");
// Set to anything but "", "0", "false" or "no".
bool env_flag(const char* name);

}  // namespace ttpu
