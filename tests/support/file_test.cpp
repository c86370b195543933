// AtomicFile and FileMap.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

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

}  // namespace
}  // namespace kiln
