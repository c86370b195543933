#include "support/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>

#include "support/errno_status.h"

namespace kiln {
namespace {

// Linux writes at most 2 GiB at once.
constexpr size_t kLargestWrite = size_t{1} << 30;

// Unique among processes by the id and within one by the count; a stale file of a killed process
// with the same id makes the exclusive creation below fail, and the next name is tried.
std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> count{0};
  return path + ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(count++);
}

Status check_replaceable(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0 || S_ISREG(info.st_mode)) return Status();
  return Status(StatusCode::IoError, "cannot write " + path + ": not a regular file");
}

// A rename survives a power cut once its folder is on the disk. Some file systems cannot sync
// folders: not an error.
void sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const FileDescriptor descriptor(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.is_open()) fsync(descriptor.get());
}

}  // namespace

Result<AtomicFile> AtomicFile::create(const std::string& path) {
  KILN_RETURN_IF_ERROR(check_replaceable(path));
  std::string temporary;
  int descriptor = -1;
  do {
    temporary = temporary_name(path);
    descriptor = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EEXIST);
  if (descriptor < 0) return errno_status("write", path, errno);
  return AtomicFile(path, std::move(temporary), FileDescriptor(descriptor));
}

AtomicFile::AtomicFile(std::string path, std::string temporary, FileDescriptor file)
    : path_(std::move(path)), temporary_(std::move(temporary)), file_(std::move(file)) {}

AtomicFile::~AtomicFile() {
  if (file_.is_open()) unlink(temporary_.c_str());
}

Status AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min(bytes.size(), kLargestWrite);
    const ssize_t written = pwrite(file_.get(), bytes.data(), size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno_status("write", path_, errno);
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return Status();
}

Status AtomicFile::resize(uint64_t size) {
  if (ftruncate(file_.get(), static_cast<off_t>(size)) != 0)
    return errno_status("write", path_, errno);
  return Status();
}

Status AtomicFile::commit() {
  // Network file systems report a full disk as late as here.
  if (fsync(file_.get()) != 0) return errno_status("write", path_, errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return errno_status("write", path_, errno);
  close(file_.release());
  sync_folder_of(path_);
  return Status();
}

}  // namespace kiln
