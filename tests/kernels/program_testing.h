// Runs small programs on the CPU plugin.
#pragma once

#include <vector>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/registry.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::kernels {

inline const pjrt::Client& test_client() {
  static const pjrt::Client made = [] {
    for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
      if (location.name == "cpu") return pjrt::Client::create(pjrt::load_plugin(location.path));
    }
    fail(Code::kNotFound, "no CPU plugin is installed; run: ttpu plugin install cpu");
  }();
  return made;
}

inline Target test_target(bool custom_calls) {
  if (custom_calls) {
    EXPECT_TRUE(register_cpu_kernels(test_client().plugin()));
  }
  return {Platform::kCpu, custom_calls};
}

// A program under construction with the buffers of its arguments.
class TestProgram {
 public:
  template <typename T>
  ir::Value argument(const std::vector<T>& values, DType dtype, Dims dims) {
    const Shape shape(dtype, std::move(dims));
    buffers_.push_back(test_client().to_device(values.data(), shape));
    return main().add_argument(shape);
  }
  ir::Function& main() { return main_; }

  std::vector<pjrt::Buffer> run(const ir::Values& results) {
    main_.set_results(results);
    module_.verify();
    const pjrt::LoadedExecutable program = test_client().compile(module_.to_string());
    std::vector<const pjrt::Buffer*> pointers;
    for (const pjrt::Buffer& buffer : buffers_) pointers.push_back(&buffer);
    return program.execute(pointers);
  }
  const std::vector<pjrt::Buffer>& arguments() const { return buffers_; }

 private:
  ir::Module module_;
  ir::Function& main_ = module_.add_function();
  std::vector<pjrt::Buffer> buffers_;
};

}  // namespace ttpu::kernels
