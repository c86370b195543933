// Which names the text form writes without quotes: shared by the printer and the lexer.
#pragma once

#include <string_view>

namespace kiln::ir {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
constexpr bool is_name_character(char c) { return is_name_start(c) || is_digit(c) || c == '.'; }
bool is_plain_name(std::string_view name);

}  // namespace kiln::ir
