#include "import/scope.h"

#include <algorithm>

#include "import/expression.h"
#include "support/error.h"

namespace kiln::import {
namespace {

void collect_names(const Argument& argument, std::set<std::string, std::less<>>& names) {
  if (const auto* tensor = std::get_if<TensorName>(&argument)) names.insert(tensor->name);
  if (const auto* list = std::get_if<std::vector<TensorName>>(&argument)) {
    for (const TensorName& tensor : *list) names.insert(tensor.name);
  }
}

}  // namespace

Scope::Scope(const ProgramGraph& graph, const SymbolRanges& ranges, Symbols& symbols,
             ir::Builder& builder)
    : graph_(graph), ranges_(ranges), symbols_(symbols), builder_(builder) {
  for (const ProgramNode& node : graph.nodes) {
    for (const auto& [name, argument] : node.inputs) collect_names(argument, used_);
  }
  for (const Argument& output : graph.outputs) collect_names(output, used_);
}

void Scope::bind_lazily(const std::string& name, std::function<ir::Value*()> make) {
  lazy_[name] = std::move(make);
}

ir::Value* Scope::find(const std::string& name) {
  if (const auto found = values_.find(name); found != values_.end()) return found->second;
  if (const auto found = lazy_.find(name); found != lazy_.end()) {
    return values_[name] = found->second();
  }
  throw CompileError("got the unknown tensor " + name + ", expected a result of an earlier node");
}

bool Scope::is_complex(const std::string& name) const {
  const auto found = graph_.tensor_values.find(name);
  return found != graph_.tensor_values.end() && part_dtype_of(found->second.dtype).has_value();
}

ir::Value* Scope::tensor(const std::string& name) {
  if (is_complex(name))
    throw CompileError("got the complex tensor " + name +
                       ", expected a real one: the operator does not take complex numbers here");
  return find(name);
}

Complex Scope::complex(const std::string& name) {
  const auto found = complex_.find(name);
  if (found != complex_.end()) return found->second;
  return complex_[name] = split_parts(builder_, find(name));
}

ir::Value* Scope::stored(const std::string& name) {
  const auto found = complex_.find(name);
  if (found == complex_.end() || values_.contains(name)) return find(name);
  return values_[name] = join_parts(builder_, found->second);
}

ir::Dim Scope::symbol(std::string_view name) const {
  if (const auto found = symbols_.find(name); found != symbols_.end()) return found->second;
  throw CompileError("got the size " + std::string(name) +
                     ", which depends on data, expected sizes that depend on the inputs' shapes");
}

ir::Dim Scope::size(const SizeExpression& size) const {
  if (size.expression.empty()) return size.constant;
  return parse_expression(size.expression, [&](std::string_view name) { return symbol(name); });
}

ir::Dim Scope::recorded_size(const std::string& name, size_t dim) const {
  const auto found = graph_.tensor_values.find(name);
  if (found == graph_.tensor_values.end() || dim >= found->second.sizes.size())
    throw CompileError("got no size for " + name + ", expected it among tensor_values");
  return size(found->second.sizes[dim]);
}

std::optional<ir::Dim> Scope::define_symbol(const std::string& tensor, size_t dim,
                                            const std::optional<ir::Dim>& bound) {
  const auto found = graph_.tensor_values.find(tensor);
  if (found == graph_.tensor_values.end() || dim >= found->second.sizes.size()) return std::nullopt;
  return define(found->second.sizes[dim], bound);
}

std::optional<ir::Dim> Scope::define_size(const std::string& size) {
  const auto found = graph_.size_values.find(size);
  return found == graph_.size_values.end() ? std::nullopt : define(found->second, std::nullopt);
}

std::optional<ir::Dim> Scope::define(const SizeExpression& size,
                                     const std::optional<ir::Dim>& bound) {
  const auto linear = size.expression.empty() ? std::nullopt : as_linear_size(size.expression);
  if (!linear || !linear->is_plain() || symbols_.contains(linear->symbol)) return std::nullopt;
  const ir::Dim symbol = new_symbol(linear->symbol, bound);
  symbols_.emplace(linear->symbol, symbol);
  return symbol;
}

// Half of what it can be is what it is optimised for.
ir::Dim Scope::new_symbol(const std::string& name, const std::optional<ir::Dim>& bound) const {
  int64_t min = 0, max = ir::kDimInfinity;
  if (const auto range = ranges_.find(name); range != ranges_.end()) {
    min = std::clamp<int64_t>(range->second.min.value_or(0), 0, ir::kDimInfinity);
    max = std::clamp<int64_t>(range->second.max.value_or(max), min, ir::kDimInfinity);
  }
  int64_t typical = 1024;
  if (bound) {
    max = std::clamp(bound->upper_bound(), min, max);
    typical = bound->at_opt();
  }
  return ir::Dim(ir::make_size_symbol(name, min, max, std::clamp(typical / 2, min, max)));
}

ir::Dim Scope::condition_of(const std::string& expression) const {
  return parse_condition(expression, [&](std::string_view name) { return symbol(name); });
}

ir::Dim Scope::condition(const std::string& name) const {
  const auto found = graph_.condition_values.find(name);
  if (found == graph_.condition_values.end())
    throw CompileError("got the unknown condition " + name +
                       ", expected one that the program records");
  return condition_of(found->second);
}

ir::Dim Scope::size(const SizeArgument& argument) const {
  if (const auto* constant = std::get_if<int64_t>(&argument)) return *constant;
  const std::string& name = std::get<SizeName>(argument).name;
  const auto found = graph_.size_values.find(name);
  if (found == graph_.size_values.end()) {
    throw CompileError("got the unknown size " + name + ", expected one that the program records");
  }
  return size(found->second);
}

ir::Type Scope::recorded_type(const std::string& name) const {
  const auto found = graph_.tensor_values.find(name);
  if (found == graph_.tensor_values.end()) {
    throw CompileError("got no type for " + name + ", expected it among tensor_values");
  }
  const auto part = part_dtype_of(found->second.dtype);
  const auto dtype = part ? part : dtype_of(found->second.dtype);
  if (!dtype) {
    throw CompileError("got dtype " + scalar_type_name(found->second.dtype) + " for " + name +
                       ", expected a dtype that Kiln knows");
  }
  ir::Type type{*dtype, {}};
  for (const SizeExpression& expression : found->second.sizes)
    type.shape.push_back(size(expression));
  if (part) type.shape.push_back(2);
  return type;
}

Complex split_parts(ir::Builder& builder, ir::Value* pairs) {
  const auto axis = static_cast<int64_t>(pairs->type.rank()) - 1;
  const ir::Shape shape(pairs->type.shape.begin(), pairs->type.shape.end() - 1);
  const auto part = [&](int64_t start) {
    ir::Value* half = builder.value(
        ir::Op::slice, {pairs},
        {{"axis", axis}, {"start", ir::Dim(start)}, {"size", ir::Dim(1)}, {"step", int64_t{1}}});
    return builder.reshape(half, shape);
  };
  return {part(0), part(1)};
}

ir::Value* join_parts(ir::Builder& builder, const Complex& value) {
  ir::Shape shape = value.re->type.shape;
  shape.push_back(1);
  return builder.value(ir::Op::concat,
                       {builder.reshape(value.re, shape), builder.reshape(value.im, shape)},
                       {{"axis", static_cast<int64_t>(shape.size()) - 1}});
}

}  // namespace kiln::import
