#include "compiler/build_hash.h"

#include <dlfcn.h>

#include "support/error.h"
#include "support/file_map.h"
#include "support/hash.h"

namespace kiln {
namespace {

std::string hash_of_own_binary() {
  Dl_info info{};
  const bool known = dladdr(reinterpret_cast<const void*>(&build_hash), &info) != 0;
  Result<FileMap> file = FileMap::open(known && info.dli_fname != nullptr ? info.dli_fname : "");
  // A program may have been started by a name that is not a path.
  if (!file.ok()) file = FileMap::open("/proc/self/exe");
  if (!file.ok()) throw CompileError("the compiler's own file: " + file.status().message());
  return hash_str(hash128(file->bytes()));
}

}  // namespace

const std::string& build_hash() {
  static const std::string kHash = hash_of_own_binary();
  return kHash;
}

}  // namespace kiln
