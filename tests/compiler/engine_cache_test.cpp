// The cache: hits, damage, limits, unsafe folders, several processes.
#include "compiler/engine_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "compiler/cached_compile.h"
#include "compiler/linear_model.h"
#include "engine/reader.h"
#include "support/file_descriptor.h"

namespace kiln::testing {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;
using Outcome = CacheReport::Outcome;

struct Compiled {
  Bytes engine;
  CacheReport report;
};

Compiled compile_with(const std::string& directory, const LinearModel& model = {},
                      uint64_t max_bytes = 0) {
  Compiled result;
  CompileOptions options = quick_options();
  options.cache.directory = directory;
  options.cache.max_bytes = max_bytes;
  options.cache_report = &result.report;
  result.engine = model.compile(options);
  return result;
}

std::vector<std::string> files_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& file : fs::directory_iterator(directory))
    if (file.is_regular_file()) names.push_back(file.path().filename());
  return names;
}

LinearModel model_number(int number) {
  LinearModel model;
  model.weight[0] = static_cast<float>(100 + number);
  return model;
}

TEST(EngineCache, SecondCompileIsAHit) {
  const TemporaryFolder folder;
  const Compiled first = compile_with(folder.path("cache")),
                 second = compile_with(folder.path("cache"));
  EXPECT_EQ(first.report.outcome, Outcome::Compiled);
  EXPECT_EQ(second.report.outcome, Outcome::EngineFound);
  EXPECT_EQ(first.engine, LinearModel().compile(quick_options()));
  EXPECT_EQ(second.engine, first.engine);
  EXPECT_EQ(first.report.problem + second.report.problem, "");
}

TEST(EngineCache, OtherWeightsTakeTheCodeThatIsThere) {
  const TemporaryFolder folder;
  compile_with(folder.path("cache"));
  const Compiled other = compile_with(folder.path("cache"), model_number(1));
  EXPECT_EQ(other.report.outcome, Outcome::CodeFound);
  EXPECT_EQ(other.engine, model_number(1).compile(quick_options()));
}

TEST(EngineCache, OtherModelIsNoHit) {
  const TemporaryFolder folder;
  compile_with(folder.path("cache"));
  LinearModel other;
  std::swap(other.left, other.right);
  const Compiled result = compile_with(folder.path("cache"), other);
  EXPECT_EQ(result.report.outcome, Outcome::Compiled);
  EXPECT_EQ(result.engine, other.compile(quick_options()));
}

TEST(EngineCache, FileOfACompileHasTheBytesOfTheCache) {
  const TemporaryFolder folder;
  const Compiled first = compile_with(folder.path("cache"));
  CompileOptions options = quick_options();
  CacheReport report;
  options.cache.directory = folder.path("cache");
  options.cache_report = &report;
  compile_to_file(*LinearModel().open(), options, folder.path("model.kiln"));
  EXPECT_EQ(report.outcome, Outcome::EngineFound);
  std::ifstream file(folder.path("model.kiln"), std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto bytes = std::as_bytes(std::span(text));
  EXPECT_EQ(Bytes(bytes.begin(), bytes.end()), first.engine);
}

TEST(EngineCache, DamagedEntryIsMadeAgain) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  const Compiled first = compile_with(directory);
  CompileOptions options = quick_options();
  const std::string path = directory + "/" + compile_key(*LinearModel().open(), options) + ".kiln";
  {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(-1, std::ios::end);  // in the weights, which loading alone does not check
    file.put('\x7f');
  }
  const Compiled second = compile_with(directory);
  EXPECT_EQ(second.engine, first.engine);
  EXPECT_NE(second.report.outcome, Outcome::EngineFound);
  EXPECT_NE(second.report.problem.find("damaged"), std::string::npos) << second.report.problem;
  EXPECT_EQ(compile_with(directory).report.outcome, Outcome::EngineFound);
}

TEST(EngineCache, TruncatedEntryIsMadeAgain) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  compile_with(directory);
  for (const std::string& name : files_in(directory)) fs::resize_file(directory + "/" + name, 40);
  const Compiled second = compile_with(directory);
  EXPECT_EQ(second.report.outcome, Outcome::Compiled);
  EXPECT_EQ(second.engine, LinearModel().compile(quick_options()));
}

TEST(EngineCache, FolderIsForTheUserAlone) {
  const TemporaryFolder folder;
  compile_with(folder.path("new/cache"));
  struct stat info;
  ASSERT_EQ(stat(folder.path("new/cache").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST(EngineCache, FolderThatOthersMayWriteToIsNotUsed) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  fs::create_directory(directory);
  chmod(directory.c_str(), 0777);
  const Compiled result = compile_with(directory);
  EXPECT_EQ(result.engine, LinearModel().compile(quick_options()));
  EXPECT_NE(result.report.problem.find("other users may write"), std::string::npos)
      << result.report.problem;
  EXPECT_TRUE(files_in(directory).empty());
}

TEST(EngineCache, PathThatIsAFileIsNotUsed) {
  const TemporaryFolder folder;
  std::ofstream(folder.path("cache")) << "text";
  const Compiled result = compile_with(folder.path("cache"));
  EXPECT_FALSE(result.engine.empty());
  EXPECT_NE(result.report.problem, "");
}

TEST(EngineCache, LeastRecentlyUsedGoesFirst) {
  const TemporaryFolder folder;
  const Bytes engine = LinearModel().compile(quick_options());
  const auto cache = EngineCache::open(folder.path("cache"), engine.size() * 5 / 2);
  ASSERT_TRUE(cache.ok());
  const auto age = [&](const std::string& key, int seconds) {
    const timespec then = {std::time(nullptr) - seconds, 0};
    const timespec times[2] = {then, then};
    ASSERT_EQ(utimensat(AT_FDCWD, folder.path("cache/" + key + ".kiln").c_str(), times, 0), 0);
  };
  ASSERT_TRUE(cache->store("a", engine).ok());
  ASSERT_TRUE(cache->store("b", engine).ok());
  age("a", 100);
  age("b", 50);
  ASSERT_TRUE(cache->find("a").ok());  // now b is the older one
  ASSERT_TRUE(cache->store("c", engine).ok());
  EXPECT_TRUE(cache->find("a").ok());
  EXPECT_EQ(cache->find("b").status().code(), StatusCode::NotFound);
  EXPECT_TRUE(cache->find("c").ok());
}

TEST(EngineCache, EngineThatIsTooLargeIsCompiledAndNotKept) {
  const TemporaryFolder folder;
  const Compiled result = compile_with(folder.path("cache"), {}, 100);
  EXPECT_FALSE(result.engine.empty());
  EXPECT_NE(result.report.problem.find("expected at most 100"), std::string::npos);
  EXPECT_TRUE(files_in(folder.path("cache")).empty());
}

TEST(EngineCache, KeysThatLeadOutOfTheFolderAreRefused) {
  const TemporaryFolder folder;
  const auto cache = EngineCache::open(folder.path("cache"), 0);
  ASSERT_TRUE(cache.ok());
  for (const char* key : {"", "../a", "a/b", "a.b", "a b"}) {
    EXPECT_EQ(cache->store(key, Bytes(10)).code(), StatusCode::InvalidArgument) << key;
    EXPECT_EQ(cache->find(key).status().code(), StatusCode::InvalidArgument) << key;
  }
}

// Of a process that was killed, whatever it wrote; not of one that is at work.
TEST(EngineCache, AbandonedTemporaryFilesAreRemoved) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  compile_with(directory);
  const std::string old = directory + "/.kiln-tmp-0-1-0", used = directory + "/.kiln-tmp-0-1-1";
  std::ofstream(old) << "half";
  std::ofstream(used) << "half";
  const FileDescriptor lock(open(used.c_str(), O_RDONLY));
  ASSERT_EQ(flock(lock.get(), LOCK_EX), 0);
  compile_with(directory, model_number(1));
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(used));
}

void write_file(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

Bytes content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// Engines of the user's, and entries that he copied, whatever their names and however old.
TEST(EngineCache, FilesOfTheUsersAreLeftAlone) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  const Bytes engine = LinearModel().compile(quick_options());
  const auto cache = EngineCache::open(directory, engine.size() * 3 / 2);
  ASSERT_TRUE(cache.ok());
  ASSERT_TRUE(cache->store("entry", engine).ok());
  fs::copy(directory + "/entry.kiln", directory + "/copied.kiln");
  const std::vector<std::string> names = {"/model.kiln", "/0123456789abcdef0123456789abcdef.kiln",
                                          "/a.b.kiln", "/notes.txt"};
  for (const std::string& name : names) {
    write_file(directory + name, engine);
    const timespec times[2] = {{1, 0}, {1, 0}};
    utimensat(AT_FDCWD, (directory + name).c_str(), times, 0);
  }
  fs::create_directory(directory + "/folder.kiln");
  fs::create_symlink(directory + "/notes.txt", directory + "/link.kiln");
  // They are not entries, neither to be found nor to be replaced.
  EXPECT_EQ(cache->find("model").status().code(), StatusCode::NotFound);
  EXPECT_EQ(cache->find("copied").status().code(), StatusCode::NotFound);
  for (const char* key : {"model", "copied", "folder", "link"}) {
    const Status status = cache->store(key, engine);
    EXPECT_EQ(status.code(), StatusCode::InvalidArgument) << key;
    EXPECT_NE(status.message().find("is not an entry of the cache"), std::string::npos);
  }
  ASSERT_TRUE(cache->store("other", engine).ok());  // there is place for one
  EXPECT_FALSE(fs::exists(directory + "/entry.kiln"));
  EXPECT_TRUE(fs::exists(directory + "/copied.kiln"));
  for (const std::string& name : names) EXPECT_EQ(content_of(directory + name), engine) << name;
  EXPECT_TRUE(fs::exists(directory + "/folder.kiln") && fs::exists(directory + "/link.kiln"));
}

TEST(EngineCache, EntriesAreEnginesThemselves) {
  const TemporaryFolder folder;
  const Bytes engine = LinearModel().compile(quick_options());
  const auto cache = EngineCache::open(folder.path("cache"), 0);
  ASSERT_TRUE(cache.ok() && cache->store("key", engine).ok());
  const Bytes entry = content_of(folder.path("cache/key.kiln"));
  EXPECT_NE(entry, engine);
  EXPECT_TRUE(engine::read(entry, {.verify_weights = true}).ok());
  const auto found = cache->find("key");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(*found, engine);
}

TEST(EngineCache, SymbolicLinkIsNotUsed) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path("real"));
  fs::permissions(folder.path("real"), fs::perms::owner_all);
  fs::create_symlink(folder.path("real"), folder.path("link"));
  for (const char* name : {"link", "link/"}) {
    const Compiled result = compile_with(folder.path(name));
    EXPECT_FALSE(result.engine.empty());
    EXPECT_NE(result.report.problem.find("it is a symbolic link"), std::string::npos)
        << result.report.problem;
  }
  EXPECT_TRUE(files_in(folder.path("real")).empty());
}

// Somebody moves the folder away and puts another in its place.
TEST(EngineCache, FolderIsTheOneThatWasChecked) {
  const TemporaryFolder folder;
  const Bytes engine = LinearModel().compile(quick_options());
  const auto cache = EngineCache::open(folder.path("cache"), 0);
  ASSERT_TRUE(cache.ok());
  fs::rename(folder.path("cache"), folder.path("moved"));
  fs::create_directory(folder.path("cache"));
  write_file(folder.path("cache/key.kiln"), Bytes(100));
  EXPECT_EQ(cache->find("key").status().code(), StatusCode::NotFound);
  ASSERT_TRUE(cache->store("key", engine).ok());
  EXPECT_TRUE(cache->find("key").ok());
  EXPECT_EQ(content_of(folder.path("cache/key.kiln")), Bytes(100));
  EXPECT_TRUE(fs::exists(folder.path("moved/key.kiln")));
}

TEST(EngineCache, MissingFoldersAreForTheUserAlone) {
  const TemporaryFolder folder;
  ASSERT_TRUE(EngineCache::open(folder.path("a/b/c"), 0).ok());
  for (const char* name : {"a", "a/b", "a/b/c"}) {
    struct stat info;
    ASSERT_EQ(stat(folder.path(name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u) << name;
  }
}

// Compiles through one folder, again and again, in a process of its own. The exit code says whether
// all engines were right.
void work_in_child(const std::string& directory, const std::vector<Bytes>& expected, int seed) {
  bool right = true;
  for (int i = 0; i < 40; ++i) {
    const int number = (i * 7 + seed) % 4;
    const uint64_t limit = expected[0].size() * 3;  // so that they also remove each other's files
    const Compiled result = compile_with(directory, model_number(number), limit);
    right &=
        result.engine == expected[static_cast<size_t>(number)] && result.report.problem.empty();
  }
  _exit(right ? 0 : 1);
}

TEST(EngineCache, ProcessesShareAFolder) {
  const TemporaryFolder folder;
  const std::string directory = folder.path("cache");
  std::vector<Bytes> expected;
  for (int i = 0; i < 4; ++i) expected.push_back(model_number(i).compile(quick_options()));
  std::vector<pid_t> children;
  for (int seed = 0; seed < 4; ++seed) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) work_in_child(directory, expected, seed);
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  for (const std::string& name : files_in(directory))
    EXPECT_TRUE(name.ends_with(".kiln")) << name << " is left over";
}

}  // namespace
}  // namespace kiln::testing
