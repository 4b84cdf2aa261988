// Calls of kernels that the plugin knows by name.
#pragma once

#include "ttpu/ir/attribute.h"

namespace ttpu::ir {

struct CustomCallOptions {
  bool has_side_effect = false;
  int api_version = 4;             // 4: typed FFI with backend_config; less: backend_config_text
  Dictionary backend_config = {};  // typed attributes, api_version 4 only
  std::string backend_config_text = {};
  // Minor-to-major order of each operand and result; both or neither.
  std::vector<Dims> operand_layouts = {};
  std::vector<Dims> result_layouts = {};
  std::vector<OutputOperandAlias> output_operand_aliases = {};
  // Further attributes as they stand ("kernel_name", "mhlo.frontend_attributes" is `frontend`).
  Dictionary attributes = {};
  Dictionary frontend_attributes = {};
};

Values custom_call(Function& function, std::string target, const Values& operands,
                   const std::vector<Shape>& results, const CustomCallOptions& options = {});

// With row-major operands and results, as kernels on CPU want them: without a word about it the
// compiler takes the order that suits the neighbours.
Values row_major_call(Function& function, std::string target, const Values& operands,
                      const std::vector<Shape>& results, CustomCallOptions options = {});

}  // namespace ttpu::ir
