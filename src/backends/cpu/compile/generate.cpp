#include "backends/cpu/compile/generate.h"

#include <utility>

#include "backends/cpu/compile/image/image.h"
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
void emit_body(Emitter& emitter, const plan::Sort& sort) { emit_sort(emitter, sort); }
void emit_body(Emitter& emitter, const plan::Scatter& scatter) { emit_scatter(emitter, scatter); }

}  // namespace

GeneratedKernel generate_kernel(const plan::Program& program, const plan::Kernel& kernel,
                                const Target& target, const Machine& machine,
                                backend::CodeStore* store) {
  GeneratedKernel result(program);
  // A context of its own: nothing of what was compiled before can show in the bytes.
  llvm::LLVMContext context;
  llvm::Module module(kernel.name, context);
  machine.prepare(module);
  Emitter emitter(program, target, result.interface, result.constants, module, "kernel");
  std::visit([&](const auto& body) { emit_body(emitter, body); }, kernel.body);
  emitter.finish();
  const auto compile = [&] { return machine.compile(module); };
  FlatObject object =
      flatten(store == nullptr ? compile()
                               : backend::compile_once(store, machine.code_key(module), compile));
  KILN_CHECK(object.functions.size() == 1, "a kernel is one function");
  result.entry = object.functions.front().offset;
  result.code = std::move(object.bytes);
  return result;
}

}  // namespace kiln::cpu
