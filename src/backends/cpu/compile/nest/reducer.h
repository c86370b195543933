// Running reductions in registers.
#pragma once

#include "backends/cpu/compile/emit/emitter.h"

namespace kiln::cpu {

// The running result of one reduction, scalar or a lane each: one value, or value and position for
// ArgMax and ArgMin.
class Reducer {
 public:
  using State = std::vector<llvm::Value*>;

  Reducer(Emitter& emitter, plan::ReduceOp op, DType dtype)
      : emitter_(emitter), ir_(emitter.ir()), op_(op), dtype_(dtype) {}

  // Before anything was seen, for one reduction whose values come `lanes` at a time (1: scalars)
  // ...
  State initial(int lanes) const;
  // ... or for as many reductions as there are lanes.
  State initial_of_lanes(int lanes) const;
  // After one more value. Lanes where lanes.mask is false stay. `position` is that of the value,
  // for ArgMax and ArgMin.
  State accumulate(const State& state, const plan::Expr& value, const ir::Dim& position,
                   const Lanes& lanes, const Leaves& leaves) const;
  // The same for a value of each of several reductions, none of which gives positions; what the
  // values have in common is computed once. Masked lanes may hold anything.
  State accumulate_all(const State& states, const std::vector<plan::Expr>& values,
                       const Lanes& lanes) const;
  // One state out of two that saw different values.
  State join(const State& a, const State& b) const;
  // The same for states of several reductions, none of which gives positions.
  State join_each(const State& a, const State& b) const;
  // Joins the lanes: a scalar state.
  State join_lanes(State state) const;
  llvm::Value* result(const State& state) const { return state.back(); }
  // Whether each step rounds, so that the order of the steps matters.
  bool rounds() const { return op_ == plan::ReduceOp::Sum && is_floating(dtype_); }

 private:
  bool gives_position() const {
    return op_ == plan::ReduceOp::ArgMax || op_ == plan::ReduceOp::ArgMin;
  }
  llvm::Value* neutral(llvm::Type* type) const;
  // Whether sum + value is one multiply-add.
  bool is_product(const plan::Expr& value) const;
  // sum + the product of the factors of `value`.
  llvm::Value* multiply_add(const plan::Expr& value, llvm::Value* a, llvm::Value* b,
                            llvm::Value* sum) const;
  llvm::Value* multiply_add_bytes(const plan::Expr& value, llvm::Value* a, llvm::Value* b,
                                  llvm::Value* sum) const;
  llvm::Value* combine(llvm::Value* a, llvm::Value* b) const;
  // Whether a is a better maximum (minimum) than b. Not-a-number is the best.
  llvm::Value* beats(llvm::Value* a, llvm::Value* b) const;

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  plan::ReduceOp op_;
  DType dtype_;
};

}  // namespace kiln::cpu
