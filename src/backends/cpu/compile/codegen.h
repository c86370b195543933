// Generating one kernel for one CPU level. LLVM stays inside backends/cpu/compile.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include "ir/dim.h"
#include "plan/program.h"

namespace kiln::cpu {

// A level of x86-64 that code is generated for.
struct Target {
  std::string name;        // "x86-64-v3" or "x86-64-v4"
  int lanes = 8;           // f32 elements of a vector register
  int registers = 16;      // vector registers
  bool avx512() const { return lanes == 16; }
};

// What all variants of a kernel have in common: its operands, and how its work is split. Filled while code is generated;
// the second variant reuses the entries of the first.
struct KernelInterface {
  std::vector<plan::BufferId> buffers;  // argument order
  std::vector<ir::Dim> params;          // over size symbols only
  ir::Dim tasks = 1;                    // independent tasks; the same for every variant
  int64_t min_tasks_per_thread = 1;
  ir::Dim scratch_bytes = 0;            // per thread: the most that any variant needs

  int32_t buffer_index(plan::BufferId buffer);
  int32_t param_index(const ir::Dim& dim);
};

// Constants that code generation makes out of others, e.g. packed weights: shared by the variants and by kernels that ask
// for the same thing. Thread-safe.
class ConstantPool {
 public:
  virtual ~ConstantPool() = default;
  // The buffer that holds make(original literal); `key` names the transformation: "pack_b:48".
  virtual plan::BufferId derived(plan::BufferId original, const std::string& key,
                                 const std::function<ir::Literal(const ir::Literal&)>& make) = 0;
};

// The lanes of one vector: index runs over first, first + 1, ..., and `first` is what the index is bound to.
// Lanes where `mask` is false are not accessed. Null index: scalars.
struct Lanes {
  ir::SymbolPtr index;
  int count = 1;
  llvm::Value* mask = nullptr;  // <count x i1>, or null: all
};

// One function under construction: void(ptr buffers, ptr params, ptr scratch, i64 begin, i64 end).
class Emitter {
 public:
  Emitter(const plan::Program& program, const Target& target, KernelInterface& interface, ConstantPool& constants,
          llvm::Module& module, const std::string& symbol);

  llvm::IRBuilder<>& ir() { return builder_; }
  const Target& target() const { return target_; }
  const plan::Program& program() const { return program_; }
  KernelInterface& interface() { return interface_; }
  ConstantPool& constants() { return constants_; }
  llvm::Value* scratch() const { return scratch_; }
  llvm::Value* task_begin() const { return begin_; }
  llvm::Value* task_end() const { return end_; }

  // Base address of a buffer. Loaded once, in the entry block.
  llvm::Value* buffer(plan::BufferId buffer);
  // The i64 value of a Dim: size symbols come from params (whole subexpressions, hoisted to the entry block), loop indices
  // from their bindings.
  llvm::Value* value_of(const ir::Dim& dim);
  void bind(const ir::SymbolPtr& index, llvm::Value* value) { bindings_[index.get()] = value; }

  // The value of an expression: a scalar, or a vector of lanes.count elements. Bool is i1. `accumulator` and `reduced[slot]`
  // stand for those leaves, already of the right width.
  struct Leaves {
    llvm::Value* accumulator = nullptr;
    std::vector<llvm::Value*> reduced;
  };
  llvm::Value* emit(const plan::Expr& expr, const Lanes& lanes, const Leaves& leaves = {});
  // Stores a value of `dtype` at a position of a buffer (converts i1 to bytes and f32 to f16/bf16 where the buffer asks).
  void store(plan::BufferId buffer, const std::vector<plan::Index>& indices, llvm::Value* value, const Lanes& lanes);

  // for (i = begin; i < end; i += step) body(i). Counted, bottom-tested, skipped when empty. The builder is left after it.
  void loop(llvm::Value* begin, llvm::Value* end, int64_t step, const std::function<void(llvm::Value*)>& body);
  // The same with values carried around it (PHIs); returns their last values.
  std::vector<llvm::Value*> loop_carrying(
      llvm::Value* begin, llvm::Value* end, int64_t step, std::vector<llvm::Value*> initial,
      const std::function<std::vector<llvm::Value*>(llvm::Value*, const std::vector<llvm::Value*>&)>& body);
  // Ends the function with ret.
  void finish();

 private:
  const plan::Program& program_;
  const Target& target_;
  KernelInterface& interface_;
  ConstantPool& constants_;
  llvm::Module& module_;
  llvm::IRBuilder<> builder_;
  llvm::Function* function_ = nullptr;
  llvm::Value* buffers_ = nullptr;
  llvm::Value* params_ = nullptr;
  llvm::Value* scratch_ = nullptr;
  llvm::Value* begin_ = nullptr;
  llvm::Value* end_ = nullptr;
  std::map<const ir::Symbol*, llvm::Value*> bindings_;
};

// One file each: loop_nest.cpp, matmul.cpp, convolution.cpp, attention.cpp. They set interface().tasks and friends and emit
// the body.
void emit_loop_nest(Emitter& emitter, const plan::LoopNest& nest);
void emit_matmul(Emitter& emitter, const plan::MatMul& matmul);
void emit_convolution(Emitter& emitter, const plan::Convolution& convolution);
void emit_attention(Emitter& emitter, const plan::Attention& attention);

}  // namespace kiln::cpu
