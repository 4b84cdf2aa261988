#include "ttpu/ir/module.h"

#include <algorithm>

#include "ttpu/base/error.h"

namespace ttpu::ir {

Module::Module(std::string name) : name_(std::move(name)) {}

Function& Module::add_function(std::string name) {
  if (find_function(name) != nullptr) {
    fail(Code::kAlreadyExists, "[module] a function '{}' exists already in '{}'", name, name_);
  }
  require(!name.empty(), "[module] a function needs a name");
  functions_.push_back(std::make_unique<Function>(this, std::move(name)));
  return *functions_.back();
}

void Module::remove_function(const Function& function) {
  std::erase_if(functions_, [&](const auto& known) { return known.get() == &function; });
}

Function* Module::find_function(std::string_view name) const {
  for (const auto& function : functions_) {
    if (function->name() == name) return function.get();
  }
  return nullptr;
}

void Module::add_mesh(Mesh mesh) {
  if (find_mesh(mesh.name) != nullptr) {
    fail(Code::kAlreadyExists, "[module] a mesh '{}' exists already in '{}'", mesh.name, name_);
  }
  for (size_t i = 0; i < mesh.axes.size(); ++i) {
    const auto& [axis, size] = mesh.axes[i];
    require(size > 0, "[module] axis '{}' of mesh '{}' has size {}", axis, mesh.name, size);
    for (size_t j = 0; j < i; ++j) {
      require(mesh.axes[j].first != axis, "[module] mesh '{}' names axis '{}' twice", mesh.name,
              axis);
    }
  }
  meshes_.push_back(std::move(mesh));
}

const Mesh* Module::find_mesh(std::string_view name) const {
  for (const Mesh& mesh : meshes_) {
    if (mesh.name == name) return &mesh;
  }
  return nullptr;
}

}  // namespace ttpu::ir
