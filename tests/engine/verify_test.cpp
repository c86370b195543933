// verify() finds every change of a file, and says where it is.
#include "engine/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "engine/format.h"
#include "engine/mark.h"
#include "engine/reader.h"
#include "engine/sample_engine.h"
#include "engine/writer.h"

namespace kiln::engine {
namespace {

using kiln::testing::add_constant;
using kiln::testing::make_sample_engine;
using kiln::testing::SampleEngine;

using Bytes = std::vector<std::byte>;

SampleEngine sample_with_constants() {
  SampleEngine sample = make_sample_engine();
  for (int i = 1; i <= 3; ++i)
    add_constant(sample, Bytes(static_cast<size_t>(100 * i), static_cast<std::byte>(i)));
  return sample;
}

bool covers(const Damage& damage, uint64_t offset) {
  return damage.offset <= offset && offset < damage.offset + damage.size;
}

// Every byte, one bit after the other: header, table, plan, code, weights, and what is between.
TEST(Verify, FindsEveryChangedBit) {
  const Bytes sound = sample_with_constants().bytes();
  ASSERT_TRUE(verify(sound).empty());
  Bytes bytes = sound;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto bit = static_cast<std::byte>(1 << i % 8);
    bytes[i] ^= bit;
    const std::vector<Damage> damages = verify(bytes);
    ASSERT_FALSE(damages.empty()) << "byte " << i;
    EXPECT_TRUE(std::ranges::any_of(damages, [&](const Damage& d) { return covers(d, i); }))
        << "byte " << i << ": " << damages[0].where << " " << damages[0].what;
    bytes[i] ^= bit;
  }
}

TEST(Verify, FindsEveryTruncation) {
  const Bytes sound = sample_with_constants().bytes();
  for (size_t size = 0; size < sound.size(); size += size < 200 ? 1 : 61)
    EXPECT_FALSE(verify(std::span(sound).first(size)).empty()) << size;
  Bytes longer = sound;
  longer.emplace_back();
  EXPECT_FALSE(verify(longer).empty());
}

TEST(Verify, NamesSectionConstantAndPlace) {
  const Bytes sound = sample_with_constants().bytes();
  const Result<View> view = read(sound);
  ASSERT_TRUE(view.ok());
  const auto section = [&](const std::string& name) {
    return *std::ranges::find(view->sections, name, &SectionInfo::name);
  };
  const auto damage_at = [&](uint64_t offset) {
    Bytes bytes = sound;
    bytes[offset] ^= std::byte{0x10};
    return verify(bytes);
  };
  const uint64_t weights = section("weights").offset;

  std::vector<Damage> found = damage_at(weights + view->spec.programs[0].buffers[4].offset);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].where, "weights");
  EXPECT_EQ(found[0].what, "the contents do not match their hash");
  EXPECT_EQ(found[1].offset, weights + view->spec.programs[0].buffers[4].offset);
  EXPECT_EQ(found[1].size, sizeof(float));
  EXPECT_EQ(
      found[1].what,
      "constant 4 of cpu:x86-64-v4 (of the kernel scale_1: mul, factor) does not match its hash");

  found = damage_at(weights + view->spec.programs[0].buffers[6].offset + 199);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[1].what, "constant 6 of cpu:x86-64-v4 does not match its hash");
  EXPECT_EQ(found[1].size, 200u);

  found = damage_at(weights + view->spec.programs[0].buffers[6].offset + 200);  // behind it
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].where, "weights");

  found = damage_at(weights - 1);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].where, "gap");
  EXPECT_EQ(found[0].offset, weights - 1);

  found = damage_at(section("interface").offset);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].where, "interface");
  found = damage_at(section("program:cpu:x86-64-v3").offset);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].where, "program cpu:x86-64-v3");
  found = damage_at(section("code:cpu:x86-64-v3").offset + 5);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].where, "code cpu:x86-64-v3");
  EXPECT_EQ(damage_at(20)[0].where, "header");
  EXPECT_EQ(damage_at(60)[0].where, "header");
  EXPECT_EQ(damage_at(0)[0].what, "not a Kiln engine");
}

TEST(Verify, SeveralDamagesAreAllTold) {
  Bytes bytes = sample_with_constants().bytes();
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok());
  for (const SectionInfo& section : view->sections) bytes[section.offset] ^= std::byte{1};
  const std::vector<Damage> found = verify(bytes);
  // Without an interface that tells their names, programs have numbers.
  for (const char* name : {"interface", "program 0", "program 1", "code 0", "code 1", "weights"})
    EXPECT_TRUE(std::ranges::any_of(found, [&](const Damage& d) { return d.where == name; }))
        << name;
}

TEST(Verify, StrippedEnginesAndMarkedOnesAreSound) {
  const SampleEngine sample = sample_with_constants();
  const auto stripped = write(sample.spec, sample.constants(), Weights::Stripped);
  ASSERT_TRUE(stripped.ok());
  EXPECT_TRUE(verify(*stripped).empty());
  const Bytes sound = sample.bytes();
  Bytes marked = sound;
  std::ranges::copy(marked_start(sound, 0x1234), marked.begin());
  EXPECT_EQ(mark_of(marked), 0x1234u);
  EXPECT_TRUE(verify(marked).empty());
  std::ranges::copy(marked_start(marked, 0), marked.begin());
  EXPECT_EQ(marked, sound);
  EXPECT_EQ(mark_of(sound), 0u);
  EXPECT_EQ(mark_of(std::span(sound).first(kMarkBytes - 1)), std::nullopt);
}

// The weights of two stripped engines differ in nothing that is left.
TEST(Verify, StrippedEnginesDoNotTellTheirWeights) {
  SampleEngine one = sample_with_constants(), two = sample_with_constants();
  for (auto& contents : two.contents) contents.back().assign(300, std::byte{9});
  EXPECT_EQ(*write(one.spec, one.constants(), Weights::Stripped),
            *write(two.spec, two.constants(), Weights::Stripped));
}

// A plan whose constants all say that they are the whole of the weights.
TEST(Verify, ForgedConstantsAreLittleWork) {
  SampleEngine sample = make_sample_engine();
  for (int i = 0; i < 2000; ++i) {  // all different: equal ones are stored once
    Bytes contents(64, static_cast<std::byte>(i));
    contents[0] = static_cast<std::byte>(i / 256);
    add_constant(sample, contents);
  }
  Bytes bytes = sample.bytes();
  bytes.back() ^= std::byte{1};
  for (size_t i = 0; i < 2000; ++i) bytes[bytes.size() - 64 * (i + 1)] ^= std::byte{1};
  EXPECT_LE(verify(bytes).size(), 101u);
}

}  // namespace
}  // namespace kiln::engine
