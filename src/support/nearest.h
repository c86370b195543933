// Guessing what a misspelt name was meant to be.
#pragma once

#include <span>
#include <string_view>

namespace kiln {

// The candidate that fewest insertions, deletions and replacements turn into `name`; "" if there is
// none. The first of several.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace kiln
