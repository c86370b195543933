// A program with data sizes as programs of their own, one for each part, and together again.
#pragma once

#include <vector>

#include "plan/form/program.h"

namespace kiln::plan {

// What a part needs of others is an input of it, what others need of it an output; each has the
// symbols that are known when it runs, and the buffers that it touches.
class ProgramParts {
 public:
  // Takes the kernels of the program.
  explicit ProgramParts(Program& program);

  std::vector<Program>& parts() { return parts_; }
  // Puts the kernels back, with the buffers that the parts were given since.
  void join();

 private:
  // By input and output of a part: which buffer of the program it is.
  struct Shared {
    std::vector<BufferId> inputs, outputs;
  };

  Program make_part(size_t first, size_t end, size_t known, Shared& shared) const;

  Program& program_;
  std::vector<Program> parts_;
  std::vector<Shared> shared_;
};

}  // namespace kiln::plan
