#include "plan/bounds.h"

#include <algorithm>

#include "plan/fold.h"

namespace kiln::plan {
namespace {

using ir::Op;

// A min or max that occurs alone in a term.
struct Extremum {
  ir::AtomPtr atom;
  int64_t coefficient = 0;
};

std::optional<Extremum> find_extremum(const ir::Dim& value) {
  for (const ir::Term& term : value.terms()) {
    if (term.factors.size() != 1) continue;
    const ir::AtomKind kind = term.factors[0]->kind;
    if (kind == ir::AtomKind::Min || kind == ir::AtomKind::Max) {
      return Extremum{term.factors[0], term.coefficient};
    }
  }
  return std::nullopt;
}

// x >= low and x < high, as a comparison says it.
struct Fact {
  ir::Dim slack;  // known to be >= 0
};

std::optional<Fact> fact_of(const ExprNode& node) {
  if (node.kind != ExprKind::Apply || node.args.size() != 2) return std::nullopt;
  const auto a = as_index(node.args[0]), b = as_index(node.args[1]);
  if (!a || !b) return std::nullopt;
  switch (node.op) {
    case Op::ge: return Fact{*a - *b};
    case Op::gt: return Fact{*a - *b - 1};
    case Op::le: return Fact{*b - *a};
    case Op::lt: return Fact{*b - *a - 1};
    default: return std::nullopt;
  }
}

void collect_facts(const Expr& predicate, std::vector<Fact>& facts) {
  if (!predicate) return;
  if (predicate->kind == ExprKind::Apply && predicate->op == Op::bitwise_and) {
    for (const Expr& arg : predicate->args) collect_facts(arg, facts);
  }
  if (auto fact = fact_of(*predicate)) facts.push_back(std::move(*fact));
}

bool holds(const ir::Dim& value, const std::vector<Fact>& facts) {
  if (provably_non_negative(value)) return true;
  return std::ranges::any_of(
      facts, [&](const Fact& fact) { return provably_non_negative(value - fact.slack); });
}

// limit - index >= 0 if `upper`, index - limit >= 0 otherwise.
bool bounded(const Expr& index, const ir::Dim& limit, bool upper, const std::vector<Fact>& facts) {
  if (const auto known = as_index(index)) {
    return holds(upper ? limit - *known : *known - limit, facts);
  }
  if (index->kind != ExprKind::Apply) return false;
  const auto check = [&](const Expr& arg) { return bounded(arg, limit, upper, facts); };
  switch (index->op) {
    case Op::minimum: return upper ? std::ranges::any_of(index->args, check)
                                   : std::ranges::all_of(index->args, check);
    case Op::maximum: return upper ? std::ranges::all_of(index->args, check)
                                   : std::ranges::any_of(index->args, check);
    case Op::where: return check(index->args[1]) && check(index->args[2]);
    default: return false;
  }
}

}  // namespace

bool provably_non_negative(const ir::Dim& value) {
  if (value.lower_bound() >= 0) return true;
  const auto extremum = find_extremum(value);
  if (!extremum) return false;
  const ir::Atom& atom = *extremum->atom;
  const bool is_min = atom.kind == ir::AtomKind::Min;
  const ir::Dim whole = is_min ? ir::min(atom.a, atom.b) : ir::max(atom.a, atom.b);
  const ir::Dim rest = value - whole * extremum->coefficient;
  const bool with_a = provably_non_negative(rest + atom.a * extremum->coefficient);
  const bool with_b = provably_non_negative(rest + atom.b * extremum->coefficient);
  const bool is_least = is_min == (extremum->coefficient > 0);
  return is_least ? with_a && with_b : with_a || with_b;
}

bool provably_in_range(const Expr& index, const ir::Dim& size, const Expr& predicate) {
  std::vector<Fact> facts;
  collect_facts(predicate, facts);
  return bounded(index, 0, false, facts) && bounded(index, size - 1, true, facts);
}

}  // namespace kiln::plan
