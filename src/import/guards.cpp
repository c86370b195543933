// A guard is an expression of Python. It is written anew as the tracer writes sizes (sympy's srepr),
// so that one parser knows what sizes mean and what is too large.
#include "import/guards.h"

#include <cctype>
#include <vector>

#include "import/input_paths.h"
#include "support/error.h"

namespace kiln::import {
namespace {

constexpr int kMaxDepth = 48;
constexpr size_t kMaxText = size_t{1} << 14;    // of a guard
constexpr size_t kMaxLength = size_t{1} << 16;  // of what it becomes

using Parts = std::vector<std::string>;

class Translator {
 public:
  Translator(std::string_view text, const Program& program) : text_(text), program_(program) {}

  Guard translate() {
    if (text_.size() > kMaxText) fail();
    std::string condition = disjunction();
    skip_spaces();
    if (position_ != text_.size()) fail();
    people_ += text_.substr(copied_);
    return {std::move(condition), std::move(people_)};
  }

 private:
  [[noreturn]] void fail() const {
    throw CompileError("[guard] got \"" + std::string(text_.substr(0, 200)) +
                       "\", expected arithmetic on sizes");
  }

  // --- Characters

  void skip_spaces() {
    while (position_ < text_.size() && text_[position_] == ' ') ++position_;
  }
  std::string_view rest() {
    skip_spaces();
    return text_.substr(position_);
  }
  bool accept(std::string_view symbol) {
    if (!rest().starts_with(symbol)) return false;
    position_ += symbol.size();
    return true;
  }
  void expect(std::string_view symbol) {
    if (!accept(symbol)) fail();
  }
  static bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }
  std::string_view peek_word() {
    const std::string_view left = rest();
    size_t end = 0;
    while (end < left.size() && is_word(left[end])) ++end;
    return left.substr(0, end);
  }
  bool accept_word(std::string_view word) {
    if (peek_word() != word) return false;
    position_ += word.size();
    return true;
  }

  // --- Expressions, from what binds least

  static std::string call(std::string_view function, const Parts& parts) {
    std::string result = std::string(function) + "(";
    for (size_t i = 0; i < parts.size(); ++i) result += (i == 0 ? "" : ", ") + parts[i];
    if (result.size() > kMaxLength)
      throw CompileError("[guard] got one that is too long, expected at most 65536 characters");
    return result + ")";
  }
  static std::string call_if_many(std::string_view function, Parts parts) {
    return parts.size() == 1 ? std::move(parts.front()) : call(function, parts);
  }

  std::string disjunction() {
    if (++depth_ > kMaxDepth) fail();
    Parts parts{conjunction()};
    while (accept_word("or")) parts.push_back(conjunction());
    --depth_;
    return call_if_many("Or", std::move(parts));
  }
  std::string conjunction() {
    Parts parts{inversion()};
    while (accept_word("and")) parts.push_back(inversion());
    return call_if_many("And", std::move(parts));
  }
  std::string inversion() {
    size_t inversions = 0;
    while (accept_word("not")) ++inversions;
    std::string result = comparison();
    if (inversions % 2 == 1) return call("Not", {result});
    return inversions == 0 ? result : call("And", {result});
  }
  // a < b <= c
  std::string comparison() {
    std::string left = sum();
    Parts parts;
    for (std::string_view relation = accept_relation(); !relation.empty();
         relation = accept_relation()) {
      std::string right = sum();
      parts.push_back(call(relation, {left, right}));
      left = std::move(right);
    }
    return parts.empty() ? left : call_if_many("And", std::move(parts));
  }
  std::string_view accept_relation() {
    if (accept("==")) return "Equality";
    if (accept("!=")) return "Unequality";
    if (accept("<=")) return "LessThan";
    if (accept(">=")) return "GreaterThan";
    if (accept("<")) return "StrictLessThan";
    if (accept(">")) return "StrictGreaterThan";
    return {};
  }
  static std::string negated(const std::string& value) {
    return call("Mul", {"Integer(-1)", value});
  }
  std::string sum() {
    Parts parts{product()};
    while (true) {
      if (accept("+")) {
        parts.push_back(product());
      } else if (accept("-")) {
        parts.push_back(negated(product()));
      } else {
        return call_if_many("Add", std::move(parts));
      }
    }
  }
  std::string product() {
    std::string result = factor();
    while (true) {
      if (accept("//")) {
        result = call("FloorDiv", {result, factor()});
      } else if (accept("*")) {
        result = call("Mul", {result, factor()});
      } else if (accept("%")) {
        result = call("PythonMod", {result, factor()});
      } else {
        return result;
      }
    }
  }
  std::string factor() {
    if (++depth_ > kMaxDepth) fail();
    bool negative = false;
    while (accept("-")) negative = !negative;
    std::string result = atom();
    if (accept("**")) result = call("Pow", {result, factor()});
    --depth_;
    return negative ? negated(result) : result;
  }
  std::string atom() {
    if (accept("(")) {
      std::string inner = disjunction();
      expect(")");
      return inner;
    }
    const std::string_view word = peek_word();
    if (word == "L") return size();
    position_ += word.size();
    if (word == "max") return call("Max", arguments());
    if (word == "min") return call("Min", arguments());
    if (word == "int") return call_if_many("", arguments());
    if (word == "True") return "Integer(1)";
    if (word == "False") return "Integer(0)";
    if (word.empty() || word.find_first_not_of("0123456789") != word.npos ||
        rest().starts_with("."))
      fail();
    return call("Integer", {std::string(word)});
  }
  Parts arguments() {
    expect("(");
    Parts parts{disjunction()};
    while (accept(",")) parts.push_back(disjunction());
    expect(")");
    return parts;
  }

  // --- L['x'][0].size()[1]

  std::string size() {
    const size_t start = position_;
    expect("L");
    std::string path;
    while (accept("[")) path += key();
    expect(".size()[");
    const std::string_view number = peek_word();
    position_ += number.size();
    expect("]");
    const auto input = program_.input_paths.find(path);
    if (input == program_.input_paths.end()) fail();
    const auto meta = program_.graph.tensor_values.find(input->second);
    if (meta == program_.graph.tensor_values.end()) fail();
    const std::vector<SizeExpression>& sizes = meta->second.sizes;
    size_t dim = 0;
    while (dim < sizes.size() && std::to_string(dim) != number) ++dim;
    if (dim == sizes.size()) fail();
    people_.append(text_.substr(copied_, start - copied_)).append(input->second);
    people_.append(".size(").append(number).append(")");
    copied_ = position_;
    if (!sizes[dim].expression.empty()) return sizes[dim].expression;
    return call("Integer", {std::to_string(sizes[dim].constant)});
  }
  // 'x'] or 0]
  std::string key() {
    const std::string_view left = rest();
    const char quote = left.empty() ? '\0' : left[0];
    if (quote != '\'' && quote != '"') {
      const std::string number(peek_word());
      position_ += number.size();
      expect("]");
      return position_key(number);
    }
    std::string name;
    for (++position_; position_ < text_.size() && text_[position_] != quote; ++position_) {
      if (text_[position_] == '\\' && ++position_ == text_.size()) fail();
      name += text_[position_];
    }
    if (position_ == text_.size()) fail();
    ++position_;
    expect("]");
    return name_key(name);
  }

  std::string_view text_;
  const Program& program_;
  size_t position_ = 0, copied_ = 0;
  int depth_ = 0;
  std::string people_;
};

}  // namespace

std::optional<Guard> read_guard(std::string_view text, const Program& program) {
  try {
    return Translator(text, program).translate();
  } catch (const CompileError&) {
    return std::nullopt;
  }
}

}  // namespace kiln::import
