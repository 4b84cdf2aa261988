#include "ttpu/parallel/spmd.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::parallel {

void add_spmd_main(ir::Module& module, const Mesh& mesh, const ir::Function& body,
                   const std::vector<SpmdValue>& arguments, const std::vector<SpmdValue>& results) {
  const ir::Values& locals = body.arguments();
  require(arguments.size() == locals.size(), "[parallel] {} arguments described, the body has {}",
          arguments.size(), locals.size());
  module.add_mesh(mesh.to_ir());
  ir::Function& main = module.add_function("main");
  ir::Values whole;
  std::vector<ir::Sharding> in;
  for (size_t i = 0; i < locals.size(); ++i) {
    const Shape& local = locals[i].shape();
    whole.push_back(
        main.add_argument(whole_shape(local, arguments[i].placement), body.argument_info(i).name));
    in.push_back(to_sharding(arguments[i].placement, local.rank()));
    main.set_sharding(whole.back(), in.back());
    if (arguments[i].aliases_result) main.alias(whole.back(), *arguments[i].aliases_result);
  }
  std::vector<ir::Sharding> out;
  for (size_t i = 0; i < body.results().size(); ++i) {
    const Placement placement = i < results.size() ? results[i].placement : Placement{};
    out.push_back(to_sharding(placement, body.results()[i].rank()));
    main.set_result_sharding(static_cast<int>(i), out.back());
  }
  std::vector<std::string> axes;
  for (const Mesh::Factor& factor : mesh.factors()) axes.push_back(factor.name);
  main.set_results(ir::manual_computation(
      whole, in, out, axes, [&](const ir::Values& values) { return ir::call(body, values); }));
}

}  // namespace ttpu::parallel
