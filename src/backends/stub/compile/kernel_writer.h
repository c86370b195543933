// One kernel as code of the stub machine.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "backends/common/kernel_interface.h"
#include "backends/stub/code.h"
#include "plan/form/program.h"

namespace kiln::stub {

// Writes a loop nest, whose outer points are the tasks, and fills in the interface. CompileError
// for what the machine cannot do.
class KernelWriter {
 public:
  KernelWriter(const plan::Program& program, backend::KernelInterface& interface)
      : program_(program), interface_(interface) {}

  std::vector<Instruction> write(const plan::LoopNest& nest);

 private:
  using Register = uint16_t;

  Register fresh();
  size_t emit(Instruction instruction);
  Register emit_to_fresh(Instruction instruction);
  Register integer(int64_t value);
  Register number(DType dtype, double value);
  Register binary(Code code, DType dtype, Register a, Register b);

  // The value of a Dim: of sizes alone it is a parameter.
  Register value_of(const ir::Dim& dim);
  Register value_of_atom(const ir::Atom& atom);

  Register value_of(const plan::Expr& expr);
  Register compute(const plan::Expr& expr);
  Register constant(const plan::ExprNode& node);
  Register load(const plan::ExprNode& node);
  Register check(const plan::ExprNode& node);
  Register apply(const plan::ExprNode& node);
  Register apply_composed(const plan::ExprNode& node, const std::vector<Register>& args);
  Register offset(plan::BufferId buffer, std::span<const Register> indices);

  void bind_task(const std::vector<plan::Loop>& outer);
  void open(const std::vector<plan::Loop>& loops);
  void close(const std::vector<plan::Loop>& loops);
  void write(const plan::Reduction& reduction);
  void write(const plan::Store& store);

  const plan::Program& program_;
  backend::KernelInterface& interface_;
  std::vector<Instruction> code_;
  Register registers_ = 1;                            // the first holds the task
  std::map<const ir::Symbol*, Register> loops_;       // looked up, never walked
  std::map<const plan::ExprNode*, Register> values_;  // of the current stage; never walked
  std::vector<size_t> open_;                          // where the open loops begin
  std::vector<Register> reduced_;
};

}  // namespace kiln::stub
