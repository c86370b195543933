#include "backends/common/dim_terms.h"

#include <algorithm>

#include "support/error.h"

namespace kiln::backend {

using ir::AtomKind;
using ir::Dim;

Dim dim_of_atom(const ir::AtomPtr& atom) {
  switch (atom->kind) {
    case AtomKind::Symbol:
      return Dim(atom->symbol);
    case AtomKind::FloorDiv:
      return ir::floordiv(atom->a, atom->b);
    case AtomKind::Mod:
      return ir::mod(atom->a, atom->b);
    case AtomKind::Min:
      return ir::min(atom->a, atom->b);
    case AtomKind::Max:
      return ir::max(atom->a, atom->b);
  }
  throw InternalError("unknown kind of atom");
}

Dim dim_of_term(const ir::Term& term) {
  Dim result = term.coefficient;
  for (const ir::AtomPtr& factor : term.factors) result *= dim_of_atom(factor);
  return result;
}

int64_t constant_term(const Dim& dim) {
  const auto& terms = dim.terms();
  return !terms.empty() && terms.back().factors.empty() ? terms.back().coefficient : 0;
}

bool depends_on_loops(const Dim& dim) {
  const auto symbols = dim.symbols();
  return std::ranges::any_of(symbols, [](const ir::SymbolPtr& symbol) { return symbol->is_loop; });
}

}  // namespace kiln::backend
