// Downloads into the hub cache. Use resolve_model() of hub.h.
#pragma once

#include <filesystem>
#include <string>

namespace ttpu::io {

struct DownloadRequest {
  std::string repository;  // "org/name"
  std::string revision;
  std::string file;             // one .gguf, or empty: the model's safetensors and small files
  std::filesystem::path cache;  // the hub cache
  std::string folder;           // "models--org--name"
};

// Fetches what is missing and returns the snapshot's folder. The ref is written last, a blob gets
// its name when its hash is checked: what is there is whole. Throws as resolve_model() does.
std::filesystem::path download_model(const DownloadRequest& request);

}  // namespace ttpu::io
