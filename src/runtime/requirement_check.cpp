#include "runtime/requirement_check.h"

#include <string>
#include <vector>

#include "runtime/size_program.h"

namespace kiln::runtime {
namespace {

using engine::RequirementSpec;
using engine::SizeInstruction;
using engine::SizeOp;
using engine::Spec;
using engine::SymbolSpec;

// Whether the value of each symbol has to do with that of a slot.
std::vector<bool> symbols_of(const Spec& spec, engine::Slot slot) {
  std::vector<bool> found(spec.symbols.size() + spec.data_sizes.size(), false);
  std::vector<bool> used(static_cast<size_t>(slot) + 1, false);
  used.back() = true;
  for (size_t i = used.size(); i-- > 0;) {
    if (!used[i]) continue;
    const SizeInstruction& size = spec.sizes[i];
    if (size.op == SizeOp::Symbol) {
      found[static_cast<size_t>(size.immediate)] = true;
    } else if (size.op != SizeOp::Constant) {
      used[static_cast<size_t>(size.a)] = true;
      used[static_cast<size_t>(size.b)] = true;
    }
  }
  return found;
}

// "x.size(1) = 3, y.size(0) = 4"
std::string sizes_text(const Spec& spec, engine::Slot slot, std::span<const int64_t> symbols) {
  const std::vector<bool> used = symbols_of(spec, slot);
  std::string text;
  for (size_t i = 0; i < symbols.size(); ++i) {
    if (!used[i]) continue;
    text += text.empty() ? "" : ", ";
    if (i >= spec.symbols.size()) {
      text += spec.data_sizes[i - spec.symbols.size()].name + " = " + std::to_string(symbols[i]);
      continue;
    }
    const SymbolSpec& symbol = spec.symbols[i];
    const std::string& input = spec.inputs[static_cast<size_t>(symbol.input)].name;
    text += (input.empty() ? "input " + std::to_string(symbol.input) : input) + ".size(" +
            std::to_string(symbol.dim) + ") = " + std::to_string(symbol.size_at(symbols[i]));
  }
  return text.empty() ? "these shapes" : text;
}

Status violation(const Spec& spec, const RequirementSpec& requirement,
                 std::span<const int64_t> symbols) {
  const std::string what = requirement.operation.empty()
                               ? "the sizes of the inputs do not fit together: "
                               : "[" + requirement.operation + "] ";
  const bool is_index = requirement.kind == engine::RequirementKind::Index;
  return Status(is_index ? StatusCode::IndexError : StatusCode::OutOfRange,
                what + "got " + sizes_text(spec, requirement.condition, symbols) + ", expected " +
                    requirement.expected);
}

}  // namespace

Status check_requirements(const Spec& spec, std::span<const int64_t> symbols, size_t before) {
  if (spec.requirements.empty()) return Status();
  const Result<std::vector<int64_t>> sizes = evaluate_sizes(spec, symbols);
  if (!sizes.ok()) return sizes.status();
  const std::vector<int32_t> known = engine::known_after(spec);
  const size_t found = symbols.size() - spec.symbols.size();
  const auto is_due = [&](const RequirementSpec& requirement) {
    const auto needed = static_cast<size_t>(known[static_cast<size_t>(requirement.condition)]);
    return needed <= found && (needed > before || found == 0);
  };
  for (const RequirementSpec& requirement : spec.requirements)
    if (is_due(requirement) && (*sizes)[static_cast<size_t>(requirement.condition)] == 0)
      return violation(spec, requirement, symbols);
  return Status();
}

}  // namespace kiln::runtime
