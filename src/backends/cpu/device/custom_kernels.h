// The kernels of the user's own that this process has, by name. One table for all: that of libkiln_runtime, which
// other libraries with a runtime in them ask too.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "kiln/kiln.h"
#include "support/status.h"

namespace kiln::cpu {

struct CustomKernel {
  kiln_kernel_function function = nullptr;
  void* user = nullptr;
  bool operator==(const CustomKernel&) const = default;
};

struct NamedKernel {
  std::string name;
  CustomKernel kernel;
};

// All of them or none. InvalidArgument: a name that is none ("mylib::scaled_sine"), or that another kernel has.
Status register_kernels(std::span<const NamedKernel> kernels);

// Of this library's table.
std::optional<CustomKernel> find_own_kernel(std::string_view name);
// The same, or else of that of libkiln_runtime, if the process has it loaded.
std::optional<CustomKernel> find_kernel(std::string_view name);

// Unsupported: what to do about a kernel that is not there.
Status missing_kernel(const std::string& name);

}  // namespace kiln::cpu

extern "C" {
// find_own_kernel for libraries with a runtime of their own: exported by libkiln_runtime, no promise is made about
// it. Returns 0 if there is none of the name.
KILN_API int kiln_private_find_kernel(const char* name, kiln_kernel_function* function,
                                      void** user);
}
