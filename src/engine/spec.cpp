#include "engine/spec.h"

#include <algorithm>

namespace kiln::engine {

std::vector<int32_t> known_after(const Spec& spec, const ProgramSpec* program) {
  std::vector<int32_t> known;
  const auto inputs = static_cast<int64_t>(spec.symbols.size());
  const auto add = [&](const SizeInstruction& size) {
    if (size.op == SizeOp::Constant)
      known.push_back(0);
    else if (size.op == SizeOp::Symbol)
      known.push_back(static_cast<int32_t>(std::max<int64_t>(size.immediate - inputs + 1, 0)));
    else
      known.push_back(
          std::max(known[static_cast<size_t>(size.a)], known[static_cast<size_t>(size.b)]));
  };
  for (const SizeInstruction& size : spec.sizes) add(size);
  if (program != nullptr)
    for (const SizeInstruction& size : program->sizes) add(size);
  return known;
}

std::vector<int32_t> innermost_repeats(const ProgramSpec& program) {
  const std::vector<RepeatSpec>& repeats = program.repeats;
  if (repeats.empty()) return {};
  std::vector<int32_t> result, open;
  for (size_t step = 0, next = 0; step < program.steps.size(); ++step) {
    const auto at = static_cast<int32_t>(step);
    while (!open.empty() && repeats[static_cast<size_t>(open.back())].end_step <= at)
      open.pop_back();
    for (; next < repeats.size() && repeats[next].first_step == at; ++next)
      open.push_back(static_cast<int32_t>(next));
    result.push_back(open.empty() ? -1 : open.back());
  }
  return result;
}

std::string ProgramSpec::name() const { return variant.empty() ? target : target + ":" + variant; }

}  // namespace kiln::engine
