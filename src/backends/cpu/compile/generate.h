// One kernel, generated for one CPU level.
#pragma once

#include <string>
#include <vector>

#include "backends/cpu/compile/emit/emitter.h"
#include "backends/cpu/compile/image/image.h"
#include "backends/cpu/compile/image/machine.h"

namespace kiln::cpu {

// The constants that one kernel derives: numbered after the program's buffers, computed later.
class DerivedConstants : public ConstantPool {
 public:
  struct Entry {
    plan::BufferId original = -1;
    std::string key;
    std::function<ir::Literal(const ir::Literal&)> make;
  };

  explicit DerivedConstants(const plan::Program& program)
      : first_(static_cast<plan::BufferId>(program.buffers.size())) {}

  plan::BufferId derived(plan::BufferId original, const std::string& key,
                         const std::function<ir::Literal(const ir::Literal&)>& make) override;
  // Null for a buffer of the program.
  const Entry* find(plan::BufferId buffer) const;

 private:
  plan::BufferId first_;
  std::vector<Entry> entries_;
};

struct GeneratedKernel {
  KernelInterface interface;
  DerivedConstants constants;
  FlatObject object;  // has one function
};

// `machine` is that of the target.
GeneratedKernel generate_kernel(const plan::Program& program, const plan::Kernel& kernel,
                                const Target& target, const Machine& machine);

}  // namespace kiln::cpu
