// A file written piece by piece that appears under its name only when it is whole.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace ttpu {

class AtomicFile {
 public:
  // Opens a file beside `path`; folders are made. Throws with the path and the reason.
  explicit AtomicFile(std::filesystem::path path);
  // Removes what was written unless commit() succeeded.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  // Syncs and renames over `path`.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path beside_;
  int fd_ = -1;
};

// Throws an Error for `errno`, with the next step for a full disk and for missing permission.
[[noreturn]] void fail_errno(const char* what, const std::filesystem::path& path);

}  // namespace ttpu
