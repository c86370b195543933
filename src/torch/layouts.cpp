#include "torch/layouts.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string>

namespace kiln::torch_op {
namespace {

[[noreturn]] void fail(std::string_view entry) {
  throw std::runtime_error("[execute_engine] got the layout \"" + std::string(entry) +
                           "\", expected every dimension once, such as {1,0}");
}

Layout parse_layout(std::string_view entry) {
  const size_t begin = entry.find('{');
  if (begin == std::string_view::npos) return {};
  Layout layout;
  std::array<bool, KILN_MAX_RANK> seen{};
  const char* at = entry.data() + begin + 1;
  const char* end = entry.data() + entry.size();
  for (char separator = ','; separator == ','; ++layout.rank) {
    unsigned dim = 0;
    const auto [next, error] = std::from_chars(at, end, dim);
    if (error != std::errc() || next == end || dim >= seen.size() || seen[dim]) fail(entry);
    seen[dim] = true;
    layout.order[static_cast<size_t>(layout.rank)] = static_cast<uint8_t>(dim);
    separator = *next;
    at = next + 1;
    if (separator != ',' && (separator != '}' || at != end)) fail(entry);
  }
  if (!std::all_of(seen.begin(), seen.begin() + layout.rank, [](bool each) { return each; })) {
    fail(entry);
  }
  return layout;
}

std::vector<Layout> parse_entries(std::string_view entries) {
  std::vector<Layout> layouts;
  if (entries.find('{') == std::string_view::npos) return layouts;
  for (size_t begin = 0; begin <= entries.size();) {
    const size_t end = std::min(entries.find(';', begin), entries.size());
    layouts.push_back(parse_layout(entries.substr(begin, end - begin)));
    begin = end + 1;
  }
  return layouts;
}

}  // namespace

Layouts parse_layouts(std::string_view spec) {
  spec = spec.substr(0, spec.find('@'));  // where the engine runs
  const size_t inputs = spec.find('<');
  return {parse_entries(spec.substr(0, inputs)), inputs == std::string_view::npos
                                                     ? std::vector<Layout>()
                                                     : parse_entries(spec.substr(inputs + 1))};
}

Placement place(std::span<const int64_t> stored, const Layout& layout) {
  if (static_cast<size_t>(layout.rank) != stored.size()) {
    throw std::runtime_error("[execute_engine] got a layout of " + std::to_string(layout.rank) +
                             " dimensions, but the engine's result has " +
                             std::to_string(stored.size()));
  }
  Placement result;
  int64_t stride = 1;
  for (size_t axis = stored.size(); axis-- > 0;) {
    const uint8_t dim = layout.order[axis];
    result.shape[dim] = stored[axis];
    result.strides[dim] = stride;
    stride *= std::max<int64_t>(stored[axis], 1);
  }
  return result;
}

Placement in_order(std::span<const int64_t> shape, std::span<const int64_t> strides,
                   const Layout& layout) {
  if (static_cast<size_t>(layout.rank) != shape.size()) {
    throw std::runtime_error("[execute_engine] got an input of " + std::to_string(shape.size()) +
                             " dimensions, expected " + std::to_string(layout.rank));
  }
  Placement result;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    result.shape[axis] = shape[layout.order[axis]];
    result.strides[axis] = strides[layout.order[axis]];
  }
  return result;
}

}  // namespace kiln::torch_op
