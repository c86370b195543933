#include "support/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <span>

#include "support/errno_status.h"
#include "support/hash.h"

namespace kiln {
namespace {

// Linux writes at most 2 GiB at once.
constexpr size_t kLargestWrite = size_t{1} << 30;
constexpr int kMostLinks = 40;  // as the kernel
constexpr const char* kPrefix = ".kiln-tmp-";

// What the temporary files of one name begin with: short, however long the name is.
std::string temporary_prefix(const std::string& name) {
  return kPrefix + hash_str(hash128(std::as_bytes(std::span(name)))) + "-";
}

// Unique among processes by the id and within one by the count; a leftover of a process with the
// same id makes the exclusive creation fail, and the next name is tried.
std::string temporary_name(const std::string& name) {
  static std::atomic<unsigned> count{0};
  return temporary_prefix(name) + std::to_string(getpid()) + "-" + std::to_string(count++);
}

bool is_same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Whether the name still means the open file.
bool is_there(const Folder& folder, const std::string& name, const FileDescriptor& file) {
  struct stat info;
  const auto found = folder.find(name);
  return found && fstat(file.get(), &info) == 0 && is_same_file(info, *found);
}

// A lock that somebody holds means that the file is in use. Others' files are left alone.
void remove_if_abandoned(const Folder& folder, const std::string& name) {
  const auto found = folder.find(name);
  if (!found || !S_ISREG(found->st_mode) || found->st_uid != geteuid()) return;
  const FileDescriptor file = folder.open_file(name, O_RDONLY);
  if (!file.is_open() || flock(file.get(), LOCK_EX | LOCK_NB) != 0) return;
  if (is_there(folder, name, file)) folder.remove(name);
}

void remove_abandoned(const Folder& folder, const std::string& prefix) {
  for (const std::string& name : folder.names_with_prefix(prefix))
    remove_if_abandoned(folder, name);
}

struct Place {
  std::shared_ptr<const Folder> folder;
  std::string name;
};

// Nothing where the folder cannot be opened: errno says why.
std::optional<Place> place_of(const std::string& path, const Folder* from) {
  const size_t slash = path.rfind('/');
  const size_t split = slash == std::string::npos ? 0 : slash + 1;
  auto folder = Folder::open(path.substr(0, split), Folder::Links::Follow, from);
  if (!folder) return std::nullopt;
  return Place{std::make_shared<const Folder>(std::move(*folder)), path.substr(split)};
}

// Where writing to `path` writes to.
Result<Place> follow_links(const std::string& path) {
  auto place = place_of(path, nullptr);
  for (int links = 0; place && links <= kMostLinks; ++links) {
    const auto target = place->folder->link_target(place->name);
    if (!target) return *place;
    place = place_of(*target, place->folder.get());
  }
  return errno_status("write", path, place ? ELOOP : errno);
}

}  // namespace

Result<AtomicFile> AtomicFile::create(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    return Status(StatusCode::IoError, "cannot write " + path + ": not a regular file");
  Result<Place> place = follow_links(path);
  if (!place.ok()) return place.status();
  if (place->name.empty()) return errno_status("write", path, path.empty() ? ENOENT : EISDIR);
  return create_in(std::move(place->folder), place->name);
}

Result<AtomicFile> AtomicFile::create_in(std::shared_ptr<const Folder> folder,
                                         const std::string& name) {
  AtomicFile file(std::move(folder), name);
  const auto found = file.folder_->find(name);
  if (!found && errno != ENOENT) return file.failure(errno);
  if (found && !S_ISREG(found->st_mode))
    return Status(StatusCode::IoError,
                  "cannot write " + file.folder_->path_of(name) + ": not a regular file");
  remove_abandoned(*file.folder_, temporary_prefix(name));
  if (Status status = file.open_temporary(); !status.ok()) return status;
  return file;
}

void AtomicFile::remove_leftovers(const Folder& folder) { remove_abandoned(folder, kPrefix); }

AtomicFile::AtomicFile(std::shared_ptr<const Folder> folder, std::string name)
    : folder_(std::move(folder)), name_(std::move(name)) {}

AtomicFile::~AtomicFile() {
  if (file_.is_open()) folder_->remove(temporary_);
}

// A file that was taken for abandoned before it was locked is made again.
Status AtomicFile::open_temporary() {
  do {
    temporary_ = temporary_name(name_);
    file_ = folder_->open_file(temporary_, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (!file_.is_open() && errno != EEXIST) return failure(errno);
    if (file_.is_open()) flock(file_.get(), LOCK_EX);
  } while (!file_.is_open() || !is_there(*folder_, temporary_, file_));
  return Status();
}

Status AtomicFile::failure(int error_number) const {
  return errno_status("write", folder_->path_of(name_), error_number);
}

Status AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min(bytes.size(), kLargestWrite);
    const ssize_t written = pwrite(file_.get(), bytes.data(), size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failure(errno);
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return Status();
}

Status AtomicFile::resize(uint64_t size) {
  if (ftruncate(file_.get(), static_cast<off_t>(size)) != 0) return failure(errno);
  return Status();
}

// Those of the file that is replaced. Only root may give files away, and others only to groups of
// theirs: what cannot be kept is the process's own. The mode comes last, since a change of owner
// takes bits away.
Status AtomicFile::keep_attributes() const {
  const auto old = folder_->find(name_);
  if (!old || S_ISDIR(old->st_mode)) return Status();  // no file takes a folder's place
  if (!S_ISREG(old->st_mode))
    return Status(StatusCode::IoError,
                  "cannot write " + folder_->path_of(name_) + ": not a regular file");
  struct stat own;
  if (fstat(file_.get(), &own) != 0) return failure(errno);
  if (own.st_uid != old->st_uid && fchown(file_.get(), old->st_uid, static_cast<gid_t>(-1)) != 0 &&
      errno != EPERM)
    return failure(errno);
  if (own.st_gid != old->st_gid && fchown(file_.get(), static_cast<uid_t>(-1), old->st_gid) != 0 &&
      errno != EPERM)
    return failure(errno);
  if (fstat(file_.get(), &own) != 0) return failure(errno);
  const bool same_owner = own.st_uid == old->st_uid && own.st_gid == old->st_gid;
  if (fchmod(file_.get(), old->st_mode & (same_owner ? 07777 : 0777)) != 0) return failure(errno);
  return Status();
}

Status AtomicFile::commit(Sync sync) {
  KILN_RETURN_IF_ERROR(keep_attributes());
  // Network file systems report a full disk as late as here.
  if (sync == Sync::Yes && fsync(file_.get()) != 0) return failure(errno);
  if (renameat(folder_->get(), temporary_.c_str(), folder_->get(), name_.c_str()) != 0)
    return failure(errno);
  close(file_.release());
  // A rename survives a power cut once its folder is on the disk.
  if (sync == Sync::Yes) folder_->sync();
  return Status();
}

}  // namespace kiln
