// A model folder whose small files are any bytes: refused with an Error, or read.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/io/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::filesystem::path kFolder =
      std::filesystem::temp_directory_path() / fmt::format("ttpu_config_fuzz_{}", ::getpid());
  static const bool kMade = std::filesystem::create_directories(kFolder);
  static_cast<void>(kMade);
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  // The input is cut at zero bytes, one piece a file.
  for (const char* name : {"config.json", "generation_config.json", "tokenizer_config.json",
                           "special_tokens_map.json", "chat_template.json"}) {
    const size_t end = std::min(rest.find('\0'), rest.size());
    std::filesystem::remove(kFolder / name);
    // Not write_file: it waits for the disk, a hundred times as long as the rest takes.
    if (end > 0) std::ofstream(kFolder / name, std::ios::binary) << rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  try {
    ttpu::io::load_model_files(kFolder);
  } catch (const ttpu::Error&) {
    return 0;
  }
  return 0;
}
