// Loop: unrolled where the number of steps is known and small; otherwise its body becomes a graph that repeats.
#include <algorithm>

#include "import/onnx/body_loop.h"
#include "import/onnx/importer.h"
#include "import/onnx/within.h"
#include "import/repeat.h"
#include "support/error.h"

namespace kiln::import::onnx {
namespace {

using ir::Op;

bool is_true(const NodeCall& call, Value* condition) {
  if (condition == nullptr) return true;
  const Elements* known = call.known(condition);
  return known != nullptr && known->size() == 1 && known->integers[0].is_constant() &&
         !known->integers[0].is_constant(0);
}

}  // namespace

// Whether a loop that has begun ends by its number of steps alone: the body hands its condition on, or gives a constant.
bool Importer::always_goes_on(NodeCall& call, const Graph& body) {
  const std::string& given = body.inputs[1].name;
  std::string name = body.outputs[0].name;
  const auto gives = [&](const Node& node) {
    return !node.outputs.empty() && node.outputs[0] == name;
  };
  for (auto node = body.nodes.rbegin(); node != body.nodes.rend(); ++node)
    if (node->op_type == "Identity" && gives(*node) && !node->inputs.empty())
      name = node->inputs[0];
  if (name == given) return true;
  const auto makes = [&](const Node& node) { return node.op_type == "Constant" && gives(node); };
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
  const auto expect_one = [&](const Value* value, DType dtype, const char* what) {
    if (value == nullptr) return;
    call.expect(value->type.elements().is_constant(1) && value->type.dtype == dtype,
                value->type.str() + " as " + what, "one " + std::string(dtype_name(dtype)));
  };
  expect_one(most, DType::I64, "number of steps");
  expect_one(condition, DType::Bool, "condition");
  BodyLoop loop{.body = body,
                .counts = true,
                .condition = body.inputs[1].name,
                .first_output = 1,
                .states = values};
  for (size_t i = 2; i < body.inputs.size(); ++i) loop.inputs.push_back(body.inputs[i].name);
  loop.inputs.push_back(body.inputs[0].name);

  const bool goes_on = always_goes_on(call, body);
  const Elements* known = most == nullptr ? nullptr : call.known(most);
  const bool is_known = goes_on && is_true(call, condition) && known != nullptr;
  if (is_known) loop.steps = ir::max(known->integers[0], 0);
  const bool is_short = is_known && loop.steps.is_constant() && loop.steps.constant() <= kMaxSteps;
  const bool gives_rows = body.outputs.size() > values.size() + 1;
  if (!gives_rows && !is_short) {
    std::vector<Value*> results = repeat_loop(names, call, loop, depth);
    results.erase(results.begin());
    return results;
  }
  if (!is_known) loop.steps = count_steps(names, call, loop, goes_on, depth);
  return run_body(names, call, loop, depth);
}

// How many steps a loop makes, where that depends on data: if the body has a say in it, the loop runs once for the
// number, and once more for the rows, whose memory is as large as that.
Dim Importer::count_steps(Names& names, NodeCall& call, const BodyLoop& loop, bool goes_on,
                          int depth) {
  Value *most = call.optional_input(0), *condition = call.optional_input(1);
  std::optional<Dim> bound;
  if (const Elements* known = most == nullptr ? nullptr : call.known(most))
    bound = ir::max(known->integers[0], 0);
  if (!goes_on) return call.call().find_size(repeat_loop(names, call, loop, depth)[0], 0, 0, bound);
  call.expect(most != nullptr, "a loop without an end", "a number of steps, or a condition");
  const Expr number = call.expr(builder_.reshape(most, {})).apply(Op::maximum, 0);
  Value* count = number;
  if (condition != nullptr)
    count = call.expr(builder_.reshape(condition, {})).select(number, number.constant(0));
  return call.call().find_size(count, 0, 0, bound);
}

// The number of steps made and the last values of a loop that gives nothing else.
std::vector<Value*> Importer::repeat_loop(Names& names, NodeCall& call, const BodyLoop& loop,
                                          int depth) {
  const auto scalar = [&](Value* value) { return builder_.reshape(value, {}); };
  Value *most = call.optional_input(0), *condition = call.optional_input(1);
  Value* zero = builder_.constant(ir::Literal::scalar_int(DType::I64, 0));
  Value* goes = condition == nullptr ? builder_.scalar(DType::Bool, 1) : scalar(condition);
  if (most != nullptr) {
    most = scalar(most);
    goes = builder_.value(Op::bitwise_and, {goes, builder_.value(Op::lt, {zero, most})});
  }
  std::vector<Value*> initial{zero};
  initial.insert(initial.end(), loop.states.begin(), loop.states.end());
  for (const Value* value : initial)
    call.expect(!context_.packed.contains(value), "a value of 4-bit numbers",
                "them in DequantizeLinear only");

  const OuterValues outer = outer_values(names, loop.body);
  Repeat repeat(builder_);
  const std::vector<Value*> carried = repeat.carry(initial);
  const std::vector<Value*> used = repeat.use(outer.values);
  Value* limit = repeat.use(most);
  std::vector<Value*> operands(carried.begin() + 1, carried.end());
  operands.push_back(carried[0]);
  std::vector<Value*> next;
  Value* again = nullptr;
  {
    const Within within(context_, repeat.body());
    Names inner;
    inner.opsets = names.opsets;
    bind_outer(inner, call, outer, used);
    const std::vector<Value*> results = import_step(inner, call, loop, operands, depth);
    again = scalar(find(inner, loop.body.outputs[0].name));
    Value* one = builder_.constant(ir::Literal::scalar_int(DType::I64, 1));
    next.push_back(builder_.value(Op::add, {carried[0], one}));
    next.insert(next.end(), results.begin(),
                results.begin() + static_cast<ptrdiff_t>(loop.states.size()));
    if (limit != nullptr)
      again = builder_.value(Op::bitwise_and, {again, builder_.value(Op::lt, {next[0], limit})});
  }
  for (size_t i = 0; i < loop.states.size(); ++i)
    expect_same_type(call, next[i + 1], loop.states[i]->type);
  return repeat.finish(goes, again, std::move(next));
}

}  // namespace kiln::import::onnx
