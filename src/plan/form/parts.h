// Parts of a program: what runs between two reads of sizes that the run finds (Program::data_sizes), and kernels
// that repeat.
#pragma once

#include <cstddef>
#include <vector>

#include "plan/form/program.h"

namespace kiln::plan {

// Kernels in the order of the parts that they can run in, as early as may be, and so data_sizes and
// the symbols: as few parts as there can be. Other kernels keep their order.
void order_by_parts(Program& program);

// By data size: the kernel that it is read before, as late as may be, or the number of kernels; never one
// within a repeat. In ascending order. InternalError if a kernel mentions a size that none before it writes.
std::vector<size_t> reads_of_sizes(const Program& program);

// The data sizes, by number, that a kernel mentions.
std::vector<size_t> mentioned_sizes(const Program& program, const Kernel& kernel);

// By repeat of the program: its first kernel, and the one behind its last.
struct KernelRange {
  size_t first = 0, end = 0;
};
std::vector<KernelRange> repeat_ranges(const Program& program);

// The repeat around all others that a kernel is in, below `outer`; -1: the kernel is in none of those.
int32_t repeat_below(const Program& program, const Kernel& kernel, int32_t outer = -1);

bool is_condition(const Program& program, BufferId buffer);
bool is_count(const Program& program, BufferId buffer);

}  // namespace kiln::plan
