// Errors of the parser: line, column and what was expected. What it accepts is tested with the
// printer.
#include <gtest/gtest.h>

#include "ir/text.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

std::string error_of(const std::string& text) {
  try {
    parse_graph(text);
  } catch (const CompileError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_in_body(const std::string& line) {
  return error_of("graph main(%x: f32[s0, 4]) symbols s0 in [1, 8] opt 2 {\n  " + line +
                  "\n  return %x\n}\n");
}

TEST(ParserTest, NamesLineAndColumn) {
  EXPECT_EQ(error_of("graph main(%x: f32[]) {\n  return %x\n"), "3:1: got the end, expected '}'");
  EXPECT_EQ(error_of("grap main() {}"), "1:1: got 'grap', expected 'graph'");
  EXPECT_EQ(error_in_body("%y = frobnicate(%x)"), "2:8: no op frobnicate");
  EXPECT_EQ(error_in_body("%y = neg(%z)"), "2:12: no value %z before this line");
}

TEST(ParserTest, RefusesUnknownNames) {
  EXPECT_EQ(error_in_body("%y = neg(%x) {speed = 3}"), "2:17: neg has no attribute speed");
  EXPECT_EQ(error_in_body("%y = reshape(%x) {shape = [q]}"), "2:30: no symbol q");
  EXPECT_EQ(error_in_body("%y = cast(%x) {dtype = f31}"), "2:26: got 'f31', expected a dtype");
  EXPECT_EQ(error_in_body("%y = reshape(%x) {shape = [gcd(s0, 2)]}"), "2:30: no function gcd");
}

TEST(ParserTest, RefusesSecondDefinitions) {
  EXPECT_EQ(error_in_body("%x = neg(%x)"), "2:3: a second %x");
  EXPECT_EQ(error_of("graph g(%x: f32[s]) symbols s in [1, 2] opt 1, s in [1, 2] opt 1 {}"),
            "1:48: a second symbol s");
}

TEST(ParserTest, RefusesWrongValues) {
  EXPECT_EQ(error_in_body("%y = constant() {value = f32[2] [1]}"),
            "2:28: got 1 elements, expected 2");
  EXPECT_EQ(error_in_body("%y = constant() {value = f32[2] #12ab}"),
            "2:35: got '12ab', expected elements: a hash cannot be parsed back");
  EXPECT_EQ(error_in_body("%y = constant() {value = f32[s0] [1]}"),
            "2:28: expected a constant shape");
  EXPECT_EQ(error_in_body("%y = constant() {value = i8[99999, 99999] splat 0}"),
            "2:28: expected a smaller literal");
  EXPECT_EQ(error_in_body("%y = permute(%x) {axes = [99999999999999999999, 0]}"),
            "2:29: got '99999999999999999999', expected a number in range");
  EXPECT_EQ(error_of("graph g(%x: f32[s]) symbols s in [4, 2] opt 3 {}"),
            "1:29: expected 0 <= min <= opt <= max");
}

TEST(ParserTest, ReportsInferenceErrorsWhereTheOpIs) {
  EXPECT_EQ(error_in_body("%y = permute(%x) {axes = [0, 0]}"),
            "2:8: [permute] got axes [0, 0], expected each axis once");
  EXPECT_EQ(error_in_body("%y = neg(%x) : f32[4]"), "2:18: got f32[4], expected f32[s0, 4]");
  EXPECT_EQ(error_in_body("%y, %z = neg(%x)"), "2:12: expected 1 results");
}

TEST(ParserTest, RefusesUnfinishedText) {
  EXPECT_EQ(error_of("graph \"main() {}"), "1:7: a string without an end");
  EXPECT_EQ(error_of(""), "1:1: got the end, expected 'graph'");
  EXPECT_EQ(error_of("graph g() { return } x"), "1:22: got 'x', expected the end of the text");
  EXPECT_EQ(error_of("graph g(%x: f32[2]"), "1:19: got the end, expected ')'");
  EXPECT_EQ(error_of("graph g(%: f32[2]) {}"), "1:9: a name expected after %");
}

TEST(ParserTest, BoundsNesting) {
  const std::string deep(10000, '(');
  EXPECT_NE(error_in_body("%y = reshape(%x) {shape = [" + deep).find("less deeply nested"),
            std::string::npos);
  const std::string minus(10000, '-');
  EXPECT_NE(error_in_body("%y = reshape(%x) {shape = [" + minus).find("less deeply nested"),
            std::string::npos);
}

TEST(ParserTest, SkipsComments) {
  EXPECT_EQ(to_text(parse_graph("// a graph\ngraph g() { // nothing\n return }")),
            "graph g() {\n  return\n}\n");
}

}  // namespace
}  // namespace kiln::ir
