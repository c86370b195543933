// The sizes of an engine's inputs and outputs as text: a size program over the sizes of the inputs
// (support/size_arithmetic.h), in which every instruction is written once.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/spec.h"
#include "support/json_writer.h"

namespace kiln::runtime {

class SizeText {
 public:
  // `spec` was checked by the reader and outlives this.
  explicit SizeText(const engine::Spec& spec);

  // Longer than any operand, which has at most two numbers of 20 characters; ends with 0.
  using Operand = std::array<char, 48>;

  // Of a size of an input or output: "16", "i0_1", "u0" (the data size of that number) or "#2".
  Operand operand(engine::Slot slot) const;
  // ["add i0_1 1", ...]
  void write_instructions(JsonWriter& json) const;

 private:
  bool is_data_size(const engine::SizeInstruction& size) const;
  const engine::SymbolSpec& symbol(const engine::SizeInstruction& size) const;

  const engine::Spec& spec_;
  std::vector<int32_t> results_;  // by slot: the instruction that gives it, or kNone
};

}  // namespace kiln::runtime
