// Parts of a program: what runs between two reads of sizes that the run finds (Program::data_sizes).
#pragma once

#include <cstddef>
#include <vector>

#include "plan/form/program.h"

namespace kiln::plan {

// Kernels in the order of the parts that they can run in, as early as may be, and so data_sizes and
// the symbols: as few parts as there can be. Other kernels keep their order.
void order_by_parts(Program& program);

// By data size: the kernel that it is read before, as late as may be, or the number of kernels. In
// ascending order. InternalError if a kernel mentions a size that none before it writes.
std::vector<size_t> reads_of_sizes(const Program& program);

// The data sizes, by number, that a kernel mentions.
std::vector<size_t> mentioned_sizes(const Program& program, const Kernel& kernel);

bool is_count(const Program& program, BufferId buffer);

}  // namespace kiln::plan
