#include "ir/dim.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <numeric>

#include "ir/size_overflow.h"
#include "support/error.h"

namespace kiln::ir {

// Builds Dims from raw terms; the only code that writes Dim::terms_.
struct DimBuilder {
  static Dim from_terms(std::vector<Term> terms);
  static Dim from_atom(AtomPtr atom) {
    Dim result;
    result.terms_.push_back(Term{1, {std::move(atom)}});
    return result;
  }
  static Dim from_term(Term term) {
    Dim result;
    if (term.coefficient != 0) result.terms_.push_back(std::move(term));
    return result;
  }
};

namespace {

using int128 = __int128;

int64_t saturate(int128 value) {
  if (value >= kDimInfinity) return kDimInfinity;
  if (value <= -kDimInfinity) return -kDimInfinity;
  return static_cast<int64_t>(value);
}

// Sizes that have no 64-bit value are an error that names them: a product that wrapped around would
// look like any other size.
[[noreturn]] void overflow(const std::string& a, const char* op, const std::string& b) {
  throw SizeOverflow("[size] got " + a + " " + op + " " + b +
                     ", expected a number of elements below 2^63");
}

int64_t checked_add(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) overflow(std::to_string(a), "+", std::to_string(b));
  return sum;
}

int64_t checked_multiply(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) overflow(std::to_string(a), "*", std::to_string(b));
  return product;
}

int64_t floor_div(int64_t a, int64_t b) {
  if (b == -1) return checked_multiply(a, -1);
  int64_t q = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? q - 1 : q;
}

int64_t floor_mod(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

int compare_atoms(const AtomPtr& a, const AtomPtr& b) {
  if (a == b) return 0;
  if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
  if (a->kind == AtomKind::Symbol) {
    if (a->symbol == b->symbol) return 0;
    return a->symbol->id < b->symbol->id ? -1 : 1;
  }
  if (int c = Dim::compare(a->a, b->a)) return c;
  return Dim::compare(a->b, b->b);
}

// Longer products first, so that the constant term comes last.
int compare_factors(const std::vector<AtomPtr>& a, const std::vector<AtomPtr>& b) {
  if (a.size() != b.size()) return a.size() > b.size() ? -1 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    if (int c = compare_atoms(a[i], b[i])) return c;
  }
  return 0;
}

std::vector<AtomPtr> merge_factors(const std::vector<AtomPtr>& a, const std::vector<AtomPtr>& b) {
  std::vector<AtomPtr> result(a);
  result.insert(result.end(), b.begin(), b.end());
  std::stable_sort(result.begin(), result.end(),
                   [](const AtomPtr& x, const AtomPtr& y) { return compare_atoms(x, y) < 0; });
  return result;
}

// a / b as factor lists, if b divides a.
std::optional<std::vector<AtomPtr>> divide_factors(std::vector<AtomPtr> a,
                                                   const std::vector<AtomPtr>& b) {
  for (const AtomPtr& factor : b) {
    auto it = std::find_if(a.begin(), a.end(),
                           [&](const AtomPtr& x) { return compare_atoms(x, factor) == 0; });
    if (it == a.end()) return std::nullopt;
    a.erase(it);
  }
  return a;
}

std::vector<Term> sort_and_sum(std::vector<Term> terms) {
  std::stable_sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) {
    return compare_factors(a.factors, b.factors) < 0;
  });
  std::vector<Term> result;
  for (Term& term : terms) {
    if (!result.empty() && compare_factors(result.back().factors, term.factors) == 0) {
      result.back().coefficient = checked_add(result.back().coefficient, term.coefficient);
    } else {
      result.push_back(std::move(term));
    }
  }
  std::erase_if(result, [](const Term& term) { return term.coefficient == 0; });
  return result;
}

// The places in `terms`, greatest first, of scale * factor for each term of `factor`, if all are
// there.
std::optional<std::vector<size_t>> find_products(const std::vector<Term>& terms, const Term& scale,
                                                 const Dim& factor) {
  std::vector<size_t> found;
  for (const Term& part : factor.terms()) {
    int64_t coefficient = 0;
    if (__builtin_mul_overflow(scale.coefficient, part.coefficient, &coefficient)) {
      return std::nullopt;
    }
    const std::vector<AtomPtr> factors = merge_factors(scale.factors, part.factors);
    const auto term = std::find_if(terms.begin(), terms.end(), [&](const Term& candidate) {
      return candidate.coefficient == coefficient &&
             compare_factors(candidate.factors, factors) == 0;
    });
    if (term == terms.end()) return std::nullopt;
    found.push_back(static_cast<size_t>(term - terms.begin()));
  }
  std::sort(found.begin(), found.end(), std::greater<>());
  return found;
}

// floordiv(a, b) * b * f + mod(a, b) * f  ->  a * f, where each term of the first product is a term
// here. True if one was found.
bool recombine_mod(std::vector<Term>& terms) {
  for (size_t i = 0; i < terms.size(); ++i) {
    for (size_t f = 0; f < terms[i].factors.size(); ++f) {
      const AtomPtr atom = terms[i].factors[f];
      if (atom->kind != AtomKind::Mod) continue;
      // In its canonical form: floordiv(floordiv(x, 2), 3) is floordiv(x, 6).
      const Dim quotient = floordiv(atom->a, atom->b);
      if (quotient.terms().size() != 1) continue;
      Term rest = terms[i];
      rest.factors.erase(rest.factors.begin() + static_cast<std::ptrdiff_t>(f));
      Term scale = quotient.terms()[0];
      if (__builtin_mul_overflow(scale.coefficient, rest.coefficient, &scale.coefficient)) continue;
      scale.factors = merge_factors(rest.factors, scale.factors);
      std::optional<std::vector<size_t>> products = find_products(terms, scale, atom->b);
      if (!products) continue;
      products->insert(std::upper_bound(products->begin(), products->end(), i, std::greater<>()),
                       i);
      for (size_t place : *products) {
        terms.erase(terms.begin() + static_cast<std::ptrdiff_t>(place));
      }
      for (const Term& term : atom->a.terms()) {
        terms.push_back({checked_multiply(term.coefficient, rest.coefficient),
                         merge_factors(term.factors, rest.factors)});
      }
      return true;
    }
  }
  return false;
}

bool term_mentions(const Term& term, const SymbolPtr& symbol);

bool atom_mentions(const AtomPtr& atom, const SymbolPtr& symbol) {
  if (atom->kind == AtomKind::Symbol) return atom->symbol == symbol;
  return atom->a.mentions(symbol) || atom->b.mentions(symbol);
}

bool term_mentions(const Term& term, const SymbolPtr& symbol) {
  return std::any_of(term.factors.begin(), term.factors.end(),
                     [&](const AtomPtr& atom) { return atom_mentions(atom, symbol); });
}

void collect_symbols(const Dim& dim, std::vector<SymbolPtr>& out) {
  for (const Term& term : dim.terms()) {
    for (const AtomPtr& atom : term.factors) {
      if (atom->kind == AtomKind::Symbol) {
        out.push_back(atom->symbol);
      } else {
        collect_symbols(atom->a, out);
        collect_symbols(atom->b, out);
      }
    }
  }
}

// --- Bounds ---

// Proofs build new Dims, which ask for proofs in turn; past this depth the answer is "unknown",
// which is always sound.
constexpr int kMaxProofDepth = 10;
thread_local int proof_depth = 0;

struct ProofScope {
  ProofScope() { ++proof_depth; }
  ~ProofScope() { --proof_depth; }
  bool too_deep() const { return proof_depth > kMaxProofDepth; }
};

struct Interval {
  int64_t low = -kDimInfinity;
  int64_t high = kDimInfinity;
};

int64_t multiply_bound(int64_t a, int64_t b) { return saturate(static_cast<int128>(a) * b); }

bool is_infinite(int64_t value) { return value >= kDimInfinity || value <= -kDimInfinity; }

Interval multiply(Interval a, Interval b) {
  const int64_t products[] = {multiply_bound(a.low, b.low), multiply_bound(a.low, b.high),
                              multiply_bound(a.high, b.low), multiply_bound(a.high, b.high)};
  return {*std::min_element(products, products + 4), *std::max_element(products, products + 4)};
}

Interval bounds_of(const Dim& dim);

// A quotient by a size that may be 0 stands for the sizes for which it is not: nothing is computed
// of an empty tensor, and code that runs all the same takes 1 for 0.
bool is_divisor(const Dim& b) { return b.lower_bound() >= 0; }

Interval bounds_of_floordiv(Interval a, Interval b) {
  if (b.low < 0) return {};
  b = {std::max<int64_t>(b.low, 1), std::max<int64_t>(b.high, 1)};
  auto divide = [](int64_t x, int64_t y) {
    if (is_infinite(x)) return x;
    if (is_infinite(y)) return x < 0 ? int64_t{-1} : int64_t{0};
    return floor_div(x, y);
  };
  const int64_t quotients[] = {divide(a.low, b.low), divide(a.low, b.high), divide(a.high, b.low),
                               divide(a.high, b.high)};
  return {*std::min_element(quotients, quotients + 4), *std::max_element(quotients, quotients + 4)};
}

Interval bounds_of_atom(const AtomPtr& atom) {
  if (atom->kind == AtomKind::Symbol) {
    const Symbol& symbol = *atom->symbol;
    if (!symbol.is_loop) return {symbol.min, symbol.max};
    return {0, std::max<int64_t>(0, saturate(int128{symbol.extent.upper_bound()} - 1))};
  }
  const Interval a = bounds_of(atom->a), b = bounds_of(atom->b);
  switch (atom->kind) {
    case AtomKind::FloorDiv:
      return bounds_of_floordiv(a, b);
    case AtomKind::Mod:
      return b.low >= 0 ? Interval{0, std::max<int64_t>(0, saturate(int128{b.high} - 1))}
                        : Interval{};
    case AtomKind::Min:
      return {std::min(a.low, b.low), std::min(a.high, b.high)};
    case AtomKind::Max:
      return {std::max(a.low, b.low), std::max(a.high, b.high)};
    case AtomKind::Symbol:
      break;
  }
  return {};
}

Interval interval_bounds(const Dim& dim) {
  int128 low = 0, high = 0;
  bool low_infinite = false, high_infinite = false;
  for (const Term& term : dim.terms()) {
    Interval product{term.coefficient, term.coefficient};
    for (const AtomPtr& atom : term.factors) product = multiply(product, bounds_of_atom(atom));
    low_infinite |= is_infinite(product.low);
    high_infinite |= is_infinite(product.high);
    low += product.low;
    high += product.high;
  }
  return {low_infinite ? -kDimInfinity : saturate(low),
          high_infinite ? kDimInfinity : saturate(high)};
}

// The sum of cofactors of one atom: dim = coefficient * atom + rest. Fails where the atom is
// squared or nested.
struct LinearSplit {
  Dim coefficient, rest;
};

std::optional<LinearSplit> split_linear(const Dim& dim, const AtomPtr& atom) {
  std::vector<Term> coefficient, rest;
  for (const Term& term : dim.terms()) {
    auto divided = divide_factors(term.factors, {atom});
    if (!divided) {
      rest.push_back(term);
      continue;
    }
    if (divide_factors(*divided, {atom})) return std::nullopt;
    coefficient.push_back({term.coefficient, *divided});
  }
  return LinearSplit{DimBuilder::from_terms(std::move(coefficient)),
                     DimBuilder::from_terms(std::move(rest))};
}

Dim symbolic_bound(const Dim& dim, bool upper);

bool has_loop_symbol(const Dim& dim) {
  std::vector<SymbolPtr> symbols;
  collect_symbols(dim, symbols);
  return std::any_of(symbols.begin(), symbols.end(), [](const SymbolPtr& s) { return s->is_loop; });
}

// The largest or smallest value of an atom as a Dim over size symbols, if one is known.
std::optional<Dim> atom_bound(const AtomPtr& atom, bool upper) {
  if (atom->kind == AtomKind::Symbol) {
    if (!atom->symbol->is_loop) return std::nullopt;
    return upper ? symbolic_bound(atom->symbol->extent - 1, true) : Dim(0);
  }
  if (!has_loop_symbol(atom->a) && !has_loop_symbol(atom->b)) return std::nullopt;
  if (!is_divisor(atom->b) || has_loop_symbol(atom->b)) return std::nullopt;
  if (atom->kind == AtomKind::Mod) return upper ? atom->b - 1 : Dim(0);
  if (atom->kind == AtomKind::FloorDiv) return floordiv(symbolic_bound(atom->a, upper), atom->b);
  return std::nullopt;
}

// Replaces atoms that contain loop indices by their bounds, where the sign of the cofactor is
// known.
Dim symbolic_bound(const Dim& dim, bool upper) {
  ProofScope scope;
  Dim result = dim;
  if (scope.too_deep()) return result;
  bool changed = true;
  while (changed && has_loop_symbol(result)) {
    changed = false;
    std::vector<AtomPtr> atoms;
    for (const Term& term : result.terms()) {
      atoms.insert(atoms.end(), term.factors.begin(), term.factors.end());
    }
    // Compound atoms first, then the latest loop: extents mention earlier symbols only.
    std::stable_sort(atoms.begin(), atoms.end(),
                     [](const AtomPtr& a, const AtomPtr& b) { return compare_atoms(a, b) > 0; });
    for (const AtomPtr& atom : atoms) {
      const auto split = split_linear(result, atom);
      if (!split || split->coefficient.terms().empty()) continue;
      if (atom->kind == AtomKind::Symbol && split->rest.mentions(atom->symbol)) continue;
      const Interval sign = bounds_of(split->coefficient);
      if (sign.low < 0 && sign.high > 0) continue;
      const auto bound = atom_bound(atom, (sign.low >= 0) == upper);
      // Past the depth of proofs an atom is its own bound, which would go on for ever.
      if (!bound || *bound == DimBuilder::from_atom(atom)) continue;
      result = split->coefficient * *bound + split->rest;
      changed = true;
      break;
    }
  }
  return result;
}

// The Dim with a symbol at one end of its range; nothing where that has no 64-bit coefficients.
std::optional<Dim> at_end(const std::pair<Dim, Dim>& linear, int64_t end) {
  if (is_infinite(end)) return std::nullopt;
  try {
    return linear.first * Dim(end) + linear.second;
  } catch (const SizeOverflow&) {
    return std::nullopt;
  }
}

// Numeric bound of a Dim over size symbols: fixes one symbol after another at its best end, where
// the Dim is monotone. The rest is left to intervals, which saturate.
int64_t numeric_bound(Dim dim, bool upper) {
  bool changed = true;
  while (changed && !dim.is_constant()) {
    changed = false;
    for (const SymbolPtr& symbol : dim.symbols()) {
      if (symbol->is_loop) continue;
      const auto linear = dim.as_linear_in(symbol);
      if (!linear) continue;
      const Interval sign = bounds_of(linear->first);
      if (sign.low < 0 && sign.high > 0) continue;
      auto fixed = at_end(*linear, (sign.low >= 0) == upper ? symbol->max : symbol->min);
      if (!fixed) continue;
      dim = std::move(*fixed);
      changed = true;
      break;
    }
  }
  const Interval interval = interval_bounds(dim);
  return upper ? interval.high : interval.low;
}

Interval bounds_of(const Dim& dim) {
  if (dim.is_constant()) return {dim.constant(), dim.constant()};
  ProofScope scope;
  if (scope.too_deep()) return {};
  const Interval direct = interval_bounds(dim);
  if (dim.terms().size() == 1 && dim.terms()[0].factors.size() == 1) return direct;
  // One end may overflow and the other not: each is found by itself.
  const auto tightened = [&](bool upper, int64_t known) {
    try {
      return numeric_bound(symbolic_bound(dim, upper), upper);
    } catch (const SizeOverflow&) {
      return known;
    }
  };
  return {std::max(direct.low, tightened(false, direct.low)),
          std::min(direct.high, tightened(true, direct.high))};
}

// --- Division ---

struct Division {
  Dim quotient, remainder;  // a = quotient * b + remainder, term by term
};

// a / b where b divides a as a polynomial, by long division: each step takes the first term of what is left away and adds later
// ones. Terms are sorted by their number of factors, then factor by factor, an order that multiplying keeps.
std::optional<Dim> divide_polynomials(const Dim& a, const Dim& b) {
  constexpr size_t kMostTerms = 32;
  constexpr int64_t kMostCoefficient = int64_t{1} << 30;  // sums of products of them fit
  const auto is_small = [](const Term& term) {
    return term.coefficient >= -kMostCoefficient && term.coefficient <= kMostCoefficient;
  };
  std::vector<Term> rest = a.terms(), quotient;
  const Term& divisor = b.terms()[0];
  while (!rest.empty()) {
    if (rest.size() > kMostTerms || quotient.size() > kMostTerms) return std::nullopt;
    if (!std::ranges::all_of(rest, is_small) || !std::ranges::all_of(b.terms(), is_small))
      return std::nullopt;
    const auto factors = divide_factors(rest[0].factors, divisor.factors);
    if (!factors || rest[0].coefficient % divisor.coefficient != 0) return std::nullopt;
    quotient.push_back({rest[0].coefficient / divisor.coefficient, *factors});
    for (const Term& term : b.terms())
      rest.push_back(
          {-quotient.back().coefficient * term.coefficient, merge_factors(*factors, term.factors)});
    rest = sort_and_sum(std::move(rest));
  }
  return DimBuilder::from_terms(std::move(quotient));
}

Division divide_terms(const Dim& a, const Dim& b) {
  if (b.terms().size() != 1) {
    const auto exact = divide_polynomials(a, b);
    return exact ? Division{*exact, Dim(0)} : Division{Dim(0), a};
  }
  const Term& divisor = b.terms()[0];
  std::vector<Term> quotient, remainder;
  for (const Term& term : a.terms()) {
    auto factors = divide_factors(term.factors, divisor.factors);
    if (!factors) {
      remainder.push_back(term);
      continue;
    }
    const int64_t q = floor_div(term.coefficient, divisor.coefficient);
    const int64_t r = floor_mod(term.coefficient, divisor.coefficient);
    // A coefficient that does not divide evenly is left alone unless the term is a plain constant.
    if (r != 0 && !term.factors.empty()) {
      remainder.push_back(term);
      continue;
    }
    if (q != 0) quotient.push_back({q, *factors});
    if (r != 0) remainder.push_back({r, term.factors});
  }
  return {DimBuilder::from_terms(std::move(quotient)),
          DimBuilder::from_terms(std::move(remainder))};
}

Dim make_compound(AtomKind kind, const Dim& a, const Dim& b) {
  return DimBuilder::from_atom(std::make_shared<Atom>(Atom{kind, nullptr, a, b}));
}

// floordiv(g*x + c, g*d) -> floordiv(x + floordiv(c, g), d) for constants g, c, d.
std::optional<Dim> cancel_common_factor(const Dim& a, const Dim& b) {
  if (!b.is_constant() || b.constant() <= 1) return std::nullopt;
  int64_t g = b.constant();
  for (const Term& term : a.terms()) {
    if (!term.factors.empty()) g = std::gcd(g, term.coefficient);
  }
  if (g <= 1) return std::nullopt;
  std::vector<Term> terms;
  for (const Term& term : a.terms()) {
    terms.push_back({floor_div(term.coefficient, g), term.factors});
  }
  return floordiv(DimBuilder::from_terms(std::move(terms)), Dim(b.constant() / g));
}

std::atomic<uint64_t> next_symbol_id{1};

std::string atom_str(const AtomPtr& atom) {
  switch (atom->kind) {
    case AtomKind::Symbol:
      return atom->symbol->name;
    case AtomKind::FloorDiv:
      return "floordiv(" + atom->a.str() + ", " + atom->b.str() + ")";
    case AtomKind::Mod:
      return "mod(" + atom->a.str() + ", " + atom->b.str() + ")";
    case AtomKind::Min:
      return "min(" + atom->a.str() + ", " + atom->b.str() + ")";
    case AtomKind::Max:
      return "max(" + atom->a.str() + ", " + atom->b.str() + ")";
  }
  return {};
}

using ValueOf = std::function<int64_t(const SymbolPtr&)>;

// How a Dim is evaluated: exactly, or roughly where nothing but speed depends on it.
struct CheckedArithmetic {
  static int64_t add(int64_t a, int64_t b) { return checked_add(a, b); }
  static int64_t multiply(int64_t a, int64_t b) { return checked_multiply(a, b); }
};
struct SaturatingArithmetic {
  static int64_t add(int64_t a, int64_t b) { return saturate(int128{a} + b); }
  static int64_t multiply(int64_t a, int64_t b) { return multiply_bound(a, b); }
};

template <typename Arithmetic>
int64_t evaluate_dim(const Dim& dim, const ValueOf& value_of);

template <typename Arithmetic>
int64_t evaluate_atom(const AtomPtr& atom, const ValueOf& value_of) {
  if (atom->kind == AtomKind::Symbol) return value_of(atom->symbol);
  const auto a = evaluate_dim<Arithmetic>(atom->a, value_of);
  const auto b = evaluate_dim<Arithmetic>(atom->b, value_of);
  switch (atom->kind) {
    case AtomKind::FloorDiv:
    case AtomKind::Mod:
      KILN_CHECK(b != 0, "division by zero in " + atom_str(atom));
      return atom->kind == AtomKind::FloorDiv ? floor_div(a, b) : floor_mod(a, b);
    case AtomKind::Min:
      return std::min(a, b);
    case AtomKind::Max:
      return std::max(a, b);
    case AtomKind::Symbol:
      break;
  }
  return 0;
}

template <typename Arithmetic>
int64_t evaluate_dim(const Dim& dim, const ValueOf& value_of) {
  int64_t result = 0;
  for (const Term& term : dim.terms()) {
    int64_t product = term.coefficient;
    for (const AtomPtr& atom : term.factors)
      product = Arithmetic::multiply(product, evaluate_atom<Arithmetic>(atom, value_of));
    result = Arithmetic::add(result, product);
  }
  return result;
}

Dim substitute_atom(const AtomPtr& atom,
                    const std::function<std::optional<Dim>(const SymbolPtr&)>& replacement) {
  if (atom->kind == AtomKind::Symbol) {
    if (auto value = replacement(atom->symbol)) return *value;
    return DimBuilder::from_atom(atom);
  }
  const Dim a = atom->a.substitute(replacement), b = atom->b.substitute(replacement);
  switch (atom->kind) {
    case AtomKind::FloorDiv:
      return floordiv(a, b);
    case AtomKind::Mod:
      return mod(a, b);
    case AtomKind::Min:
      return min(a, b);
    case AtomKind::Max:
      return max(a, b);
    case AtomKind::Symbol:
      break;
  }
  return {};
}

}  // namespace

// The canonical form, and why it is reached.
//
// A Dim is a sum of terms, sorted and without two of equal factors: a polynomial over atoms. Sorting
// and summing is a normal form of polynomials in which atoms are opaque. What needs an argument is
// what looks inside of them, because it makes new terms, whose atoms are looked into again.
//
// Call the depth of an atom 0 for a symbol, and for any other one more than the greatest depth in
// its two Dims. A term is the multiset of the depths of its factors, a list of terms the multiset of
// its terms, and multisets are compared as Dershowitz and Manna do: one is smaller if it comes from
// the other by taking elements away and adding any number of smaller ones. There is no infinite
// descent.
//
// - recombine_mod takes terms away, one of them mod(a, b) * rest. For them come the terms of
//   a * rest, in which factors of a stand where the mod was. These lie inside of the atom and are
//   less deep, so that each new term is smaller than that one, and the list is smaller. Sorting and
//   summing only ever takes terms away. The loop below therefore ends.
// - It asks floordiv(a, b) for the quotient to look for, which makes Dims of its own: out of parts of
//   a and b, thus of less depth than the atom that was asked about.
// - floordiv either gives an atom or calls itself with less: with a constant divisor that is smaller
//   (cancel_common_factor), or with the numerator from inside of a floordiv, of less depth.
// - floordiv, mod, min and max ask for bounds, bounds build Dims, and these ask for bounds again. No
//   measure falls there, so that it is counted: past kMaxProofDepth the answer is "unknown". The
//   work may still grow with every level of nested divisions.
// - symbolic_bound replaces one atom with loop indices after another. A loop index gives way to its
//   extent, which mentions earlier ones only; a mod to its divisor, which mentions none; a floordiv
//   to one of a bound. Past the depth of proofs that is the same atom, and not a step.
Dim DimBuilder::from_terms(std::vector<Term> terms) {
  Dim result;
  result.terms_ = sort_and_sum(std::move(terms));
  while (recombine_mod(result.terms_)) result.terms_ = sort_and_sum(std::move(result.terms_));
  return result;
}

SymbolPtr make_size_symbol(std::string name, int64_t min, int64_t max, int64_t opt) {
  auto symbol = std::make_shared<Symbol>();
  symbol->id = next_symbol_id.fetch_add(1);
  symbol->name = std::move(name);
  symbol->min = min;
  symbol->max = max;
  symbol->opt = opt;
  return symbol;
}

SymbolPtr make_loop_symbol(std::string name, Dim extent) {
  auto symbol = std::make_shared<Symbol>();
  symbol->id = next_symbol_id.fetch_add(1);
  symbol->name = std::move(name);
  symbol->is_loop = true;
  symbol->extent = std::move(extent);
  return symbol;
}

Dim::Dim(int64_t constant) {
  if (constant != 0) terms_.push_back({constant, {}});
}

Dim::Dim(const SymbolPtr& symbol) {
  terms_.push_back({1, {std::make_shared<Atom>(Atom{AtomKind::Symbol, symbol, {}, {}})}});
}

bool Dim::is_constant() const {
  return terms_.empty() || (terms_.size() == 1 && terms_[0].factors.empty());
}

int64_t Dim::constant() const {
  KILN_CHECK(is_constant(), "not a constant: " + str());
  return terms_.empty() ? 0 : terms_[0].coefficient;
}

SymbolPtr Dim::as_symbol() const {
  if (terms_.size() != 1 || terms_[0].coefficient != 1 || terms_[0].factors.size() != 1) return {};
  return terms_[0].factors[0]->symbol;
}

Dim operator+(const Dim& a, const Dim& b) {
  std::vector<Term> terms = a.terms_;
  terms.insert(terms.end(), b.terms_.begin(), b.terms_.end());
  return DimBuilder::from_terms(std::move(terms));
}

Dim Dim::operator-() const {
  Dim result = *this;
  for (Term& term : result.terms_) term.coefficient = checked_multiply(term.coefficient, -1);
  return result;
}

Dim operator-(const Dim& a, const Dim& b) { return a + (-b); }

Dim operator*(const Dim& a, const Dim& b) {
  std::vector<Term> terms;
  for (const Term& x : a.terms_) {
    for (const Term& y : b.terms_) {
      int64_t coefficient = 0;
      if (__builtin_mul_overflow(x.coefficient, y.coefficient, &coefficient))
        overflow("(" + a.str() + ")", "*", "(" + b.str() + ")");
      terms.push_back({coefficient, merge_factors(x.factors, y.factors)});
    }
  }
  return DimBuilder::from_terms(std::move(terms));
}

int Dim::compare(const Dim& a, const Dim& b) {
  if (a.terms_.size() != b.terms_.size()) return a.terms_.size() < b.terms_.size() ? -1 : 1;
  for (size_t i = 0; i < a.terms_.size(); ++i) {
    if (int c = compare_factors(a.terms_[i].factors, b.terms_[i].factors)) return c;
    if (a.terms_[i].coefficient != b.terms_[i].coefficient) {
      return a.terms_[i].coefficient < b.terms_[i].coefficient ? -1 : 1;
    }
  }
  return 0;
}

int64_t Dim::lower_bound() const { return bounds_of(*this).low; }
int64_t Dim::upper_bound() const { return bounds_of(*this).high; }

Dim Dim::substitute(const std::function<std::optional<Dim>(const SymbolPtr&)>& replacement) const {
  Dim result;
  for (const Term& term : terms_) {
    Dim product(term.coefficient);
    for (const AtomPtr& atom : term.factors) product *= substitute_atom(atom, replacement);
    result += product;
  }
  return result;
}

Dim Dim::substitute(const SymbolPtr& symbol, const Dim& value) const {
  return substitute([&](const SymbolPtr& s) -> std::optional<Dim> {
    if (s == symbol) return value;
    return std::nullopt;
  });
}

int64_t Dim::evaluate(const std::function<int64_t(const SymbolPtr&)>& value_of) const {
  return evaluate_dim<CheckedArithmetic>(*this, value_of);
}

int64_t Dim::at_opt() const {
  return evaluate_dim<SaturatingArithmetic>(*this, [](const SymbolPtr& symbol) {
    KILN_CHECK(!symbol->is_loop, "loop index " + symbol->name + " in a size");
    return symbol->opt;
  });
}

std::vector<SymbolPtr> Dim::symbols() const {
  std::vector<SymbolPtr> result;
  collect_symbols(*this, result);
  std::sort(result.begin(), result.end(),
            [](const SymbolPtr& a, const SymbolPtr& b) { return a->id < b->id; });
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

bool Dim::mentions(const SymbolPtr& symbol) const {
  return std::any_of(terms_.begin(), terms_.end(),
                     [&](const Term& term) { return term_mentions(term, symbol); });
}

std::optional<std::pair<Dim, Dim>> Dim::as_linear_in(const SymbolPtr& symbol) const {
  const auto atom = std::make_shared<Atom>(Atom{AtomKind::Symbol, symbol, {}, {}});
  auto split = split_linear(*this, atom);
  if (!split || split->coefficient.mentions(symbol) || split->rest.mentions(symbol)) {
    return std::nullopt;
  }
  return std::pair{split->coefficient, split->rest};
}

std::string Dim::str() const {
  if (terms_.empty()) return "0";
  std::string result;
  for (const Term& term : terms_) {
    const int64_t coefficient = term.coefficient;
    if (!result.empty()) {
      result += coefficient < 0 ? " - " : " + ";
    } else if (coefficient < 0) {
      result += "-";
    }
    const uint64_t size = coefficient < 0 ? 0 - static_cast<uint64_t>(coefficient)
                                          : static_cast<uint64_t>(coefficient);
    std::string product;
    for (const AtomPtr& atom : term.factors) {
      if (!product.empty()) product += "*";
      product += atom_str(atom);
    }
    if (product.empty() || size != 1) {
      if (!product.empty()) product += "*";
      product += std::to_string(size);
    }
    result += product;
  }
  return result;
}

Dim floordiv(const Dim& a, const Dim& b) {
  KILN_CHECK(!b.is_constant(0), "division by zero: " + a.str());
  if (b.is_constant(1)) return a;
  if (a.is_constant() && b.is_constant()) return floor_div(a.constant(), b.constant());
  if (a == b && is_divisor(b)) return 1;
  const auto [quotient, remainder] = divide_terms(a, b);
  if (remainder.is_constant(0)) return quotient;
  if (is_divisor(b)) {
    if (remainder.lower_bound() >= 0 && provably_less(remainder, b)) return quotient;
    if (remainder.upper_bound() < 0 && provably_less_equal(-b, remainder)) return quotient - 1;
  }
  if (auto simpler = cancel_common_factor(remainder, b)) return quotient + *simpler;
  // floordiv(floordiv(x, c), b) -> floordiv(x, c * b)
  if (remainder.terms().size() == 1 && remainder.terms()[0].coefficient == 1 &&
      remainder.terms()[0].factors.size() == 1) {
    const AtomPtr& atom = remainder.terms()[0].factors[0];
    if (atom->kind == AtomKind::FloorDiv && is_divisor(atom->b) && is_divisor(b)) {
      return quotient + floordiv(atom->a, atom->b * b);
    }
  }
  return quotient + make_compound(AtomKind::FloorDiv, remainder, b);
}

Dim mod(const Dim& a, const Dim& b) {
  KILN_CHECK(!b.is_constant(0), "modulo by zero: " + a.str());
  if (b.is_constant(1)) return 0;
  if (a.is_constant() && b.is_constant()) {
    return floor_mod(a.constant(), b.constant());
  }
  const Dim remainder = divide_terms(a, b).remainder;
  if (remainder.is_constant(0) || remainder == b) return 0;
  if (is_divisor(b)) {
    if (remainder.lower_bound() >= 0 && provably_less(remainder, b)) return remainder;
    if (remainder.upper_bound() < 0 && provably_less_equal(-b, remainder)) return remainder + b;
  }
  return make_compound(AtomKind::Mod, remainder, b);
}

Dim ceildiv(const Dim& a, const Dim& b) { return floordiv(a + b - 1, b); }

Dim min(const Dim& a, const Dim& b) {
  if (provably_less_equal(a, b)) return a;
  if (provably_less_equal(b, a)) return b;
  return Dim::compare(a, b) < 0 ? make_compound(AtomKind::Min, a, b)
                                : make_compound(AtomKind::Min, b, a);
}

Dim max(const Dim& a, const Dim& b) {
  if (provably_less_equal(a, b)) return b;
  if (provably_less_equal(b, a)) return a;
  return Dim::compare(a, b) < 0 ? make_compound(AtomKind::Max, a, b)
                                : make_compound(AtomKind::Max, b, a);
}

bool provably_equal(const Dim& a, const Dim& b) {
  return proven([&] { return (a - b).is_constant(0); });
}
bool provably_less(const Dim& a, const Dim& b) {
  return proven([&] { return (b - a).lower_bound() >= 1; });
}
bool provably_less_equal(const Dim& a, const Dim& b) {
  return proven([&] { return (b - a).lower_bound() >= 0; });
}
bool provably_divisible(const Dim& a, const Dim& b) {
  return proven([&] { return mod(a, b).is_constant(0); });
}

int64_t saturating_product(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (const int64_t factor : factors) product = multiply_bound(product, factor);
  return product;
}

Dim product(const std::vector<Dim>& dims) {
  // No element, however large the other sizes are.
  for (const Dim& dim : dims) {
    if (dim.is_constant(0)) return 0;
  }
  Dim result(1);
  for (const Dim& dim : dims) result *= dim;
  return result;
}

}  // namespace kiln::ir
