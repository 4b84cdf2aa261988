// The part of the extension behind ttpu/llm.py.
#pragma once

#include <nanobind/nanobind.h>

namespace ttpu::python {

void bind_llm(nanobind::module_& module);

}  // namespace ttpu::python
