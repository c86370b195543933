// What a refit needs of the backend: to know that a program is the one of an engine, and to make
// the engine's constants of the program's.
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

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
    for (const ir::Requirement& requirement : program.requirements) add(requirement);
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
    hashes.push_back(cpu::key_of(program, kernel).hash());
  return hashes;
}

namespace {

// What a constant is made of; programs share those that are made alike.
using Recipe = std::pair<int32_t, std::string>;  // source, transform

ir::Literal make_constant(const Recipe& recipe, const plan::Program& program) {
  const auto& [id, transform] = recipe;
  const auto source = static_cast<size_t>(id);
  if (id < 0 || source >= program.buffers.size() ||
      program.buffers[source].kind != plan::BufferKind::Constant)
    throw CompileError("[cpu] got a constant from buffer " + std::to_string(id) +
                       ", expected a constant of the model");
  const ir::Literal& literal = program.buffers[source].literal;
  return transform.empty() ? literal : cpu::derive_constant(transform, literal);
}

// Calls visit(program, index, buffer) for all constants.
template <typename Visit>
void for_each_constant(const engine::Spec& spec, const Visit& visit) {
  for (size_t p = 0; p < spec.programs.size(); ++p)
    for (size_t i = 0; i < spec.programs[p].buffers.size(); ++i)
      if (spec.programs[p].buffers[i].kind == engine::BufferKind::Constant)
        visit(p, i, spec.programs[p].buffers[i]);
}

}  // namespace

EngineConstants constants_for_cpu(const engine::Spec& spec, const plan::Program& program,
                                  int threads) {
  std::map<Recipe, size_t> numbers;
  std::vector<Recipe> recipes;
  for_each_constant(spec, [&](size_t, size_t, const engine::BufferSpec& buffer) {
    const Recipe recipe{buffer.source, buffer.transform};
    if (numbers.try_emplace(recipe, recipes.size()).second) recipes.push_back(recipe);
  });
  std::vector<ir::Literal> made(recipes.size());
  cpu::run_parallel(recipes.size(), threads,
                    [&](size_t, size_t i) { made[i] = make_constant(recipes[i], program); });

  EngineConstants constants;
  for (const engine::ProgramSpec& part : spec.programs) constants.emplace_back(part.buffers.size());
  for_each_constant(spec, [&](size_t p, size_t i, const engine::BufferSpec& buffer) {
    const ir::Literal& literal = made[numbers.at({buffer.source, buffer.transform})];
    if (literal.bytes.size() != buffer.constant_bytes)
      throw CompileError("[cpu] got " + std::to_string(literal.bytes.size()) +
                         " bytes for constant " + std::to_string(i) + " of " +
                         spec.programs[p].name() + ", expected " +
                         std::to_string(buffer.constant_bytes));
    constants[p][i] = literal;
  });
  return constants;
}

}  // namespace kiln
