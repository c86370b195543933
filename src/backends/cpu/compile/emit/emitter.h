// Generating one kernel for one CPU level. LLVM stays inside backends/cpu/compile.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include "backends/cpu/compile/common.h"
#include "backends/cpu/compile/emit/byte_table.h"
#include "backends/cpu/compile/emit/target.h"
#include "ir/dim.h"
#include "plan/form/program.h"

namespace kiln::cpu {

// The lanes of one vector: index runs over first, first + 1, ..., and `first` is what the index is
// bound to. Lanes where `mask` is false are not accessed. Null index: scalars.
struct Lanes {
  ir::SymbolPtr index;
  int count = 1;
  llvm::Value* mask = nullptr;  // <count x i1>, or null: all
};

// What stands for some leaves of an expression. Scalars are taken as equal in all lanes.
struct Leaves {
  llvm::Value* accumulator = nullptr;
  std::vector<llvm::Value*> reduced;
  // The values were computed outside of the innermost loop, and what this kernel stored before was
  // stored there: what depends on them alone is hoisted.
  bool invariant = false;
  // a * b + c is rounded once: in what is made of sums of integers, whose scales have no order of their own.
  bool contracts = false;
};

struct DimLess {
  bool operator()(const ir::Dim& a, const ir::Dim& b) const { return ir::Dim::compare(a, b) < 0; }
};

// One function under construction: i64(ptr buffers, ptr params, ptr scratch, i64 begin, i64 end).
//
// Index arithmetic is hoisted as it is made: LLVM runs no passes over the IR. Every loop made by
// loop() has a place just before it; a value goes before the outermost loop that leaves its symbols
// alone, and is made there once.
//
// Values of f16 and bf16 expressions are f32, those of bool are i1.
class Emitter {
 public:
  Emitter(const plan::Program& program, const Target& target, KernelInterface& interface,
          ConstantPool& constants, llvm::Module& module, const std::string& symbol);

  llvm::IRBuilder<>& ir() { return builder_; }
  const Target& target() const { return target_; }
  const plan::Program& program() const { return program_; }
  KernelInterface& interface() { return interface_; }
  ConstantPool& constants() { return constants_; }
  llvm::Module& module() { return module_; }
  llvm::Function* function() const { return function_; }
  llvm::Value* scratch() const { return scratch_; }
  // Reserves engine::kKeyBytes of scratch, where for_tasks() keeps its keys, before any of it is used. Once.
  void reserve_keys();
  llvm::Value* keys() const { return keys_; }
  llvm::Value* task_begin() const { return begin_; }
  llvm::Value* task_end() const { return end_; }

  // Base address of a buffer. Loaded once, in the entry block.
  llvm::Value* buffer(plan::BufferId buffer);
  // Address of the element at an offset, counted in elements.
  llvm::Value* address(plan::BufferId buffer, const ir::Dim& offset);
  // The i64 value of a Dim: size symbols come from params (whole subexpressions, hoisted to the
  // entry block), loop indices from their bindings.
  llvm::Value* value_of(const ir::Dim& dim);
  // Until it is bound again; the value must dominate what is emitted until then.
  void bind(const ir::SymbolPtr& index, llvm::Value* value);

  // The value of an expression: a scalar, or a vector of lanes.count elements.
  llvm::Value* emit(const plan::Expr& expr, const Lanes& lanes, const Leaves& leaves);
  llvm::Value* emit(const plan::Expr& expr, const Lanes& lanes) {
    return emit(expr, lanes, Leaves());
  }
  // The values of several expressions; what they share is emitted once.
  std::vector<llvm::Value*> emit_all(const std::vector<plan::Expr>& exprs, const Lanes& lanes,
                                     const Leaves& leaves);
  // Stores a value at a position of a buffer, converted from i1 to bytes and from f32 to f16 or
  // bf16 where the buffer asks for it. A single index counts elements from the start of the buffer,
  // whatever its rank; so it is in loads.
  void store(plan::BufferId buffer, const std::vector<plan::Index>& indices, llvm::Value* value,
             const Lanes& lanes);

  // for (i = begin; i < end; i += step) body(i). Counted, bottom-tested, skipped when empty. The
  // builder is left after it.
  void loop(llvm::Value* begin, llvm::Value* end, int64_t step,
            const std::function<void(llvm::Value*)>& body);
  // The same with values carried around it (PHIs); returns their last values.
  using Carried = std::vector<llvm::Value*>;
  using CarryingBody = std::function<Carried(llvm::Value*, const Carried&)>;
  Carried loop_carrying(llvm::Value* begin, llvm::Value* end, int64_t step, Carried initial,
                        const CarryingBody& body);

  // Notes that a check failed if `failed`, an integer or a vector of them, is negative in any lane.
  void note_failure(int32_t check, llvm::Value* failed);

  // 128 readable zero bytes: where loads go whose predicate is false.
  llvm::Value* zeros();
  // Ends the function, which returns the bits of the checks that failed.
  void finish();

 private:
  friend class ExprEmitter;
  // A loop that is open, and what was put before it.
  struct Scope {
    explicit Scope(llvm::Instruction* end) : before(end) {}
    llvm::Instruction* before;  // hoisted code goes in front of this instruction
    std::map<ir::Dim, llvm::Value*, DimLess> values;
    std::map<plan::BufferId, std::map<ir::Dim, llvm::Value*, DimLess>> addresses;
    std::map<plan::Expr, llvm::Value*> invariants;  // never iterated
    std::map<plan::BufferId, ByteTable> tables;
  };
  struct Binding {
    llvm::Value* value = nullptr;
    size_t depth = 0;  // open scopes when it was bound
  };

  const Binding& binding(const ir::Symbol& symbol) const;
  // Scopes that must be open for the value to exist: 0 for what depends on sizes alone.
  size_t depth_of(const ir::Dim& dim) const;
  // The terms of a Dim that exist at a smaller depth, and the others.
  std::pair<ir::Dim, ir::Dim> split_at(const ir::Dim& dim, size_t depth) const;
  bool is_hoisted(size_t depth) const { return depth < scopes_.size(); }
  llvm::Value* parameter(const ir::Dim& dim);
  llvm::Value* compute(const ir::Dim& dim, size_t depth);
  llvm::Value* compute_term(const ir::Term& term);
  llvm::Value* compute_atom(const ir::Atom& atom);
  llvm::Value* compute_division(const ir::Atom& atom);
  llvm::Value* load_argument(llvm::Value* array, int32_t index, llvm::Type* type);
  llvm::Value* failed_checks();

  const plan::Program& program_;
  const Target& target_;
  KernelInterface& interface_;
  ConstantPool& constants_;
  llvm::Module& module_;
  llvm::IRBuilder<> builder_;
  llvm::Function* function_ = nullptr;
  llvm::Value* buffers_ = nullptr;
  llvm::Value* params_ = nullptr;
  llvm::Value *scratch_ = nullptr, *keys_ = nullptr;
  llvm::Value* begin_ = nullptr;
  llvm::Value* end_ = nullptr;
  llvm::GlobalVariable* zeros_ = nullptr;
  // What failed so far, by bit and type: variables in memory until finish() puts them in registers.
  std::vector<std::pair<int32_t, llvm::AllocaInst*>> failures_;
  std::map<plan::BufferId, llvm::Value*> bases_;
  std::set<plan::BufferId> written_;               // by the code emitted so far
  std::map<const ir::Symbol*, Binding> bindings_;  // never iterated
  std::vector<Scope> scopes_;                      // the first is the function's entry
};

// One file each: loop_nest.cpp, matmul.cpp, convolution.cpp, winograd.cpp, attention.cpp, sort.cpp,
// scatter.cpp. They set
// interface().tasks and friends, and emit the body; the caller finishes the function.
void emit_loop_nest(Emitter& emitter, const plan::LoopNest& nest);
void emit_matmul(Emitter& emitter, const plan::MatMul& matmul);
void emit_group_matmul(Emitter& emitter, const plan::MatMul& matmul);  // of groups
void emit_convolution(Emitter& emitter, const plan::Convolution& convolution);
void emit_winograd(Emitter& emitter, const plan::Convolution& convolution);  // of that form
void emit_attention(Emitter& emitter, const plan::Attention& attention);
void emit_sort(Emitter& emitter, const plan::Sort& sort);
void emit_scatter(Emitter& emitter, const plan::Scatter& scatter);
// Whether they multiply pairs of bf16 on a machine that can.
bool multiplies_pairs(const plan::Program& program, const plan::MatMul& matmul,
                      const Target& target);
bool multiplies_pairs(const plan::Program& program, const plan::Convolution& convolution,
                      const Target& target);
bool multiplies_pairs(const plan::Program& program, const plan::Attention& attention,
                      const Target& target);
// Whether they multiply by tiles (AMX) on a machine that can.
bool multiplies_tiles(const plan::Program& program, const plan::MatMul& matmul,
                      const Target& target);
bool multiplies_tiles(const plan::Program& program, const plan::Convolution& convolution,
                      const Target& target);
bool multiplies_tiles(const plan::Program& program, const plan::Attention& attention,
                      const Target& target);

}  // namespace kiln::cpu
