// Code of kernels that is kept: found again, damaged, limited, shared by engines that differ.
#include "compiler/kernel_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "compiler/linear_model.h"

namespace kiln::testing {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

Hash128 key(uint8_t number) { return {number}; }
Bytes code(size_t size, int value = 1) { return Bytes(size, static_cast<std::byte>(value)); }

std::unique_ptr<KernelCache> open_cache(const std::string& directory,
                                        const KernelCache::Options& options = {}) {
  Result<std::unique_ptr<KernelCache>> cache = KernelCache::open(directory, options);
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  return cache.ok() ? std::move(*cache) : nullptr;
}

std::vector<fs::path> entries(const std::string& directory) {
  std::vector<fs::path> paths;
  for (const auto& file : fs::directory_iterator(directory))
    if (file.path().extension() == ".code") paths.push_back(file.path());
  std::ranges::sort(paths);
  return paths;
}

TEST(KernelCache, FindsWhatWasKept) {
  const TemporaryFolder folder;
  {
    const auto cache = open_cache(folder.path("a/b"));
    EXPECT_FALSE(cache->find(key(1)));
    for (const size_t size : {0, 1, 2, 100000}) cache->add(key(uint8_t(size)), code(size));
    cache->add(key(1), code(5));  // the first stays
    EXPECT_TRUE(cache->finish().ok());
  }
  const auto cache = open_cache(folder.path("a/b"));
  for (const size_t size : {0, 1, 2, 100000})
    EXPECT_EQ(cache->find(key(uint8_t(size))), code(size));
  EXPECT_FALSE(cache->find(key(9)));
  struct stat info;
  ASSERT_EQ(stat(folder.path("a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
}

TEST(KernelCache, DamagedEntriesAreMadeAgain) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  for (const int damage : {0, 10, 30, 45, -1}) {  // magic, name, hash, code, length
    {
      const auto cache = open_cache(directory);
      cache->add(key(1), code(100));
      ASSERT_TRUE(cache->finish().ok());
    }
    const fs::path path = entries(directory).at(0);
    if (damage < 0) {
      fs::resize_file(path, 90);
    } else {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(damage);
      file.put('\x55');
    }
    const auto cache = open_cache(directory);
    EXPECT_FALSE(cache->find(key(1))) << damage;
    cache->add(key(1), code(100));
    EXPECT_TRUE(cache->finish().ok());
    EXPECT_EQ(cache->find(key(1)), code(100)) << damage;
  }
}

// Under the name of one entry the contents of another, whole as they are.
TEST(KernelCache, AnEntryIsThatOfItsName) {
  const TemporaryFolder folder;
  const auto cache = open_cache(folder.path("cache"));
  cache->add(key(1), code(100, 1));
  cache->add(key(2), code(100, 2));
  ASSERT_TRUE(cache->finish().ok());
  const auto paths = entries(folder.path("cache"));
  fs::copy_file(paths.at(0), paths.at(1), fs::copy_options::overwrite_existing);
  EXPECT_NE(cache->find(key(1)).has_value(), cache->find(key(2)).has_value());
}

TEST(KernelCache, WhatWasNotUsedForLongestGoesFirst) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  const auto cache = open_cache(directory, {.max_bytes = 2500});
  for (const uint8_t number : {1, 2}) cache->add(key(number), code(1000, number));
  ASSERT_TRUE(cache->finish().ok());
  std::ofstream(directory + "/notes.code") << std::string(5000, 'x');  // somebody else's
  for (const fs::path& path : entries(directory)) {
    const timespec times[2] = {{1, 0}, {1, 0}};
    utimensat(AT_FDCWD, path.c_str(), times, 0);
  }
  ASSERT_TRUE(cache->find(key(1)));
  cache->add(key(3), code(1000, 3));
  ASSERT_TRUE(cache->finish().ok());
  EXPECT_EQ(cache->find(key(1)), code(1000, 1));
  EXPECT_FALSE(cache->find(key(2)));
  EXPECT_EQ(cache->find(key(3)), code(1000, 3));
  EXPECT_EQ(fs::file_size(directory + "/notes.code"), 5000U);
}

TEST(KernelCache, ReadsOrWritesOnly) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  const auto writer = open_cache(directory, {.read = false});
  writer->add(key(1), code(10));
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_FALSE(writer->find(key(1)));
  const auto reader = open_cache(directory, {.write = false});
  EXPECT_EQ(reader->find(key(1)), code(10));
  reader->add(key(2), code(10));
  ASSERT_TRUE(reader->finish().ok());
  EXPECT_EQ(entries(directory).size(), 1U);
}

TEST(KernelCache, UnsafeFoldersAreRefused) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path("open"));
  fs::permissions(folder.path("open"), fs::perms::all);
  fs::create_directory(folder.path("real"));
  fs::create_symlink(folder.path("real"), folder.path("link"));
  for (const char* name : {"open", "link"}) {
    const auto cache = KernelCache::open(folder.path(name), {});
    ASSERT_FALSE(cache.ok());
    EXPECT_NE(cache.status().message().find("is not used"), std::string::npos);
  }
}

// A model with an other epsilon and one with another largest batch have kernels in common with the first.
TEST(KernelCache, EnginesShareKernels) {
  const TemporaryFolder folder;
  CompileOptions options = quick_options();
  options.cache.directory = folder.path("cache");
  const std::string kernels = folder.path("cache/kernels");
  LinearModel other;
  other.eps = "1e-03";
  LinearModel().compile(options);
  const size_t first = entries(kernels).size();
  ASSERT_GE(first, 2U);
  EXPECT_EQ(other.compile(options), other.compile(quick_options()));
  EXPECT_GT(entries(kernels).size(), first);
  EXPECT_LT(entries(kernels).size(), 2 * first);
}

}  // namespace
}  // namespace kiln::testing
