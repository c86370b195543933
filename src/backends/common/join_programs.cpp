#include "backends/common/join_programs.h"

#include <iterator>
#include <utility>

#include "support/error.h"

namespace kiln::backend {
namespace {

// What callers see, and the slots that the sizes of all programs continue.
bool have_one_interface(const engine::Spec& a, const engine::Spec& b) {
  return a.name == b.name && a.symbols == b.symbols && a.sizes == b.sizes && a.inputs == b.inputs &&
         a.outputs == b.outputs && a.requirements == b.requirements;
}

template <typename Item>
void append(std::vector<Item>& list, std::vector<Item>& more) {
  list.insert(list.end(), std::make_move_iterator(more.begin()),
              std::make_move_iterator(more.end()));
}

}  // namespace

CompiledProgram join_programs(std::vector<CompiledProgram> parts) {
  KILN_CHECK(!parts.empty(), "an engine without programs");
  CompiledProgram result = std::move(parts.front());
  for (size_t i = 1; i < parts.size(); ++i) {
    CompiledProgram& part = parts[i];
    KILN_CHECK(have_one_interface(result.spec, part.spec),
               "plans for two targets have different inputs, outputs or sizes");
    append(result.spec.programs, part.spec.programs);
    append(result.code, part.code);
    append(result.constants, part.constants);
  }
  return result;
}

}  // namespace kiln::backend
