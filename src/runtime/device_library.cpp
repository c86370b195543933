#include "runtime/device_library.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "backends/device_library.h"

namespace kiln::runtime {
namespace {

// The file that this code was loaded from; empty where the system does not say.
std::string own_file() {
  Dl_info info{};
  link_map* map = nullptr;
  if (dladdr1(reinterpret_cast<const void*>(&own_file), &info, reinterpret_cast<void**>(&map),
              RTLD_DL_LINKMAP) == 0 ||
      map == nullptr)
    return "";
  // A program has no name there; a name that is not absolute is one of LD_LIBRARY_PATH's.
  const char* name = map->l_name == nullptr || *map->l_name == 0 ? "/proc/self/exe" : map->l_name;
  if (*name == '/' && map->l_name == name) return name;
  char resolved[PATH_MAX];
  return realpath(name, resolved) == nullptr ? "" : resolved;
}

Status unsupported(std::string message) {
  return Status(StatusCode::Unsupported, std::move(message));
}

}  // namespace

Result<const Device*> open_device_library(const std::string& target, const std::string& file) {
  const std::string own = own_file();
  const size_t slash = own.rfind('/');
  if (slash == std::string::npos)
    return unsupported("the system does not say which folder " + file + " has to be in");
  const std::string path = own.substr(0, slash + 1) + file;
  if (access(path.c_str(), F_OK) != 0)
    return unsupported("there is no " + path + ", which runs programs for " + target +
                       ": it belongs beside " + own.substr(slash + 1));
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* error = dlerror();
    return unsupported(path + " cannot be opened: " + (error == nullptr ? "no reason" : error));
  }
  const auto find = reinterpret_cast<DeviceFunction*>(dlsym(library, kDeviceFunction));
  const char* theirs = nullptr;
  const Device* device = find == nullptr ? nullptr : find(KILN_DEVICE_INTERFACE, &theirs);
  if (device != nullptr) return device;
  return unsupported(path + " is of another build than " + own.substr(slash + 1) + ": got " +
                     (theirs == nullptr ? "a library without a version" : theirs) +
                     ", expected " KILN_DEVICE_INTERFACE "; install them together");
}

}  // namespace kiln::runtime
