#include "backends/cpu/device/custom_kernels.h"

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace kiln::cpu {
namespace {

struct Table {
  std::mutex mutex;
  std::map<std::string, CustomKernel, std::less<>> entries;
};

// Never undone: threads may run kernels while the process ends.
Table& table() {
  static Table* const kTable = new Table;
  return *kTable;
}

// The overload that is meant where none is said.
std::string_view without_default(std::string_view name) {
  constexpr std::string_view kDefault = ".default";
  return name.ends_with(kDefault) ? name.substr(0, name.size() - kDefault.size()) : name;
}

// "mylib::scaled_sine", "mylib::scaled_sine.out_variant", "com.acme::Op".
bool is_name(std::string_view name) {
  const size_t colons = name.find("::");
  const bool is_plain = std::ranges::all_of(name, [](char c) {
    return c > ' ' && c != '"' && c != '\\' && static_cast<unsigned char>(c) != 0x7f;
  });
  return is_plain && colons != std::string_view::npos && colons > 0 && colons + 2 < name.size() &&
         name[colons + 2] != ':' && name[colons + 2] != '.' && name.back() != '.';
}

}  // namespace

Status register_kernels(std::span<const NamedKernel> kernels) {
  Table& all = table();
  const std::scoped_lock lock(all.mutex);
  std::map<std::string, CustomKernel, std::less<>> fresh;
  for (const NamedKernel& kernel : kernels) {
    if (!is_name(kernel.name))
      return Status(StatusCode::InvalidArgument,
                    "got \"" + kernel.name +
                        "\" as the name of a kernel, expected a namespace and an operator: "
                        "\"mylib::scaled_sine\"");
    const std::string name(without_default(kernel.name));
    const auto known = all.entries.find(name);
    const auto added = fresh.try_emplace(name, kernel.kernel).first;
    if (!(added->second == kernel.kernel) ||
        (known != all.entries.end() && !(known->second == kernel.kernel)))
      return Status(StatusCode::InvalidArgument,
                    "got another kernel for " + name + ", expected the one that it has");
  }
  all.entries.merge(fresh);
  return Status();
}

std::optional<CustomKernel> find_own_kernel(std::string_view name) {
  Table& all = table();
  const std::scoped_lock lock(all.mutex);
  const auto found = all.entries.find(without_default(name));
  return found == all.entries.end() ? std::nullopt : std::optional(found->second);
}

std::optional<CustomKernel> find_kernel(std::string_view name) {
  if (auto own = find_own_kernel(name)) return own;
  void* const library = dlopen("libkiln_runtime.so.0", RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) return std::nullopt;
  using Find = decltype(&kiln_private_find_kernel);
  const auto find = reinterpret_cast<Find>(dlsym(library, "kiln_private_find_kernel"));
  CustomKernel kernel;
  const bool is_there =
      find != nullptr && find(std::string(name).c_str(), &kernel.function, &kernel.user) != 0;
  dlclose(library);  // it never goes away
  return is_there ? std::optional(kernel) : std::nullopt;
}

Status missing_kernel(const std::string& name) {
  return Status(StatusCode::Unsupported,
                "the engine needs a kernel for " + name +
                    ", which this process does not have: load the library that has it "
                    "(kiln_load_kernels, kiln.load_kernels, --kernels) or register one "
                    "(kiln_register_kernel, kiln.register_kernel)");
}

}  // namespace kiln::cpu
