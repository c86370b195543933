// The program of an engine out of the kernels that a backend generated for it.
#pragma once

#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "backends/common/derived_constants.h"
#include "backends/common/distinct_kernels.h"
#include "backends/common/generated_kernel.h"
#include "backends/common/size_program.h"
#include "plan/form/lifetimes.h"
#include "plan/form/work.h"

namespace kiln::backend {

// One program: its steps, buffers, sizes and checks, and its code. Knows no machine.
class ProgramAssembler {
 public:
  // `sizes` has the slots of the interface. `generated` belong to the codes of `kernels`, pairwise.
  // `program` and `kernels` outlive the assembler.
  ProgramAssembler(const plan::Program& program, const DistinctKernels& kernels,
                   std::vector<GeneratedKernel> generated, const SizeProgram& sizes);

  // Once. The code is in take_code(), the contents of the constants in constants(). Derived
  // constants are added to `shared`; sizes of constants are left to the caller.
  engine::ProgramSpec assemble(std::string_view target, const Variant& variant,
                               SharedConstants& shared);

  std::vector<std::byte> take_code() { return std::move(code_); }
  // By buffer of the program that was assembled; `shared` are the literals of all shared constants.
  std::vector<ir::Literal> constants(const std::vector<ir::Literal>& shared) const;

 private:
  using Use = DistinctKernels::Use;
  // A constant that is not the plan's: a shared one, or what a load makes of one.
  struct Derived {
    size_t shared = 0;
    engine::WinogradSpec winograd;  // its `filters` are numbered as buffers are here

    bool is_made_at_load() const { return winograd.filters != -1; }
    bool operator==(const Derived&) const = default;
  };

  uint64_t place(const std::vector<std::byte>& code);
  void add_kernels();
  const plan::Buffer& buffer(plan::BufferId id) const;
  // Derived constants are numbered after the program's buffers.
  bool is_derived(plan::BufferId id) const;
  const Derived& derived(plan::BufferId id) const;
  plan::BufferId translate(const Use& use, plan::BufferId original, SharedConstants& shared);
  plan::BufferId derive(const Derived& constant);
  void add_steps(SharedConstants& shared);
  void add_units(const KernelInterface& interface, engine::StepSpec& step);
  engine::TensorMapSpec tensor_map(const KernelInterface& interface, const TensorMapSpec& map);
  engine::Slot optional_slot(const ir::Dim& size);
  engine::Slot task_writes(const KernelInterface& interface, plan::BufferId id);
  void add_checks(const Use& use, engine::StepSpec& step);
  engine::CheckSpec check_spec(const plan::Kernel& kernel, int32_t original, int32_t id);
  plan::BufferId root_of(plan::BufferId id) const;
  void add_buffers(const SharedConstants& shared);
  void add_data_sizes(std::vector<plan::Lifetime>& lifetimes);
  void add_repeats();
  engine::BufferSpec buffer_spec(plan::BufferId id, const std::vector<plan::Lifetime>& lifetimes);
  void renumber(const std::vector<int32_t>& numbers);

  const plan::Program& program_;
  const DistinctKernels& kernels_;
  std::vector<GeneratedKernel> generated_;  // by code
  SizeProgram sizes_;
  size_t interface_slots_;
  std::vector<plan::Work> works_;  // by code
  std::vector<std::byte> code_;
  engine::ProgramSpec result_;
  std::vector<Derived> derived_;
  std::vector<plan::BufferId> placed_;  // by buffer of the result
};

}  // namespace kiln::backend
