// The printer. Its inverse is ir/parser.cpp, the grammar is in docs/ir.md.
#include "ir/text.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "ir/op_table.h"
#include "ir/text_names.h"

namespace kiln::ir {
namespace {

template <typename T>
std::string shortest(T value) {
  std::array<char, 64> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  return std::string(buffer.data(), end);
}

std::string float_str(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return shortest(value);
}

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result + "\"";
}

template <typename T, typename F>
std::string joined(const std::vector<T>& items, F&& to_string) {
  std::string result;
  for (const T& item : items) {
    if (!result.empty()) result += ", ";
    result += to_string(item);
  }
  return result;
}

std::string element_str(const Literal& literal, int64_t index) {
  if (literal.dtype == DType::Bool) return literal.as_int(index) != 0 ? "true" : "false";
  if (!is_floating(literal.dtype)) return std::to_string(literal.as_int(index));
  const double value = literal.as_double(index);
  if (!std::isfinite(value) || literal.dtype == DType::F64) return float_str(value);
  return shortest(static_cast<float>(value));
}

bool is_splat(const Literal& literal) {
  const size_t size = dtype_size(literal.dtype);
  if (literal.bytes.size() <= size) return false;
  return std::memcmp(literal.bytes.data(), literal.bytes.data() + size,
                     literal.bytes.size() - size) == 0;
}

std::string hex(uint64_t value) {
  std::array<char, 17> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, 16).ptr;
  return std::string(buffer.data(), end);
}

std::string literal_str(const Literal& literal, int64_t max_elements) {
  const std::string type = literal.type().str();
  if (literal.shape.empty()) return type + " " + element_str(literal, 0);
  if (is_splat(literal)) return type + " splat " + element_str(literal, 0);
  if (literal.elements() > max_elements) return type + " #" + hex(literal.content_hash());
  std::string elements;
  for (int64_t i = 0; i < literal.elements(); ++i) {
    if (i != 0) elements += ", ";
    elements += element_str(literal, i);
  }
  return type + " [" + elements + "]";
}

class AttrPrinter {
 public:
  AttrPrinter(const PrintOptions& options, const std::string& indent)
      : options_(options), indent_(indent) {}

  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return float_str(value); }
  std::string operator()(const std::string& value) const { return quoted(value); }
  std::string operator()(DType value) const { return std::string(dtype_name(value)); }
  std::string operator()(const std::vector<int64_t>& value) const {
    return "[" + joined(value, [](int64_t x) { return std::to_string(x); }) + "]";
  }
  std::string operator()(const std::vector<double>& value) const {
    return "[" + joined(value, float_str) + "]";
  }
  std::string operator()(const Dim& value) const { return value.str(); }
  std::string operator()(const std::vector<Dim>& value) const {
    return "[" + joined(value, [](const Dim& x) { return x.str(); }) + "]";
  }
  std::string operator()(const Literal& value) const {
    return literal_str(value, options_.max_literal_elements);
  }
  std::string operator()(const std::shared_ptr<Graph>& value) const;

 private:
  const PrintOptions& options_;
  const std::string& indent_;  // of the line that it stands in
};

std::string value_str(const Value* value) {
  if (value == nullptr) return "_";
  return "%" + (is_plain_name(value->name) ? value->name : quoted(value->name));
}

std::string attrs_str(const Attrs& attrs, const AttrPrinter& printer) {
  std::string result;
  for (const auto& [name, value] : attrs) {
    result += (result.empty() ? "" : ", ") + name + " = ";
    result += std::visit(printer, value);
  }
  return " {" + result + "}";
}

std::string node_str(const Node& node, const PrintOptions& options, const std::string& indent) {
  std::string result = joined(node.outputs, value_str) + " = " + std::string(op_name(node.op));
  result += "(" + joined(node.inputs, value_str) + ")";
  if (!node.attrs.empty()) result += attrs_str(node.attrs, AttrPrinter(options, indent));
  if (options.types) {
    result += " : " + joined(node.outputs, [](const Value* value) { return value->type.str(); });
  }
  if (options.locations && !node.location.empty()) result += " @ " + quoted(node.location);
  return result;
}

std::string symbol_str(const SymbolPtr& symbol) {
  const std::string max = symbol->max == kDimInfinity ? "inf" : std::to_string(symbol->max);
  return symbol->name + " in [" + std::to_string(symbol->min) + ", " + max + "] opt " +
         std::to_string(symbol->opt);
}

std::string requirement_str(const Requirement& requirement) {
  const char* kind = requirement.kind == Requirement::Kind::Index ? " index" : "";
  return "require " + requirement.condition.str() + " " + quoted(requirement.operation) + " " +
         quoted(requirement.expected) + kind;
}

std::string outputs_str(const Graph& graph) {
  std::string result;
  for (size_t i = 0; i < graph.outputs().size(); ++i) {
    result += (i == 0 ? " " : ", ") + value_str(graph.outputs()[i]) + " as " +
              quoted(graph.output_names()[i]);
    if (const auto found = graph.updates.find(i); found != graph.updates.end())
      result += " updates " + value_str(graph.inputs().at(found->second));
  }
  return result;
}

// What stands between the braces, and these.
std::string braced(const Graph& graph, const PrintOptions& options, const std::string& indent) {
  const std::string inner = indent + "  ";
  std::string result = "{\n";
  for (const Requirement& requirement : graph.requirements)
    result += inner + requirement_str(requirement) + "\n";
  for (const auto& node : graph.nodes()) result += inner + node_str(*node, options, inner) + "\n";
  return result + inner + "return" + outputs_str(graph) + "\n" + indent + "}";
}

std::string inputs_str(const Graph& graph) {
  return "(" +
         joined(graph.inputs(),
                [](const Value* input) { return value_str(input) + ": " + input->type.str(); }) +
         ")";
}

std::string AttrPrinter::operator()(const std::shared_ptr<Graph>& value) const {
  return "graph" + inputs_str(*value) + " " + braced(*value, options_, indent_);
}

}  // namespace

bool is_plain_name(std::string_view name) {
  if (name.empty()) return false;
  for (char c : name) {
    if (!is_name_character(c)) return false;
  }
  return true;
}

std::string to_text(const Graph& graph, const PrintOptions& options) {
  std::string result = "graph " + (is_plain_name(graph.name) ? graph.name : quoted(graph.name));
  result += inputs_str(graph);
  const std::vector<SymbolPtr> symbols = graph.known_symbols();
  if (!symbols.empty()) result += " symbols " + joined(symbols, symbol_str);
  return result + " " + braced(graph, options, "") + "\n";
}

}  // namespace kiln::ir
