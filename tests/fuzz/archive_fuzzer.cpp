// torch.export archives: opened from a file in memory, with all their weights.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "import/import.h"
#include "support/error.h"
#include "support/file_descriptor.h"

// Anything but a CompileError is a finding.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const kiln::FileDescriptor file(memfd_create("archive", MFD_CLOEXEC));
  if (!file.is_open() || write(file.get(), data, size) != static_cast<ssize_t>(size)) return 0;
  try {
    const auto model =
        kiln::import::Model::open_file("/proc/self/fd/" + std::to_string(file.get()));
    (void)kiln::import::check_support(*model);
  } catch (const kiln::CompileError&) {
  }
  return 0;
}
