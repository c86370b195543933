#include "import/archive.h"

#include <gtest/gtest.h>

#include "import/zip_writer.h"
#include "support/error.h"

namespace kiln::import {
namespace {

using test::ZipWriter;

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(const Archive& archive, std::string_view name) {
  const auto bytes = archive.get(name);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string message_of(const std::string& file) {
  try {
    const Archive archive(as_bytes(file));
  } catch (const CompileError& error) {
    return error.what();
  }
  return "no error";
}

ZipWriter two_entries() {
  ZipWriter writer;
  writer.add("model/models/model.json", "{}");
  writer.add("model/data/weights/weight_0", "abcdefgh");
  return writer;
}

TEST(ArchiveTest, FindsEntriesBelowTheTopFolder) {
  const std::string file = two_entries().finish();
  const Archive archive(as_bytes(file));
  EXPECT_EQ(archive.size(), 2u);
  EXPECT_EQ(text_of(archive, "models/model.json"), "{}");
  EXPECT_EQ(text_of(archive, "data/weights/weight_0"), "abcdefgh");
  EXPECT_FALSE(archive.find("byteorder"));
  EXPECT_THROW(archive.get("byteorder"), CompileError);
}

TEST(ArchiveTest, ReadsZip64) {
  ZipWriter writer;
  writer.add("m/a", "one", {.zip64 = true});
  writer.add("m/b", "two");
  const std::string file = writer.finish(true);
  const Archive archive(as_bytes(file));
  EXPECT_EQ(text_of(archive, "a"), "one");
  EXPECT_EQ(text_of(archive, "b"), "two");
}

TEST(ArchiveTest, SkipsACommentAtTheEnd) {
  const std::string file = two_entries().finish(false, "written by hand");
  const Archive archive(as_bytes(file));
  EXPECT_EQ(archive.size(), 2u);
}

TEST(ArchiveTest, RefusesATruncationAtEveryLength) {
  for (const bool zip64 : {false, true}) {
    const std::string file = two_entries().finish(zip64);
    for (size_t length = 0; length < file.size(); ++length) {
      EXPECT_NE(message_of(file.substr(0, length)), "no error") << length;
    }
  }
}

// A changed byte gives an error or a smaller archive, and never a read outside the file (the
// sanitizers watch).
TEST(ArchiveTest, SurvivesAChangeOfEveryByte) {
  for (const bool zip64 : {false, true}) {
    const std::string file = two_entries().finish(zip64);
    for (size_t i = 0; i < file.size(); ++i) {
      for (const char value : {'\0', '\x7f', '\xff'}) {
        std::string changed = file;
        changed[i] = value;
        try {
          const Archive archive(as_bytes(changed));
          if (archive.find("models/model.json")) text_of(archive, "models/model.json");
        } catch (const CompileError&) {
        }
      }
    }
  }
}

TEST(ArchiveTest, RefusesLyingSizes) {
  ZipWriter too_long;
  too_long.add("m/a", "abc", {.size_error = 1000});
  EXPECT_NE(message_of(too_long.finish()).find("beyond the end"), std::string::npos);

  ZipWriter differing;
  differing.add("m/a", "abc", {.packed_error = -1});
  EXPECT_NE(message_of(differing.finish()).find("two sizes for m/a"), std::string::npos);

  ZipWriter huge;
  huge.add("m/a", "abc", {.size_error = int64_t{1} << 62, .zip64 = true});
  EXPECT_NE(message_of(huge.finish()).find("beyond the end"), std::string::npos);

  ZipWriter far;
  far.add("m/a", "abc", {.offset_error = -1, .zip64 = true});
  EXPECT_NE(message_of(far.finish()).find("local header"), std::string::npos);
}

TEST(ArchiveTest, RefusesWhatIsNotStored) {
  ZipWriter deflated;
  deflated.add("m/a", "abc", {.method = 8});
  EXPECT_NE(message_of(deflated.finish()).find("compressed entry m/a"), std::string::npos);

  ZipWriter encrypted;
  encrypted.add("m/a", "abc", {.flags = 1});
  EXPECT_NE(message_of(encrypted.finish()).find("encrypted entry m/a"), std::string::npos);
}

TEST(ArchiveTest, RefusesTheSameEntryTwice) {
  ZipWriter writer;
  writer.add("m/a", "abc");
  writer.add("n/a", "def");
  EXPECT_NE(message_of(writer.finish()).find("entry a twice"), std::string::npos);
}

TEST(ArchiveTest, RefusesOtherFiles) {
  EXPECT_NE(message_of("").find("zip archive"), std::string::npos);
  EXPECT_NE(message_of(std::string(4000, 'x')).find("zip archive"), std::string::npos);
}

}  // namespace
}  // namespace kiln::import
