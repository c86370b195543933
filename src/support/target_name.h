// Names of programs as users write them: "cpu", "cpu:x86-64-v3", "cuda:sm_90".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "support/status.h"

namespace kiln {

// What programs are made for: a kind of machine, and which of its kind.
struct TargetName {
  std::string target;   // "cpu"
  std::string variant;  // "x86-64-v3"; empty: any, or all

  bool operator==(const TargetName&) const = default;
  std::string str() const { return variant.empty() ? target : target + ":" + variant; }
};

// InvalidArgument for what is not "target" or "target:variant", made of letters, digits, '-', '_' and
// '.'. Whether there is such a target is not asked.
Result<TargetName> parse_target(std::string_view text);
// Names with commas between them, at least one.
Result<std::vector<TargetName>> parse_targets(std::string_view list);

}  // namespace kiln
