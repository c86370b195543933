#include "compiler/backends.h"

#include <algorithm>
#include <string>
#include <vector>

#include "backends/cpu/compile/cpu_backend.h"
#include "backends/cuda/compile/cuda_backend.h"
#include "support/error.h"

namespace kiln {
namespace {

std::vector<const Backend*>& table() {
  static std::vector<const Backend*> backends = {&cpu_backend(), &cuda_backend()};
  return backends;
}

}  // namespace

const Backend& find_backend(std::string_view target) {
  std::string names;
  for (const Backend* backend : table()) {
    if (backend->name == target) return *backend;
    names += (names.empty() ? "" : ", ") + std::string(backend->name);
  }
  throw CompileError("[target] got \"" + std::string(target) + "\", expected one of " + names);
}

void add_backend(const Backend& backend) { table().push_back(&backend); }

}  // namespace kiln
