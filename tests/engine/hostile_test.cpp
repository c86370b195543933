// Truncated, corrupted, foreign and forged engines: one clear error each, and never a crash.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

#include "engine/codec.h"
#include "engine/engine_generated.h"
#include "engine/forge.h"
#include "engine/format.h"
#include "engine/reader.h"
#include "engine/sample_engine.h"

namespace kiln::engine {
namespace {

using kiln::testing::assemble;
using kiln::testing::Bytes;
using kiln::testing::forged;
using kiln::testing::forged_spec;
using kiln::testing::forged_table;
using kiln::testing::header_of;
using kiln::testing::make_data_size_engine;
using kiln::testing::make_sample_engine;
using kiln::testing::make_winograd_engine;
using kiln::testing::Parts;
using kiln::testing::parts_of;
using kiln::testing::seal;
using kiln::testing::sections_of;

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
  seal(bytes, header, sections_of(bytes));
  expect_invalid(bytes, "format version 5, this version of Kiln reads up to 4: a newer Kiln");
}

TEST(HostileEngine, NeverReleased) {
  for (const uint32_t version : {0u, 1u, 2u}) {
    Bytes bytes = make_sample_engine().bytes();
    FileHeader header = header_of(bytes);
    header.format_version = version;
    seal(bytes, header, sections_of(bytes));
    expect_invalid(bytes, "which was never released: compile the model again");
  }
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

// Interface, two programs, their code, and weights.
TEST(HostileEngine, SectionTable) {
  constexpr uint64_t kHuge = ~uint64_t{0};
  using Sections = std::vector<SectionEntry>;
  const auto refused = [](const std::function<void(Sections&)>& change, const char* message) {
    expect_invalid(forged_table(change), message);
  };
  refused([](Sections& s) { s[0].offset = 8; }, "the interface is out of place");
  refused([](Sections& s) { s[0].size = kHuge; }, "the interface is out of place");
  refused([](Sections& s) { s[1].offset += 1; }, "the program 0 is out of place");
  refused([](Sections& s) { s[5].offset = kHuge & ~uint64_t{4095}; },
          "the weights is out of place");
  refused([](Sections& s) { s[3].offset += 64; }, "the code 0 is out of place");
  refused([](Sections& s) { s[3].offset = s[4].offset; }, "is out of place");
  refused([](Sections& s) { s[1].offset = s[2].offset; }, "is out of place");
  refused([](Sections& s) { s[3].index = 9; }, "the code 9 is one too many");
  refused([](Sections& s) { s[1].index = 2; }, "the program 2 is one too many");
  refused([](Sections& s) { s[4].index = 0; }, "the code 0 is there twice");
  refused([](Sections& s) { s[2].index = 0; }, "the program 0 is there twice");
  refused([](Sections& s) { s[2].kind = SectionKind::Interface; }, "the interface is there twice");
  refused([](Sections& s) { s.erase(s.begin()); }, "no interface");
  refused([](Sections& s) { s.erase(s.begin() + 4); }, "1 code sections, expected 2");
  refused([](Sections& s) { s.erase(s.begin() + 2); }, "1 program sections, expected 2");
  refused([](Sections& s) { s.resize(1); }, "0 program sections, expected 2");
  // Without weights it is a stripped engine, whose constants have no places.
  refused([](Sections& s) { s[0].hash = {}; }, "the interface does not match its hash");
  refused([](Sections& s) { s[2].hash = {}; }, "the program cpu:x86-64-v3 does not match its hash");
  refused([](Sections& s) { s[4].hash = {}; }, "the code cpu:x86-64-v3 does not match its hash");
}

TEST(HostileEngine, StrippedConstantsHaveNoPlaces) {
  expect_invalid(forged_spec([](Spec& s) { s.programs[0].buffers[4].offset = 64; }),
                 "buffer 4: it lies outside the weights");
  Parts parts = parts_of(forged_spec([](Spec& s) { s.programs[1].buffers[4].offset = 0; }));
  parts.weights.reset();
  EXPECT_TRUE(read_status(assemble(parts)).ok());
  Spec spec = make_sample_engine().spec;
  spec.programs[1].buffers[4].offset = 64;
  parts.programs[1] = encode_program(spec.programs[1]);
  expect_invalid(assemble(parts), "cpu:x86-64-v3: buffer 4: it lies outside the weights");
}

TEST(HostileEngine, IgnoresSectionsOfLaterVersions) {
  Bytes bytes = make_sample_engine().bytes();
  std::vector<SectionEntry> sections = sections_of(bytes);
  // Moves interface and programs back by 48 bytes to make room for another entry, and appends the
  // section.
  const auto begin = bytes.begin() + static_cast<ptrdiff_t>(sections[0].offset);
  const auto end = bytes.begin() + static_cast<ptrdiff_t>(sections[2].offset + sections[2].size);
  std::copy_backward(begin, end, end + 48);
  for (size_t i = 0; i < 3; ++i) sections[i].offset += 48;
  sections.push_back({static_cast<SectionKind>(77), 0, bytes.size(), 32, {}});
  bytes.resize(bytes.size() + 32);
  FileHeader header = header_of(bytes);
  header.file_size = bytes.size();
  seal(bytes, header, sections);
  const Status status = read_status(bytes);
  EXPECT_TRUE(status.ok()) << status.message();
}

// Four values for every byte of the interface and of a program.
TEST(HostileEngine, TablesThatAreNoFlatBuffers) {
  Bytes bytes = make_sample_engine().bytes();
  std::vector<SectionEntry> sections = sections_of(bytes);
  for (const size_t s : {0, 1}) {
    const auto table = std::span(bytes).subspan(sections[s].offset, sections[s].size);
    for (size_t i = 0; i < table.size(); ++i) {
      const std::byte before = table[i];
      for (const int value : {0x00, 0x7f, 0x80, 0xff}) {
        table[i] = static_cast<std::byte>(value);
        sections[s].hash = hash128(table);
        seal(bytes, header_of(bytes), sections);
        const Status status = read_status(bytes);
        ASSERT_TRUE(status.ok() || status.code() == StatusCode::InvalidEngine) << s << " " << i;
      }
      table[i] = before;
    }
    sections[s].hash = hash128(table);
  }
}

TEST(HostileEngine, SymbolsAndSizes) {
  const auto refused = [](const std::function<void(Spec&)>& change, const char* message) {
    expect_invalid(forged_spec(change), std::string("damaged engine: ") + message);
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
  refused([](Spec& s) { s.inputs[0].dtype = static_cast<DType>(kDTypeCount); },
          "input 0: unknown dtype");
  refused([](Spec& s) { s.inputs[0].shape[0] = 99; }, "input 0: unknown size");
  refused([](Spec& s) { s.outputs[0].shape.assign(17, 0); }, "output 0: its rank is too high");
  for (const engine::Slot slot : {99, -1})
    refused([=](Spec& s) { s.requirements = {{slot, RequirementKind::Sizes, "", "x"}}; },
            "requirement 0: unknown size");
  refused([](Spec& s) { s.requirements = {{0, static_cast<RequirementKind>(2), "", "x"}}; },
          "requirement 0: unknown kind");
}

TEST(HostileEngine, OutputsThatUpdateInputs) {
  const auto refused = [](const std::function<void(Spec&)>& change, const char* message) {
    const auto forge = [&](Spec& spec) {
      for (ProgramSpec& program : spec.programs) program.version = kProgramVersion;
      spec.outputs[0].updates = 0;
      change(spec);
    };
    expect_invalid(forged_spec(forge), std::string("damaged engine: ") + message);
  };
  for (const int32_t input : {2, -2, std::numeric_limits<int32_t>::max()})
    refused([=](Spec& s) { s.outputs[0].updates = input; },
            "output 0: it updates an unknown input");
  refused([](Spec& s) { s.outputs[0].dtype = DType::I32; },
          "output 0: it updates an input of another type");
  refused([](Spec& s) { std::swap(s.outputs[0].shape[0], s.outputs[0].shape[1]); },
          "output 0: it updates an input of another type");
  refused([](Spec& s) { s.outputs.push_back(s.outputs[0]); },
          "output 1: it updates an input that another one updates");
  refused([](Spec& s) { s.inputs[1].updates = 0; }, "input 1: it updates another");
  // Readers that know no updates would leave parts of the output as they find it.
  refused([](Spec& s) { s.programs[1].version = kPlainProgramVersion; },
          "program 1: its version has no outputs that update inputs");
}

TEST(HostileEngine, StepsThatRepeat) {
  const auto with = [](
                        std::vector<engine::RepeatSpec> repeats,
                        const std::function<void(ProgramSpec&)>& change = [](ProgramSpec&) {}) {
    return forged_spec([&](Spec& spec) {
      for (ProgramSpec& program : spec.programs) {
        program.version = kProgramVersion;
        // Four steps, of which the first makes the condition, buffer 3.
        program.steps = {program.steps[0], program.steps[1], program.steps[1], program.steps[1]};
        program.buffers[3].last_step = 3;
        program.repeats = repeats;
        change(program);
      }
    });
  };
  const auto refused = [&](const auto& bytes, const char* message) {
    expect_invalid(bytes, std::string("damaged engine: cpu:x86-64-v4: repeat ") + message);
  };
  EXPECT_TRUE(read_status(with({{1, 4, 3}, {1, 2, 3}, {2, 4, 3}})).ok());
  constexpr int32_t kLast = std::numeric_limits<int32_t>::max();
  for (const auto& [first, end] : {std::pair(0, 1), {-1, 2}, {1, 1}, {2, 1}, {1, 5}, {1, kLast}})
    refused(with({{first, end, 3}}), "0: it is no range of steps");
  refused(with({{1, 3, 3}, {2, 4, 3}}), "1: it ends behind the one that it is in");
  refused(with({{1, 2, 3}, {1, 4, 3}}), "1: it ends behind the one that it is in");
  refused(with({{2, 4, 3}, {1, 2, 3}}), "1: it is out of order");
  for (const int32_t buffer : {-1, 99, kLast}) refused(with({{1, 4, buffer}}), "0: unknown buffer");
  refused(with({{1, 4, 0}}), "0: its condition is not written");
  refused(with({{1, 4, 3}}, [](ProgramSpec& p) { p.version = kDataSizeProgramVersion; }),
          "0: the version of its program has none");
  const auto shorter = [](ProgramSpec& p) {
    p.steps[3] = p.steps[0];
    p.steps[3].buffers = {0, 1, 2};
    p.buffers[3].last_step = 2;
  };
  refused(with({{1, 4, 3}}, shorter), "0: its condition is not there all the time");
}

TEST(HostileEngine, SizesThatDependOnData) {
  const auto refused = [](const std::function<void(Spec&)>& change, const char* message) {
    expect_invalid(forged(make_data_size_engine(), change),
                   std::string("damaged engine: ") + message);
  };
  EXPECT_TRUE(read_status(forged(make_data_size_engine(), [](Spec&) {})).ok());
  refused([](Spec& s) { s.data_sizes[0].min = -1; }, "data size 0: its range is not in order");
  refused([](Spec& s) { s.data_sizes[0].opt = -1; }, "data size 0: its range is not in order");
  refused([](Spec& s) { s.data_sizes[0].bound = 99; }, "size 2: its bound is no earlier size");
  refused([](Spec& s) { s.data_sizes[0].bound = 2; }, "size 2: its bound is no earlier size");
  refused([](Spec& s) { s.data_sizes[0].bound = -2; }, "data size 0: unknown bound");
  refused([](Spec& s) { s.inputs[2].shape[0] = 2; }, "input 2: its shape depends on data");
  refused([](Spec& s) { s.data_sizes.clear(); }, "size 2: unknown symbol");
  refused([](Spec& s) { s.data_sizes.push_back(s.data_sizes[0]); },
          "cpu:x86-64-v4: data size 1: it has another number of them than the interface");
  refused([](Spec& s) { s.programs[1].version = kUpdateProgramVersion; },
          "program 1: its version has no sizes that depend on data");

  const auto broken = [&](const std::function<void(ProgramSpec&)>& change, const char* message) {
    refused([&](Spec& s) { change(s.programs[1]); },
            (std::string("cpu:x86-64-v3: ") + message).c_str());
  };
  for (const int32_t step : {0, -1, 3})
    broken([=](ProgramSpec& p) { p.data_sizes[0].step = step; },
           "data size 0: it is read out of order");
  for (const int32_t buffer : {5, -1})
    broken([=](ProgramSpec& p) { p.data_sizes[0].buffer = buffer; }, "data size 0: unknown buffer");
  broken([](ProgramSpec& p) { p.data_sizes[0].buffer = 0; },
         "data size 0: its buffer is not written");
  broken([](ProgramSpec& p) { p.data_sizes[0].buffer = 3; },
         "data size 0: its buffer's size depends on it");
  broken([](ProgramSpec& p) { p.data_sizes.clear(); }, "data size 0: it has another number");
  broken([](ProgramSpec& p) { p.buffers[4].bytes = 5; },
         "data size 0: its buffer's size depends on it");
  broken([](ProgramSpec& p) { p.data_sizes[0].step = 2; }, "data size 0: its buffer is not there");
  broken([](ProgramSpec& p) { p.steps[0].tasks = 2; }, "step 0: it uses a size that is not known");
  broken([](ProgramSpec& p) { p.steps[0].params = {5}; },
         "step 0: it uses a size that is not known");
  broken([](ProgramSpec& p) { p.steps[0].writes[2] = 5; },
         "step 0: it uses a size that is not known");
  broken([](ProgramSpec& p) { p.steps[0].buffers[1] = 3; },
         "step 0: it uses a size that is not known");
  broken(
      [](ProgramSpec& p) {
        p.buffers.push_back(p.buffers[4]);
        p.buffers[5].first_step = p.buffers[5].last_step = 1;
        p.buffers[5].alias_of = 4;
      },
      "buffer 5: it aliases one that begins with other sizes");
  // A program for a machine whose runs do not wait is passed over.
  const Result<View> view =
      read(forged(make_data_size_engine(), [](Spec& s) { s.programs[1].target = "cuda"; }));
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->spec.programs[1].unknown, "sizes that depend on data in a program for cuda");
}

TEST(HostileEngine, ConstantsThatALoadMakes) {
  const auto with = [](const std::function<void(ProgramSpec&)>& change) {
    return forged(make_winograd_engine(), [&](Spec& spec) { change(spec.programs[1]); });
  };
  const auto made = [&](const std::function<void(engine::WinogradSpec&)>& change) {
    return with([&](ProgramSpec& p) { change(p.buffers[6].winograd); });
  };
  const auto refused = [](const Bytes& bytes, const std::string& message) {
    expect_invalid(bytes, "damaged engine: cpu:x86-64-v3: buffer " + message);
  };
  const Status status = read_status(make_winograd_engine().bytes());
  EXPECT_TRUE(status.ok()) << status.message();
  constexpr int32_t kLast = std::numeric_limits<int32_t>::max();
  for (const int32_t buffer : {-2, 7, kLast})
    refused(made([=](auto& w) { w.filters = buffer; }), "6: it is made of an unknown buffer");
  for (const int32_t buffer : {0, 3, 6})
    refused(made([=](auto& w) { w.filters = buffer; }),
            "6: it is made of a buffer that is not in the weights");
  const std::string other = "6: it is made of filters of another size";
  refused(made([](auto& w) { w.filters = 4; }), other);
  for (const DType dtype : {DType::F64, DType::BF16, DType::I32, static_cast<DType>(200)})
    refused(made([=](auto& w) { w.dtype = dtype; }), other);
  for (const int32_t number : {-1, 0, 1, 2, 3, 65, kLast}) {
    refused(made([=](auto& w) { w.results = number; }), other);
    if (number != 1) refused(made([=](auto& w) { w.filter_step = number; }), other);
    if (number >= 1 && number <= 2) continue;  // panels of these widths are as large
    refused(made([=](auto& w) { w.width = number; }), other);
    refused(made([=](auto& w) { w.filter_width = number; }), other);
  }
  for (const int64_t number : {int64_t{-1}, int64_t{0}, int64_t{2}, int64_t{1} << 24,
                               int64_t{1} << 62, std::numeric_limits<int64_t>::max()})
    refused(made([=](auto& w) { w.channels = number; }), other);
  for (const int64_t number : {int64_t{-1}, int64_t{0}, int64_t{9}, int64_t{1} << 62})
    refused(made([=](auto& w) { w.outputs = number; }), other);
  refused(with([](ProgramSpec& p) { p.buffers[6].constant_bytes += 64; }), other);
  refused(with([](ProgramSpec& p) { p.buffers[5].constant_bytes -= 4; }), other);
  refused(with([](ProgramSpec& p) { p.buffers[6].offset = 64; }),
          "6: it is made by a load and lies in the weights");
  refused(with([](ProgramSpec& p) { p.version = engine::kCallProgramVersion; }),
          "6: the version of its program has no constants that a load makes");
  const auto view = engine::read(with([](ProgramSpec& p) { p.target = "cuda"; }));
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->spec.programs[1].unknown, "constants that a load makes in a program for cuda");
}

// Rules of programs, of which the second breaks them: each has its own.
TEST(HostileEngine, ProgramsBuffersAndSteps) {
  const auto refused = [](const std::function<void(ProgramSpec&)>& change, const char* message) {
    expect_invalid(forged_spec([&](Spec& spec) { change(spec.programs[1]); }),
                   std::string("damaged engine: cpu:x86-64-v3: ") + message);
  };
  refused([](ProgramSpec& p) { p.sizes = {{SizeOp::Add, 0, 5, 0}}; },
          "size 5: an operand is not an earlier size");
  refused([](ProgramSpec& p) { p.sizes = {{SizeOp::Constant}, {SizeOp::Mul, 5, -1, 0}}; },
          "size 6: an operand is not an earlier size");
  refused([](ProgramSpec& p) { p.sizes = {{SizeOp::Symbol, -1, -1, 1}}; },
          "size 5: unknown symbol");
  refused([](ProgramSpec& p) { p.sizes = {{static_cast<SizeOp>(9)}}; },
          "size 5: unknown operation");
  refused([](ProgramSpec& p) { p.buffers[0].kind = static_cast<BufferKind>(4); },
          "buffer 0: unknown kind");
  refused([](ProgramSpec& p) { p.buffers[0].index = 2; }, "buffer 0: unknown input");
  refused([](ProgramSpec& p) { p.buffers[2].index = 1; }, "buffer 2: unknown output");
  refused([](ProgramSpec& p) { p.buffers[2].bytes = 5; }, "buffer 2: unknown size");
  refused([](ProgramSpec& p) { p.buffers[3].last_step = 2; }, "buffer 3: its lifetime is not");
  refused([](ProgramSpec& p) { p.buffers[3].first_step = 1; },
          "step 0: it uses a temporary outside");
  refused([](ProgramSpec& p) { p.buffers[3].alias_of = 3; }, "buffer 3: it is an alias of itself");
  refused([](ProgramSpec& p) { p.buffers[3].alias_of = 0; }, "buffer 3: it aliases no temporary");
  refused([](ProgramSpec& p) { p.buffers[4].offset = 1; }, "buffer 4: it lies outside the weights");
  refused([](ProgramSpec& p) { p.buffers[4].offset = ~uint64_t{63}; }, "buffer 4: it lies outside");
  refused([](ProgramSpec& p) { p.buffers[4].constant_bytes = 65; }, "buffer 4: it lies outside");
  refused([](ProgramSpec& p) { p.steps[1].kernel = 2; }, "step 1: unknown kernel");
  refused([](ProgramSpec& p) { p.steps[1].buffers[0] = 5; }, "step 1: unknown buffer");
  refused([](ProgramSpec& p) { p.steps[1].params = {-1}; }, "step 1: unknown parameter");
  refused([](ProgramSpec& p) { p.steps[1].tasks = -1; }, "step 1: unknown number of tasks");
  refused([](ProgramSpec& p) { p.steps[1].min_tasks_per_thread = 0; },
          "step 1: fewer than one task");
  refused([](ProgramSpec& p) { p.steps[1].scratch_bytes = -2; }, "step 1: unknown scratch size");
  const auto check = [](CheckSpec spec) {
    return [spec](ProgramSpec& p) { p.steps[1].checks = {spec}; };
  };
  refused(check({"x", static_cast<CheckKind>(3), 0, -1}), "step 1: unknown kind of check");
  refused(check({"x", CheckKind::Index, 5, -1}), "step 1: unknown size of a check");
  refused(check({"x", CheckKind::IndexFromEnd, -1, -1}), "step 1: unknown size of a check");
  refused(check({"x", CheckKind::Nonzero, 0, -1}), "step 1: unknown size of a check");
  refused(check({"x", CheckKind::Index, 0, 2}), "step 1: unknown input of a check");
  refused(check({"x", CheckKind::Index, 0, -2}), "step 1: unknown input of a check");
  refused([](ProgramSpec& p) { p.steps[1].checks.resize(65, {"x", CheckKind::Nonzero, -1, -1}); },
          "step 1: it has more checks than a kernel has bits");
  refused([](ProgramSpec& p) { p.kernels[1].entry = 128; },
          "kernel 1: its entry point lies outside the code");
  refused([](ProgramSpec& p) { p.kernels[1].entry = kNoEntry; },
          "step 1: its kernel has no entry point");
  refused([](ProgramSpec& p) { p.kernels.pop_back(); }, "step 1: unknown kernel");
  refused([](ProgramSpec& p) { p.code = p.code.first(p.kernels[1].entry); },
          "kernel 1: its entry point lies outside the code");
  refused([](ProgramSpec& p) { p.steps[1].writes = {-1, -1}; },
          "step 1: it does not say of every buffer");
  refused([](ProgramSpec& p) { p.steps[1].writes[2] = 5; },
          "step 1: unknown size of what it writes");
  refused([](ProgramSpec& p) { p.steps[1].writes[2] = -2; },
          "step 1: unknown size of what it writes");
  refused([](ProgramSpec& p) { p.steps[1].writes.clear(); },
          "step 1: it does not say of every buffer what it writes");
}

StepSpec make_launch() {
  StepSpec step;
  step.kind = StepKind::Launch;
  step.kernel = 0;
  step.launch = {{0, 1}, {1}, 4};
  return step;
}

TEST(HostileEngine, LaunchesAndCalls) {
  const auto with_step = [](const StepSpec& step, const char* function) {
    return forged_spec([&](Spec& spec) {
      ProgramSpec& program = spec.programs[1];
      program.kernels[0].function = function;
      program.buffers.pop_back();  // the constant, and the temporary's steps
      program.buffers.pop_back();
      program.steps = {step};
    });
  };
  const auto refused = [&](const std::function<void(StepSpec&)>& change, const char* message) {
    StepSpec step = make_launch();
    change(step);
    expect_invalid(with_step(step, "f"),
                   std::string("damaged engine: cpu:x86-64-v3: step 0: ") + message);
  };
  const Bytes sound = with_step(make_launch(), "f");
  EXPECT_TRUE(read_status(sound).ok()) << read_status(sound).message();
  refused([](StepSpec& s) { s.launch.grid = {}; }, "its grid or block has not 1 to 3 sizes");
  refused([](StepSpec& s) { s.launch.grid = {0, 0, 0, 0}; }, "its grid or block has not");
  refused([](StepSpec& s) { s.launch.block = {}; }, "its grid or block has not 1 to 3 sizes");
  refused([](StepSpec& s) { s.launch.block = {5}; }, "unknown size of a grid or block");
  refused([](StepSpec& s) { s.launch.grid = {-1}; }, "unknown size of a grid or block");
  refused([](StepSpec& s) { s.launch.shared_bytes = 5; }, "unknown size of shared memory");
  refused([](StepSpec& s) { s.launch.shared_bytes = -2; }, "unknown size of shared memory");
  refused([](StepSpec& s) { s.scratch_bytes = 99; }, "unknown scratch size");
  refused([](StepSpec& s) { s.kernel = 2; }, "unknown kernel");
  expect_invalid(with_step(make_launch(), ""), "step 0: its kernel has no function");
  StepSpec call = make_launch();
  call.kind = StepKind::Call;
  EXPECT_TRUE(read_status(with_step(call, "f")).ok());
  expect_invalid(with_step(call, ""), "step 0: its kernel has no function");
}

// Step 0 of a CPU's program as a call: its buffers are an input, the other input and the output.
TEST(HostileEngine, CallsOfACpu) {
  const auto refused = [](const std::function<void(Spec&, ProgramSpec&, StepSpec&)>& change,
                          const char* message) {
    const auto bytes = forged_spec([&](Spec& spec) {
      ProgramSpec& program = spec.programs[1];
      program.version = kProgramVersion;
      program.kernels[0].function = "my::op {}";
      const auto first = static_cast<engine::Slot>(spec.sizes.size() + program.sizes.size());
      program.sizes.push_back({.op = engine::SizeOp::Constant, .immediate = 0});
      program.sizes.push_back({.op = engine::SizeOp::Constant, .immediate = 1});
      StepSpec& step = program.steps[0];
      step.kind = StepKind::Call;
      step.buffers = {0, 1, 3};
      step.writes = {-1, -1, 0};
      step.params = {first, first + 1, 0, first, first + 1, 0, first, first + 1, 0};
      program.buffers[3].first_step = 0;
      change(spec, program, step);
    });
    if (*message == 0)
      EXPECT_TRUE(read_status(bytes).ok()) << read_status(bytes).message();
    else
      expect_invalid(bytes, std::string("damaged engine: cpu:x86-64-v3: step 0: ") + message);
  };
  const auto step = [&](const std::function<void(StepSpec&)>& change, const char* message) {
    refused([&](Spec&, ProgramSpec&, StepSpec& s) { change(s); }, message);
  };
  step([](StepSpec&) {}, "");
  step([](StepSpec& s) { s.params.pop_back(); }, "its call has another number of sizes");
  step([](StepSpec& s) { s.params.push_back(0); }, "its call has another number of sizes");
  step([](StepSpec& s) { s.params.clear(); }, "a tensor of its call has no");
  step([](StepSpec& s) { s.params[0] = 0; }, "a tensor of its call has no dtype");
  step([](StepSpec& s) { s.params[1] = 0; }, "a tensor of its call has no rank");
  step([](StepSpec& s) { s.buffers = {3, 0, 1}, s.writes = {0, -1, -1}; },
       "its call reads a tensor behind one");
  step([](StepSpec& s) { s.writes = {-1, 0, 0}; }, "its call writes an input or a constant");
  step([](StepSpec& s) { s.buffers[1] = 3; }, "its call writes a tensor that it has twice");
  for (const int64_t bad : {int64_t{-1}, int64_t{99}, std::numeric_limits<int64_t>::max()}) {
    refused([=](Spec&, ProgramSpec& p, StepSpec&) { p.sizes.end()[-2].immediate = bad; },
            "a tensor of its call has no dtype");
    refused([=](Spec&, ProgramSpec& p, StepSpec&) { p.sizes.back().immediate = bad; },
            "a tensor of its call has no rank");
  }
}

TEST(HostileEngine, ProgramsThatAreMissingOrNameless) {
  const auto refused = [](const std::function<void(Spec&)>& change, const char* message) {
    expect_invalid(forged_spec(change), message);
  };
  refused([](Spec& s) { s.programs.clear(); }, "damaged engine: program 0: there is none");
  refused([](Spec& s) { s.programs[1].target.clear(); }, "program 1: it says no target");
  Parts parts = parts_of(make_sample_engine().bytes());
  parts.programs.pop_back();
  expect_invalid(assemble(parts), "1 program sections, expected 2");
  parts.code.pop_back();
  expect_invalid(assemble(parts), "1 program sections, expected 2");
  parts = parts_of(make_sample_engine().bytes());
  std::swap(parts.programs[0], parts.interface);
  expect_invalid(assemble(parts), "the interface is malformed");
  parts = parts_of(make_sample_engine().bytes());
  parts.programs[1].clear();
  expect_invalid(assemble(parts), "the program cpu:x86-64-v3 is malformed");
}

// The uoffset at `place` as it must be to lead to `target`.
void point_to(const void* place, const void* target) {
  const auto offset = static_cast<uint32_t>(static_cast<const std::byte*>(target) -
                                            static_cast<const std::byte*>(place));
  std::memcpy(const_cast<void*>(place), &offset, sizeof(offset));
}

constexpr size_t kMany = 50000;

Bytes with_program(const Bytes& program) {
  Parts parts = parts_of(make_sample_engine().bytes());
  parts.programs[1] = program;
  return assemble(parts);
}

TEST(HostileEngine, AssembledFromItsPartsItIsTheSampleAgain) {
  const Bytes sample = make_sample_engine().bytes();
  EXPECT_EQ(assemble(parts_of(sample)), sample);
}

// 50,000 kernels share a list of 50,000 sources: 2.5 billion texts to verify, in a file of 3 MB.
TEST(HostileEngine, SharedListsOfSourcesAreRefusedBeforeTheyAreRead) {
  ProgramSpec many = make_sample_engine().spec.programs[1];
  many.kernels.assign(kMany, KernelSpec{"k", "loop_nest", {}, "", 0, ""});
  many.kernels[0].sources.assign(kMany, "s");
  Bytes program = encode_program(many);
  const auto& kernels = *flatbuffers::GetRoot<fbs::Program>(program.data())->kernels();
  const auto* list = kernels.Get(0)->sources();
  for (flatbuffers::uoffset_t i = 1; i < kernels.size(); ++i) {
    const auto* field = reinterpret_cast<const flatbuffers::Table*>(kernels.Get(i))
                            ->GetAddressOf(fbs::Kernel::VT_SOURCES);
    ASSERT_LT(static_cast<const void*>(field), static_cast<const void*>(list));
    point_to(field, list);
  }
  expect_invalid(with_program(program), "the program cpu:x86-64-v3 is malformed");
}

Bytes finished(flatbuffers::FlatBufferBuilder& builder) {
  const auto bytes = std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize()));
  return {bytes.begin(), bytes.end()};
}

// A list whose elements are all one table: 4 bytes each ask for a hundred.
TEST(HostileEngine, SharedTablesAreRefused) {
  flatbuffers::FlatBufferBuilder kernels_builder;
  const auto name = kernels_builder.CreateString("");
  const auto kernel = fbs::CreateKernel(kernels_builder, name, name);
  const auto kernels =
      kernels_builder.CreateVector(std::vector<flatbuffers::Offset<fbs::Kernel>>(kMany, kernel));
  fbs::ProgramBuilder program(kernels_builder);
  program.add_kernels(kernels);
  kernels_builder.Finish(program.Finish(), kProgramIdentifier);
  expect_invalid(with_program(finished(kernels_builder)), "the program cpu:x86-64-v3 is malformed");

  flatbuffers::FlatBufferBuilder heads_builder;
  const auto head = fbs::CreateProgramHead(heads_builder, heads_builder.CreateString("cpu"));
  const auto heads =
      heads_builder.CreateVector(std::vector<flatbuffers::Offset<fbs::ProgramHead>>(kMany, head));
  fbs::InterfaceBuilder interface(heads_builder);
  interface.add_programs(heads);
  heads_builder.Finish(interface.Finish(), kInterfaceIdentifier);
  Parts parts = parts_of(make_sample_engine().bytes());
  parts.interface = finished(heads_builder);
  expect_invalid(assemble(parts), "the interface is malformed");
}

}  // namespace
}  // namespace kiln::engine
