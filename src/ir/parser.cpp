// The parser of the text form; the printer is ir/text.cpp, the grammar is in docs/ir.md.
#include <algorithm>
#include <charconv>
#include <limits>
#include <memory>
#include <utility>

#include "ir/builder.h"
#include "ir/lexer.h"
#include "ir/op_table.h"
#include "ir/text.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : tokens_(tokenize(text)) {}

  Graph run() {
    expect("graph");
    graph_.name = take_name_or_string();
    const size_t parameters = position_;
    skip_parentheses();  // types of inputs use symbols that are declared after them
    if (accept("symbols")) parse_symbols();
    const size_t body = position_;
    position_ = parameters;
    parse_inputs();
    position_ = body;
    parse_braced();
    if (token().kind != TokenKind::End) fail("the end of the text");
    return std::move(graph_);
  }

 private:
  // --- Tokens ---

  const Token& token() const { return tokens_[position_]; }
  const Token& take() {
    const Token& result = tokens_[position_];
    if (result.kind != TokenKind::End) ++position_;
    return result;
  }
  [[noreturn]] void fail(const std::string& expected) const {
    const std::string got = token().kind == TokenKind::End ? "the end" : "'" + token().text + "'";
    fail_at(token(), "got " + got + ", expected " + expected);
  }
  bool at(std::string_view text) const {
    const bool plain = token().kind == TokenKind::Symbol || token().kind == TokenKind::Name;
    return plain && token().text == text;
  }
  bool accept(std::string_view text) {
    if (!at(text)) return false;
    take();
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text)) fail("'" + std::string(text) + "'");
  }
  std::string take_kind(TokenKind kind, const std::string& expected) {
    if (token().kind != kind) fail(expected);
    return take().text;
  }
  std::string take_name_or_string() {
    if (token().kind == TokenKind::String) return take().text;
    return take_kind(TokenKind::Name, "a name");
  }
  void skip_parentheses() {
    expect("(");
    while (!at(")")) {
      if (token().kind == TokenKind::End) fail("')'");
      take();
    }
    take();
  }
  // item {"," item}, up to `end`, which is taken.
  template <typename F>
  void parse_list(std::string_view end, F&& item) {
    if (accept(end)) return;
    do {
      item();
    } while (accept(","));
    expect(end);
  }

  // --- Numbers ---

  template <typename T>
  T parse_number(const std::string& text, const Token& where) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      fail_at(where, "got '" + text + "', expected a number in range");
    }
    return value;
  }
  int64_t parse_int() {
    const Token& where = token();
    const std::string sign = accept("-") ? "-" : "";
    return parse_number<int64_t>(sign + take_kind(TokenKind::Number, "an integer"), where);
  }
  double parse_float() {
    const Token& where = token();
    const std::string sign = accept("-") ? "-" : "";
    if (accept("inf")) return (sign.empty() ? 1 : -1) * std::numeric_limits<double>::infinity();
    if (accept("nan")) return std::numeric_limits<double>::quiet_NaN();
    return parse_number<double>(sign + take_kind(TokenKind::Number, "a number"), where);
  }
  bool parse_bool() {
    if (accept("true")) return true;
    if (!accept("false")) fail("true or false");
    return false;
  }
  DType parse_dtype() {
    const auto dtype = dtype_from_name(token().text);
    if (token().kind != TokenKind::Name || !dtype) fail("a dtype");
    take();
    return *dtype;
  }

  // --- Dims and types ---

  Dim parse_dim() {
    Dim result = parse_term();
    while (at("+") || at("-")) {
      const bool negative = take().text == "-";
      const Dim term = parse_term();
      result = negative ? result - term : result + term;
    }
    return result;
  }
  Dim parse_term() {
    Dim result = parse_factor();
    while (accept("*")) result *= parse_factor();
    return result;
  }
  Dim parse_factor() {
    const Depth depth(*this);
    if (accept("-")) return -parse_factor();
    if (token().kind == TokenKind::Number) return parse_int();
    if (accept("(")) {
      const Dim inner = parse_dim();
      expect(")");
      return inner;
    }
    const Token& where = token();
    const std::string name = take_kind(TokenKind::Name, "a size");
    if (at("(")) return parse_function(name, where);
    const auto found = symbols_.find(name);
    if (found == symbols_.end()) fail_at(where, "no symbol " + name);
    return found->second;
  }
  Dim parse_function(const std::string& name, const Token& where) {
    expect("(");
    const Dim a = parse_dim();
    expect(",");
    const Dim b = parse_dim();
    expect(")");
    if (name == "min") return min(a, b);
    if (name == "max") return max(a, b);
    if (name != "floordiv" && name != "mod") fail_at(where, "no function " + name);
    if (b.is_constant(0)) fail_at(where, "division by zero");
    return name == "mod" ? mod(a, b) : floordiv(a, b);
  }
  Shape parse_shape() {
    Shape shape;
    expect("[");
    parse_list("]", [&] { shape.push_back(parse_dim()); });
    return shape;
  }
  Type parse_type() {
    const DType dtype = parse_dtype();
    return {dtype, parse_shape()};
  }
  void parse_symbols() {
    do {
      const Token& where = token();
      const std::string name = take_kind(TokenKind::Name, "the name of a symbol");
      expect("in");
      expect("[");
      const int64_t min = parse_int();
      expect(",");
      const int64_t max = accept("inf") ? kDimInfinity : parse_int();
      expect("]");
      expect("opt");
      const int64_t opt = parse_int();
      if (min < 0 || min > opt || opt > max) fail_at(where, "expected 0 <= min <= opt <= max");
      const bool fresh = symbols_.emplace(name, Dim(make_size_symbol(name, min, max, opt))).second;
      if (!fresh) fail_at(where, "a second symbol " + name);
    } while (accept(","));
  }

  // --- Attributes ---

  Literal parse_literal() {
    const Token& where = token();
    const DType dtype = parse_dtype();
    std::vector<int64_t> shape;
    int64_t count = 1;
    for (const Dim& dim : parse_shape()) {
      if (!dim.is_constant() || dim.constant() < 0) fail_at(where, "expected a constant shape");
      shape.push_back(dim.constant());
      if (__builtin_mul_overflow(count, dim.constant(), &count) || count > kMaxLiteralElements) {
        fail_at(where, "expected a smaller literal");
      }
    }
    if (token().kind == TokenKind::Hash) fail("elements: a hash cannot be parsed back");
    std::byte* data = nullptr;
    Literal result = Literal::allocate(dtype, std::move(shape), &data);
    parse_elements(result, data, where);
    return result;
  }
  void parse_elements(const Literal& literal, std::byte* data, const Token& where) {
    const int64_t count = literal.elements();
    int64_t index = 0;
    if (literal.shape.empty() || accept("splat")) {
      const Literal element = parse_element(literal.dtype);
      const size_t size = element.bytes.size();
      for (; index < count; ++index) {
        std::copy(element.bytes.begin(), element.bytes.end(), data + index * size);
      }
      return;
    }
    expect("[");
    parse_list("]", [&] {
      const Literal element = parse_element(literal.dtype);
      if (index < count) {
        std::copy(element.bytes.begin(), element.bytes.end(), data + index * element.bytes.size());
      }
      ++index;
    });
    if (index == count) return;
    fail_at(where, "got " + std::to_string(index) + " elements, expected " + std::to_string(count));
  }
  Literal parse_element(DType dtype) {
    if (dtype == DType::Bool) return Literal::scalar_int(dtype, parse_bool());
    if (is_floating(dtype)) return Literal::scalar(dtype, parse_float());
    return Literal::scalar_int(dtype, parse_int());
  }
  Attr parse_attr(std::string_view type) {
    if (type == "bool") return parse_bool();
    if (type == "int") return parse_int();
    if (type == "float") return parse_float();
    if (type == "str") return take_kind(TokenKind::String, "a string");
    if (type == "dtype") return parse_dtype();
    if (type == "dim") return parse_dim();
    if (type == "dims") return parse_shape();
    if (type == "literal") return parse_literal();
    if (type == "graph") return parse_body();
    expect("[");
    if (type == "ints") {
      std::vector<int64_t> values;
      parse_list("]", [&] { values.push_back(parse_int()); });
      return values;
    }
    std::vector<double> values;
    parse_list("]", [&] { values.push_back(parse_float()); });
    return values;
  }
  Attrs parse_attrs(Op op) {
    Attrs attrs;
    if (!accept("{")) return attrs;
    parse_list("}", [&] {
      const Token& where = token();
      const std::string name = take_kind(TokenKind::Name, "the name of an attribute");
      const AttrInfo* attribute = find_attribute(op, name);
      if (attribute == nullptr) {
        fail_at(where, std::string(op_name(op)) + " has no attribute " + name);
      }
      expect("=");
      attrs.insert_or_assign(name, parse_attr(attribute->type));
    });
    return attrs;
  }

  // A graph of a node: it sees the sizes around it, and no values.
  std::shared_ptr<Graph> parse_body() {
    const Depth depth(*this);
    expect("graph");
    const auto body = std::make_shared<Graph>();
    body->outer_symbols = graph_.known_symbols();
    Graph outer = std::exchange(graph_, std::move(*body));
    std::map<std::string, Value*> values = std::exchange(values_, {});
    parse_inputs();
    parse_braced();
    *body = std::exchange(graph_, std::move(outer));
    values_ = std::move(values);
    return body;
  }
  void parse_braced() {
    expect("{");
    while (accept("require")) parse_requirement();
    while (!accept("return")) parse_node();
    parse_return();
    expect("}");
  }

  // --- Values and nodes ---

  void define(const Token& where, Value* value) {
    if (!values_.emplace(where.text, value).second) fail_at(where, "a second %" + where.text);
    graph_.rename(value, where.text);
  }
  Value* parse_operand() {
    if (accept("_")) return nullptr;
    return parse_value();
  }
  Value* parse_value() {
    const Token& where = token();
    const std::string name = take_kind(TokenKind::Value, "a value");
    const auto found = values_.find(name);
    if (found == values_.end()) fail_at(where, "no value %" + name + " before this line");
    return found->second;
  }
  void parse_inputs() {
    expect("(");
    parse_list(")", [&] {
      const Token& name = token();
      take_kind(TokenKind::Value, "a value");
      expect(":");
      define(name, graph_.add_input(name.text, parse_type()));
    });
  }
  void parse_requirement() {
    Requirement requirement;
    requirement.condition = parse_dim();
    requirement.operation = take_kind(TokenKind::String, "the name of an operator");
    requirement.expected = take_kind(TokenKind::String, "what is expected");
    if (accept("index")) requirement.kind = Requirement::Kind::Index;
    graph_.requirements.push_back(std::move(requirement));
  }
  void parse_node() {
    std::vector<const Token*> names;
    do {
      names.push_back(&token());
      take_kind(TokenKind::Value, "a value or return");
    } while (accept(","));
    expect("=");
    const Token& where = token();
    const std::string name = take_kind(TokenKind::Name, "an op");
    const auto op = op_from_name(name);
    if (!op) fail_at(where, "no op " + name);
    std::vector<Value*> inputs;
    expect("(");
    parse_list(")", [&] { inputs.push_back(parse_operand()); });
    Attrs attrs = parse_attrs(*op);
    Node* node = make_node(where, *op, std::move(inputs), std::move(attrs));
    if (node->outputs.size() != names.size()) {
      fail_at(where, "expected " + std::to_string(node->outputs.size()) + " results");
    }
    for (size_t i = 0; i < names.size(); ++i) define(*names[i], node->outputs[i]);
    check_types(*node);
    if (accept("@")) node->location = take_kind(TokenKind::String, "a location");
  }
  Node* make_node(const Token& where, Op op, std::vector<Value*> inputs, Attrs attrs) {
    try {
      return Builder(graph_).node(op, std::move(inputs), std::move(attrs));
    } catch (const CompileError& error) {
      fail_at(where, error.what());
    }
  }
  void check_types(const Node& node) {
    if (!accept(":")) return;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (i != 0) expect(",");
      const Token& where = token();
      const Type type = parse_type();
      if (type == node.outputs[i]->type) continue;
      fail_at(where, "got " + type.str() + ", expected " + node.outputs[i]->type.str());
    }
  }
  void parse_return() {
    std::vector<Value*> outputs;
    std::vector<std::string> names;
    if (!at("}")) {
      do {
        outputs.push_back(parse_value());
        const std::string fallback = "output" + std::to_string(names.size());
        names.push_back(accept("as") ? take_name_or_string() : fallback);
        if (accept("updates")) parse_update(outputs.size() - 1);
      } while (accept(","));
    }
    graph_.set_outputs(std::move(outputs), std::move(names));
  }

  void parse_update(size_t output) {
    const auto input = std::ranges::find(graph_.inputs(), parse_value());
    if (input == graph_.inputs().end()) fail("an input that the output updates");
    graph_.updates[output] = static_cast<size_t>(input - graph_.inputs().begin());
  }

  // Text is not trusted to nest sensibly.
  struct Depth {
    explicit Depth(Parser& parser) : parser(parser) {
      if (++parser.depth_ > kMaxDepth) parser.fail("something less deeply nested");
    }
    ~Depth() { --parser.depth_; }
    Parser& parser;
  };
  static constexpr int kMaxDepth = 100;
  static constexpr int64_t kMaxLiteralElements = int64_t{1} << 28;

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int depth_ = 0;
  Graph graph_;
  std::map<std::string, Dim> symbols_;
  std::map<std::string, Value*> values_;
};

}  // namespace

Graph parse_graph(std::string_view text) { return Parser(text).run(); }

}  // namespace kiln::ir
