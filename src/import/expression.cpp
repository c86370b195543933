#include "import/expression.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "support/error.h"

namespace kiln::import {
namespace {

using ir::Dim;

constexpr int kMaxDepth = 64;
constexpr int64_t kMaxExponent = 16;
// Coefficients stay far from overflow: |value| is bounded by the `magnitude` kept with every
// subexpression.
constexpr double kMaxMagnitude = 0x1p59;

// numerator / denominator: sympy writes (s + 1) // 2 as floor(Add(Mul(Rational(1, 2), s),
// Rational(1, 2))).
struct Fraction {
  Dim numerator;
  int64_t denominator = 1;
  double magnitude = 0;  // of the numerator with every symbol 1: the sum of the coefficients
};

// 1 if value is 0, or else 0.
Dim is_zero(const Dim& value) { return Dim(1) - ir::min(ir::max(value, -value), 1); }
// 1 if value is 0 or more, or else 0.
Dim is_not_negative(const Dim& value) { return ir::min(ir::max(value + 1, 0), 1); }
// 1 if value is not 0, or else 0.
Dim truth(const Dim& value) {
  const bool is_truth = value.lower_bound() >= 0 && value.upper_bound() <= 1;
  return is_truth ? value : Dim(1) - is_zero(value);
}

// 1 or 0 for the comparison of a number with 0, by its class in sympy; nothing for another class.
std::optional<Dim> compare_with_zero(std::string_view relation, const Dim& value) {
  if (relation == "Equality") return is_zero(value);
  if (relation == "Unequality") return Dim(1) - is_zero(value);
  if (relation == "GreaterThan") return is_not_negative(value);
  if (relation == "StrictGreaterThan") return is_not_negative(value - 1);
  if (relation == "LessThan") return is_not_negative(-value);
  if (relation == "StrictLessThan") return is_not_negative(-value - 1);
  return std::nullopt;
}

class Parser {
 public:
  // `conditions`: those are expressions as well.
  Parser(std::string_view text, const SymbolLookup& lookup, bool conditions = false)
      : text_(text), lookup_(lookup), conditions_(conditions) {}

  Dim parse() {
    const Fraction value = expression();
    skip_spaces();
    if (position_ != text_.size()) fail("text after the expression");
    return integer(value);
  }

 private:
  [[noreturn]] void fail(const std::string& got) const {
    throw CompileError("[size] got " + got + " in \"" + std::string(text_.substr(0, 200)) +
                       "\", expected a size expression of torch.export");
  }

  void skip_spaces() {
    while (position_ < text_.size() && text_[position_] == ' ') ++position_;
  }

  bool accept(char c) {
    skip_spaces();
    if (position_ >= text_.size() || text_[position_] != c) return false;
    ++position_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) fail("no '" + std::string(1, c) + "' at " + std::to_string(position_));
  }

  std::string_view word() {
    skip_spaces();
    const size_t start = position_;
    while (
        position_ < text_.size() &&
        (std::isalnum(static_cast<unsigned char>(text_[position_])) || text_[position_] == '_')) {
      ++position_;
    }
    return text_.substr(start, position_ - start);
  }

  int64_t number() {
    skip_spaces();
    int64_t value = 0;
    const char* begin = text_.data() + position_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) fail("no number at " + std::to_string(position_));
    position_ += end - begin;
    return value;
  }

  Fraction make(Dim numerator, int64_t denominator, double magnitude) const {
    if (!(magnitude < kMaxMagnitude) || std::abs(static_cast<double>(denominator)) >= 0x1p31) {
      fail("too large a number");
    }
    return {std::move(numerator), denominator, magnitude};
  }

  Fraction constant(int64_t value) const {
    const double magnitude = std::abs(static_cast<double>(value));
    if (!(magnitude < kMaxMagnitude)) fail("too large a number");
    return make(Dim(value), 1, magnitude);
  }

  // Symbol('s0', positive=True, integer=True): the assumptions are torch's own.
  Fraction symbol() {
    expect('(');
    expect('\'');
    const size_t end = text_.find('\'', position_);
    if (end == std::string_view::npos) fail("an unterminated name");
    const std::string_view name = text_.substr(position_, end - position_);
    position_ = end + 1;
    while (accept(',')) {
      word();
      expect('=');
      word();
    }
    expect(')');
    const Dim dim = lookup_(name);
    double magnitude = 0;
    for (const ir::Term& term : dim.terms()) {
      magnitude += std::abs(static_cast<double>(term.coefficient));
    }
    return make(dim, 1, magnitude);
  }

  Fraction literal(std::string_view kind) {
    expect('(');
    const Fraction numerator = constant(number());
    if (kind == "Integer") {
      expect(')');
      return numerator;
    }
    expect(',');
    const int64_t denominator = number();
    expect(')');
    if (denominator < 1) fail("a denominator of " + std::to_string(denominator));
    return make(numerator.numerator, denominator, numerator.magnitude);
  }

  // Float('1.5', precision=53), a whole number over a small power of two: products with sizes are exact in doubles, too.
  Fraction floating() {
    expect('(');
    expect('\'');
    double value = 0;
    const char* begin = text_.data() + position_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) fail("no number at " + std::to_string(position_));
    position_ += end - begin;
    expect('\'');
    while (accept(',')) {
      word();
      expect('=');
      word();
    }
    expect(')');
    constexpr int64_t kMaxDenominator = 1 << 16;
    int64_t denominator = 1;
    while (value != std::floor(value) && denominator < kMaxDenominator) {
      value *= 2;
      denominator *= 2;
    }
    if (value != std::floor(value) || !(std::abs(value) < 0x1p31)) fail("a fraction");
    return make(Dim(static_cast<int64_t>(value)), denominator, std::abs(value));
  }

  std::vector<Fraction> arguments() {
    std::vector<Fraction> result;
    expect('(');
    if (accept(')')) return result;
    do {
      // Keyword arguments such as evaluate=False do not change the value.
      const size_t start = position_;
      if (!word().empty() && accept('=')) {
        word();
        continue;
      }
      position_ = start;
      result.push_back(expression());
    } while (accept(','));
    expect(')');
    return result;
  }

  Fraction add(const Fraction& a, const Fraction& b) const {
    if (a.denominator == b.denominator) {
      return make(a.numerator + b.numerator, a.denominator, a.magnitude + b.magnitude);
    }
    const double magnitude = a.magnitude * b.denominator + b.magnitude * a.denominator;
    make(Dim(0), 1, magnitude);
    return make(a.numerator * b.denominator + b.numerator * a.denominator,
                a.denominator * b.denominator, magnitude);
  }

  Fraction multiply(const Fraction& a, const Fraction& b) const {
    const double magnitude = a.magnitude * b.magnitude;
    make(Dim(0), 1, magnitude);
    return make(a.numerator * b.numerator, a.denominator * b.denominator, magnitude);
  }

  // The value as a Dim, if it is an integer for all sizes.
  Dim integer(const Fraction& value) const {
    if (value.denominator == 1) return value.numerator;
    if (!ir::provably_divisible(value.numerator, value.denominator)) fail("a fraction");
    return ir::floordiv(value.numerator, value.denominator);
  }

  Fraction power(const Fraction& base, const Fraction& exponent) const {
    const Dim count = integer(exponent);
    if (!count.is_constant() || count.constant() < 0 || count.constant() > kMaxExponent) {
      fail("a power of " + count.str());
    }
    Fraction result = constant(1);
    for (int64_t i = 0; i < count.constant(); ++i) result = multiply(result, base);
    return result;
  }

  Dim divisor(const Fraction& value) const {
    const Dim result = integer(value);
    if (result.is_constant(0)) fail("a division by zero");
    return result;
  }

  // Of a number that is not 0.
  Fraction inverse(const Fraction& value) const {
    if (!value.numerator.is_constant() || value.numerator.is_constant(0)) fail("a quotient");
    const int64_t below = value.numerator.constant();
    return make(Dim(below < 0 ? -value.denominator : value.denominator), std::abs(below),
                static_cast<double>(value.denominator));
  }

  Fraction whole(Dim dim, double magnitude) const { return make(std::move(dim), 1, magnitude); }

  Fraction binary(std::string_view name, const Fraction& a, const Fraction& b) const {
    const double magnitude = a.magnitude + b.magnitude + 1;
    if (name == "FloorDiv" || name == "CleanDiv" || name == "IntTrueDiv") {
      const Dim x = integer(a), y = divisor(b);
      if (name == "IntTrueDiv" && !ir::provably_divisible(x, y)) fail("a fraction");
      return whole(ir::floordiv(x, y), magnitude);
    }
    if (name == "FloatTrueDiv") return multiply(a, inverse(b));
    if (name == "CeilDiv") return whole(ir::ceildiv(integer(a), divisor(b)), magnitude);
    if (name == "Mod" || name == "PythonMod") {
      return whole(ir::mod(integer(a), divisor(b)), magnitude);
    }
    if (name == "Pow" || name == "PowByNatural") return power(a, b);
    fail("the function " + std::string(name));
  }

  Fraction fold(std::string_view name, const std::vector<Fraction>& values) const {
    Fraction result = values.front();
    for (size_t i = 1; i < values.size(); ++i) {
      const Fraction& next = values[i];
      const double magnitude = result.magnitude + next.magnitude;
      if (name == "Add") {
        result = add(result, next);
      } else if (name == "Mul") {
        result = multiply(result, next);
      } else if (name == "Min") {
        result = whole(ir::min(integer(result), integer(next)), magnitude);
      } else {
        result = whole(ir::max(integer(result), integer(next)), magnitude);
      }
    }
    return result;
  }

  // Nothing for a function that is no condition.
  std::optional<Fraction> condition(std::string_view name,
                                    const std::vector<Fraction>& values) const {
    if (!conditions_ || values.empty()) return std::nullopt;
    if (name == "And" || name == "Or") {
      Dim result = truth(integer(values[0]));
      for (const Fraction& value : std::span(values).subspan(1)) {
        const Dim next = truth(integer(value));
        result = name == "And" ? ir::min(result, next) : ir::max(result, next);
      }
      return whole(result, 1);
    }
    if (name == "Not" && values.size() == 1) return whole(Dim(1) - truth(integer(values[0])), 1);
    if (values.size() != 2) return std::nullopt;
    const Fraction difference = add(values[0], multiply(constant(-1), values[1]));
    const auto result = compare_with_zero(name, difference.numerator);
    return result ? std::optional(whole(*result, difference.magnitude + 1)) : std::nullopt;
  }

  Fraction call(std::string_view name) {
    const std::vector<Fraction> values = arguments();
    if (const auto result = condition(name, values)) return *result;
    const bool folds = name == "Add" || name == "Mul" || name == "Min" || name == "Max";
    if (folds && !values.empty()) return fold(name, values);
    if (values.size() == 1) return unary(name, values[0]);
    if (values.size() == 2) return binary(name, values[0], values[1]);
    if (values.size() == 3 && name == "ModularIndexing") {
      const Dim quotient = ir::floordiv(integer(values[0]), divisor(values[1]));
      return whole(ir::mod(quotient, divisor(values[2])),
                   values[0].magnitude + values[2].magnitude);
    }
    fail("the function " + std::string(name));
  }

  Fraction unary(std::string_view name, const Fraction& value) const {
    const double magnitude = value.magnitude + 1;
    const auto floor = [&] {
      return whole(ir::floordiv(value.numerator, value.denominator), magnitude);
    };
    if (name == "floor" || name == "FloorToInt") return floor();
    if (name == "ceiling" || name == "CeilToInt") {
      return whole(ir::ceildiv(value.numerator, value.denominator), magnitude);
    }
    if (name == "TruncToInt" && value.numerator.lower_bound() >= 0) return floor();
    if (name == "Identity" || name == "ToFloat") return value;
    fail("the function " + std::string(name));
  }

  Fraction expression() {
    if (++depth_ > kMaxDepth) fail("deep nesting");
    const std::string_view name = word();
    if (name.empty()) fail("no expression at " + std::to_string(position_));
    Fraction result;
    if (name == "Symbol") {
      result = symbol();
    } else if (name == "Integer" || name == "Rational") {
      result = literal(name);
    } else if (name == "Float") {
      result = floating();
    } else if (conditions_ && (name == "true" || name == "false")) {
      result = constant(name == "true" ? 1 : 0);
    } else {
      result = call(name);
    }
    --depth_;
    return result;
  }

  std::string_view text_;
  const SymbolLookup& lookup_;
  const bool conditions_;
  size_t position_ = 0;
  int depth_ = 0;
};

}  // namespace

Dim parse_expression(std::string_view text, const SymbolLookup& lookup) {
  return Parser(text, lookup).parse();
}

Dim parse_condition(std::string_view text, const SymbolLookup& lookup) {
  return Parser(text, lookup, true).parse();
}

std::optional<LinearSize> as_linear_size(std::string_view text) {
  std::string name;
  ir::SymbolPtr symbol;
  bool single = true;
  const auto lookup = [&](std::string_view found) -> Dim {
    if (symbol == nullptr) {
      name = found;
      symbol = ir::make_size_symbol(name, 0, ir::kDimInfinity, 0);
    }
    single = single && name == found;
    return symbol;
  };
  const Dim size = parse_expression(text, lookup);
  const auto linear = symbol && single ? size.as_linear_in(symbol) : std::nullopt;
  if (!linear || !linear->first.is_constant() || !linear->second.is_constant()) return std::nullopt;
  if (linear->first.constant() < 1) return std::nullopt;
  return LinearSize{name, linear->first.constant(), linear->second.constant()};
}

}  // namespace kiln::import
