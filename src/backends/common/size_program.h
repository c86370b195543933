// Dims as instructions that the runtime runs once per set of input shapes.
#pragma once

#include <map>
#include <vector>

#include "engine/spec.h"
#include "plan/form/program.h"

namespace kiln::backend {

class SizeProgram {
 public:
  explicit SizeProgram(const std::vector<ir::SymbolPtr>& symbols) : symbols_(symbols) {}

  // The slot that holds the value; equal Dims and equal subexpressions share theirs.
  engine::Slot slot(const ir::Dim& dim);
  const std::vector<engine::SizeInstruction>& instructions() const { return instructions_; }

 private:
  engine::Slot compute(const ir::Dim& dim);
  engine::Slot compute_atom(const ir::Atom& atom);
  engine::Slot symbol_slot(const ir::SymbolPtr& symbol);
  engine::Slot add(engine::SizeInstruction instruction);

  const std::vector<ir::SymbolPtr>& symbols_;
  std::vector<engine::SizeInstruction> instructions_;
  struct Less {
    bool operator()(const ir::Dim& a, const ir::Dim& b) const { return ir::Dim::compare(a, b) < 0; }
  };
  std::map<ir::Dim, engine::Slot, Less> slots_;
};

// Where each symbol of the inputs is read from: the first input dimension that is exactly it.
std::vector<engine::SymbolSpec> find_symbols(const plan::Program& program);

}  // namespace kiln::backend
