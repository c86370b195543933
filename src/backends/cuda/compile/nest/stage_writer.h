// The text of one stage of a loop nest, whatever its loops are mapped to.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "backends/cuda/compile/emit/emitter.h"
#include "plan/form/program.h"

namespace kiln::cuda {

// Neighbouring values of one loop index that a thread has at once: first, first + 1, ... The variable
// `first` is of the index's type and a multiple of `count`. A count of 1: the index is bound already,
// or there is none.
struct Lanes {
  ir::SymbolPtr index = nullptr;
  int count = 1;
  std::string first = {};
};

// A reduction as text: "Sum", the type of its state, and how a value joins it.
class ReducerText {
 public:
  // `terms`: how many one thread joins, at most or, where there is no bound, usually.
  ReducerText(plan::ReduceOp op, DType dtype, int64_t terms = 1);

  const std::string& name() const { return name_; }
  const std::string& state_type() const { return state_type_; }
  // Of the result: i64 for a position.
  const char* result_type() const;
  std::string neutral() const;
  // The statement that joins an expression's value to a state; written to the emitter with what it
  // needs. `position`: of an ArgMax or ArgMin.
  void accumulate(Emitter& emitter, const std::string& state, const plan::Expr& value,
                  const ir::Dim& position, const Leaves& leaves) const;
  // The value that a finished state stands for.
  std::string result(const std::string& state) const;

 private:
  bool gives_position() const {
    return op_ == plan::ReduceOp::ArgMax || op_ == plan::ReduceOp::ArgMin;
  }

  plan::ReduceOp op_;
  DType dtype_;
  bool is_wide_ = false;  // the state is f64
  std::string name_, state_type_;
};

// How many terms of a reduction each of `threads` threads joins: see ReducerText.
int64_t terms_of(const plan::Reduction& reduction, int64_t threads);

// Where the position of an ArgMax or ArgMin is.
ir::Dim position_of(const plan::Reduction& reduction);

// Accesses of 16 bytes: which loads and stores of a nest are made as such.
class VectorAccess {
 public:
  // Buffers that the nest both reads and writes are left alone.
  VectorAccess(const plan::Program& program, const plan::LoopNest& nest);

  bool is_vector(const plan::ExprNode& load, const Lanes& lanes) const;
  bool is_vector(const plan::Store& store, const Lanes& lanes) const;
  // Whether an expression is the same at every stage: it uses no reduction, and reads nothing that the
  // nest writes.
  bool is_settled(const plan::Expr& expr) const;
  // Whether the nest reads and writes a buffer.
  bool is_shared(plan::BufferId buffer) const;
  // From here on it does not count as such, or does again: every thread reads of it only what it wrote itself.
  void set_own(plan::BufferId buffer, bool own);

 private:
  bool is_vector(plan::BufferId buffer, const ir::Dim& offset, const Lanes& lanes) const;

  const plan::Program& program_;
  std::vector<plan::BufferId> shared_;
};

class StageWriter {
 public:
  StageWriter(Emitter& emitter, const plan::LoopNest& nest)
      : emitter_(emitter), access_(emitter.program(), nest) {}

  const VectorAccess& access() const { return access_; }
  VectorAccess& access() { return access_; }

  // The flag that vector accesses go by, whether all pointers are aligned, for a stage that is written
  // later. Once for all stages, then declare_flag().
  void plan_access(const plan::Stage& stage, const Lanes& lanes);
  void declare_flag();

  // Loads that are in registers already, for the stages that follow: the text of each, in terms of the
  // lane `e`.
  void keep(std::map<const plan::ExprNode*, std::string> kept) { kept_ = std::move(kept); }

  // Loads the lanes of a vector load into a fresh array, whose name it gives. The lanes' index is bound.
  std::string load_lanes(const plan::ExprNode& load, const Lanes& lanes);

  // Makes vector loads, then runs `body` for each lane with the lane's index bound. Names of `reduced`
  // that end in "[e]" are one for each lane.
  void for_each_lane(const std::vector<plan::Expr>& exprs, const Lanes& lanes,
                     const std::vector<std::string>& reduced,
                     const std::function<void(const Leaves&)>& body);
  // The store of a value for all lanes. `value` gives its text where it is not the store's own.
  void store(const plan::Store& store, const Lanes& lanes, const std::vector<std::string>& reduced,
             const std::function<std::string(const Leaves&)>& value = nullptr);

 private:
  Emitter& emitter_;
  VectorAccess access_;
  std::vector<plan::BufferId> checked_;  // whose pointers the flag looks at
  bool has_flag_ = false;
  std::map<const plan::ExprNode*, std::string> kept_;  // never iterated
};

// Whether two loads read the same element wherever they are.
bool same_place(const plan::Program& program, const plan::ExprNode& a, const plan::ExprNode& b);

// Whether an expression has another value in each lane, for all that is known.
bool mentions(const plan::Expr& expr, const ir::SymbolPtr& index);

// What an expression is in instructions, roughly: unrolled too often, it is slow to compile and finds no
// registers.
int64_t operations(const plan::Expr& expr);

// The widest number of lanes that vector accesses of a nest along a loop go well with: 16 bytes of its
// smaller elements. 1 where nothing is contiguous.
int widest_lanes(const plan::Program& program, const plan::Stage& stage, const plan::Loop& loop,
                 const VectorAccess& access);

}  // namespace kiln::cuda
