#include "import/onnx/body_loop.h"

#include "import/onnx/importer.h"
#include "import/onnx/within.h"
#include "import/repeat.h"
#include "support/error.h"

namespace kiln::import::onnx {
namespace {

using ir::Op;

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

Value* row(NodeCall& call, Value* x, int64_t index) {
  return call.builder().reshape(slice(call.call(), x, 0, index, 1),
                                {x->type.shape.begin() + 1, x->type.shape.end()});
}

}  // namespace

OuterValues Importer::outer_values(Names& names, const Graph& body) {
  std::set<std::string> mentioned;
  collect_names(body, mentioned);
  for (const Tensor& tensor : body.initializers) mentioned.erase(tensor.name);
  for (const ValueInfo& input : body.inputs) mentioned.erase(input.name);
  OuterValues outer;
  for (const std::string& name : mentioned) {
    if (name.empty() || !is_defined(names, name)) continue;
    Value* value = find(names, name);
    if (value == nullptr) continue;  // an input that a function's call leaves out
    const Elements* sizes =
        value->type.dtype == DType::I64 && value->type.rank() <= 1 ? known_.find(value) : nullptr;
    outer.each.push_back({name, sizes, value->type, context_.packed.contains(value)});
    outer.values.push_back(sizes == nullptr ? value : nullptr);
  }
  return outer;
}

void Importer::bind_outer(Names& inner, NodeCall& call, const OuterValues& outer,
                          std::span<Value* const> values) {
  for (size_t i = 0; i < outer.each.size(); ++i) {
    const OuterValues::Each& each = outer.each[i];
    Value* value = values[i];
    if (each.sizes != nullptr)
      value = builder_.reshape(call.dims_value(each.sizes->integers), each.type.shape);
    if (each.is_packed) context_.packed.insert(value);
    inner.values[each.name] = value;
  }
}

// The new states and the rows of results of one step.
std::vector<Value*> Importer::import_step(Names& inner, NodeCall& call, const BodyLoop& loop,
                                          std::span<Value* const> operands, int depth) {
  bind_initializers(inner, loop.body);
  for (size_t i = 0; i < loop.inputs.size(); ++i) inner.values[loop.inputs[i]] = operands[i];
  if (!loop.condition.empty()) inner.values[loop.condition] = builder_.scalar(DType::Bool, 1);
  import_nodes(inner, loop.body.nodes, depth + 1);
  std::vector<Value*> results;
  for (size_t i = loop.first_output; i < loop.body.outputs.size(); ++i) {
    results.push_back(find(inner, loop.body.outputs[i].name));
    call.expect(!context_.packed.contains(results.back()), "a result of 4-bit numbers",
                "them in DequantizeLinear only");
  }
  return results;
}

std::vector<Value*> Importer::unroll_body(const Names& names, NodeCall& call, const BodyLoop& loop,
                                          int depth) {
  const auto states = static_cast<ptrdiff_t>(loop.states.size());
  std::vector<Value*> values = loop.states;
  std::vector<std::vector<Value*>> rows(loop.body.outputs.size() - loop.first_output -
                                        loop.states.size());
  for (int64_t i = 0; i < loop.steps.constant(); ++i) {
    Names inner;
    inner.outer = &names;
    inner.opsets = names.opsets;
    for (Value* x : loop.rows) values.push_back(row(call, x, i));
    if (loop.counts) values.push_back(builder_.constant(ir::Literal::scalar_int(DType::I64, i)));
    const std::vector<Value*> results = import_step(inner, call, loop, values, depth);
    values.assign(results.begin(), results.begin() + states);
    for (size_t k = 0; k < rows.size(); ++k)
      rows[k].push_back(unsqueeze(call.call(), results[loop.states.size() + k], 0));
  }
  for (const std::vector<Value*>& each : rows)
    values.push_back(each.size() == 1 ? each[0]
                                      : builder_.value(Op::concat, each, {{"axis", int64_t{0}}}));
  return values;
}

std::vector<Value*> Importer::repeat_body(Names& names, NodeCall& call, const BodyLoop& loop,
                                          int depth) {
  const OuterValues outer = outer_values(names, loop.body);
  RowLoop rows{loop.states, loop.rows, outer.values, loop.steps};
  if (loop.counts) rows.rows.push_back(iota(call.call(), loop.steps));
  return repeat_rows(builder_, rows, [&](ir::Builder& body, const std::vector<Value*>& operands) {
    const Within within(context_, body.graph());
    Names inner;
    inner.opsets = names.opsets;
    bind_outer(inner, call, outer, std::span(operands).subspan(loop.inputs.size()));
    const std::vector<Value*> results = import_step(inner, call, loop, operands, depth);
    for (size_t i = 0; i < loop.states.size(); ++i)
      expect_same_type(call, results[i], loop.states[i]->type);
    return results;
  });
}

std::vector<Value*> Importer::run_body(Names& names, NodeCall& call, const BodyLoop& loop,
                                       int depth) {
  for (const std::vector<Value*>* values : {&loop.states, &loop.rows})
    for (const Value* value : *values)
      call.expect(!context_.packed.contains(value), "a value of 4-bit numbers",
                  "them in DequantizeLinear only");
  const bool is_short = loop.steps.is_constant() && loop.steps.constant() <= kMaxSteps;
  const bool gives_rows = loop.body.outputs.size() > loop.first_output + loop.states.size();
  // Of no steps the types of rows are still those of one.
  const bool unrolls = is_short && (loop.steps.constant() > 0 || !gives_rows);
  return unrolls ? unroll_body(names, call, loop, depth) : repeat_body(names, call, loop, depth);
}

void Importer::expect_same_type(NodeCall& call, const Value* next, const ir::Type& type) const {
  call.expect(next->type == type, next->type.str() + " for a value of " + type.str(),
              "equal types in each step, because its memory is used again");
}

}  // namespace kiln::import::onnx
