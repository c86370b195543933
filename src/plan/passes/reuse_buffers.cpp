// Kernels that read an element and write its successor in the same place work in place: residual
// adds, normalisations and activations need no second buffer.
//
// Before: kernel K writes all of temporary t for the first time and is the last to touch temporary
// s; they have the same size, and whatever K reads of s at one point of its outer loops it
// overwrites at that point, later or in the same step. After: t is an alias of s.
#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/form/parts.h"
#include "plan/passes/in_place.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

bool same_elements(const Buffer& a, const Buffer& b) {
  return dtype_size(a.type.dtype) == dtype_size(b.type.dtype) &&
         a.type.elements() == b.type.elements();
}

class Reuser {
 public:
  explicit Reuser(Program& program)
      : program_(program),
        first_(program.buffers.size(), kNever),
        last_(program.buffers.size(), kNever) {
    for (size_t i = 0; i < program.kernels.size(); ++i) {
      for (BufferId buffer : reads(program.kernels[i])) touch(buffer, static_cast<int>(i));
      for (BufferId buffer : writes(program.kernels[i])) touch(buffer, static_cast<int>(i));
    }
  }

  bool run() {
    bool changed = false;
    for (size_t i = 0; i < program_.kernels.size(); ++i) {
      for (BufferId to : writes(program_.kernels[i])) changed |= reuse(static_cast<int>(i), to);
    }
    return changed;
  }

 private:
  static constexpr int kNever = -1;

  void touch(BufferId buffer, int kernel) {
    if (first_[buffer] == kNever) first_[buffer] = kernel;
    last_[buffer] = kernel;
  }

  bool is_candidate(BufferId buffer) const {
    return program_.buffers[buffer].kind == BufferKind::Temporary &&
           program_.buffers[buffer].alias_of < 0;
  }

  bool reuse(int kernel, BufferId to) {
    if (!is_candidate(to) || first_[to] != kernel) return false;
    for (BufferId from : reads(program_.kernels[static_cast<size_t>(kernel)])) {
      if (from == to || program_.buffers[from].kind != BufferKind::Temporary) continue;
      if (last_[from] != kernel || is_taken_[from] || is_count(program_, from)) continue;
      if (!same_elements(program_.buffers[from], program_.buffers[to])) continue;
      if (!works_in_place(program_, program_.kernels[static_cast<size_t>(kernel)], from, to))
        continue;
      program_.buffers[to].alias_of = from;
      is_taken_[from] = true;
      return true;
    }
    return false;
  }

  Program& program_;
  std::vector<int> first_, last_;
  std::vector<bool> is_taken_ = std::vector<bool>(first_.size());
};

}  // namespace

bool reuse_buffers(Program& program) { return Reuser(program).run(); }

}  // namespace kiln::plan
