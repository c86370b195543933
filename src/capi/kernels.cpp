// The running half of the C API: kernels of the user's own.
#include <dlfcn.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "backends/cpu/device/custom_kernels.h"
#include "capi/guarded.h"
#include "capi/options.h"
#include "support/status.h"

using kiln::guarded;
using kiln::Result;
using kiln::Status;
using kiln::StatusCode;
using kiln::cpu::NamedKernel;

namespace {

class Library {
 public:
  explicit Library(const std::string& path)
      : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {}
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() {
    if (handle_ != nullptr) dlclose(handle_);
  }
  bool is_open() const { return handle_ != nullptr; }
  void* find(const char* name) const { return dlsym(handle_, name); }
  // It stays until the process ends.
  void keep() { handle_ = nullptr; }

 private:
  void* handle_;
};

Result<std::vector<NamedKernel>> kernels_of(const std::string& path, const Library& library) {
  using Kernels = const kiln_kernel_entry* (*)(size_t*);
  const auto kernels = reinterpret_cast<Kernels>(library.find("kiln_kernels"));
  if (kernels == nullptr)
    return Status(
        StatusCode::InvalidArgument,
        "got " + path + " without a function kiln_kernels, expected a library of kernels");
  size_t count = 0;
  const kiln_kernel_entry* first = kernels(&count);
  if (first == nullptr || count == 0)
    return Status(StatusCode::InvalidArgument, "got " + path + " without kernels, expected some");
  std::vector<NamedKernel> result;
  const auto* at = reinterpret_cast<const std::byte*>(first);
  for (size_t i = 0; i < count; ++i, at += first->struct_size) {
    const auto* given = reinterpret_cast<const kiln_kernel_entry*>(at);
    const auto entry = kiln::current_options(given, "kiln_kernel_entry");
    if (!entry.ok()) return entry.status();
    if (given->struct_size != first->struct_size)
      return Status(
          StatusCode::InvalidArgument,
          "got kiln_kernel_entry structs of several sizes in " + path + ", expected one size");
    if (entry->name == nullptr || entry->function == nullptr)
      return Status(StatusCode::InvalidArgument, "got kernel " + std::to_string(i) + " of " + path +
                                                     " without a name or a function");
    result.push_back({entry->name, {entry->function, entry->user}});
  }
  return result;
}

}  // namespace

extern "C" {

kiln_status kiln_register_kernel(const char* name, kiln_kernel_function function, void* user) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(name);
    KILN_REQUIRE(function);
    const NamedKernel kernel{name, {function, user}};
    return kiln::cpu::register_kernels({&kernel, 1});
  });
}

int kiln_has_kernel(const char* name) {
  return name != nullptr && kiln::cpu::find_own_kernel(name) ? 1 : 0;
}

kiln_status kiln_load_kernels(const char* path) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(path);
    const std::string given = path;
    const bool is_file = access(path, F_OK) == 0;
    const bool is_plain = given.find('/') == std::string::npos;
    Library library(is_file && is_plain ? "./" + given : given);
    if (!library.is_open()) {
      const char* reason = dlerror();
      return Status(is_file ? StatusCode::InvalidArgument : StatusCode::NotFound,
                    "cannot load kernels from " + given + ": " + (reason ? reason : "no library"));
    }
    const auto kernels = kernels_of(given, library);
    if (!kernels.ok()) return kernels.status();
    KILN_RETURN_IF_ERROR(kiln::cpu::register_kernels(*kernels));
    library.keep();
    return Status();
  });
}

int kiln_private_find_kernel(const char* name, kiln_kernel_function* function, void** user) {
  const auto found = kiln::cpu::find_own_kernel(name);
  if (!found) return 0;
  *function = found->function;
  *user = found->user;
  return 1;
}

}  // extern "C"
