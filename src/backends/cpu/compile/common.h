// What the CPU backend uses of backends/common, under its own roof.
#pragma once

#include "backends/common/derived_constants.h"
#include "backends/common/dim_terms.h"
#include "backends/common/generated_kernel.h"
#include "backends/common/kernel_interface.h"
#include "backends/common/parallel.h"

namespace kiln::cpu {

using backend::constant_term;
using backend::ConstantPool;
using backend::depends_on_loops;
using backend::dim_of_atom;
using backend::dim_of_term;
using backend::GeneratedKernel;
using backend::KernelInterface;
using backend::worker_count;

}  // namespace kiln::cpu
