#include "compiler/cache_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "support/errno_status.h"

namespace kiln {

Status make_private_directory(const std::string& directory, const std::string& cache) {
  for (size_t end = directory.find('/', 1); end != std::string::npos;
       end = directory.find('/', end + 1))
    mkdir(directory.substr(0, end).c_str(), 0700);  // the last one says what is wrong
  if (mkdir(directory.c_str(), 0700) == 0 || errno == EEXIST) return Status();
  return errno_status("make the " + cache, directory, errno);
}

Result<std::vector<std::byte>> read_all(const FileDescriptor& file, const std::string& path) {
  struct stat info;
  if (fstat(file.get(), &info) != 0) return errno_status("read", path, errno);
  std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count =
        pread(file.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_status("read", path, errno);
    if (count == 0) bytes.resize(done);  // somebody made it shorter
    done += static_cast<size_t>(count);
  }
  return bytes;
}

}  // namespace kiln
