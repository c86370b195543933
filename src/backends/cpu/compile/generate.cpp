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

void emit_body(Emitter&, const plan::Custom&) { KILN_CHECK(false, "a call has no code"); }

// A kernel of the user's own: what engine::StepSpec says of a Call.
GeneratedKernel describe_call(const plan::Program& program, const plan::Custom& custom) {
  GeneratedKernel result(program);
  result.kind = engine::StepKind::Call;
  result.function = custom.kernel + " " + custom.arguments;
  const auto add = [&](const plan::Custom::Tensor& tensor) {
    const plan::Buffer& buffer = program.buffers[static_cast<size_t>(tensor.buffer)];
    std::vector<ir::Dim>& params = result.interface.params;
    result.interface.buffers.push_back(tensor.buffer);
    params.emplace_back(static_cast<int64_t>(buffer.type.dtype));
    params.emplace_back(static_cast<int64_t>(tensor.shape.size()));
    params.insert(params.end(), tensor.shape.begin(), tensor.shape.end());
  };
  for (const plan::Custom::Tensor& input : custom.inputs) add(input);
  for (const plan::Custom::Tensor& output : custom.outputs) {
    add(output);
    result.interface.task_writes[output.buffer] =
        program.buffers[static_cast<size_t>(output.buffer)].type.elements();
  }
  return result;
}

}  // namespace

GeneratedKernel generate_kernel(const plan::Program& program, const plan::Kernel& kernel,
                                const Target& target, const Machine& machine,
                                backend::CodeStore* store) {
  if (const auto* custom = std::get_if<plan::Custom>(&kernel.body))
    return describe_call(program, *custom);
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
