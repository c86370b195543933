#include "support/file_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "support/errno_status.h"
#include "support/file_descriptor.h"

namespace kiln {

Result<FileMap> FileMap::open(const std::string& path) {
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.is_open()) return errno_status("open", path, errno);
  struct stat info;
  if (fstat(file.get(), &info) != 0) return errno_status("open", path, errno);
  if (!S_ISREG(info.st_mode))
    return Status(StatusCode::IoError, "cannot open " + path + ": not a regular file");
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return FileMap();
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return errno_status("map", path, errno);
  return FileMap(static_cast<const std::byte*>(data), size);
}

FileMap::FileMap(FileMap&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

FileMap& FileMap::operator=(FileMap&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FileMap::~FileMap() {
  if (size_ > 0) munmap(const_cast<std::byte*>(data_), size_);
}

void forget_pages(std::span<const std::byte> part) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t skipped = -reinterpret_cast<uintptr_t>(part.data()) % page;
  if (part.size() < skipped + page) return;
  madvise(const_cast<std::byte*>(part.data()) + skipped, (part.size() - skipped) / page * page,
          MADV_DONTNEED);
}

}  // namespace kiln
