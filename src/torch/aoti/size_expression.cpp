#include "torch/aoti/size_expression.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <stdexcept>
#include <string>
#include <utility>

namespace kiln::aoti {
namespace {

std::runtime_error bad(std::string_view text, const char* expected) {
  return std::runtime_error("got the size \"" + std::string(text) + "\", expected " + expected);
}

template <typename Integer>
bool parse_integer(std::string_view text, Integer& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

[[noreturn]] void overflow(int64_t left, const char* function, int64_t right) {
  throw std::runtime_error("the size " + std::to_string(left) + " " + function + " " +
                           std::to_string(right) + " overflows");
}

int64_t multiply(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) overflow(a, "*", b);
  return result;
}

int64_t floor_div(int64_t a, int64_t b) {
  if (b == -1) return multiply(a, -1);
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t power(int64_t base, int64_t exponent) {
  if (exponent > 63 && base != 0 && base != 1 && base != -1) overflow(base, "**", exponent);
  if (exponent > 63) exponent = 62 + exponent % 2;  // the same for these
  int64_t result = 1;
  for (int64_t i = 0; i < exponent; ++i) {
    result = multiply(result, base);
  }
  return result;
}

}  // namespace

SizeExpression SizeExpression::parse(std::string_view text, std::span<const int32_t> ranks) {
  SizeExpression result;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    result.tokens_.push_back(parse_token(text.substr(begin, end - begin), ranks));
    begin = end + 1;
  }
  result.check_depth(text);
  return result;
}

SizeExpression::Token SizeExpression::parse_token(std::string_view text,
                                                  std::span<const int32_t> ranks) {
  static constexpr std::array<std::pair<std::string_view, Function>, 16> kFunctions{
      {{"+", Function::Add},
       {"-", Function::Sub},
       {"*", Function::Mul},
       {"//", Function::FloorDiv},
       {"%", Function::Mod},
       {"**", Function::Pow},
       {"max", Function::Max},
       {"min", Function::Min},
       {"==", Function::Equal},
       {"!=", Function::NotEqual},
       {"<", Function::Less},
       {"<=", Function::LessEqual},
       {">", Function::Greater},
       {">=", Function::GreaterEqual},
       {"and", Function::And},
       {"or", Function::Or}}};
  for (const auto& [name, function] : kFunctions) {
    if (text == name) {
      return {.kind = Kind::Apply, .function = function};
    }
  }
  Token token;
  if (text.starts_with('i')) {
    const size_t split = std::min(text.find('_'), text.size() - 1);
    token.kind = Kind::Size;
    if (!parse_integer(text.substr(1, split - 1), token.input) ||
        !parse_integer(text.substr(split + 1), token.dim) || token.input >= ranks.size() ||
        token.dim >= static_cast<size_t>(ranks[token.input])) {
      throw bad(text, "i<input>_<dim> of an input that there is");
    }
  } else if (!parse_integer(text, token.value)) {
    throw bad(text, "a number, i<input>_<dim> or a function");
  }
  return token;
}

void SizeExpression::check_depth(std::string_view text) const {
  size_t depth = 0;
  for (const Token& token : tokens_) {
    if (token.kind == Kind::Apply && depth < 2) {
      throw bad(text, "two operands before a function");
    }
    depth += token.kind == Kind::Apply ? size_t(-1) : 1;
    if (depth > kMaxDepth) {
      throw bad(text, "fewer operands");
    }
  }
  if (depth != 1) {
    throw bad(text, "one value");
  }
}

int64_t SizeExpression::evaluate(std::span<const kiln_tensor> inputs) const {
  std::array<int64_t, kMaxDepth> stack;
  size_t depth = 0;
  for (const Token& token : tokens_) {
    if (token.kind == Kind::Apply) {
      --depth;
      stack[depth - 1] = apply(token.function, stack[depth - 1], stack[depth]);
    } else {
      stack[depth++] =
          token.kind == Kind::Constant ? token.value : inputs[token.input].shape[token.dim];
    }
  }
  return stack[0];
}

std::vector<SizeExpression::Size> SizeExpression::sizes() const {
  std::vector<Size> result;
  for (const Token& token : tokens_) {
    const Size size{token.input, token.dim};
    if (token.kind == Kind::Size && std::ranges::find(result, size) == result.end()) {
      result.push_back(size);
    }
  }
  return result;
}

int64_t SizeExpression::apply(Function function, int64_t left, int64_t right) {
  if ((function == Function::FloorDiv || function == Function::Mod) && right == 0) {
    throw std::runtime_error("a size is divided by zero");
  }
  int64_t result = 0;
  switch (function) {
    case Function::Add:
      if (__builtin_add_overflow(left, right, &result)) overflow(left, "+", right);
      return result;
    case Function::Sub:
      if (__builtin_sub_overflow(left, right, &result)) overflow(left, "-", right);
      return result;
    case Function::Mul:
      return multiply(left, right);
    case Function::FloorDiv:
      return floor_div(left, right);
    case Function::Mod:
      return right == -1 ? 0 : left - floor_div(left, right) * right;
    case Function::Pow:
      return power(left, right);
    case Function::Max:
      return std::max(left, right);
    case Function::Min:
      return std::min(left, right);
    case Function::Equal:
      return left == right ? 1 : 0;
    case Function::NotEqual:
      return left != right ? 1 : 0;
    case Function::Less:
      return left < right ? 1 : 0;
    case Function::LessEqual:
      return left <= right ? 1 : 0;
    case Function::Greater:
      return left > right ? 1 : 0;
    case Function::GreaterEqual:
      return left >= right ? 1 : 0;
    case Function::And:
      return left != 0 && right != 0 ? 1 : 0;
    case Function::Or:
      return left != 0 || right != 0 ? 1 : 0;
  }
  return 0;
}

}  // namespace kiln::aoti
