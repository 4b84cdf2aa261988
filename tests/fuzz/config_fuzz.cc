// A model folder whose small files are any bytes: refused with an Error, or read.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/io/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::filesystem::path kFolder =
      std::filesystem::temp_directory_path() / fmt::format("ttpu_config_fuzz_{}", ::getpid());
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  // The input is cut at zero bytes, one piece a file.
  for (const char* name : {"config.json", "generation_config.json", "tokenizer_config.json",
                           "special_tokens_map.json", "chat_template.json"}) {
    const size_t end = std::min(rest.find('\0'), rest.size());
    std::filesystem::remove(kFolder / name);
    if (end > 0) ttpu::write_file(kFolder / name, rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  try {
    ttpu::io::load_model_files(kFolder);
  } catch (const ttpu::Error&) {
    return 0;
  }
  return 0;
}
