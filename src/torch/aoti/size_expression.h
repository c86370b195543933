// A size, or a condition on sizes, as arithmetic over the sizes of a package's inputs.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kiln/kiln.h"

namespace kiln::aoti {

// Written in postfix form with commas: "i0_1,2,*" is twice the size of dimension 1 of input 0.
class SizeExpression {
 public:
  // Functions are + - * // % ** max min == != < <= > >= and or with Python's meaning; conditions
  // are 1 or 0. Throws std::runtime_error for text that is none, or names an input or a dimension
  // beyond `ranks`.
  static SizeExpression parse(std::string_view text, std::span<const int32_t> ranks);

  // Throws std::runtime_error for a division by zero, and for what does not fit into 64 bits.
  int64_t evaluate(std::span<const kiln_tensor> inputs) const;

  // The sizes that it is made of, each once.
  struct Size {
    size_t input = 0, dim = 0;
    bool operator==(const Size&) const = default;
  };
  std::vector<Size> sizes() const;

 private:
  enum class Function {
    Add,
    Sub,
    Mul,
    FloorDiv,
    Mod,
    Pow,
    Max,
    Min,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or
  };
  enum class Kind { Constant, Size, Apply };
  struct Token {
    Kind kind = Kind::Constant;
    int64_t value = 0;
    size_t input = 0, dim = 0;
    Function function = Function::Add;
  };
  static constexpr size_t kMaxDepth = 64;

  static Token parse_token(std::string_view text, std::span<const int32_t> ranks);
  static int64_t apply(Function function, int64_t left, int64_t right);
  void check_depth(std::string_view text) const;

  std::vector<Token> tokens_;
};

}  // namespace kiln::aoti
