#include "import/equal_sizes.h"

#include <algorithm>

namespace kiln::import {
namespace {

bool is_same(const ir::Dim& a, const ir::Dim& b) {
  const ir::SymbolPtr x = a.as_symbol(), y = b.as_symbol();
  return x && y ? x->name == y->name : a == b;
}

// What the size of an earlier import is now; null where no input has it.
const ir::Dim* find(const Symbols& symbols, const ir::Dim& size) {
  if (size.is_constant()) return &size;
  const auto found = symbols.find(size.as_symbol()->name);
  return found == symbols.end() ? nullptr : &found->second;
}

ir::Dim common_size(const ir::Dim& a, const ir::Dim& b) {
  const int64_t low = std::max(a.lower_bound(), b.lower_bound());
  const int64_t high = std::min(a.upper_bound(), b.upper_bound());
  if (low > high)
    throw CompileError("[size] got " + a.str() + " and " + b.str() +
                       ", which have to be equal, expected ranges that have sizes in common");
  if (low == high) return low;
  const int64_t opt = std::clamp(a.as_symbol()->opt, low, high);
  return ir::make_size_symbol(a.as_symbol()->name, low, high, opt);
}

}  // namespace

bool EqualSizes::can_add(const CompileError& error) const {
  const auto* unequal = dynamic_cast<const ir::UnequalSizes*>(&error);
  if (unequal == nullptr) return false;
  const ir::Dim &a = unequal->a, &b = unequal->b;
  const bool are_plain = (a.as_symbol() || a.is_constant()) && (b.as_symbol() || b.is_constant());
  return are_plain && std::ranges::none_of(pairs_, [&](const auto& pair) {
           return is_same(pair.first, a) && is_same(pair.second, b);
         });
}

void EqualSizes::add(const ir::UnequalSizes& error) { pairs_.emplace_back(error.a, error.b); }

void EqualSizes::apply(Symbols& symbols) const {
  for (const auto& [first, second] : pairs_) {
    const ir::Dim *a = find(symbols, first), *b = find(symbols, second);
    if (a == nullptr || b == nullptr || *a == *b) continue;
    const ir::Dim old_a = *a, old_b = *b, common = common_size(old_a, old_b);
    for (auto& [name, size] : symbols)
      if (!size.is_constant() && (size == old_a || size == old_b)) size = common;
  }
}

}  // namespace kiln::import
