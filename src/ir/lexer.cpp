#include "ir/lexer.h"

#include "ir/text_names.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::vector<Token> run() {
    std::vector<Token> tokens;
    do {
      tokens.push_back(next());
    } while (tokens.back().kind != TokenKind::End);
    return tokens;
  }

 private:
  bool done() const { return position_ >= text_.size(); }
  char peek(size_t ahead = 0) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0';
  }
  char take() {
    const char c = text_[position_++];
    column_ = c == '\n' ? 1 : column_ + 1;
    line_ += c == '\n' ? 1 : 0;
    return c;
  }

  void skip_blanks() {
    while (!done()) {
      const char c = peek();
      if (c == '/' && peek(1) == '/') {
        while (!done() && peek() != '\n') take();
      } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        take();
      } else {
        return;
      }
    }
  }

  std::string take_name() {
    std::string result;
    while (!done() && is_name_character(peek())) result += take();
    return result;
  }

  // Digits, a fraction and an exponent; the sign is a token of its own, except in the exponent.
  std::string take_number() {
    std::string result;
    while (!done()) {
      const char c = peek();
      const bool exponent_sign = (c == '+' || c == '-') && !result.empty() &&
                                 (result.back() == 'e' || result.back() == 'E');
      if (!is_digit(c) && c != '.' && c != 'e' && c != 'E' && !exponent_sign) break;
      result += take();
    }
    return result;
  }

  std::string take_string(const Token& start) {
    std::string result;
    take();
    while (peek() != '"') {
      if (done()) fail_at(start, "a string without an end");
      char c = take();
      if (c == '\\' && !done()) {
        c = take();
        if (c == 'n') c = '\n';
      }
      result += c;
    }
    take();
    return result;
  }

  Token next() {
    skip_blanks();
    Token token{TokenKind::End, "", line_, column_};
    if (done()) return token;
    const char c = peek();
    if (c == '%' || c == '#') {
      token.kind = c == '%' ? TokenKind::Value : TokenKind::Hash;
      take();
      token.text = peek() == '"' ? take_string(token) : take_name();
      if (token.text.empty()) fail_at(token, std::string("a name expected after ") + c);
    } else if (c == '"') {
      token.kind = TokenKind::String;
      token.text = take_string(token);
    } else if (is_digit(c)) {
      token.kind = TokenKind::Number;
      token.text = take_number();
    } else if (is_name_start(c)) {
      token.kind = TokenKind::Name;
      token.text = take_name();
    } else {
      token.kind = TokenKind::Symbol;
      token.text = take();
    }
    return token;
  }

  std::string_view text_;
  size_t position_ = 0;
  int line_ = 1, column_ = 1;
};

}  // namespace

std::vector<Token> tokenize(std::string_view text) { return Lexer(text).run(); }

void fail_at(const Token& token, const std::string& message) {
  throw CompileError(std::to_string(token.line) + ":" + std::to_string(token.column) + ": " +
                     message);
}

}  // namespace kiln::ir
