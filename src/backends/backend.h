// What a backend's compile half offers to the driver (src/compiler/).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/spec.h"
#include "plan/form/program.h"

namespace kiln {

// The backend's part of an engine: the spec without weights, and the bytes it points to.
struct CompiledProgram {
  engine::Spec spec;
  std::vector<std::vector<std::byte>> code;  // storage behind spec.variants[i].code
  // Contents of each Constant buffer, by index into spec.buffers (empty for the others). Borrowed
  // from literals or owned.
  std::vector<ir::Literal> constants;
};

struct BackendOptions {
  // Which code variants to generate; empty: all that the backend knows. CPU: "x86-64-v3",
  // "x86-64-v4".
  std::vector<std::string> variants;
  int compile_threads = 0;  // 0: one per core
  // Called now and then with the share of the work that is done, from the calling thread only. May
  // be null.
  std::function<void(double fraction)> progress;
};

// What programs for the CPU are planned by.
const plan::TargetTraits& cpu_traits();

// backends/cpu/compile. Throws CompileError or InternalError. Deterministic: same program and
// options, same bytes.
CompiledProgram compile_for_cpu(const plan::Program& program, const BackendOptions& options);

// Identifies everything of a program that decides an engine but the contents of constants and the
// names of values: programs with equal hashes have equal code, and the same constants in the same
// places. It is the same in every process.
std::string program_hash(const plan::Program& program);
// The hash of what each kernel computes, as engine::KernelSpec has it.
std::vector<std::string> kernel_hashes(const plan::Program& program);

// The contents of an engine's constants, made of a program with the engine's program hash: what
// compile_for_cpu would give, without generating code. By index into spec.buffers. CompileError for
// a spec that does not go with the program.
std::vector<ir::Literal> constants_for_cpu(const engine::Spec& spec, const plan::Program& program,
                                           int threads);

}  // namespace kiln
