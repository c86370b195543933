#include "backends/cpu/compile/generate.h"

#include <algorithm>

#include "support/error.h"

namespace kiln::cpu {

namespace {

void emit_body(Emitter& emitter, const plan::LoopNest& nest) { emit_loop_nest(emitter, nest); }
void emit_body(Emitter& emitter, const plan::MatMul& matmul) { emit_matmul(emitter, matmul); }
void emit_body(Emitter& emitter, const plan::Convolution& convolution) {
  emit_convolution(emitter, convolution);
}
void emit_body(Emitter& emitter, const plan::Attention& attention) {
  emit_attention(emitter, attention);
}

// The first variant says how the work is split; the others must agree, and may need more scratch.
void merge_interface(KernelInterface& merged, KernelInterface variant, bool first) {
  if (!first) {
    KILN_CHECK(merged.tasks == variant.tasks, "the variants of a kernel have different tasks");
    variant.scratch_bytes = ir::max(merged.scratch_bytes, variant.scratch_bytes);
    variant.min_tasks_per_thread = merged.min_tasks_per_thread;
  }
  merged = std::move(variant);
}

}  // namespace

plan::BufferId DerivedConstants::derived(
    plan::BufferId original, const std::string& key,
    const std::function<ir::Literal(const ir::Literal&)>& make) {
  auto it = std::ranges::find_if(
      entries_, [&](const Entry& entry) { return entry.original == original && entry.key == key; });
  if (it == entries_.end()) it = entries_.insert(it, {original, key, make});
  return first_ + static_cast<plan::BufferId>(it - entries_.begin());
}

const DerivedConstants::Entry* DerivedConstants::find(plan::BufferId buffer) const {
  return buffer < first_ ? nullptr : &entries_.at(static_cast<size_t>(buffer - first_));
}

GeneratedKernel generate_kernel(const plan::Program& program, const plan::Kernel& kernel,
                                std::span<const Target> targets,
                                std::span<const Machine> machines) {
  GeneratedKernel result{{}, DerivedConstants(program), {}};
  for (size_t i = 0; i < targets.size(); ++i) {
    // A context of its own: nothing of what was compiled before can show in the bytes.
    llvm::LLVMContext context;
    llvm::Module module(kernel.name, context);
    machines[i].prepare(module);
    KernelInterface variant = result.interface;
    variant.tasks = 1;
    variant.min_tasks_per_thread = 1;
    variant.scratch_bytes = 0;
    Emitter emitter(program, targets[i], variant, result.constants, module, "kernel");
    std::visit([&](const auto& body) { emit_body(emitter, body); }, kernel.body);
    emitter.finish();
    result.objects.push_back(flatten(machines[i].compile(module)));
    KILN_CHECK(result.objects.back().functions.size() == 1, "a kernel is one function");
    merge_interface(result.interface, std::move(variant), i == 0);
  }
  return result;
}

}  // namespace kiln::cpu
