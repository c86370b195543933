// A program with data sizes or repeats as programs of their own, one for each part, and together again.
#pragma once

#include <vector>

#include "plan/form/program.h"

namespace kiln::plan {

// What a part needs of others is an input of it, what others need of it an output; each has the
// symbols that are known when it runs, and the buffers that it touches. What a repeat carries from one time to the next
// is an input of the part that makes it anew, and an output that updates the input.
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

  // Which kernels a part has, the data sizes that are known, and the repeat that all of it is in.
  struct Cut {
    size_t first = 0, end = 0, known = 0;
    int32_t repeat = -1;
  };

  Program make_part(const Cut& cut, Shared& shared) const;

  Program& program_;
  std::vector<Program> parts_;
  std::vector<Shared> shared_;
  std::vector<int32_t> repeats_;  // by part
};

}  // namespace kiln::plan
