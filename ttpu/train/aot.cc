#include "ttpu/train/aot.h"

#include "ttpu/base/error.h"
#include "ttpu/models/registry.h"
#include "ttpu/plan/cost.h"
#include "ttpu/plan/gpus.h"
#include "ttpu/train/step.h"

namespace ttpu::train {
namespace {

void check_mesh(const TrainAotRequest& request, int64_t devices) {
  require(request.data > 0 && request.fsdp > 0 && request.tensor > 0 &&
              request.data * request.fsdp * request.tensor == devices,
          "[train] --data-parallel-size {}, --fsdp-size {} and --tensor-parallel-size {} make {} "
          "devices, {} has {}; give numbers whose product is that",
          request.data, request.fsdp, request.tensor, request.data * request.fsdp * request.tensor,
          request.topology, devices);
}

// What follows from the program alone.
void add_program(const TrainProgram& program, plan::ProgramReport* report) {
  constexpr int64_t kMoments = 2;
  report->weight_bytes = program.state_elements() * static_cast<int64_t>(sizeof(float));
  report->optimizer_bytes = kMoments * report->weight_bytes;
  const int64_t state = report->weight_bytes + report->optimizer_bytes;
  constexpr double kGiB = 1 << 30;
  if (state > report->hbm_bytes) {
    fail(Code::kResourceExhausted,
         "[train] does not fit: a device of {} has {:.1f} GiB of HBM, and master weights and "
         "moments need {:.1f} GiB; divide them over more devices, with --fsdp-size and "
         "--zero-stage 1 or more, or --tensor-parallel-size",
         report->topology, static_cast<double>(report->hbm_bytes) / kGiB,
         static_cast<double>(state) / kGiB);
  }
  std::vector<plan::ArgumentRole> roles(program.device->arguments().size(),
                                        plan::ArgumentRole::kWeight);
  std::fill_n(roles.begin(), static_cast<size_t>(StepArgument::kNumArguments),
              plan::ArgumentRole::kInput);
  const plan::ProgramCost cost = plan::program_cost(*program.device, roles);
  report->flops = cost.flops;
  report->weight_read_bytes = cost.weight_bytes;
  report->uncounted_loops = cost.uncounted_loops;
}

// By default the compiler waits for each collective that SparseCores could run.
std::string overlap_flags(const plan::Chip& chip) {
  if (!chip.sparse_cores) return "";
  return "--xla_tpu_enable_sparse_core_collective_offload_all_gather=true "
         "--xla_tpu_enable_sparse_core_collective_offload_2d_all_gather=true "
         "--xla_tpu_enable_sparse_core_collective_offload_reduce_scatter=true "
         "--xla_tpu_enable_sparse_core_collective_offload_all_reduce=true ";
}

plan::ProgramReport compile_with(const TrainAotRequest& request, const nn::DecoderSpec& spec,
                                 const pjrt::Topology& topology, const kernels::Target& target) {
  const auto devices = topology.devices();
  check_mesh(request, static_cast<int64_t>(devices.size()));
  const plan::Chip& chip = plan::device_of_topology(request.topology);
  const parallel::Mesh mesh = train_mesh(request.data, request.fsdp, request.tensor);
  const StepOptions& step = request.step;
  const TrainProgram program = build_train_program(spec, step, target, mesh, request.strategy);
  plan::ProgramReport report;
  report.phase = "train";
  report.topology = request.topology;
  report.device_kind = devices.at(0).kind;
  report.devices = static_cast<int64_t>(devices.size());
  report.sequences = step.micro_batch * step.accumulation * request.data * request.fsdp;
  report.tokens = report.sequences * step.seq_len;
  report.max_model_len = step.seq_len;
  report.layers = step.layers == nn::Layers::kScanned ? "scanned" : "unrolled";
  report.hbm_bytes = chip.hbm_bytes;
  report.sharding = fmt::format("Mesh {}, strategy {}, ZeRO stage {}.", mesh.to_string(),
                                request.strategy, static_cast<int>(step.zero_stage));
  if (target.tpu) report.kernels = target.tpu->choices();
  add_program(program, &report);
  engine::CompileWith with = request.with;
  with.xla_flags = overlap_flags(chip) + with.xla_flags;
  engine::compile_module(*program.module, topology, mesh, with, &report);
  return report;
}

}  // namespace

plan::ProgramReport compile_train_step(const TrainAotRequest& request) {
  const nn::DecoderSpec spec = models::decoder_from_config(request.config);
  const pjrt::Topology topology = engine::create_topology(request.topology);
  const kernels::Target target = engine::target_of_topology(request.topology, request.kernels);
  return kernels::without_refused(target.tpu.get(),
                                  [&] { return compile_with(request, spec, topology, target); });
}

}  // namespace ttpu::train
