// Which of an engine's programs this machine runs.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "backends/executable.h"
#include "engine/reader.h"
#include "support/status.h"

namespace kiln::runtime {

// Programs that a caller asks for; empty: any.
struct ProgramName {
  std::string target, variant;

  bool fits(const engine::ProgramSpec& program) const {
    return (target.empty() || target == program.target) &&
           (variant.empty() || variant == program.variant);
  }
};

// Why a program does not run here: "this CPU lacks avx512". Empty: it does, as far as is known of it
// so far, which may be its head alone.
std::string obstacle_to(const engine::ProgramSpec& program);

// InvalidArgument, with the names that there are, where no program is called so.
Status check_name(const engine::Spec& spec, const ProgramName& wanted);

// Whether this machine runs the program, but others of its target better: it is the last choice.
bool runs_slowly(const engine::ProgramSpec& program);

struct ChosenProgram {
  size_t index = 0;
  const Device* device = nullptr;
  std::unique_ptr<Executable> executable;
};

// Reads and loads the first program called `wanted` that runs here, of those that run slowly where there
// is no other; `request` lacks the program, which stays where it is in `view`. InvalidArgument where no program is called so; Unsupported, with
// what stands against each, where none runs here.
Result<ChosenProgram> load_program(engine::View& view, const ProgramName& wanted,
                                   LoadRequest request);

}  // namespace kiln::runtime
