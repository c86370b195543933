// Engines with any number of programs, and with programs of versions and targets to come.
#include <gtest/gtest.h>

#include "engine/codec.h"
#include "engine/engine_generated.h"
#include "engine/forge.h"
#include "engine/reader.h"
#include "engine/sample_engine.h"
#include "engine/verify.h"
#include "engine/writer.h"

namespace kiln::engine {
namespace {

using kiln::testing::add_program;
using kiln::testing::assemble;
using kiln::testing::Bytes;
using kiln::testing::foreign_program;
using kiln::testing::forged_spec;
using kiln::testing::make_add_engine;
using kiln::testing::make_sample_engine;
using kiln::testing::Parts;
using kiln::testing::parts_of;
using kiln::testing::remove_program;
using kiln::testing::SampleEngine;

void expect_empty(const ProgramSpec& program) {
  EXPECT_TRUE(program.sizes.empty() && program.buffers.empty() && program.kernels.empty() &&
              program.steps.empty() && program.program_hash.empty());
}

TEST(EnginePrograms, AnyNumberButNone) {
  for (const size_t count : {size_t{1}, size_t{2}, size_t{5}, kMostPrograms}) {
    SampleEngine sample = make_add_engine();
    const ProgramSpec program = sample.spec.programs[1];
    while (sample.spec.programs.size() < count) add_program(sample, 2, program);
    while (sample.spec.programs.size() > count) remove_program(sample, 0);
    for (size_t i = 0; i < count; ++i)
      sample.spec.programs[i].variant = "level " + std::to_string(i);
    const Bytes bytes = sample.bytes();
    const Result<View> view = read(bytes, {.verify_weights = true});
    ASSERT_TRUE(view.ok()) << view.status().message();
    ASSERT_EQ(view->spec.programs.size(), count);
    EXPECT_EQ(view->sections.size(), 2 * count + 2);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(view->spec.programs[i].name(), "cpu:level " + std::to_string(i));
      EXPECT_EQ(view->spec.programs[i].steps.size(), 1u);
    }
    EXPECT_TRUE(verify(bytes).empty());
  }
}

TEST(EnginePrograms, NoneOrTooManyAreNotWritten) {
  SampleEngine sample = make_add_engine();
  const ProgramSpec program = sample.spec.programs[0];
  while (sample.spec.programs.size() <= kMostPrograms) add_program(sample, 0, program);
  EXPECT_EQ(write(sample.spec, sample.constants()).status().message(),
            "internal error: got 32 programs, expected at most 31");
  while (!sample.spec.programs.empty()) remove_program(sample, 0);
  EXPECT_EQ(write(sample.spec, sample.constants()).status().message(),
            "internal error: damaged engine: program 0: there is none");
}

TEST(EnginePrograms, ConstantsOfEveryProgramAreNeeded) {
  SampleEngine sample = make_sample_engine();
  std::vector<ProgramConstants> constants = sample.constants();
  constants[1].pop_back();
  EXPECT_EQ(write(sample.spec, constants).status().code(), StatusCode::Internal);
  constants.pop_back();
  EXPECT_EQ(write(sample.spec, constants).status().code(), StatusCode::Internal);
}

TEST(EnginePrograms, NamesOfFeaturesHaveNoSpaces) {
  for (const char* name : {"", "avx2 avx512", " "}) {
    SampleEngine sample = make_add_engine();
    sample.spec.programs[1].features = {name};
    EXPECT_EQ(write(sample.spec, sample.constants()).status().message(),
              "internal error: damaged engine: program 1: the name of a feature is empty or has a "
              "space");
  }
}

// Wherever it is: what it is called is known, and nothing else is.
TEST(EnginePrograms, AnUnknownTargetIsSkipped) {
  for (const size_t place : {0u, 1u, 2u}) {
    SampleEngine sample = make_sample_engine();
    add_program(sample, place, foreign_program());
    const Bytes bytes = sample.bytes();
    const Result<View> view = read(bytes, {.verify_weights = true});
    ASSERT_TRUE(view.ok()) << view.status().message();
    for (size_t i = 0; i < 3; ++i) {
      const ProgramSpec& program = view->spec.programs[i];
      if (i != place) {
        EXPECT_EQ(program.unknown, "");
        EXPECT_EQ(program.steps.size(), 2u);
        continue;
      }
      EXPECT_EQ(program.name(), "npu:n1");
      EXPECT_EQ(program.features, std::vector<std::string>{"tensor_cores"});
      EXPECT_EQ(program.unknown, "the target \"npu\"");
      expect_empty(program);
    }
    EXPECT_TRUE(verify(bytes).empty());
  }
}

TEST(EnginePrograms, NothingButAnUnknownTargetIsAnEngineToo) {
  SampleEngine sample = make_add_engine();
  while (!sample.spec.programs.empty()) remove_program(sample, 0);
  add_program(sample, 0, foreign_program());
  const Bytes bytes = sample.bytes();
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->spec.inputs.size(), 2u);
  EXPECT_EQ(view->spec.programs[0].unknown, "the target \"npu\"");
}

// Of a program for another target not even the tables are looked at, but their hashes are.
TEST(EnginePrograms, WhatAnUnknownTargetHasIsNotRead) {
  SampleEngine sample = make_sample_engine();
  add_program(sample, 0, foreign_program());
  Parts parts = parts_of(sample.bytes());
  parts.programs[0].assign(100, std::byte{0xff});
  Bytes bytes = assemble(parts);
  EXPECT_TRUE(read(bytes).ok());
  EXPECT_TRUE(verify(bytes).empty());
  bytes[read(bytes)->sections[1].offset] = std::byte{0};
  EXPECT_EQ(read(bytes).status().message(),
            "damaged engine: the program npu:n1 does not match its hash");
}

TEST(EnginePrograms, AProgramOfALaterVersionIsSkipped) {
  const Bytes bytes = forged_spec([](Spec& spec) {
    spec.programs[0].version = kProgramVersion + 1;
    spec.programs[0].steps[0].kernel = 77;
  });
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->spec.programs[0].unknown,
            "version " + std::to_string(kProgramVersion + 1) + " of programs");
  expect_empty(view->spec.programs[0]);
  EXPECT_EQ(view->spec.programs[1].unknown, "");
}

TEST(EnginePrograms, AProgramWithStepsOfAnUnknownKindIsSkipped) {
  const Bytes bytes =
      forged_spec([](Spec& spec) { spec.programs[1].steps[1].kind = static_cast<StepKind>(3); });
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->spec.programs[1].unknown, "the kind of step 1, 3");
  expect_empty(view->spec.programs[1]);
  EXPECT_EQ(view->spec.programs[0].steps.size(), 2u);
}

// Programs are read one by one: whoever runs the second does not look at the first.
TEST(EnginePrograms, ReadsNoMoreThanItIsAskedFor) {
  const Bytes bytes = forged_spec([](Spec& spec) { spec.programs[0].steps[0].kernel = 77; });
  EXPECT_EQ(read(bytes).status().message(),
            "damaged engine: cpu:x86-64-v4: step 0: unknown kernel");
  Result<View> view = read_interface(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  expect_empty(view->spec.programs[0]);
  expect_empty(view->spec.programs[1]);
  EXPECT_TRUE(read_program(*view, 1).ok());
  EXPECT_EQ(view->spec.programs[1].steps.size(), 2u);
  EXPECT_FALSE(read_program(*view, 0).ok());
  expect_empty(view->spec.programs[0]);
}

TEST(EnginePrograms, SizesOfAProgramContinueThoseOfTheInterface) {
  SampleEngine sample = make_sample_engine();
  const auto slots = static_cast<Slot>(sample.spec.sizes.size());
  sample.spec.programs[1].sizes = {{SizeOp::Constant, -1, -1, 2}, {SizeOp::Mul, slots, 0, 0}};
  sample.spec.programs[1].steps[0].params = {slots + 1, 0};
  const Bytes bytes = sample.bytes();
  const Result<View> view = read(bytes);
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->spec.sizes.size(), static_cast<size_t>(slots));
  ASSERT_EQ(view->spec.programs[1].sizes.size(), 2u);
  EXPECT_EQ(view->spec.programs[1].sizes[1].a, slots);
  EXPECT_EQ(view->spec.programs[1].steps[0].params, (std::vector<Slot>{slots + 1, 0}));
  // They are its own: neither the interface nor the other program has them.
  sample.spec.outputs[0].shape[0] = slots;
  EXPECT_EQ(write(sample.spec, sample.constants()).status().message(),
            "internal error: damaged engine: output 0: unknown size");
  sample = make_sample_engine();
  sample.spec.programs[1].sizes = {{SizeOp::Constant, -1, -1, 2}};
  sample.spec.programs[0].steps[0].tasks = slots;
  EXPECT_EQ(write(sample.spec, sample.constants()).status().message(),
            "internal error: damaged engine: cpu:x86-64-v4: step 0: unknown number of tasks");
}

// Fields that a later version appends to a table: a number, and a table of another kind.
void add_unknown_fields(flatbuffers::FlatBufferBuilder& builder,
                        flatbuffers::Offset<fbs::Symbol> other) {
  builder.AddElement<uint64_t>(flatbuffers::FieldIndexToOffset(40), 77, 0);
  builder.AddOffset(flatbuffers::FieldIndexToOffset(41), other);
}

template <typename Table>
Bytes finished(flatbuffers::FlatBufferBuilder& builder, flatbuffers::Offset<Table> root,
               const char* identifier) {
  builder.Finish(root, identifier);
  const auto bytes = std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize()));
  return {bytes.begin(), bytes.end()};
}

Bytes later_interface() {
  flatbuffers::FlatBufferBuilder builder;
  const auto other = fbs::CreateSymbol(builder, builder.CreateString("other"));
  const auto target = builder.CreateString("cpu");
  fbs::ProgramHeadBuilder head(builder);
  head.add_target(target);
  add_unknown_fields(builder, other);
  const auto programs = builder.CreateVector(std::vector{head.Finish()});
  const auto name = builder.CreateString("later");
  fbs::InterfaceBuilder interface(builder);
  interface.add_name(name);
  interface.add_programs(programs);
  add_unknown_fields(builder, other);
  return finished(builder, interface.Finish(), kInterfaceIdentifier);
}

Bytes later_program() {
  flatbuffers::FlatBufferBuilder builder;
  const auto other = fbs::CreateSymbol(builder, builder.CreateString("other"));
  const std::vector<fbs::SizeInstruction> one = {{1, -1, -1, 0}};
  const auto sizes = builder.CreateVectorOfStructs(one);
  fbs::KernelBuilder kernel(builder);
  kernel.add_entry(16);
  add_unknown_fields(builder, other);
  const auto kernels = builder.CreateVector(std::vector{kernel.Finish()});
  fbs::StepBuilder step(builder);
  step.add_tasks(0);
  add_unknown_fields(builder, other);
  const auto steps = builder.CreateVector(std::vector{step.Finish()});
  fbs::ProgramBuilder program(builder);
  program.add_sizes(sizes);
  program.add_kernels(kernels);
  program.add_steps(steps);
  add_unknown_fields(builder, other);
  return finished(builder, program.Finish(), kProgramIdentifier);
}

TEST(EnginePrograms, FieldsOfLaterVersionsAreSkipped) {
  const Parts parts{later_interface(), {later_program()}, {Bytes(64)}, Bytes()};
  const Bytes bytes = assemble(parts);
  const Result<View> view = read(bytes, {.verify_weights = true});
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->spec.name, "later");
  EXPECT_EQ(view->spec.programs[0].name(), "cpu");
  EXPECT_EQ(view->spec.programs[0].kernels[0].entry, 16u);
  EXPECT_EQ(view->spec.programs[0].steps[0].tasks, 0);
}

}  // namespace
}  // namespace kiln::engine
