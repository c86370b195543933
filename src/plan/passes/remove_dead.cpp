// Kernels whose results nobody reads are removed, unless they make checks or are the user's own; then buffers that nobody
// uses.
#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

// Or may fail for reasons of its own.
bool makes_checks(const Kernel& kernel) {
  bool found = std::holds_alternative<Custom>(kernel.body);
  for_each_expr(kernel, [&](const Expr& expr) { found |= expr && has_checks(expr); });
  return found;
}

bool remove_kernels(Program& program) {
  std::vector<bool> needed(program.buffers.size());
  for (BufferId output : program.outputs) needed[output] = true;
  for (const DataSize& size : program.data_sizes) needed[size.count] = true;
  // Kernels of a repeat are read by those that come before them, the next time.
  for (const Repeat& repeat : program.repeats) needed[repeat.condition] = true;
  for (const Kernel& kernel : program.kernels)
    if (kernel.repeat != -1)
      for (const BufferId buffer : reads(kernel)) needed[buffer] = true;
  bool changed = false;
  for (size_t i = program.kernels.size(); i-- > 0;) {
    Kernel& kernel = program.kernels[i];
    const auto written = writes(kernel);
    const bool is_read =
        std::ranges::any_of(written, [&](BufferId buffer) { return needed[buffer]; });
    if (!is_read && !makes_checks(kernel)) {
      make_empty(kernel);
      changed = true;
      continue;
    }
    for (BufferId buffer : reads(kernel)) needed[buffer] = true;
  }
  if (changed) remove_empty(program);
  return changed;
}

bool remove_buffers(Program& program) {
  std::vector<bool> used(program.buffers.size());
  for (BufferId id : program.inputs) used[id] = true;
  for (BufferId id : program.outputs) used[id] = true;
  for (const Kernel& kernel : program.kernels) {
    for (BufferId id : reads(kernel)) used[id] = true;
    for (BufferId id : writes(kernel)) used[id] = true;
  }
  for (size_t i = 0; i < used.size(); ++i)  // and what lies under them
    for (BufferId at = static_cast<BufferId>(i); used[i] && program.buffers[at].alias_of >= 0;) {
      at = program.buffers[at].alias_of;
      used[at] = true;
    }
  if (std::ranges::all_of(used, [](bool u) { return u; })) return false;
  std::vector<BufferId> ids(program.buffers.size(), -1);
  std::vector<Buffer> buffers;
  for (size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) continue;
    ids[i] = static_cast<BufferId>(buffers.size());
    buffers.push_back(std::move(program.buffers[i]));
  }
  program.buffers = std::move(buffers);
  for (Buffer& buffer : program.buffers)
    if (buffer.alias_of >= 0) buffer.alias_of = ids[buffer.alias_of];
  for (BufferId& id : program.inputs) id = ids[id];
  for (BufferId& id : program.outputs) id = ids[id];
  for (DataSize& size : program.data_sizes) size.count = ids[size.count];
  for (Repeat& repeat : program.repeats) repeat.condition = ids[repeat.condition];
  for (Kernel& kernel : program.kernels) renumber_buffers(kernel, ids);
  return true;
}

}  // namespace

bool remove_dead(Program& program) {
  const bool kernels = remove_kernels(program);
  return remove_buffers(program) || kernels;
}

}  // namespace kiln::plan
