// How a generated kernel is called, and how its work is split.
#pragma once

#include <map>
#include <vector>

#include "plan/form/program.h"

namespace kiln::backend {

// How the copy engine of a GPU (NVIDIA: TMA) sees a buffer that a launch reads: a tensor of up to five
// axes, of which it brings boxes to shared memory. The run makes a 128-byte map of it (CUtensorMap)
// when buffers and sizes are known, if the grid is not empty. Nothing outside of `sizes` is read:
// elements there are zeros.
struct TensorMapSpec {
  // One of KernelInterface::buffers, which begins at a multiple of 16 bytes: a temporary or a
  // constant, derived ones included. Inputs and outputs may begin anywhere.
  plan::BufferId buffer = -1;
  DType dtype = DType::F16;              // of the elements; f32 comes rounded to TF32
  ir::Dim offset = 0;                    // of the first element, in bytes; a multiple of 16
  std::vector<ir::Dim> sizes;            // in elements, fastest axis first
  std::vector<ir::Dim> strides;          // in bytes, of the second axis and on; multiples of 16
  std::vector<int64_t> box;              // in elements; images: unused
  std::vector<int64_t> element_strides;  // empty: 1 for each axis
  int64_t swizzle = 0;                   // bytes: 0, 32, 64 or 128

  // Images: boxes are pixels of the two or three axes between channels and images, at the positions
  // of a convolution's filters (im2col). Empty corners: not an image.
  std::vector<int64_t> lower_corner, upper_corner;  // of the spatial axes, fastest first
  int64_t box_channels = 0, box_pixels = 0;
};

// Filled in while code is generated.
struct KernelInterface {
  std::vector<plan::BufferId> buffers;  // argument order
  std::vector<ir::Dim> params;          // over size symbols only
  std::vector<int32_t> checks;          // of the program: the i-th sets bit i of the result
  ir::Dim scratch_bytes = 0;            // per thread of a CPU; otherwise of the whole step
  // The most elements of a buffer that one unit writes: a task, a block of a grid, the one call. The
  // run compares what all of them write with what there is to write.
  std::map<plan::BufferId, ir::Dim> task_writes;

  // Tasks:
  ir::Dim tasks = 1;  // independent ones
  int64_t min_tasks_per_thread = 1;

  // Launch: one to three sizes each, the fastest first; and memory that the threads of a block
  // share, beyond what the kernel declares.
  std::vector<ir::Dim> grid, block;
  ir::Dim shared_bytes = 0;
  // Arguments of the kernel, behind all others.
  std::vector<TensorMapSpec> tensor_maps;
  // The kernel waits by itself for what was launched before it, which may still run.
  bool programmatic = false;

  // Where an operand, a parameter and a check are; added at the end if they are new.
  int32_t buffer_index(plan::BufferId buffer);
  int32_t param_index(const ir::Dim& dim);
  // The last bit stands for all checks that have none of their own.
  int32_t check_bit(int32_t check);
};

}  // namespace kiln::backend
