#include "support/size_arithmetic.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

namespace kiln {
namespace {

// In the order of the enumeration. Not pointers to text, which the loader would have to relocate.
using Name = std::array<char, 9>;
constexpr std::array<Name, 16> kNames{{{"add"},
                                       {"sub"},
                                       {"mul"},
                                       {"floordiv"},
                                       {"mod"},
                                       {"pow"},
                                       {"min"},
                                       {"max"},
                                       {"eq"},
                                       {"ne"},
                                       {"lt"},
                                       {"le"},
                                       {"gt"},
                                       {"ge"},
                                       {"and"},
                                       {"or"}}};

template <bool (*overflows)(int64_t, int64_t, int64_t*)>
SizeValue checked(int64_t left, int64_t right) {
  int64_t result = 0;
  if (overflows(left, right, &result)) return std::nullopt;
  return result;
}

bool add(int64_t a, int64_t b, int64_t* result) { return __builtin_add_overflow(a, b, result); }
bool sub(int64_t a, int64_t b, int64_t* result) { return __builtin_sub_overflow(a, b, result); }
bool mul(int64_t a, int64_t b, int64_t* result) { return __builtin_mul_overflow(a, b, result); }

SizeValue floor_div(int64_t a, int64_t b) {
  if (b == 0 || (a == std::numeric_limits<int64_t>::min() && b == -1)) return std::nullopt;
  return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

SizeValue modulo(int64_t a, int64_t b) {
  if (b == 0) return std::nullopt;
  if (b == -1) return 0;  // also of the lowest number, whose quotient has no value
  return a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
}

SizeValue power(int64_t base, int64_t exponent) {
  const bool is_unit = base == 0 || base == 1 || base == -1;
  if (exponent < 0 || (exponent > 63 && !is_unit)) return std::nullopt;
  if (exponent > 63) exponent = 62 + exponent % 2;  // the same for these
  SizeValue result = 1;
  for (int64_t i = 0; i < exponent && result; ++i) result = checked<mul>(*result, base);
  return result;
}

}  // namespace

std::string_view size_function_name(SizeFunction function) {
  return kNames[static_cast<size_t>(function)].data();
}

std::optional<SizeFunction> size_function_named(std::string_view name) {
  const auto found = std::ranges::find_if(
      kNames, [&](const Name& each) { return name == std::string_view(each.data()); });
  if (found == kNames.end()) return std::nullopt;
  return static_cast<SizeFunction>(found - kNames.begin());
}

SizeValue apply_size_function(SizeFunction function, SizeValue left, SizeValue right) {
  if (!left) return std::nullopt;
  const int64_t a = *left;
  if (function == SizeFunction::And && a == 0) return 0;
  if (function == SizeFunction::Or && a != 0) return 1;
  if (!right) return std::nullopt;
  const int64_t b = *right;
  switch (function) {
    case SizeFunction::Add:
      return checked<add>(a, b);
    case SizeFunction::Sub:
      return checked<sub>(a, b);
    case SizeFunction::Mul:
      return checked<mul>(a, b);
    case SizeFunction::FloorDiv:
      return floor_div(a, b);
    case SizeFunction::Mod:
      return modulo(a, b);
    case SizeFunction::Pow:
      return power(a, b);
    case SizeFunction::Min:
      return std::min(a, b);
    case SizeFunction::Max:
      return std::max(a, b);
    case SizeFunction::Equal:
      return a == b ? 1 : 0;
    case SizeFunction::NotEqual:
      return a != b ? 1 : 0;
    case SizeFunction::Less:
      return a < b ? 1 : 0;
    case SizeFunction::LessEqual:
      return a <= b ? 1 : 0;
    case SizeFunction::Greater:
      return a > b ? 1 : 0;
    case SizeFunction::GreaterEqual:
      return a >= b ? 1 : 0;
    case SizeFunction::And:
    case SizeFunction::Or:
      return b != 0 ? 1 : 0;
  }
  return std::nullopt;
}

}  // namespace kiln
