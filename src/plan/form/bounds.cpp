#include "plan/form/bounds.h"

#include <algorithm>

#include "ir/size_overflow.h"
#include "plan/form/fold.h"

namespace kiln::plan {
namespace {

using ir::Op;

// Rules may feed each other; past this depth the answer is "not proven".
constexpr int kMaxDepth = 8;

// x >= low and x < high, as a comparison says it.
struct Fact {
  ir::Dim slack;  // known to be >= 0
};

std::optional<Fact> fact_of(const ExprNode& node) {
  if (node.kind != ExprKind::Apply || node.args.size() != 2) return std::nullopt;
  const auto a = as_index(node.args[0]), b = as_index(node.args[1]);
  if (!a || !b) return std::nullopt;
  switch (node.op) {
    case Op::ge:
      return Fact{*a - *b};
    case Op::gt:
      return Fact{*a - *b - 1};
    case Op::le:
      return Fact{*b - *a};
    case Op::lt:
      return Fact{*b - *a - 1};
    default:
      return std::nullopt;
  }
}

void collect_facts(const Expr& predicate, std::vector<Fact>& facts) {
  if (!predicate) return;
  if (predicate->kind == ExprKind::Apply && predicate->op == Op::bitwise_and) {
    for (const Expr& arg : predicate->args) collect_facts(arg, facts);
  }
  if (auto fact = fact_of(*predicate)) facts.push_back(std::move(*fact));
}

// An atom that makes up a whole term: value = coefficient * atom + rest.
struct LoneAtom {
  ir::AtomPtr atom;
  int64_t coefficient = 0;
};

template <typename Wanted>
std::optional<LoneAtom> find_atom(const ir::Dim& value, const Wanted& wanted) {
  for (const ir::Term& term : value.terms()) {
    if (term.factors.size() == 1 && wanted(*term.factors[0], term.coefficient)) {
      return LoneAtom{term.factors[0], term.coefficient};
    }
  }
  return std::nullopt;
}

class Prover {
 public:
  explicit Prover(const std::vector<Fact>& facts) : facts_(facts) {}

  bool non_negative(const ir::Dim& value, int depth = 0) const {
    if (value.lower_bound() >= 0) return true;
    if (depth == kMaxDepth) return false;
    return by_extremum(value, depth + 1) || by_quotient(value, depth + 1) ||
           by_remainder(value, depth + 1) || by_last(value, depth + 1) ||
           by_facts(value, 0, depth + 1);
  }

 private:
  // c * min(a, b) + rest: both c * a + rest and c * b + rest where min is the worst case, one of
  // them where it is the best.
  bool by_extremum(const ir::Dim& value, int depth) const {
    const auto found = find_atom(value, [](const ir::Atom& atom, int64_t) {
      return atom.kind == ir::AtomKind::Min || atom.kind == ir::AtomKind::Max;
    });
    if (!found) return false;
    const ir::Atom& atom = *found->atom;
    const bool is_min = atom.kind == ir::AtomKind::Min;
    const ir::Dim whole = is_min ? ir::min(atom.a, atom.b) : ir::max(atom.a, atom.b);
    const ir::Dim rest = value - whole * found->coefficient;
    const auto with = [&](const ir::Dim& side) {
      return non_negative(rest + side * found->coefficient, depth);
    };
    const bool is_worst = is_min == (found->coefficient > 0);
    return is_worst ? with(atom.a) && with(atom.b) : with(atom.a) || with(atom.b);
  }

  // rest + a / b >= 0 where rest * b + a >= 0, and rest - c * (a / b) >= 0 where
  // rest * b + b - 1 - c * a >= 0.
  bool by_quotient(const ir::Dim& value, int depth) const {
    const auto found = find_atom(value, [](const ir::Atom& atom, int64_t coefficient) {
      return atom.kind == ir::AtomKind::FloorDiv && coefficient <= 1 && atom.b.lower_bound() >= 0;
    });
    if (!found) return false;
    const ir::Atom& atom = *found->atom;
    const ir::Dim rest = value - ir::floordiv(atom.a, atom.b) * found->coefficient;
    if (found->coefficient == 1) return non_negative(rest * atom.b + atom.a, depth);
    return non_negative(rest * atom.b + atom.b - 1 + atom.a * found->coefficient, depth);
  }

  // rest - c * (a mod b) >= 0 where rest - c * (b - 1) >= 0: a size that is divided by is 1 or more.
  bool by_remainder(const ir::Dim& value, int depth) const {
    const auto found = find_atom(value, [](const ir::Atom& atom, int64_t coefficient) {
      return atom.kind == ir::AtomKind::Mod && coefficient < 0 && atom.b.lower_bound() >= 0;
    });
    if (!found) return false;
    const ir::Atom& atom = *found->atom;
    const ir::Dim rest = value - ir::mod(atom.a, atom.b) * found->coefficient;
    return non_negative(rest + (atom.b - 1) * found->coefficient, depth);
  }

  // rest - c * index >= 0 where it is at the last index. Bounds of Dims know that too, but nothing of
  // what an extent is made of.
  bool by_last(const ir::Dim& value, int depth) const {
    const auto found = find_atom(value, [](const ir::Atom& atom, int64_t coefficient) {
      return atom.kind == ir::AtomKind::Symbol && atom.symbol->is_loop && coefficient < 0;
    });
    if (!found) return false;
    const ir::SymbolPtr& index = found->atom->symbol;
    const ir::Dim rest = value - ir::Dim(index) * found->coefficient;
    return non_negative(rest + (index->extent - 1) * found->coefficient, depth);
  }

  // Subtracts multiples of what is known to be non-negative, such that an index that both mention
  // cancels.
  bool by_facts(const ir::Dim& value, size_t first, int depth) const {
    if (depth > kMaxDepth) return false;
    for (size_t i = first; i < facts_.size(); ++i) {
      const auto factor = multiple(value, facts_[i].slack);
      if (!factor) continue;
      const ir::Dim rest = value - *factor * facts_[i].slack;
      if (rest.lower_bound() >= 0 || by_facts(rest, i + 1, depth + 1)) return true;
    }
    return false;
  }

  static std::optional<ir::Dim> multiple(const ir::Dim& value, const ir::Dim& slack) {
    for (const ir::SymbolPtr& symbol : slack.symbols()) {
      const auto own = slack.as_linear_in(symbol), other = value.as_linear_in(symbol);
      if (!own || !other || own->first.is_constant(0)) continue;
      const ir::Dim factor = ir::floordiv(other->first, own->first);
      if (factor * own->first == other->first && factor.lower_bound() >= 1) return factor;
    }
    return std::nullopt;
  }

  const std::vector<Fact>& facts_;
};

// Whether a divisor is 1 or more: by itself, or where the predicate says so of a multiple, as the number of
// elements is one of each size.
bool is_positive(const ir::Dim& divisor, const std::vector<Fact>& facts) {
  if (divisor.lower_bound() >= 1) return true;
  return divisor.lower_bound() >= 0 && std::ranges::any_of(facts, [&](const Fact& fact) {
           return ir::provably_divisible(fact.slack + 1, divisor);
         });
}

// limit - index >= 0 if `upper`, index - limit >= 0 otherwise.
bool bounded(const Expr& index, const ir::Dim& limit, bool upper, const std::vector<Fact>& facts) {
  if (const auto known = as_index(index)) {
    return Prover(facts).non_negative(upper ? limit - *known : *known - limit);
  }
  if (index->kind == ExprKind::Check) return bounded(index->args[0], limit, upper, facts);
  if (index->kind != ExprKind::Apply) return false;
  const auto check = [&](const Expr& arg) { return bounded(arg, limit, upper, facts); };
  switch (index->op) {
    case Op::minimum:
      return upper ? std::ranges::any_of(index->args, check)
                   : std::ranges::all_of(index->args, check);
    case Op::maximum:
      return upper ? std::ranges::all_of(index->args, check)
                   : std::ranges::any_of(index->args, check);
    case Op::where:
      return check(index->args[1]) && check(index->args[2]);
    case Op::remainder: {  // of a positive divisor: 0 <= r < divisor
      const auto divisor = as_index(index->args[1]);
      if (!divisor || !is_positive(*divisor, facts)) return false;
      return Prover(facts).non_negative(upper ? limit - *divisor + 1 : -limit);
    }
    case Op::
        floor_div: {  // a / b <= limit where a <= limit * b + b - 1, and >= where a >= limit * b
      const auto divisor = as_index(index->args[1]);
      if (!divisor || !is_positive(*divisor, facts)) return false;
      const ir::Dim scaled = limit * *divisor;
      return bounded(index->args[0], upper ? scaled + *divisor - 1 : scaled, upper, facts);
    }
    case Op::cast:  // of a byte
      return index->args[0]->dtype == DType::U8 &&
             Prover(facts).non_negative(upper ? limit - UINT8_MAX : -limit);
    default:
      return false;
  }
}

}  // namespace

bool provably_non_negative(const ir::Dim& value) {
  return ir::proven([&] { return Prover({}).non_negative(value); });
}

bool provably_in_range(const Expr& index, const ir::Dim& size, const Expr& predicate) {
  return provably_in_range(index, 0, size, predicate);
}

bool provably_in_range(const Expr& index, const ir::Dim& least, const ir::Dim& end,
                       const Expr& predicate) {
  return ir::proven([&] {
    std::vector<Fact> facts;
    collect_facts(predicate, facts);
    return bounded(index, least, false, facts) && bounded(index, end - 1, true, facts);
  });
}

}  // namespace kiln::plan
