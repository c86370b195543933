// A small engine made without the compiler, its machine code by hand:
//   sum = x + y             (x86-64-v3 subtracts instead, so that tests see which variant runs)
//   out = sum * factor[0]
// with x, y and out f32 [batch, 4] and a batch of 1 to 32.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/spec.h"

namespace kiln::testing {

struct SampleEngine {
  engine::Spec spec;
  std::vector<std::vector<std::byte>> contents;  // of constants, by buffer

  std::vector<std::span<const std::byte>> constants() const;
  std::vector<std::byte> bytes() const;  // written
};

inline constexpr float kSampleFactor = 3.0f;

SampleEngine make_sample_engine();
// Without the multiplication: one step, no constant, no temporary.
SampleEngine make_add_engine();
// Adds a constant that no step uses.
void add_constant(SampleEngine& sample, std::vector<std::byte> content);

// The baseline that tests run on has AVX2; is the first variant usable too?
bool cpu_runs_v4();

}  // namespace kiln::testing
