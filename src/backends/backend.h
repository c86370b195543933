// What a backend's compile half offers to the driver (src/compiler/).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/spec.h"
#include "plan/form/program.h"

namespace kiln {

// Contents of the Constant buffers of an engine's programs, by program and buffer (empty for other
// buffers). Borrowed from literals or owned; what programs share is there once.
using EngineConstants = std::vector<std::vector<ir::Literal>>;

// An engine without its weights, and the bytes it points to.
struct CompiledProgram {
  engine::Spec spec;
  std::vector<std::vector<std::byte>> code;  // storage behind spec.programs[i].code
  EngineConstants constants;
};

struct BackendOptions {
  // Which variants to make a program for; empty: all that the backend knows. CPU: "x86-64-v3",
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

// The contents of an engine's constants, made of a program with the program hash of all its
// programs: what compile_for_cpu would give, without generating code. CompileError for a spec that
// does not go with the program.
EngineConstants constants_for_cpu(const engine::Spec& spec, const plan::Program& program,
                                  int threads);

}  // namespace kiln
