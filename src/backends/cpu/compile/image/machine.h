// LLVM's code generator: modules in, object files out.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/cpu/compile/emit/emitter.h"
#include "support/hash.h"

namespace llvm {
class TargetMachine;
}

namespace kiln::cpu {

// The levels that code is generated for, the most demanding first.
const std::vector<Target>& all_targets();

// Generates code for one target. Not thread-safe: one per thread.
class Machine {
 public:
  explicit Machine(const Target& target);
  Machine(Machine&&) noexcept;
  ~Machine();

  // Sets the target on a fresh module.
  void prepare(llvm::Module& module) const;
  // Stands for what compile() makes of a module; the kernel's name is no part of it.
  Hash128 code_key(const llvm::Module& module) const;
  // An ELF object with the code of a module. InternalError if the module is malformed.
  std::vector<std::byte> compile(llvm::Module& module) const;

 private:
  std::unique_ptr<llvm::TargetMachine> machine_;
};

}  // namespace kiln::cpu
