#include "support/target_name.h"

#include <algorithm>

namespace kiln {
namespace {

bool is_name(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

}  // namespace

Result<TargetName> parse_target(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view target = text.substr(0, colon);
  const std::string_view variant =
      colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  if (!is_name(target) || (colon != std::string_view::npos && !is_name(variant)))
    return Status(StatusCode::InvalidArgument,
                  "[target] got \"" + std::string(text) +
                      "\", expected the name of a target and perhaps of a variant, as in cpu or "
                      "cpu:x86-64-v3");
  return TargetName{std::string(target), std::string(variant)};
}

Result<std::vector<TargetName>> parse_targets(std::string_view list) {
  std::vector<TargetName> names;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    Result<TargetName> name = parse_target(list.substr(begin, end - begin));
    if (!name.ok()) return name.status();
    names.push_back(std::move(*name));
    begin = end + 1;
  }
  return names;
}

}  // namespace kiln
