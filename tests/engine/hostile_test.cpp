// Truncated, corrupted, foreign and forged engines: one clear error each, and never a crash.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "engine/engine_generated.h"
#include "engine/format.h"
#include "engine/plan_codec.h"
#include "engine/reader.h"
#include "engine/sample_engine.h"
#include "support/aligned_buffer.h"

namespace kiln::engine {
namespace {

using kiln::testing::make_sample_engine;

using Bytes = std::vector<std::byte>;

Status read_status(std::span<const std::byte> bytes) {
  const Result<View> view = read(bytes, {.verify_weights = true});
  return view.ok() ? Status() : view.status();
}

void expect_invalid(std::span<const std::byte> bytes, const std::string& message) {
  const Status status = read_status(bytes);
  EXPECT_EQ(status.code(), StatusCode::InvalidEngine);
  EXPECT_NE(status.message().find(message), std::string::npos) << status.message();
}

Bytes to_bytes(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

FileHeader header_of(const Bytes& bytes) {
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return header;
}

std::vector<SectionEntry> sections_of(const Bytes& bytes) {
  std::vector<SectionEntry> sections(header_of(bytes).section_count);
  std::memcpy(sections.data(), bytes.data() + sizeof(FileHeader),
              sections.size() * sizeof(SectionEntry));
  return sections;
}

// A forger's work: puts header and table in place with hashes that match.
void forge(Bytes& bytes, FileHeader header, std::vector<SectionEntry> sections) {
  header.section_count = static_cast<uint32_t>(sections.size());
  header.hash = header_hash(header, sections);
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), sections.data(),
              sections.size() * sizeof(SectionEntry));
}

Bytes forged_table(const std::function<void(std::vector<SectionEntry>&)>& change) {
  Bytes bytes = make_sample_engine().bytes();
  std::vector<SectionEntry> sections = sections_of(bytes);
  change(sections);
  forge(bytes, header_of(bytes), sections);
  return bytes;
}

// An engine whose plan says something else, hashes included.
Bytes forged_plan(const std::function<void(Spec&)>& change) {
  Bytes bytes = make_sample_engine().bytes();
  Spec spec = read(bytes)->spec;
  change(spec);
  const Bytes plan = encode_plan(spec);
  std::vector<SectionEntry> sections = sections_of(bytes);
  EXPECT_LE(sections[0].offset + plan.size(), sections[1].offset);
  std::ranges::copy(plan, bytes.begin() + static_cast<ptrdiff_t>(sections[0].offset));
  sections[0].size = plan.size();
  sections[0].hash = hash128(plan);
  forge(bytes, header_of(bytes), sections);
  return bytes;
}

TEST(HostileEngine, Foreign) {
  expect_invalid({}, "not a Kiln engine");
  expect_invalid(to_bytes("PK\3\4 a zip archive"), "not a Kiln engine");
  expect_invalid(to_bytes("KILN"), "truncated engine: 4 bytes");
  expect_invalid(Bytes(100000), "not a Kiln engine");
}

TEST(HostileEngine, Newer) {
  Bytes bytes = make_sample_engine().bytes();
  FileHeader header = header_of(bytes);
  header.format_version = kFormatVersion + 1;
  forge(bytes, header, sections_of(bytes));
  expect_invalid(bytes, "format version 3, this version of Kiln reads up to 2: a newer Kiln");
}

TEST(HostileEngine, Truncated) {
  const Bytes bytes = make_sample_engine().bytes();
  for (size_t size = 0; size < bytes.size(); ++size)
    ASSERT_EQ(read_status(std::span(bytes).first(size)).code(), StatusCode::InvalidEngine) << size;
}

TEST(HostileEngine, Extended) {
  Bytes bytes = make_sample_engine().bytes();
  bytes.push_back({});
  expect_invalid(bytes, "bytes, expected");
}

// Every byte is covered by a hash or is padding between sections.
TEST(HostileEngine, AnyByteChanged) {
  const Bytes bytes = make_sample_engine().bytes();
  const std::vector<SectionEntry> sections = sections_of(bytes);
  const size_t table_end = sizeof(FileHeader) + sections.size() * sizeof(SectionEntry);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bool covered = i < table_end;
    for (const SectionEntry& section : sections)
      covered |= i >= section.offset && i < section.offset + section.size;
    Bytes changed = bytes;
    changed[i] ^= std::byte{0x41};
    const Status status = read_status(changed);
    ASSERT_EQ(status.code(), covered ? StatusCode::InvalidEngine : StatusCode::Ok) << i;
  }
}

// Changed weights are noticed on request only.
TEST(HostileEngine, WeightsAreHashedOnRequest) {
  Bytes bytes = make_sample_engine().bytes();
  bytes[sections_of(bytes).back().offset] ^= std::byte{1};
  EXPECT_TRUE(read(bytes).ok());
  expect_invalid(bytes, "the weights does not match its hash");
}

TEST(HostileEngine, Header) {
  const auto forged = [](const std::function<void(FileHeader&)>& change) {
    Bytes bytes = make_sample_engine().bytes();
    FileHeader header = header_of(bytes);
    change(header);
    std::memcpy(bytes.data(), &header, sizeof(header));
    return bytes;
  };
  expect_invalid(forged([](FileHeader& h) { h.section_count = 0xffffffff; }), "sections");
  expect_invalid(forged([](FileHeader& h) { h.section_count = 3; }), "does not match its hash");
  expect_invalid(forged([](FileHeader& h) { h.file_size = 1; }), "bytes, expected 1");
  expect_invalid(forged([](FileHeader& h) { h.format_version = 0; }), "format version 0");
}

TEST(HostileEngine, SectionTable) {
  constexpr uint64_t kHuge = ~uint64_t{0};
  using Sections = std::vector<SectionEntry>;
  const auto refused = [](const std::function<void(Sections&)>& change, const char* message) {
    expect_invalid(forged_table(change), message);
  };
  refused([](Sections& s) { s[0].offset = 8; }, "the plan is out of place");
  refused([](Sections& s) { s[0].size = kHuge; }, "the plan is out of place");
  refused([](Sections& s) { s[3].offset = kHuge & ~uint64_t{4095}; },
          "the weights is out of place");
  refused([](Sections& s) { s[1].offset += 64; }, "the code 0 is out of place");
  refused([](Sections& s) { s[1].offset = s[2].offset; }, "is out of place");
  refused([](Sections& s) { s[1].index = 9; }, "the code 9 is one too many");
  refused([](Sections& s) { s[2].index = 0; }, "the code 0 is there twice");
  refused([](Sections& s) { s.pop_back(); }, "no weights");
  refused([](Sections& s) { s.erase(s.begin()); }, "no plan");
  refused([](Sections& s) { s.erase(s.begin() + 2); }, "1 code sections, expected 2");
}

TEST(HostileEngine, IgnoresSectionsOfLaterVersions) {
  Bytes bytes = make_sample_engine().bytes();
  std::vector<SectionEntry> sections = sections_of(bytes);
  // Moves the plan back by 48 bytes to make room for another entry, and appends the section.
  const auto plan = bytes.begin() + static_cast<ptrdiff_t>(sections[0].offset);
  std::copy_backward(plan, plan + static_cast<ptrdiff_t>(sections[0].size),
                     plan + static_cast<ptrdiff_t>(sections[0].size + 48));
  sections[0].offset += 48;
  sections.push_back({static_cast<SectionKind>(77), 0, bytes.size(), 32, {}});
  bytes.resize(bytes.size() + 32);
  FileHeader header = header_of(bytes);
  header.file_size = bytes.size();
  forge(bytes, header, sections);
  const Status status = read_status(bytes);
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST(HostileEngine, PlanThatIsNoFlatBuffer) {
  Bytes bytes = make_sample_engine().bytes();
  std::vector<SectionEntry> sections = sections_of(bytes);
  const auto plan = std::span(bytes).subspan(sections[0].offset, sections[0].size);
  for (size_t i = 0; i < plan.size(); ++i) {
    const std::byte before = plan[i];
    for (const int value : {0x00, 0x7f, 0x80, 0xff}) {
      plan[i] = static_cast<std::byte>(value);
      sections[0].hash = hash128(plan);
      forge(bytes, header_of(bytes), sections);
      const Status status = read_status(bytes);
      ASSERT_TRUE(status.ok() || status.code() == StatusCode::InvalidEngine) << i;
    }
    plan[i] = before;
  }
}

TEST(HostileEngine, SymbolsAndSizes) {
  const auto refused = [](const std::function<void(Spec&)>& change, const char* message) {
    expect_invalid(forged_plan(change), std::string("damaged engine: ") + message);
  };
  refused([](Spec& s) { s.symbols[0].input = 2; }, "symbol 0: its input dimension does not exist");
  refused([](Spec& s) { s.symbols[0].dim = -1; }, "symbol 0: its input dimension does not exist");
  refused([](Spec& s) { s.symbols[0].min = 33; }, "symbol 0: its range is not in order");
  refused([](Spec& s) { s.symbols[0].min = -1; }, "symbol 0: its range is not in order");
  for (const int64_t factor : {int64_t{0}, int64_t{-1}})
    refused([=](Spec& s) { s.symbols[0].factor = factor; },
            "symbol 0: its factor or offset is out of range");
  for (const int64_t offset : {(int64_t{1} << 60) + 1, -(int64_t{1} << 60) - 1})
    refused([=](Spec& s) { s.symbols[0].offset = offset; },
            "symbol 0: its factor or offset is out of range");
  refused([](Spec& s) { s.sizes[0].immediate = 1; }, "size 0: unknown symbol");
  refused([](Spec& s) { s.sizes[2].b = 2; }, "size 2: an operand is not an earlier size");
  refused([](Spec& s) { s.sizes[2].a = -1; }, "size 2: an operand is not an earlier size");
  refused([](Spec& s) { s.sizes[2].op = static_cast<SizeOp>(9); }, "size 2: unknown operation");
  refused([](Spec& s) { s.inputs[0].dtype = static_cast<DType>(10); }, "input 0: unknown dtype");
  refused([](Spec& s) { s.inputs[0].shape[0] = 99; }, "input 0: unknown size");
  refused([](Spec& s) { s.outputs[0].shape.assign(17, 0); }, "output 0: its rank is too high");
}

TEST(HostileEngine, BuffersAndSteps) {
  const auto refused = [](const std::function<void(Spec&)>& change, const char* message) {
    expect_invalid(forged_plan(change), std::string("damaged engine: ") + message);
  };
  refused([](Spec& s) { s.buffers[0].kind = static_cast<BufferKind>(4); },
          "buffer 0: unknown kind");
  refused([](Spec& s) { s.buffers[0].index = 2; }, "buffer 0: unknown input");
  refused([](Spec& s) { s.buffers[2].index = 1; }, "buffer 2: unknown output");
  refused([](Spec& s) { s.buffers[2].bytes = 5; }, "buffer 2: unknown size");
  refused([](Spec& s) { s.buffers[3].last_step = 2; }, "buffer 3: its lifetime is not");
  refused([](Spec& s) { s.buffers[3].first_step = 1; }, "step 0: it uses a temporary outside");
  refused([](Spec& s) { s.buffers[3].alias_of = 3; }, "buffer 3: it is an alias of itself");
  refused([](Spec& s) { s.buffers[3].alias_of = 0; }, "buffer 3: it aliases no temporary");
  refused([](Spec& s) { s.buffers[4].offset = 1; }, "buffer 4: it lies outside the weights");
  refused([](Spec& s) { s.buffers[4].offset = ~uint64_t{63}; }, "buffer 4: it lies outside");
  refused([](Spec& s) { s.buffers[4].constant_bytes = 65; }, "buffer 4: it lies outside");
  refused([](Spec& s) { s.steps[1].kernel = 2; }, "step 1: unknown kernel");
  refused([](Spec& s) { s.steps[1].buffers[0] = 5; }, "step 1: unknown buffer");
  refused([](Spec& s) { s.steps[1].params = {-1}; }, "step 1: unknown parameter");
  refused([](Spec& s) { s.steps[1].tasks = -1; }, "step 1: unknown number of tasks");
  refused([](Spec& s) { s.steps[1].min_tasks_per_thread = 0; }, "step 1: fewer than one task");
  refused([](Spec& s) { s.steps[1].scratch_bytes = -2; }, "step 1: unknown scratch size");
  const auto check = [](CheckSpec spec) { return [spec](Spec& s) { s.steps[1].checks = {spec}; }; };
  refused(check({"x", static_cast<CheckKind>(3), 0, -1}), "step 1: unknown kind of check");
  refused(check({"x", CheckKind::Index, 5, -1}), "step 1: unknown size of a check");
  refused(check({"x", CheckKind::IndexFromEnd, -1, -1}), "step 1: unknown size of a check");
  refused(check({"x", CheckKind::Nonzero, 0, -1}), "step 1: unknown size of a check");
  refused(check({"x", CheckKind::Index, 0, 2}), "step 1: unknown input of a check");
  refused(check({"x", CheckKind::Index, 0, -2}), "step 1: unknown input of a check");
  refused([](Spec& s) { s.steps[1].checks.resize(65, {"x", CheckKind::Nonzero, -1, -1}); },
          "step 1: it has more checks than a kernel has bits");
  refused([](Spec& s) { s.variants[1].entry = {0, 128}; },
          "variant 1: an entry point lies outside");
  refused([](Spec& s) { s.steps[1].writes = {-1, -1}; }, "step 1: it does not say of every buffer");
  refused([](Spec& s) { s.steps[1].writes[2] = 5; }, "step 1: unknown size of what a task writes");
  refused([](Spec& s) { s.steps[1].writes[2] = -2; }, "step 1: unknown size of what a task writes");
  refused([](Spec& s) { s.variants[1].entry = {0}; }, "variant 1: it has another number");
  refused([](Spec& s) { s.variants.pop_back(); }, "2 code sections, expected 1");
}

// Puts a forged plan in the place of the sample's, which is the first section and has room behind
// it where the file is made longer: the other sections move.
Bytes with_plan(std::span<const std::byte> plan) {
  const Bytes sample = make_sample_engine().bytes();
  std::vector<SectionEntry> sections = sections_of(sample);
  const uint64_t moved = align_up(sections[0].offset + plan.size(), kPageSize) - sections[1].offset;
  Bytes bytes(sample.size() + moved);
  std::ranges::copy(plan, bytes.begin() + static_cast<ptrdiff_t>(sections[0].offset));
  std::copy(sample.begin() + static_cast<ptrdiff_t>(sections[1].offset), sample.end(),
            bytes.begin() + static_cast<ptrdiff_t>(sections[1].offset + moved));
  for (size_t i = 1; i < sections.size(); ++i) sections[i].offset += moved;
  sections[0].size = plan.size();
  sections[0].hash = hash128(plan);
  FileHeader header = header_of(sample);
  header.file_size = bytes.size();
  forge(bytes, header, sections);
  return bytes;
}

// The uoffset at `place` as it must be to lead to `target`.
void point_to(const void* place, const void* target) {
  const auto offset = static_cast<uint32_t>(static_cast<const std::byte*>(target) -
                                            static_cast<const std::byte*>(place));
  std::memcpy(const_cast<void*>(place), &offset, sizeof(offset));
}

constexpr size_t kMany = 50000;

Spec spec_with_kernels() {
  Spec spec = make_sample_engine().spec;
  spec.kernels.assign(kMany, KernelSpec{"k", "loop_nest", {}, ""});
  spec.kernels[0].sources.assign(kMany, "s");
  return spec;
}

TEST(HostileEngine, WithPlanIsTheSampleAgain) {
  const Bytes bytes = with_plan(encode_plan(make_sample_engine().spec));
  EXPECT_TRUE(read_status(bytes).ok()) << read_status(bytes).message();
}

// 50,000 kernels share a list of 50,000 sources: 2.5 billion texts to verify, in a file of 3 MB.
TEST(HostileEngine, SharedListsOfSourcesAreRefusedBeforeTheyAreRead) {
  std::vector<std::byte> plan = encode_plan(spec_with_kernels());
  const auto& kernels = *fbs::GetPlan(plan.data())->kernels();
  const auto* list = kernels.Get(0)->sources();
  for (flatbuffers::uoffset_t i = 1; i < kernels.size(); ++i) {
    const auto* field = reinterpret_cast<const flatbuffers::Table*>(kernels.Get(i))
                            ->GetAddressOf(fbs::Kernel::VT_SOURCES);
    ASSERT_LT(static_cast<const void*>(field), static_cast<const void*>(list));
    point_to(field, list);
  }
  expect_invalid(with_plan(plan), "the plan is malformed");
}

// A list whose elements are all one table: 4 bytes each ask for a hundred.
TEST(HostileEngine, SharedTablesAreRefused) {
  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString("");
  const auto kernel = fbs::CreateKernel(builder, name, name);
  const std::vector<flatbuffers::Offset<fbs::Kernel>> many(kMany, kernel);
  const auto kernels = builder.CreateVector(many);
  fbs::PlanBuilder plan(builder);
  plan.add_kernels(kernels);
  fbs::FinishPlanBuffer(builder, plan.Finish());
  const Result<Spec> decoded =
      decode_plan(std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize())));
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.status().message(), "damaged engine: the plan is malformed");
}

}  // namespace
}  // namespace kiln::engine
