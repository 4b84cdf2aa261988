// What the registry knows of a CPU kernel: the name of its custom call and its C entry. Needs no
// FFI header.
#pragma once

#include <span>

extern "C" {
struct XLA_FFI_CallFrame;
struct XLA_FFI_Error;
}

namespace ttpu::kernels {

// One custom call target. Each operator's folder lists its own in `<operator>_cpu_handlers()`; the
// registry registers them all.
struct CpuHandler {
  const char* name;
  XLA_FFI_Error* (*handler)(XLA_FFI_CallFrame* frame);
};

}  // namespace ttpu::kernels
