#include "plan/form/lifetimes.h"

namespace kiln::plan {

std::vector<Lifetime> lifetimes(const Program& program) {
  std::vector<Lifetime> result(program.buffers.size());
  const auto touch = [&](BufferId buffer, int32_t kernel) {
    if (program.buffers[buffer].kind != BufferKind::Temporary) return;
    while (program.buffers[buffer].alias_of >= 0) buffer = program.buffers[buffer].alias_of;
    Lifetime& lifetime = result[buffer];
    if (lifetime.first < 0) lifetime.first = kernel;
    lifetime.last = kernel;
  };
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    for (BufferId buffer : reads(program.kernels[i])) touch(buffer, static_cast<int32_t>(i));
    for (BufferId buffer : writes(program.kernels[i])) touch(buffer, static_cast<int32_t>(i));
  }
  return result;
}

}  // namespace kiln::plan
