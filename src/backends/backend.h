// What a backend's compile half offers to the driver (src/compiler/).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/spec.h"
#include "plan/program.h"

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

// backends/cpu/compile. Throws CompileError or InternalError. Deterministic: same program and
// options, same bytes.
CompiledProgram compile_for_cpu(const plan::Program& program, const BackendOptions& options);

}  // namespace kiln
