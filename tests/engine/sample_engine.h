// A small engine made without the compiler, its machine code by hand:
//   sum = x + y             (x86-64-v3 subtracts instead, so that tests see which program runs)
//   out = sum * factor[0]
// with x, y and out f32 [batch, 4] and a batch of 1 to 32. All slots are those of the interface.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/spec.h"
#include "engine/writer.h"

namespace kiln::testing {

struct SampleEngine {
  engine::Spec spec;
  std::vector<std::vector<std::vector<std::byte>>> contents;  // of constants, by program and buffer

  std::vector<engine::ProgramConstants> constants() const;
  std::vector<std::byte> bytes() const;  // written
};

inline constexpr float kSampleFactor = 3.0f;

SampleEngine make_sample_engine();
// The same with filters of 8 columns and one channel, buffer 5 of 288 bytes, of which a load makes those of tiles of 4x4
// results, buffer 6. No step uses them.
SampleEngine make_winograd_engine();
// Without the multiplication: one step, no constant, no temporary.
SampleEngine make_add_engine();
// out[0..u] = z[0..u] + z[0..u], where the i64 u of 0 to 16 is in the bits of x + y; x and y are f32 [2], z is
// f32 [16]. Buffers: x, y, z, out, the size. Slots: 16, 4, u, 8, 64, u * 4.
SampleEngine make_data_size_engine();
// Adds a constant that no step uses to all programs.
void add_constant(SampleEngine& sample, const std::vector<std::byte>& content);
// Puts a program without contents of constants, or takes one out, at a place among the programs.
void add_program(SampleEngine& sample, size_t place, engine::ProgramSpec program);
void remove_program(SampleEngine& sample, size_t place);
// One for a target that Kiln does not know, with steps of an unknown kind that break its rules.
engine::ProgramSpec foreign_program();

// The baseline that tests run on has AVX2; does the first program run too?
bool cpu_runs_v4();

}  // namespace kiln::testing
