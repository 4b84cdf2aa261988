// The real plugin behind tests/engine/faulty_plugin.cc, which can be told to do wrong.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include "ttpu/pjrt/plugin.h"

namespace ttpu::engine {

// Loads it, once or again, and sets `*control` to one of its functions ("faulty_damage").
inline void load_faulty_plugin(const char* name, void (**control)(int)) {
  void* library = dlopen(FAULTY_PLUGIN, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto load = reinterpret_cast<bool (*)(const char*)>(dlsym(library, "faulty_load"));
  ASSERT_TRUE(load(pjrt::find_plugin("cpu").c_str()));
  *control = reinterpret_cast<void (*)(int)>(dlsym(library, name));
}

}  // namespace ttpu::engine
