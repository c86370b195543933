// One expression, emitted at one place: the walk over its DAG.
#pragma once

#include <map>
#include <vector>

#include "backends/common/element_offset.h"
#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

// What is equal in all lanes stays scalar until it meets a vector; what does not change in the
// innermost loop is emitted before that loop.
class ExprEmitter {
 public:
  ExprEmitter(Emitter& emitter, const Lanes& lanes, const Leaves& leaves)
      : emitter_(emitter), ir_(emitter.ir()), lanes_(lanes), leaves_(leaves) {}

  llvm::Value* run(const plan::Expr& expr);
  void store(plan::BufferId buffer, const std::vector<plan::Index>& indices, llvm::Value* value);

 private:
  using Offset = backend::ElementOffset;

  bool is_vector() const { return lanes_.index != nullptr && lanes_.count > 1; }
  bool varies(const plan::Expr& expr);
  size_t depth(const plan::Expr& expr);
  bool is_result(const plan::ExprNode& node) const;
  llvm::Value* node(const plan::Expr& expr);
  llvm::Value* node_before_loop(const plan::Expr& expr);
  llvm::Value* compute(const plan::Expr& expr);
  llvm::Value* apply(const plan::Expr& expr);
  llvm::Value* multiply_by_reciprocal(const plan::Expr& expr);
  llvm::Value* quantise(const plan::Expr& expr);
  llvm::Value* multiply_add(const plan::Expr& expr);
  double magnitude(const plan::Expr& expr);
  double magnitude_of(const plan::ExprNode& expr);
  llvm::Value* at_most(llvm::Value* value, double bound);
  llvm::Value* divide_below(const plan::Expr& quotient, double bound);
  void note_failure(const plan::ExprNode& check);

  llvm::Value* load(const plan::ExprNode& node);
  llvm::Value* look_up(plan::BufferId table, const plan::Expr& byte);
  llvm::Value* load_lanes(const plan::ExprNode& node, const Offset& offset);
  llvm::Value* gather(const plan::ExprNode& node, const Offset& offset);
  llvm::Value* address(plan::BufferId buffer, const Offset& offset);
  // Elements between lanes, if that is one number and nothing else depends on the lane.
  std::optional<ir::Dim> lane_stride(const Offset& offset);
  // lanes_.mask and the predicate.
  llvm::Value* mask(const plan::Expr& predicate);
  llvm::Value* all_lanes();

  llvm::Value* widen(llvm::Value* value);
  // The element indices of all lanes: i32 if the buffer is small enough.
  llvm::Value* lane_indices(plan::BufferId buffer, const Offset& offset);
  llvm::Value* lane_values(const ir::Dim& dim, llvm::Type* integer);
  llvm::Value* lane_values_of_atom(const ir::AtomPtr& atom, llvm::Type* integer);
  llvm::Value* lane_division(const ir::Atom& atom, llvm::Type* integer);
  llvm::Value* splat_dim(const ir::Dim& dim, llvm::Type* integer);

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const Lanes& lanes_;
  const Leaves& leaves_;
  std::map<const plan::ExprNode*, llvm::Value*> values_;  // never iterated, like the others
  std::map<const plan::ExprNode*, bool> varies_;
  std::map<const plan::ExprNode*, size_t> depths_;
  std::map<const plan::ExprNode*, double> magnitudes_;
  std::vector<plan::Expr> failures_;  // their nodes are keys of the maps
};

}  // namespace kiln::cpu
