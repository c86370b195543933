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

namespace {

constexpr int64_t kTaps = 9;

bool is_winograd(const WinogradSpec& made) {
  constexpr int64_t kMost = int64_t{1} << 24;  // products of two stay far from overflow
  const auto is_count = [](int64_t count) { return 1 <= count && count <= kMost; };
  const auto is_width = [](int32_t width) { return 1 <= width && width <= kWidestPanel; };
  const bool is_step =
      made.filter_step == 1 ||
      (made.filter_step == 2 && made.dtype == DType::BF16 && made.channels % 2 == 0);
  return (made.dtype == DType::F32 || is_16_bit_float(made.dtype)) &&
         (made.results == 2 || made.results == 4) && is_count(made.channels) &&
         is_count(made.outputs) && is_width(made.width) && is_width(made.filter_width) && is_step;
}

int64_t whole(int64_t outputs, int32_t width) { return (outputs + width - 1) / width * width; }

}  // namespace

int64_t winograd_bytes(const WinogradSpec& winograd) {
  if (!is_winograd(winograd)) return -1;
  const int64_t side = winograd.results + 2;
  return side * side * winograd.channels * whole(winograd.outputs, winograd.width) *
         static_cast<int64_t>(sizeof(float));
}

int64_t winograd_filter_bytes(const WinogradSpec& winograd) {
  if (!is_winograd(winograd)) return -1;
  return kTaps * winograd.channels * whole(winograd.outputs, winograd.filter_width) *
         static_cast<int64_t>(dtype_size(winograd.dtype));
}

}  // namespace kiln::engine
