// What is written to the memory of inputs: that it is right whatever the graph, and that a copy is made
// only where one is needed. What programs compute is checked by an interpreter that has an output in
// the memory of the input that it updates.
#include <gtest/gtest.h>

#include "plan/compare.h"
#include "plan/form/kernels.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

int stores_of(const Program& program, const Kernel& kernel, BufferId buffer) {
  const auto* nest = std::get_if<LoopNest>(&kernel.body);
  if (nest == nullptr) return 0;
  int count = 0;
  for (const Stage& stage : nest->stages) {
    const auto* store = std::get_if<Store>(&stage);
    count += store != nullptr && store->buffer == buffer;
  }
  EXPECT_EQ(program.buffers[buffer].kind, BufferKind::Output);
  return count;
}

// How many kernels a program has that copy a result to the memory of an input.
size_t copies(const Program& program) {
  size_t count = 0;
  for (const Kernel& kernel : program.kernels) count += kernel.name.starts_with("update_");
  return count;
}

const Scatter* scatter_of(const Program& program) {
  for (const Kernel& kernel : program.kernels)
    if (const auto* scatter = std::get_if<Scatter>(&kernel.body)) return scatter;
  return nullptr;
}

TEST(UpdateInputsTest, WritesOnlyWhatAScatterWrites) {
  const Program program = expect_same_as_reference(R"(
graph main(%c: f32[2, 9, 7], %i: i64[1, 3, 1], %v: f32[2, 3, 7]) {
  %n = scatter(%c, %i, %v) {axis = 1, combine = "replace"}
  %y = reduce_sum(%n) {axes = [1], keepdim = false}
  return %y as "y", %n as "n" updates %c
})");
  ASSERT_NE(scatter_of(program), nullptr);
  EXPECT_EQ(scatter_of(program)->initial, nullptr) << to_text(program);
  EXPECT_EQ(copies(program), 0u);
}

TEST(UpdateInputsTest, WritesOnlyTheSliceThatChanges) {
  const Program program = expect_same_as_reference(R"(
graph main(%c: f32[2, 9, 7], %v: f32[2, 3, 7]) {
  %a = slice(%c) {axis = 1, start = 0, size = 4, step = 1}
  %b = slice(%c) {axis = 1, start = 7, size = 2, step = 1}
  %n = concat(%a, %v, %b) {axis = 1}
  return %n as "n" updates %c
})");
  ASSERT_EQ(program.kernels.size(), 1u) << to_text(program);
  EXPECT_EQ(stores_of(program, program.kernels[0], program.outputs[0]), 1) << to_text(program);
}

TEST(UpdateInputsTest, ChangesLayersOfOneCacheOneAfterAnother) {
  const Program program = expect_same_as_reference(R"(
graph main(%c: f32[2, 9, 7], %v: f32[1, 1, 7], %i: i64[1, 1, 1]) {
  %c0 = slice(%c) {axis = 0, start = 0, size = 1, step = 1}
  %s0 = scatter(%c0, %i, %v) {axis = 1, combine = "replace"}
  %r0 = slice(%c) {axis = 0, start = 1, size = 1, step = 1}
  %a = concat(%s0, %r0) {axis = 0}
  %x0 = slice(%a) {axis = 0, start = 0, size = 1, step = 1}
  %y0 = reduce_max(%x0) {axes = [1], keepdim = true}
  %w = mul(%y0, %v)
  %c1 = slice(%a) {axis = 0, start = 1, size = 1, step = 1}
  %s1 = scatter(%c1, %i, %w) {axis = 1, combine = "replace"}
  %r1 = slice(%a) {axis = 0, start = 0, size = 1, step = 1}
  %n = concat(%r1, %s1) {axis = 0}
  return %n as "n" updates %c
})");
  EXPECT_EQ(copies(program), 0u) << to_text(program);
  for (const Kernel& kernel : program.kernels) {
    if (const auto* scatter = std::get_if<Scatter>(&kernel.body)) {
      EXPECT_EQ(scatter->initial, nullptr) << to_text(program);
    }
  }
}

TEST(UpdateInputsTest, WritesBehindThoseWhoReadTheOldValue) {
  const Program program = expect_same_as_reference(R"(
graph main(%c: f32[], %x: f32[4, 5]) {
  %one = full() {shape = [], dtype = f32, value = 1}
  %n = add(%c, %one)
  %y = mul(%x, %c)
  %s = softmax(%y) {axis = 1}
  return %s as "s", %n as "n" updates %c
})");
  EXPECT_EQ(copies(program), 0u) << to_text(program);
}

TEST(UpdateInputsTest, CopiesWhatNeedsTheOldValueWhileItIsWritten) {
  for (const char* text : {R"(
graph main(%c: f32[6, 6]) {
  %n = permute(%c) {axes = [1, 0]}
  return %n as "n" updates %c
})",
                           R"(
graph main(%c: f32[9, 7], %v: f32[1, 7]) {
  %a = slice(%c) {axis = 0, start = 1, size = 8, step = 1}
  %n = concat(%a, %v) {axis = 0}
  return %n as "n" updates %c
})"}) {
    EXPECT_EQ(copies(expect_same_as_reference(text)), 1u) << text;
  }
}

// One of the two is enough: the other goes first.
TEST(UpdateInputsTest, CopiesOneOfTwoThatChangePlaces) {
  const Program program = expect_same_as_reference(R"(
graph main(%a: f32[5], %b: f32[5]) {
  return %b as "x" updates %a, %a as "y" updates %b
})");
  EXPECT_EQ(copies(program), 1u) << to_text(program);
}

// A version in between has changed elements that the last one has from the input again.
TEST(UpdateInputsTest, PutsBackWhatAVersionBeforeChanged) {
  expect_same_as_reference(R"(
graph main(%c: f32[6, 7], %v: f32[3, 7]) {
  %r = slice(%c) {axis = 0, start = 3, size = 3, step = 1}
  %a = concat(%v, %r) {axis = 0}
  %e = exp(%a)
  %m = reduce_max(%e) {axes = [0], keepdim = false}
  %b = slice(%c) {axis = 0, start = 0, size = 2, step = 1}
  %d = slice(%a) {axis = 0, start = 2, size = 4, step = 1}
  %n = concat(%b, %d) {axis = 0}
  return %m as "m", %n as "n" updates %c
})");
}

TEST(UpdateInputsTest, LeavesAnInputThatStaysAsItIs) {
  const Program program = expect_same_as_reference(R"(
graph main(%c: f32[6]) {
  return %c as "n" updates %c
})");
  EXPECT_TRUE(program.kernels.empty()) << to_text(program);
}

TEST(UpdateInputsTest, IsRightForEveryTarget) {
  const char* const text = R"(
graph main(%c: f32[2, 9, 8], %t: f32[], %m: f32[8], %i: i64[1, 2, 1], %v: f32[2, 2, 8], %w: f32[8, 8]) {
  %one = full() {shape = [], dtype = f32, value = 1}
  %p = linear(%v, %w)
  %n = scatter(%c, %i, %p) {axis = 1, combine = "replace"}
  %s = softmax(%n) {axis = 2}
  %u = add(%t, %one)
  %y = mul(%s, %t)
  %q = linear(%y, %w)
  %r = reduce_mean(%q) {axes = [0, 1], keepdim = false}
  %k = add(%r, %m)
  %z = add(%q, %k)
  return %z as "z", %n as "n" updates %c, %u as "u" updates %t, %k as "k" updates %m
})";
  for (TargetTraits traits : other_traits()) {
    traits.places = true;
    const Program program = expect_same_as_reference(text, {.traits = traits});
    EXPECT_EQ(scatter_of(program)->initial, nullptr) << to_text(program);
  }
}

TEST(UpdateInputsTest, CannotBeLeftOut) { EXPECT_EQ(find_pass("update_inputs"), nullptr); }

}  // namespace
}  // namespace kiln::plan
