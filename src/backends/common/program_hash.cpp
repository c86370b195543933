#include "backends/common/program_hash.h"

#include <concepts>
#include <span>

#include "backends/common/kernel_key.h"
#include "support/hash.h"

namespace kiln::backend {
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
    for (const plan::DataSize& size : program.data_sizes) {
      add("data size");
      add(size.count);
      add(size.bound ? size.bound->str() : std::string());
    }
    for (const plan::Repeat& repeat : program.repeats) {
      add("repeat");
      add(repeat.condition);
      add(repeat.outer);
    }
    for (const ir::Requirement& requirement : program.requirements) add(requirement);
    add(program.buffers.size());
    for (const plan::Buffer& buffer : program.buffers) add(buffer);
    add(program.inputs);
    add(program.outputs);
    add(program.kernels.size());
    for (const plan::Kernel& kernel : program.kernels) {
      const KernelKey key = key_of(program, kernel);
      add(key.hash());
      if (kernel.repeat != -1) add(kernel.repeat);
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
  void add(const ir::Requirement& requirement) {
    add(requirement.condition.str());
    add(requirement.operation);
    add(requirement.expected);
    add(static_cast<int>(requirement.kind));
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
    hashes.push_back(key_of(program, kernel).hash());
  return hashes;
}

}  // namespace kiln::backend
