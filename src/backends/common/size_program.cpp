#include "backends/common/size_program.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "backends/common/dim_terms.h"
#include "support/error.h"

namespace kiln::backend {

using engine::SizeOp;
using engine::Slot;
using ir::AtomKind;
using ir::Dim;

Slot SizeProgram::slot(const Dim& dim) {
  if (auto it = slots_.find(dim); it != slots_.end()) return it->second;
  const Slot result = compute(dim);
  slots_[dim] = result;
  return result;
}

Slot SizeProgram::add(engine::SizeInstruction instruction) {
  instructions_.push_back(instruction);
  return static_cast<Slot>(instructions_.size() - 1);
}

Slot SizeProgram::compute(const Dim& dim) {
  if (dim.is_constant()) return add({SizeOp::Constant, -1, -1, dim.constant()});
  const std::vector<ir::Term>& terms = dim.terms();
  if (terms.size() > 1) {
    Slot sum = -1;
    for (const ir::Term& term : terms) {
      const Slot value = slot(dim_of_term(term));
      sum = sum < 0 ? value : add({SizeOp::Add, sum, value, 0});
    }
    return sum;
  }
  const ir::Term& term = terms.front();
  if (term.coefficient != 1) {
    const Dim rest = dim_of_term({1, term.factors});
    return add({SizeOp::Mul, slot(rest), slot(term.coefficient), 0});
  }
  if (term.factors.size() == 1) return compute_atom(*term.factors.front());
  Slot product = -1;
  for (const ir::AtomPtr& factor : term.factors) {
    const Slot value = slot(dim_of_atom(factor));
    product = product < 0 ? value : add({SizeOp::Mul, product, value, 0});
  }
  return product;
}

Slot SizeProgram::compute_atom(const ir::Atom& atom) {
  switch (atom.kind) {
    case AtomKind::Symbol:
      return symbol_slot(atom.symbol);
    case AtomKind::FloorDiv:
      return add({SizeOp::FloorDiv, slot(atom.a), slot(atom.b), 0});
    case AtomKind::Mod:
      return add({SizeOp::Mod, slot(atom.a), slot(atom.b), 0});
    case AtomKind::Min:
      return add({SizeOp::Min, slot(atom.a), slot(atom.b), 0});
    case AtomKind::Max:
      return add({SizeOp::Max, slot(atom.a), slot(atom.b), 0});
  }
  throw InternalError("unknown kind of atom");
}

Slot SizeProgram::symbol_slot(const ir::SymbolPtr& symbol) {
  const auto it = std::ranges::find(symbols_, symbol);
  KILN_CHECK(it != symbols_.end(), "the size " + symbol->name + " is not a symbol of the program");
  return add({SizeOp::Symbol, -1, -1, it - symbols_.begin()});
}

namespace {

// {factor, offset} of a size that is factor * symbol + offset.
std::optional<std::pair<int64_t, int64_t>> read_off(const Dim& size, const ir::SymbolPtr& symbol) {
  const auto linear = size.as_linear_in(symbol);
  if (!linear || !linear->first.is_constant() || !linear->second.is_constant()) return std::nullopt;
  if (linear->first.constant() < 1) return std::nullopt;
  return std::pair(linear->first.constant(), linear->second.constant());
}

// A dimension that is the symbol itself, or else the first from which it follows.
engine::SymbolSpec find_symbol(const plan::Program& program, const ir::SymbolPtr& symbol) {
  std::optional<engine::SymbolSpec> result;
  for (size_t input = 0; input < program.inputs.size(); ++input) {
    const auto& shape = program.buffers[static_cast<size_t>(program.inputs[input])].type.shape;
    for (size_t dim = 0; dim < shape.size(); ++dim) {
      const auto found = read_off(shape[dim], symbol);
      const bool plain = found == std::pair<int64_t, int64_t>(1, 0);
      if (!found || (result && !plain)) continue;
      result = engine::SymbolSpec{symbol->name,
                                  static_cast<int32_t>(input),
                                  static_cast<int32_t>(dim),
                                  symbol->min,
                                  symbol->max,
                                  symbol->opt,
                                  found->first,
                                  found->second};
      if (plain) return *result;
    }
  }
  if (result) return *result;
  throw CompileError(
      "the size " + symbol->name +
      " does not follow from a dimension of any input, expected one that is it, or a "
      "multiple of it with a constant added");
}

}  // namespace

std::vector<engine::SymbolSpec> find_symbols(const plan::Program& program) {
  std::vector<engine::SymbolSpec> result;
  const size_t inputs = program.symbols.size() - program.data_sizes.size();
  for (size_t i = 0; i < inputs; ++i) result.push_back(find_symbol(program, program.symbols[i]));
  return result;
}

}  // namespace kiln::backend
