// Models by name: a local path, or an id of the Hugging Face hub through its local cache.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace ttpu::io {

// The folder or .gguf file that `name` stands for:
//   - an existing folder or file is itself;
//   - "org/name" is looked up in the hub cache ($HF_HUB_CACHE, else $HF_HOME/hub, else
//     $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub) under
//     models--org--name/snapshots/<commit>, where refs/<revision> names the commit;
//   - "org/name:file.gguf" or "org/name/file.gguf" is that file of the repository.
// What is missing is downloaded into the cache (*.json, *.safetensors, *.jinja and tokenizer files,
// or the one GGUF; never pickles), with progress on standard error. An interrupted download goes on
// where it stopped. $HF_ENDPOINT and $HF_TOKEN are honoured.
// Throws kNotFound (with the next step: also when $HF_HUB_OFFLINE or $TTPU_OFFLINE forbids the
// network), kUnauthenticated or kPermissionDenied (private and gated repositories), kUnavailable
// (no network), kResourceExhausted (disk full), kDataLoss (the hash does not fit).
std::filesystem::path resolve_model(std::string_view name, std::string_view revision = "main");

// Where the hub cache is; not created.
std::filesystem::path hub_cache_dir();

}  // namespace ttpu::io
