// AtomicFile and FileMap.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "support/atomic_file.h"
#include "support/file_map.h"

namespace kiln {
namespace {

namespace fs = std::filesystem;

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("kiln_file_test_" + std::to_string(getpid()));
    fs::create_directory(folder_);
    path_ = (folder_ / "file").string();
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text));
  }
  std::string content() const {
    const Result<FileMap> file = FileMap::open(path_);
    if (!file.ok()) return file.status().message();
    const auto bytes = file->bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  size_t files_in_folder() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }

  fs::path folder_;
  std::string path_;
};

TEST_F(FileTest, AppearsOnCommit) {
  Result<AtomicFile> file = AtomicFile::create(path_);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->write_at(0, bytes_of("hello")).ok());
  EXPECT_FALSE(fs::exists(path_));
  ASSERT_TRUE(file->commit().ok());
  EXPECT_EQ(content(), "hello");
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(FileTest, DisappearsWithoutCommit) {
  std::ofstream(path_) << "old";
  {
    Result<AtomicFile> file = AtomicFile::create(path_);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->write_at(0, bytes_of("new")).ok());
  }
  EXPECT_EQ(content(), "old");
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(FileTest, GapsAreZeros) {
  Result<AtomicFile> file = AtomicFile::create(path_);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->write_at(3, bytes_of("x")).ok());
  ASSERT_TRUE(file->resize(6).ok());
  ASSERT_TRUE(file->commit().ok());
  EXPECT_EQ(content(), std::string("\0\0\0x\0\0", 6));
}

TEST_F(FileTest, FailedRenameLeavesNothingBehind) {
  {
    Result<AtomicFile> file = AtomicFile::create(path_);
    ASSERT_TRUE(file.ok());
    fs::create_directory(path_);  // a rename of a file over a folder fails
    const Status status = file->commit();
    EXPECT_EQ(status.code(), StatusCode::IoError);
    EXPECT_EQ(status.message(), "cannot write " + path_ + ": Is a directory");
  }
  EXPECT_EQ(files_in_folder(), 1u);
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  Result<AtomicFile> file = AtomicFile::create(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_TRUE(file->write_at(0, bytes).ok());
  const Status status = file->commit();
  ASSERT_TRUE(status.ok()) << status.message();
}

TEST_F(FileTest, KeepsThePermissionsOfWhatItReplaces) {
  for (const mode_t mode : {0600, 0640, 0666, 0777, 0444}) {
    std::ofstream(path_) << "old";
    ASSERT_EQ(chmod(path_.c_str(), mode), 0);
    write_file(path_, bytes_of("new"));
    struct stat info;
    ASSERT_EQ(stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, mode);
    fs::remove(path_);
  }
}

TEST_F(FileTest, KeepsTheOwnerOfWhatItReplaces) {
  if (geteuid() != 0) GTEST_SKIP() << "only root may give files away";
  std::ofstream(path_) << "old";
  ASSERT_EQ(chown(path_.c_str(), 12345, 23456), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  write_file(path_, bytes_of("new"));
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 12345u);
  EXPECT_EQ(info.st_gid, 23456u);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
}

TEST_F(FileTest, LinksStayAndTheirFilesAreReplaced) {
  fs::create_directory(folder_ / "other");
  const std::string link = (folder_ / "link").string();
  std::ofstream(folder_ / "other/target") << "old";
  fs::create_symlink("link2", link);
  fs::create_symlink("other/target", folder_ / "link2");
  path_ = (folder_ / "other/target").string();
  write_file(link, bytes_of("new"));
  EXPECT_TRUE(fs::is_symlink(link) && fs::is_symlink(folder_ / "link2"));
  EXPECT_EQ(content(), "new");
  fs::remove(path_);  // a link to nothing: the file that it names is made
  write_file(link, bytes_of("made"));
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(content(), "made");
  fs::remove(link);
  fs::create_symlink("link", link);
  EXPECT_EQ(AtomicFile::create(link).status().message(),
            "cannot write " + link + ": Too many levels of symbolic links");
}

TEST_F(FileTest, ReplacesNothingThatIsNoFile) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  const std::string link = (folder_ / "link").string();
  fs::create_symlink(path_, link);
  for (const std::string& path : {path_, link, std::string("/dev/null"), folder_.string()})
    EXPECT_EQ(AtomicFile::create(path).status().message(),
              "cannot write " + path + ": not a regular file");
  EXPECT_TRUE(fs::is_fifo(path_));
  for (const char* path : {"", "missing/"}) EXPECT_FALSE(AtomicFile::create(path).ok()) << path;
}

TEST_F(FileTest, NamesAsLongAsTheSystemAllows) {
  for (const size_t size : {1u, 200u, 251u, 252u, 254u, 255u}) {
    path_ = (folder_ / std::string(size, 'n')).string();
    write_file(path_, bytes_of("long"));
    EXPECT_EQ(content(), "long") << size;
    fs::remove(path_);
  }
  const std::string path = (folder_ / std::string(256, 'n')).string();
  EXPECT_EQ(AtomicFile::create(path).status().message(),
            "cannot write " + path + ": File name too long");
}

// What a killed process leaves lies there unlocked.
TEST_F(FileTest, LeftoversAreRemovedByTheNextWriteOfThatFile) {
  std::string temporary;
  const pid_t child = fork();
  if (child == 0) {
    auto file = AtomicFile::create(path_);
    _exit(file.ok() && file->write_at(0, bytes_of("half")).ok() ? 0 : 1);  // without destructors
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(files_in_folder(), 1u);
  {
    Result<AtomicFile> other = AtomicFile::create((folder_ / "other").string());
    ASSERT_TRUE(other.ok());
    EXPECT_EQ(files_in_folder(), 2u);  // that of another file is not its business
  }
  Result<AtomicFile> one = AtomicFile::create(path_), two = AtomicFile::create(path_);
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(files_in_folder(), 2u);  // one each: those in use are locked
  ASSERT_TRUE(one->write_at(0, bytes_of("one")).ok() && two->write_at(0, bytes_of("two")).ok());
  ASSERT_TRUE(one->commit().ok());
  EXPECT_EQ(content(), "one");
  ASSERT_TRUE(two->commit().ok());
  EXPECT_EQ(content(), "two");
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(FileTest, NewFilesFollowTheUmaskWhichIsLeftAlone) {
  const mode_t before = umask(027);
  write_file(path_, bytes_of("new"));
  EXPECT_EQ(umask(before), 027u);
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
}

TEST_F(FileTest, MapsMissingFiles) {
  const Result<FileMap> file = FileMap::open(path_);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), StatusCode::NotFound);
  EXPECT_EQ(file.status().message(), "cannot open " + path_ + ": No such file or directory");
}

TEST_F(FileTest, MapsNoFoldersAndPipes) {
  for (const auto& make : {+[](const char* path) { return mkdir(path, 0700); },
                           +[](const char* path) { return mkfifo(path, 0600); }}) {
    fs::remove(path_);
    ASSERT_EQ(make(path_.c_str()), 0);
    EXPECT_EQ(FileMap::open(path_).status().message(),
              "cannot open " + path_ + ": not a regular file");
  }
}

TEST_F(FileTest, MapsEmptyFiles) {
  std::ofstream(path_).flush();
  EXPECT_EQ(content(), "");
}

// The bytes of a page are the same when it is read again, in any part of the file.
TEST_F(FileTest, ForgottenPagesAreReadAgain) {
  std::string text(5 * 4096 + 100, 'x');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i % 251);
  std::ofstream(path_) << text;
  const Result<FileMap> file = FileMap::open(path_);
  ASSERT_TRUE(file.ok());
  for (const size_t begin : {0, 1, 4095, 4096, 9000, 20479, 20580}) {
    for (const size_t size : {0, 1, 4095, 4096, 4097, 8191, 8192, 20580}) {
      if (begin + size > text.size()) continue;
      forget_pages(file->bytes().subspan(begin, size));
      ASSERT_TRUE(std::ranges::equal(file->bytes(), bytes_of(text))) << begin << " " << size;
    }
  }
}

}  // namespace
}  // namespace kiln
