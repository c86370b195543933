#include "backends/common/distinct_kernels.h"

#include <map>
#include <utility>

#include "backends/common/kernel_key.h"

namespace kiln::backend {

DistinctKernels::DistinctKernels(const plan::Program& program) {
  std::map<std::string, size_t> known;
  for (const plan::Kernel& kernel : program.kernels) {
    KernelKey key = key_of(program, kernel);
    const auto [it, fresh] = known.try_emplace(key.hash(), codes.size());
    if (fresh) codes.push_back({&kernel, key.buffers, key.checks, it->first, {}});
    auto& sources = codes[it->second].sources;
    sources.insert(sources.end(), kernel.sources.begin(), kernel.sources.end());
    uses.push_back({it->second, std::move(key.buffers), std::move(key.checks)});
  }
}

}  // namespace kiln::backend
