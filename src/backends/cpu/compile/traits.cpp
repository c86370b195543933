// What the plan is told of x86-64 CPUs: one set for all levels, so that they share a plan.
#include "backends/backend.h"

namespace kiln {

const plan::TargetTraits& cpu_traits() {
  // Sums are f32, whatever the operands are: the tiles of contract/ hold nothing else.
  static const std::vector<DType> kContracted = {DType::F32, DType::F16, DType::BF16};
  static const plan::TargetTraits kTraits = {
      .matmul = kContracted,
      .convolution = kContracted,
      .attention = kContracted,
      .min_group_channels = 4,
      .epilogue = plan::EpilogueRule::EvenLoads,
      // Rough ratios of the throughput of vector instructions: a polynomial is about ten
      // multiplications, and divisions and roots share one slow unit.
      .root_cost = 4,
      .division_cost = 4,
      .series_cost = 10,
      .iterated_cost = 20,
      .round_trip_cost = 8,
      .near_load_cost = 5,
      .position_cost = 6,
      .max_operations = 64,
      .max_loads = 12,
      .min_parallel_points = 64,
      .large_task_points = 4096,
  };
  return kTraits;
}

}  // namespace kiln
