// What the plan is told of x86-64 CPUs: one set for all levels, so that they share a plan.
#include "backends/backend.h"

namespace kiln {

const plan::TargetTraits& cpu_traits() {
  // The tiles of contract/ hold sums of f32 and f64; the softmax of attention is in f32.
  static const plan::TargetTraits kTraits = {
      .matmul = {DType::F32, DType::F16, DType::BF16, DType::F64},
      .convolution = {DType::F32, DType::F16, DType::BF16, DType::F64},
      .attention = {DType::F32, DType::F16, DType::BF16},
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
