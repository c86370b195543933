// Symbolic integers: sizes of tensors, and indices of loops.
//
// A Dim is a polynomial over atoms with integer coefficients, kept in a canonical order, so that
// equal polynomials compare equal. An atom is a symbol, or a floordiv, mod, min or max of two Dims.
// Simplification uses the ranges of the symbols: (i * 32 + j) / 32 is i when j is a loop index
// below 32.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kiln::ir {

class Dim;
struct Symbol;
using SymbolPtr = std::shared_ptr<const Symbol>;

// Stands for "unbounded" in ranges; far from overflow on purpose.
inline constexpr int64_t kDimInfinity = int64_t{1} << 60;

// Makes a symbol for an input dimension: an unknown size with min <= size <= max (both inclusive).
// `opt` is the size to optimise for. Symbols are told apart by identity, never by name, and ordered
// by creation.
SymbolPtr make_size_symbol(std::string name, int64_t min, int64_t max, int64_t opt);

// Makes a loop index that ranges over [0, extent).
SymbolPtr make_loop_symbol(std::string name, Dim extent);

enum class AtomKind : uint8_t { Symbol, FloorDiv, Mod, Min, Max };

struct Atom;
using AtomPtr = std::shared_ptr<const Atom>;

// coefficient * product(factors); factors sorted, repeated for powers.
struct Term {
  int64_t coefficient = 0;
  std::vector<AtomPtr> factors;
};

class Dim {
 public:
  Dim() = default;  // zero
  Dim(int64_t constant);
  Dim(const SymbolPtr& symbol);

  bool is_constant() const;
  // The value of a constant Dim; InternalError for any other.
  int64_t constant() const;
  bool is_constant(int64_t value) const { return is_constant() && constant() == value; }
  // The symbol, if the Dim is exactly one symbol.
  SymbolPtr as_symbol() const;
  // Sorted terms, the constant term last; empty for zero.
  const std::vector<Term>& terms() const { return terms_; }

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  Dim operator-() const;
  Dim& operator+=(const Dim& other) { return *this = *this + other; }
  Dim& operator-=(const Dim& other) { return *this = *this - other; }
  Dim& operator*=(const Dim& other) { return *this = *this * other; }

  // Equality of canonical forms. Equal Dims always have equal values; different Dims may.
  friend bool operator==(const Dim& a, const Dim& b) { return compare(a, b) == 0; }
  // A total order for deterministic containers; not an order of values.
  static int compare(const Dim& a, const Dim& b);

  // Bounds over all values of the symbols, both inclusive; +-kDimInfinity when unknown.
  int64_t lower_bound() const;
  int64_t upper_bound() const;

  // Replaces symbols; the function returns nullopt for a symbol that stays.
  Dim substitute(const std::function<std::optional<Dim>(const SymbolPtr&)>& replacement) const;
  Dim substitute(const SymbolPtr& symbol, const Dim& value) const;

  // The value for given symbols. Division by zero: InternalError.
  int64_t evaluate(const std::function<int64_t(const SymbolPtr&)>& value_of) const;

  // The value at the `opt` of every size symbol; loop symbols must not occur.
  int64_t at_opt() const;

  // All symbols that occur, in order of creation, without repetition.
  std::vector<SymbolPtr> symbols() const;
  bool mentions(const SymbolPtr& symbol) const;

  // If the Dim is symbol * coefficient + rest and neither mentions the symbol: {coefficient, rest}.
  std::optional<std::pair<Dim, Dim>> as_linear_in(const SymbolPtr& symbol) const;

  // Readable and parseable (ir/parser.h): "s0*2 + 1", "floordiv(s0 + 1, 2)".
  std::string str() const;

 private:
  friend struct DimBuilder;
  std::vector<Term> terms_;
};

// Rounds towards minus infinity. A provably zero divisor is an InternalError.
Dim floordiv(const Dim& a, const Dim& b);
// a - floordiv(a, b) * b
Dim mod(const Dim& a, const Dim& b);
Dim ceildiv(const Dim& a, const Dim& b);
Dim min(const Dim& a, const Dim& b);
Dim max(const Dim& a, const Dim& b);

// Proofs that hold for every value of the symbols; false means "not proven".
bool provably_equal(const Dim& a, const Dim& b);
bool provably_less(const Dim& a, const Dim& b);        // a < b
bool provably_less_equal(const Dim& a, const Dim& b);  // a <= b
bool provably_divisible(const Dim& a, const Dim& b);   // a mod b == 0

// Product of all dims; 1 when empty.
Dim product(const std::vector<Dim>& dims);

struct Symbol {
  uint64_t id = 0;  // creation order
  std::string name;
  bool is_loop = false;
  int64_t min = 0;
  int64_t max = kDimInfinity;
  int64_t opt = 0;
  Dim extent;  // loops only: the index is in [0, extent)
};

struct Atom {
  AtomKind kind = AtomKind::Symbol;
  SymbolPtr symbol;  // AtomKind::Symbol
  Dim a, b;          // the others
};

}  // namespace kiln::ir
