#include "plan/form/lifetimes.h"

#include <algorithm>

#include "plan/form/parts.h"

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
  // What a repeat finds there it finds there each time. Inner ones first.
  const std::vector<KernelRange> repeats = repeat_ranges(program);
  for (size_t i = repeats.size(); i-- > 0;) {
    const auto first = static_cast<int32_t>(repeats[i].first);
    const auto last = static_cast<int32_t>(repeats[i].end) - 1;
    for (Lifetime& lifetime : result) {
      if (lifetime.last < first || lifetime.first > last) continue;
      if (lifetime.first >= first && lifetime.last <= last) continue;
      lifetime.first = std::min(lifetime.first, first);
      lifetime.last = std::max(lifetime.last, last);
    }
  }
  return result;
}

}  // namespace kiln::plan
