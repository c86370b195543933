// Running reductions in registers.
#pragma once

#include "backends/cpu/compile/codegen.h"

namespace kiln::cpu {

// The running result of one reduction, scalar or a lane each: one value, or value and position for
// ArgMax and ArgMin.
class Reducer {
 public:
  using State = std::vector<llvm::Value*>;

  Reducer(Emitter& emitter, plan::ReduceOp op, DType dtype)
      : ir_(emitter.ir()), op_(op), dtype_(dtype) {}

  // Before anything was seen. `lanes`: 1 for scalars.
  State initial(int lanes) const;
  // After one more value. Lanes where `mask` is false stay; null: none do. `position` (i64, scalar or
  // of each lane) is used by ArgMax and ArgMin.
  State step(const State& state, llvm::Value* value, llvm::Value* position, llvm::Value* mask) const;
  // One state out of two that saw different values.
  State join(const State& a, const State& b) const;
  // Joins the lanes: a scalar state.
  State join_lanes(State state) const;
  llvm::Value* result(const State& state) const { return state.back(); }

 private:
  bool gives_position() const {
    return op_ == plan::ReduceOp::ArgMax || op_ == plan::ReduceOp::ArgMin;
  }
  llvm::Value* neutral(llvm::Type* type) const;
  llvm::Value* combine(llvm::Value* a, llvm::Value* b) const;
  // Whether a is a better maximum (minimum) than b. Not-a-number is the best.
  llvm::Value* beats(llvm::Value* a, llvm::Value* b) const;

  llvm::IRBuilder<>& ir_;
  plan::ReduceOp op_;
  DType dtype_;
};

}  // namespace kiln::cpu
