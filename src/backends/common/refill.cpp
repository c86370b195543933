#include "backends/common/refill.h"

#include <map>
#include <utility>

#include "backends/common/parallel.h"
#include "support/error.h"

namespace kiln::backend {
namespace {

std::string prefix(const Backend& backend) { return "[" + std::string(backend.name) + "] "; }

// What a constant is made of; programs share those that are made alike.
using Recipe = std::pair<int32_t, std::string>;  // source, transform

ir::Literal make_constant(const Backend& backend, const Recipe& recipe,
                          const plan::Program& program) {
  const auto& [id, transform] = recipe;
  const auto source = static_cast<size_t>(id);
  if (id < 0 || source >= program.buffers.size() ||
      program.buffers[source].kind != plan::BufferKind::Constant)
    throw CompileError(prefix(backend) + "got a constant from buffer " + std::to_string(id) +
                       ", expected a constant of the model");
  const ir::Literal& literal = program.buffers[source].literal;
  if (transform.empty()) return literal;
  if (backend.derive_constant == nullptr)
    throw CompileError(prefix(backend) + "got the constant \"" + transform +
                       "\", expected one of the model as it is");
  return backend.derive_constant(transform, literal);
}

// Calls visit(program, index, buffer) for all constants of the backend's programs that the file holds.
template <typename Visit>
void for_each_constant(const Backend& backend, const engine::Spec& spec, const Visit& visit) {
  for (size_t p = 0; p < spec.programs.size(); ++p) {
    if (spec.programs[p].target != backend.name) continue;
    for (size_t i = 0; i < spec.programs[p].buffers.size(); ++i)
      if (const engine::BufferSpec& buffer = spec.programs[p].buffers[i];
          buffer.kind == engine::BufferKind::Constant && !buffer.is_made_at_load())
        visit(p, i, buffer);
  }
}

}  // namespace

EngineConstants refill_constants(const Backend& backend, const engine::Spec& spec,
                                 const plan::Program& program, int threads) {
  std::map<Recipe, size_t> numbers;
  std::vector<Recipe> recipes;
  for_each_constant(backend, spec, [&](size_t, size_t, const engine::BufferSpec& buffer) {
    const Recipe recipe{buffer.source, buffer.transform};
    if (numbers.try_emplace(recipe, recipes.size()).second) recipes.push_back(recipe);
  });
  std::vector<ir::Literal> made(recipes.size());
  run_parallel(recipes.size(), threads,
               [&](size_t, size_t i) { made[i] = make_constant(backend, recipes[i], program); });

  EngineConstants constants(spec.programs.size());
  for (size_t p = 0; p < spec.programs.size(); ++p)
    if (spec.programs[p].target == backend.name)
      constants[p].resize(spec.programs[p].buffers.size());
  for_each_constant(backend, spec, [&](size_t p, size_t i, const engine::BufferSpec& buffer) {
    const ir::Literal& literal = made[numbers.at({buffer.source, buffer.transform})];
    if (literal.bytes.size() != buffer.constant_bytes)
      throw CompileError(prefix(backend) + "got " + std::to_string(literal.bytes.size()) +
                         " bytes for constant " + std::to_string(i) + " of " +
                         spec.programs[p].name() + ", expected " +
                         std::to_string(buffer.constant_bytes));
    constants[p][i] = literal;
  });
  return constants;
}

}  // namespace kiln::backend
