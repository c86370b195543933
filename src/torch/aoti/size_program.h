// The size program of a package (support/size_arithmetic.h): what is computed from the sizes of its
// inputs.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kiln/kiln.h"
#include "support/size_arithmetic.h"

namespace kiln::aoti {

// A dimension of an input.
struct InputSize {
  size_t input = 0, dim = 0;
  auto operator<=>(const InputSize&) const = default;
};

struct SizeOperand {
  enum class Kind { Constant, Size, Result };

  Kind kind = Kind::Constant;
  int64_t constant = 0;
  InputSize size;
  size_t instruction = 0;  // whose result it is
};

class SizeProgram {
 public:
  // `ranks` are those of the inputs.
  explicit SizeProgram(std::vector<int32_t> ranks = {}) : ranks_(std::move(ranks)) {}

  // Appends an instruction. Throws std::runtime_error for a function that there is not, and as
  // `operand` does.
  void add(std::string_view function, std::string_view left, std::string_view right);
  // Throws std::runtime_error for text that is not an operand, and for an input, a dimension or a
  // result that there is not.
  SizeOperand operand(std::string_view text) const;

  // The sizes of inputs that an operand is made of, each once, in order.
  std::vector<InputSize> sizes_of(const SizeOperand& operand) const;

 private:
  friend class SizeValues;
  struct Instruction {
    SizeFunction function = SizeFunction::Add;
    SizeOperand left, right;
  };

  std::vector<int32_t> ranks_;
  std::vector<Instruction> instructions_;
};

// What a program gives for one set of inputs, which have the program's ranks.
class SizeValues {
 public:
  SizeValues(const SizeProgram& program, std::span<const kiln_tensor> inputs);

  // Nothing where it overflows or divides by zero.
  SizeValue find(const SizeOperand& operand) const;
  // Throws std::runtime_error there.
  int64_t get(const SizeOperand& operand) const;

 private:
  std::span<const kiln_tensor> inputs_;
  std::vector<SizeValue> results_;
};

}  // namespace kiln::aoti
