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
                                const Target& target, const Machine& machine) {
  GeneratedKernel result{{}, DerivedConstants(program), {}};
  // A context of its own: nothing of what was compiled before can show in the bytes.
  llvm::LLVMContext context;
  llvm::Module module(kernel.name, context);
  machine.prepare(module);
  Emitter emitter(program, target, result.interface, result.constants, module, "kernel");
  std::visit([&](const auto& body) { emit_body(emitter, body); }, kernel.body);
  emitter.finish();
  result.object = flatten(machine.compile(module));
  KILN_CHECK(result.object.functions.size() == 1, "a kernel is one function");
  return result;
}

}  // namespace kiln::cpu
