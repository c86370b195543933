// Loop: unrolled where the number of steps is known and small; otherwise its body becomes a graph that repeats.
#include <algorithm>
#include <set>

#include "import/onnx/importer.h"
#include "import/onnx/within.h"
#include "import/repeat.h"
#include "support/error.h"

namespace kiln::import::onnx {
namespace {

using ir::Op;

// Steps that are copies of the body.
constexpr int64_t kMaxSteps = 128;

// Names that a graph, or one within it, refers to.
void collect_names(const Graph& graph, std::set<std::string>& names) {
  for (const ValueInfo& output : graph.outputs) names.insert(output.name);
  for (const Node& node : graph.nodes) {
    names.insert(node.inputs.begin(), node.inputs.end());
    for (const Attribute& attribute : node.attributes)
      if (attribute.graph) collect_names(*attribute.graph, names);
  }
}

bool is_defined(const Names& names, const std::string& name) {
  for (const Names* at = &names; at != nullptr; at = at->outer)
    if (at->values.contains(name) || at->initializers.contains(name)) return true;
  return false;
}

}  // namespace

// A constant condition, or one that the body hands on.
bool Importer::always_goes_on(NodeCall& call, const Graph& body, const Value* condition) {
  const auto is_true = [&](const Value* value) {
    const Elements* known = call.known(const_cast<Value*>(value));
    return known != nullptr && known->integers[0].is_constant() &&
           !known->integers[0].is_constant(0);
  };
  if (condition != nullptr && !is_true(condition)) return false;
  const std::string& given = body.inputs[1].name;
  std::string name = body.outputs[0].name;
  for (auto node = body.nodes.rbegin(); node != body.nodes.rend(); ++node)
    if (node->op_type == "Identity" && node->outputs[0] == name) name = node->inputs[0];
  if (name == given) return true;
  const auto makes = [&](const Node& node) {
    return node.op_type == "Constant" && node.outputs[0] == name;
  };
  const auto constant = std::ranges::find_if(body.nodes, makes);
  if (constant == body.nodes.end()) return false;
  NodeCall maker(*constant, call.version(), {}, context_);
  const Tensor* tensor = maker.has("value") ? &maker.tensor("value") : nullptr;
  return tensor != nullptr && files_.literal(*tensor).as_int(0) != 0;
}

std::vector<Value*> Importer::import_loop(Names& names, const Node& node, int64_t version,
                                          const std::vector<Value*>& inputs, int depth) {
  NodeCall call(node, version, inputs, context_);
  const Graph& body = call.graph("body");
  call.expect(inputs.size() >= 2, std::to_string(inputs.size()) + " inputs",
              "a number of steps, a condition and values");
  Value *most = call.optional_input(0), *condition = call.optional_input(1);
  std::vector<Value*> values;
  for (size_t i = 2; i < inputs.size(); ++i) values.push_back(call.input(i));
  call.expect_all_read();
  call.expect(body.inputs.size() == values.size() + 2 && body.outputs.size() > values.size(),
              "a body with " + std::to_string(body.inputs.size()) + " inputs and " +
                  std::to_string(body.outputs.size()) + " outputs",
              "a step, a condition and a value for each of the loop's");
  const Elements* known = most == nullptr ? nullptr : call.known(most);
  if (known != nullptr && known->integers[0].is_constant() &&
      known->integers[0].constant() <= kMaxSteps && always_goes_on(call, body, condition))
    return unroll_loop(names, body, std::max<int64_t>(known->integers[0].constant(), 0), values,
                       depth);
  call.expect(body.outputs.size() == values.size() + 1, "a loop with outputs of each step",
              "up to " + std::to_string(kMaxSteps) +
                  " steps whose number is known, or none: their size would depend on data");
  return repeat_loop(names, body, call, values, depth);
}

std::vector<Value*> Importer::unroll_loop(const Names& names, const Graph& body, int64_t steps,
                                          std::vector<Value*> values, int depth) {
  const size_t carried = values.size();
  std::vector<std::vector<Value*>> rows(body.outputs.size() - 1 - carried);
  if (steps == 0 && !rows.empty())
    throw CompileError("got no steps, and outputs of each, expected one step at least");
  for (int64_t i = 0; i < steps; ++i) {
    Names inner;
    inner.outer = &names;
    inner.opsets = names.opsets;
    bind_initializers(inner, body);
    inner.values[body.inputs[0].name] = builder_.constant(ir::Literal::scalar_int(DType::I64, i));
    inner.values[body.inputs[1].name] = builder_.scalar(DType::Bool, 1);
    for (size_t k = 0; k < carried; ++k) inner.values[body.inputs[k + 2].name] = values[k];
    import_nodes(inner, body.nodes, depth + 1);
    for (size_t k = 0; k < carried; ++k) values[k] = find(inner, body.outputs[k + 1].name);
    for (size_t k = 0; k < rows.size(); ++k) {
      Value* row = find(inner, body.outputs[carried + 1 + k].name);
      ir::Shape shape = row->type.shape;
      shape.insert(shape.begin(), 1);
      rows[k].push_back(builder_.reshape(row, std::move(shape)));
    }
  }
  for (const std::vector<Value*>& each : rows)
    values.push_back(each.size() == 1 ? each[0]
                                      : builder_.value(Op::concat, each, {{"axis", int64_t{0}}}));
  return values;
}

std::vector<Value*> Importer::repeat_loop(Names& names, const Graph& body, NodeCall& call,
                                          const std::vector<Value*>& values, int depth) {
  const auto scalar = [](ir::Builder& builder, Value* value) { return builder.reshape(value, {}); };
  Value *most = call.optional_input(0), *condition = call.optional_input(1);
  Value* zero = builder_.constant(ir::Literal::scalar_int(DType::I64, 0));
  Value* goes =
      condition == nullptr ? builder_.scalar(DType::Bool, 1) : scalar(builder_, condition);
  if (most != nullptr) {
    most = scalar(builder_, most);
    goes = builder_.value(Op::bitwise_and, {goes, builder_.value(Op::lt, {zero, most})});
  }
  std::vector<Value*> initial{zero};
  initial.insert(initial.end(), values.begin(), values.end());
  for (const Value* value : initial)
    call.expect(!context_.packed.contains(value), "a value of 4-bit numbers",
                "them in DequantizeLinear only");

  Repeat repeat(builder_);
  const std::vector<Value*> carried = repeat.carry(initial);
  Names inner;
  inner.opsets = names.opsets;
  bind_initializers(inner, body);
  std::set<std::string> mentioned;
  collect_names(body, mentioned);
  for (const std::string& name : mentioned)
    if (!name.empty() && !inner.initializers.contains(name) && is_defined(names, name))
      inner.values[name] = repeat.use(find(names, name));
  inner.values[body.inputs[0].name] = carried[0];
  for (size_t i = 0; i < values.size(); ++i) inner.values[body.inputs[i + 2].name] = carried[i + 1];
  Value* limit = repeat.use(most);
  std::vector<Value*> next;
  Value* again = nullptr;
  {
    const Within within(context_, repeat.body());
    inner.values[body.inputs[1].name] = builder_.scalar(DType::Bool, 1);
    import_nodes(inner, body.nodes, depth + 1);
    again = scalar(builder_, find(inner, body.outputs[0].name));
    Value* one = builder_.constant(ir::Literal::scalar_int(DType::I64, 1));
    next.push_back(builder_.value(Op::add, {carried[0], one}));
    for (size_t i = 0; i < values.size(); ++i)
      next.push_back(find(inner, body.outputs[i + 1].name));
    if (limit != nullptr)
      again = builder_.value(Op::bitwise_and, {again, builder_.value(Op::lt, {next[0], limit})});
  }
  for (size_t i = 0; i < values.size(); ++i)
    call.expect(next[i + 1]->type == values[i]->type,
                next[i + 1]->type.str() + " for a value of " + values[i]->type.str(),
                "equal types in each step, because its memory is used again");
  std::vector<Value*> results = repeat.finish(goes, again, std::move(next));
  results.erase(results.begin());
  return results;
}

}  // namespace kiln::import::onnx
