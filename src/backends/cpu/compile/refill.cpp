// What a refit needs of the backend: to know that a program is the one of an engine, and to make
// the engine's constants of the program's.
#include <span>

#include "backends/backend.h"
#include "backends/common/kernel_key.h"
#include "backends/common/parallel.h"
#include "backends/cpu/compile/contract/pack.h"
#include "support/error.h"
#include "support/hash.h"

namespace kiln {
namespace {

// Text in which every part says how long it is, so that no two programs have the same.
class ProgramText {
 public:
  explicit ProgramText(const plan::Program& program) {
    add(program.name);
    add(program.symbols.size());
    for (const ir::SymbolPtr& symbol : program.symbols) {
      add(symbol->name);
      for (int64_t bound : {symbol->min, symbol->opt, symbol->max}) add(bound);
    }
    add(program.buffers.size());
    for (const plan::Buffer& buffer : program.buffers) add(buffer);
    add(program.inputs);
    add(program.outputs);
    add(program.kernels.size());
    for (const plan::Kernel& kernel : program.kernels) {
      const cpu::KernelKey key = cpu::key_of(program, kernel);
      add(key.hash());
      add(key.buffers);
      for (const int32_t check : key.checks) {
        add(program.checks.at(static_cast<size_t>(check)).operation);
        add(program.checks.at(static_cast<size_t>(check)).input);
      }
    }
  }

  std::string hash() const { return hash_str(hash128(std::as_bytes(std::span(text_)))); }

 private:
  void add(const std::string& text) { text_ += std::to_string(text.size()) + ":" + text; }
  template <std::integral Number>
  void add(Number number) {
    text_ += std::to_string(number) + ",";
  }
  void add(const std::vector<plan::BufferId>& ids) {
    add(ids.size());
    for (const plan::BufferId id : ids) add(id);
  }
  // Users see the names of inputs and outputs only.
  void add(const plan::Buffer& buffer) {
    const bool is_seen =
        buffer.kind == plan::BufferKind::Input || buffer.kind == plan::BufferKind::Output;
    add(static_cast<int>(buffer.kind));
    add(is_seen ? buffer.name : std::string());
    add(buffer.type.str());
    add(buffer.alias_of);
  }

  std::string text_;
};

}  // namespace

std::string program_hash(const plan::Program& program) { return ProgramText(program).hash(); }

std::vector<std::string> kernel_hashes(const plan::Program& program) {
  std::vector<std::string> hashes;
  for (const plan::Kernel& kernel : program.kernels)
    hashes.push_back(cpu::key_of(program, kernel).hash());
  return hashes;
}

std::vector<ir::Literal> constants_for_cpu(const engine::Spec& spec, const plan::Program& program,
                                           int threads) {
  std::vector<ir::Literal> constants(spec.buffers.size());
  cpu::run_parallel(spec.buffers.size(), threads, [&](size_t, size_t i) {
    const engine::BufferSpec& buffer = spec.buffers[i];
    if (buffer.kind != engine::BufferKind::Constant) return;
    const auto source = static_cast<size_t>(buffer.source);
    if (buffer.source < 0 || source >= program.buffers.size() ||
        program.buffers[source].kind != plan::BufferKind::Constant)
      throw CompileError("[cpu] got the constant " + std::to_string(i) + " from buffer " +
                         std::to_string(buffer.source) + ", expected a constant of the model");
    const ir::Literal& literal = program.buffers[source].literal;
    constants[i] =
        buffer.transform.empty() ? literal : cpu::derive_constant(buffer.transform, literal);
    if (constants[i].bytes.size() != buffer.constant_bytes)
      throw CompileError("[cpu] got " + std::to_string(constants[i].bytes.size()) +
                         " bytes for constant " + std::to_string(i) + ", expected " +
                         std::to_string(buffer.constant_bytes));
  });
  return constants;
}

}  // namespace kiln
