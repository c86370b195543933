// Saving is all or nothing: whatever goes wrong, the old file is intact.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "engine/reader.h"
#include "engine/sample_engine.h"
#include "engine/writer.h"
#include "support/file_map.h"

namespace kiln::engine {
namespace {

namespace fs = std::filesystem;
using kiln::testing::make_add_engine;
using kiln::testing::make_sample_engine;
using kiln::testing::SampleEngine;

class SaveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("kiln_save_test_" + std::to_string(getpid()));
    fs::create_directory(folder_);
    path_ = (folder_ / "model.kiln").string();
  }
  void TearDown() override { fs::remove_all(folder_); }

  size_t files_in_folder() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }
  // The engine in the file; "" if there is no sound one.
  std::string saved_name() const {
    const Result<FileMap> file = FileMap::open(path_);
    if (!file.ok()) return "";
    const Result<View> view = read(file->bytes(), {.verify_weights = true});
    return view.ok() ? view->spec.name : "";
  }
  Status save(const SampleEngine& sample) const {
    return write_file(sample.spec, sample.constants(), path_);
  }
  static SampleEngine large_engine() {
    SampleEngine sample = make_sample_engine();
    sample.spec.name = "large";
    add_constant(sample, std::vector<std::byte>(1 << 20, std::byte{7}));
    return sample;
  }

  fs::path folder_;
  std::string path_;
};

TEST_F(SaveTest, ReplacesAnOlderFile) {
  ASSERT_TRUE(save(make_sample_engine()).ok());
  EXPECT_EQ(saved_name(), "sample");
  ASSERT_TRUE(save(large_engine()).ok());
  EXPECT_EQ(saved_name(), "large");
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(SaveTest, FollowsTheUmask) {
  const mode_t before = umask(027);
  ASSERT_TRUE(save(make_sample_engine()).ok());
  umask(before);
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
}

TEST_F(SaveTest, MissingFolder) {
  const SampleEngine sample = make_sample_engine();
  const std::string path = (folder_ / "missing/model.kiln").string();
  const Status status = write_file(sample.spec, sample.constants(), path);
  EXPECT_EQ(status.code(), StatusCode::NotFound);
  EXPECT_EQ(status.message(), "cannot write " + path + ": No such file or directory");
}

TEST_F(SaveTest, NeverReplacesWhatIsNoFile) {
  fs::create_directory(path_);
  const Status folder = save(make_sample_engine());
  EXPECT_EQ(folder.code(), StatusCode::IoError);
  EXPECT_EQ(folder.message(), "cannot write " + path_ + ": not a regular file");
  const SampleEngine sample = make_sample_engine();
  EXPECT_EQ(write_file(sample.spec, sample.constants(), "/dev/null").code(), StatusCode::IoError);
  EXPECT_EQ(files_in_folder(), 1u);
}

// Runs `body` in a child process whose files may not grow beyond `bytes`; gives the child's wait
// status.
template <typename Body>
int with_file_limit(rlim_t bytes, void (*on_limit)(int), const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, on_limit);
    const rlimit limit{bytes, bytes};
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_FSIZE, &limit);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST_F(SaveTest, FullDisk) {
  ASSERT_TRUE(save(make_sample_engine()).ok());
  const int status = with_file_limit(100000, SIG_IGN, [&] {
    const Status saved = save(large_engine());
    const bool as_expected = saved.code() == StatusCode::IoError &&
                             saved.message() == "cannot write " + path_ + ": File too large";
    return as_expected ? 0 : 1;
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(saved_name(), "sample");
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(SaveTest, KilledHalfWay) {
  ASSERT_TRUE(save(make_sample_engine()).ok());
  const int status = with_file_limit(100000, SIG_DFL, [&] {
    (void)save(large_engine());
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
  EXPECT_EQ(saved_name(), "sample");
  // The next save is not in the way of what the killed one left.
  ASSERT_TRUE(save(large_engine()).ok());
  EXPECT_EQ(saved_name(), "large");
}

}  // namespace
}  // namespace kiln::engine
