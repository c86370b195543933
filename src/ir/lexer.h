// Tokens of the text form. Internal to the parser.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kiln::ir {

enum class TokenKind : uint8_t { Name, Value, Number, String, Hash, Symbol, End };

struct Token {
  TokenKind kind = TokenKind::End;
  std::string text;  // of a Value or String: without its sigil, quotes and escapes
  int line = 1, column = 1;
};

// The whole text as tokens, the last one End. Comments run from // to the end of the line.
std::vector<Token> tokenize(std::string_view text);

// CompileError "line:column: message".
[[noreturn]] void fail_at(const Token& token, const std::string& message);

}  // namespace kiln::ir
