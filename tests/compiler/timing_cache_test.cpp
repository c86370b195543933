// The file of measurements: several processes, damage, and files of somebody else's.
#include "compiler/timing_cache.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "compiler/linear_model.h"

namespace kiln::testing {
namespace {

namespace fs = std::filesystem;
using backend::Timings;

Timings numbered(uint8_t first, int count) {
  Timings timings;
  for (int i = 0; i < count; ++i) {
    Hash128 key = {};
    key[0] = first;
    key[15] = static_cast<uint8_t>(i);
    timings[key] = static_cast<uint32_t>(i);
  }
  return timings;
}

std::string contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

TEST(TimingCache, KeepsWhatWasFoundAndMakesItsFolders) {
  const TemporaryFolder folder;
  const std::string path = folder.path("a/b/times");
  const TimingCache cache(path);
  ASSERT_TRUE(cache.read().ok());
  EXPECT_TRUE(cache.read()->empty());
  ASSERT_TRUE(cache.add(numbered(1, 3)).ok());
  ASSERT_TRUE(cache.add(numbered(2, 2)).ok());
  Timings both = numbered(1, 3);
  both.merge(numbered(2, 2));
  EXPECT_EQ(*cache.read(), both);
  struct stat info;
  ASSERT_EQ(stat(folder.path("a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
}

TEST(TimingCache, ProcessesLoseNothingOfEachOther) {
  const TemporaryFolder folder;
  const TimingCache cache(folder.path("times"));
  constexpr int kProcesses = 8, kRounds = 5;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      bool good = true;
      for (int round = 0; round < kRounds; ++round)
        good = cache.add(numbered(static_cast<uint8_t>(i * kRounds + round), 4)).ok() && good;
      _exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  ASSERT_TRUE(cache.read().ok());
  EXPECT_EQ(cache.read()->size(), size_t{4} * kProcesses * kRounds);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path("")), fs::directory_iterator()), 1);
}

TEST(TimingCache, DamageIsSeenAtEveryByteAndMended) {
  const TemporaryFolder folder;
  const std::string path = folder.path("times");
  const TimingCache cache(path);
  ASSERT_TRUE(cache.add(numbered(1, 2)).ok());
  const std::string sound = contents(path);
  for (size_t i = 0; i < sound.size(); ++i) {
    std::string damaged = sound;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    write(path, damaged);
    EXPECT_FALSE(cache.read().ok()) << "byte " << i;
    write(path, sound.substr(0, i));
    if (i > 0) {
      EXPECT_FALSE(cache.read().ok()) << "the first " << i << " bytes";
    }
  }
  write(path, sound.substr(0, sound.size() - 1));
  EXPECT_NE(cache.read().status().message().find("is damaged"), std::string::npos);
  ASSERT_TRUE(cache.add(numbered(3, 1)).ok());
  EXPECT_EQ(*cache.read(), numbered(3, 1));
}

TEST(TimingCache, FilesOfOthersAreLeftAlone) {
  const TemporaryFolder folder;
  const std::string path = folder.path("times"), text = "my own notes\n";
  write(path, text);
  for (const Status& status :
       {TimingCache(path).read().status(), TimingCache(path).add(numbered(1, 1))}) {
    EXPECT_EQ(status.code(), StatusCode::InvalidArgument);
    EXPECT_NE(status.message().find("is not a timing cache"), std::string::npos);
  }
  EXPECT_EQ(contents(path), text);

  const std::string link = folder.path("link");
  fs::create_symlink(path, link);
  EXPECT_FALSE(TimingCache(link).read().ok());
  EXPECT_FALSE(TimingCache(link).add(numbered(1, 1)).ok());
  EXPECT_EQ(contents(path), text);

  const std::string pipe = folder.path("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_FALSE(TimingCache(pipe).read().ok());
  EXPECT_FALSE(TimingCache(pipe).add(numbered(1, 1)).ok());
  EXPECT_FALSE(TimingCache(folder.path("")).add(numbered(1, 1)).ok());
}

}  // namespace
}  // namespace kiln::testing
