#include "import/control_flow.h"

#include <algorithm>
#include <utility>

#include "import/ops/common.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

using ir::Op;
using ir::Value;
using Inputs = std::vector<std::pair<std::string, Argument>>;
using Values = std::vector<Value*>;

// Steps of a loop that are copies of its body; longer loops repeat it.
constexpr int64_t kMaxSteps = 128;

// The position of the first graph at or after `from`.
size_t find_graph(Call& call, size_t from) {
  const Inputs& inputs = call.node().inputs;
  while (from < inputs.size() &&
         !std::holds_alternative<std::shared_ptr<Subgraph>>(inputs[from].second))
    ++from;
  call.expect(from < inputs.size(), "no graph", "a graph argument");
  return from;
}

const ProgramGraph& graph_at(Call& call, size_t index) {
  return std::get<std::shared_ptr<Subgraph>>(call.node().inputs[find_graph(call, index)].second)
      ->graph;
}

// The operands in one argument: a tensor, a list of them, or a number, which the graph knows.
Values operands_of(Call& call, const Argument& argument) {
  if (const auto* one = std::get_if<TensorName>(&argument)) return {call.scope().tensor(one->name)};
  if (const auto* many = std::get_if<std::vector<TensorName>>(&argument)) {
    Values result;
    for (const TensorName& each : *many) result.push_back(call.scope().tensor(each.name));
    return result;
  }
  if (const auto* sizes = std::get_if<std::vector<SizeArgument>>(&argument))
    return Values(sizes->size(), nullptr);
  return {nullptr};
}

// What the arguments from `index` on hold.
Values operands_from(Call& call, size_t index) {
  Values result;
  for (; index < call.node().inputs.size(); ++index)
    std::ranges::copy(operands_of(call, call.node().inputs[index].second),
                      std::back_inserter(result));
  return result;
}

Values operands_at(Call& call, size_t index) {
  return index < call.node().inputs.size() ? operands_of(call, call.node().inputs[index].second)
                                           : Values{};
}

// Reads a graph of the node with a builder of its own, or with that of the node.
Values read(Call& call, const ImportBody& import_body, size_t graph, const Values& operands,
            ir::Builder* builder = nullptr) {
  return import_body(graph_at(call, graph), operands, builder ? *builder : call.builder());
}

// The arguments after the graph are its inputs.
Values import_wrapped(Call& call, std::string_view target, const ImportBody& import_body) {
  const Inputs& inputs = call.node().inputs;
  const size_t body = find_graph(call, 0);
  const bool enabled = std::any_of(inputs.begin(), inputs.begin() + static_cast<ptrdiff_t>(body),
                                   [](const auto& input) {
                                     const bool* flag = std::get_if<bool>(&input.second);
                                     return flag != nullptr && *flag;
                                   });
  call.expect(!target.ends_with("wrap_with_autocast") || !enabled, "autocast",
              "a model exported without autocast");
  return read(call, import_body, body, operands_from(call, body + 1));
}

// The condition as a bool of rank 0.
Value* condition_of(Call& call, const Argument& argument) {
  if (const auto* sizes = std::get_if<ConditionName>(&argument)) {
    Value* value = call.make(
        Op::dim_value, {}, {{"value", call.scope().condition(sizes->name)}, {"dtype", DType::I64}});
    return call.builder().cast(value, DType::Bool);
  }
  const auto* tensor = std::get_if<TensorName>(&argument);
  call.expect(tensor != nullptr, "a condition that is neither a tensor nor one on sizes",
              "one of the two");
  Value* value = call.scope().tensor(tensor->name);
  call.expect(value->type.elements().is_constant(1), value->type.str() + " as condition",
              "one element");
  return call.builder().cast(call.builder().reshape(value, {}), DType::Bool);
}

// A bool scalar that says whether a graph of the node goes on.
Value* as_condition(Call& call, ir::Builder& builder, const Values& results) {
  call.expect(results.size() == 1 && results[0] != nullptr, "a condition on a number",
              "one on a tensor");
  call.expect(results[0]->type.elements().is_constant(1), results[0]->type.str() + " as condition",
              "one element");
  return builder.cast(builder.reshape(results[0], {}), DType::Bool);
}

void expect_tensors(Call& call, const Values& values, const char* what) {
  call.expect(std::ranges::find(values, nullptr) == values.end(),
              std::string(what) + " that is no tensor", "tensors");
}

// A branch of a condition, read to see what it does.
struct Branch {
  std::vector<ir::Type> types;  // of its results
  bool may_fail = false;        // or takes long
};

Branch look_at(Call& call, const ImportBody& import_body, size_t graph, const Values& operands) {
  Repeat trial(call.builder());
  const Values inner = trial.use(operands);
  const Values results = read(call, import_body, graph, inner, &trial.builder());
  trial.check();
  expect_tensors(call, results, "a result");
  Branch branch;
  for (const Value* value : results) branch.types.push_back(value->type);
  call.expect(trial.body().requirements.empty(),
              "a condition, and a branch with sizes that have to be checked",
              "branches for all sizes");
  branch.may_fail = std::ranges::any_of(trial.body().nodes(), [](const auto& node) {
    return node->op == Op::repeat || ir::may_fail(*node);
  });
  return branch;
}

// A branch that is taken only if it is meant: a loop that runs once or never.
Values take_if(Call& call, const ImportBody& import_body, size_t graph, Value* condition,
               const Values& otherwise) {
  Repeat once(call.builder());
  once.carry(otherwise);
  const Values operands = once.use(operands_from(call, 3));
  Values results = read(call, import_body, graph, operands, &once.builder());
  return once.finish(condition, once.builder().scalar(DType::Bool, 0), std::move(results));
}

Values import_cond(Call& call, const ImportBody& import_body) {
  const Argument& argument = call.node().inputs.at(0).second;
  const Values operands = operands_from(call, 3);
  if (const bool* known = std::get_if<bool>(&argument))
    return read(call, import_body, *known ? 1 : 2, operands);
  Value* condition = condition_of(call, argument);
  const Branch on_true = look_at(call, import_body, 1, operands);
  const Branch on_false = look_at(call, import_body, 2, operands);
  const size_t count = on_true.types.size();
  call.expect(count == on_false.types.size(), "branches with different numbers of results",
              "equal ones");
  for (size_t i = 0; i < count; ++i)
    call.expect(on_true.types[i] == on_false.types[i],
                "branches of types " + on_true.types[i].str() + " and " + on_false.types[i].str(),
                "equal types");
  Values results;
  if (on_true.may_fail || on_false.may_fail) {
    for (const ir::Type& type : on_true.types)
      results.push_back(
          call.make(Op::full, {}, {{"shape", type.shape}, {"dtype", type.dtype}, {"value", 0.0}}));
    results = take_if(call, import_body, 1, condition, results);
    return take_if(call, import_body, 2, call.make(Op::logical_not, {condition}), results);
  }
  const Values yes = read(call, import_body, 1, operands);
  const Values no = read(call, import_body, 2, operands);
  for (size_t i = 0; i < count; ++i)
    results.push_back(call.make(Op::where, {condition, yes[i], no[i]}));
  return results;
}

// while_loop(condition, body, carried, others)
Values import_while(Call& call, const ImportBody& import_body) {
  const Values carried = operands_at(call, 2), others = operands_at(call, 3);
  expect_tensors(call, carried, "a carried value");
  call.expect(!carried.empty(), "a loop without carried values", "some");
  const auto with_others = [&](Values values, const Values& more) {
    values.insert(values.end(), more.begin(), more.end());
    return values;
  };
  Value* condition =
      as_condition(call, call.builder(), read(call, import_body, 0, with_others(carried, others)));
  Repeat repeat(call.builder());
  const Values inner = repeat.carry(carried), used = repeat.use(others);
  ir::Builder& builder = repeat.builder();
  const Values next = read(call, import_body, 1, with_others(inner, used), &builder);
  expect_tensors(call, next, "a carried value");
  Value* again =
      as_condition(call, builder, read(call, import_body, 0, with_others(next, used), &builder));
  return repeat.finish(condition, again, next);
}

// Row `index` of the first axis.
Value* row(Call& call, Value* x, int64_t index) {
  return call.builder().reshape(slice(call, x, 0, ir::Dim(index), 1),
                                ir::Shape(x->type.shape.begin() + 1, x->type.shape.end()));
}

ir::Dim num_steps(Call& call, const Values& rows) {
  call.expect(!rows.empty() &&
                  std::ranges::none_of(
                      rows, [](const Value* x) { return x == nullptr || x->type.rank() == 0; }),
              "nothing to go over", "tensors with a first axis");
  return rows[0]->type.shape[0];
}

bool is_unrolled(const ir::Dim& steps) {
  return steps.is_constant() && steps.constant() >= 1 && steps.constant() <= kMaxSteps;
}

Values repeated(Call& call, const ImportBody& import_body, RowLoop loop) {
  expect_tensors(call, loop.states, "a state");
  return repeat_rows(call.builder(), loop, [&](ir::Builder& builder, const Values& operands) {
    const Values results = read(call, import_body, 0, operands, &builder);
    expect_tensors(call, results, "a result");
    return results;
  });
}

// One tensor of the results of all steps, which become its rows.
Value* stack(Call& call, const std::vector<Values>& steps, size_t index) {
  Values rows;
  for (const Values& results : steps) {
    call.expect(results.at(index) != nullptr, "a result that is no tensor", "tensors");
    rows.push_back(unsqueeze(call, results[index], 0));
  }
  return rows.size() == 1 ? rows[0] : call.make(Op::concat, rows, {{"axis", int64_t{0}}});
}

void append(Values& to, const Values& from) { to.insert(to.end(), from.begin(), from.end()); }

// map_impl(body, rows, others): body(a row of each, others) for all rows.
Values import_map(Call& call, const ImportBody& import_body) {
  const Values rows = operands_at(call, 1), others = operands_from(call, 2);
  const ir::Dim count = num_steps(call, rows);
  if (!is_unrolled(count)) return repeated(call, import_body, {{}, rows, others, count});
  std::vector<Values> steps;
  for (int64_t i = 0; i < count.constant(); ++i) {
    Values operands;
    for (Value* x : rows) operands.push_back(row(call, x, i));
    append(operands, others);
    steps.push_back(read(call, import_body, 0, operands));
  }
  Values results;
  for (size_t i = 0; i < steps[0].size(); ++i) results.push_back(stack(call, steps, i));
  return results;
}

// scan(body, state, rows, others): the body gives a new state and results, which are stacked.
Values import_scan(Call& call, const ImportBody& import_body) {
  Values state = operands_at(call, 1);
  const Values rows = operands_at(call, 2), others = operands_from(call, 3);
  const ir::Dim count = num_steps(call, rows);
  if (!is_unrolled(count)) return repeated(call, import_body, {state, rows, others, count});
  std::vector<Values> steps;
  for (int64_t i = 0; i < count.constant(); ++i) {
    Values operands = state;
    for (Value* x : rows) operands.push_back(row(call, x, i));
    append(operands, others);
    Values results = read(call, import_body, 0, operands);
    call.expect(results.size() >= state.size(), "fewer results than states",
                "a new value for each state");
    const auto split = results.begin() + static_cast<ptrdiff_t>(state.size());
    state.assign(results.begin(), split);
    steps.emplace_back(split, results.end());
  }
  Values results = state;
  for (size_t i = 0; i < steps[0].size(); ++i) results.push_back(stack(call, steps, i));
  return results;
}

}  // namespace

bool is_control_flow(std::string_view target) {
  constexpr std::string_view kTargets[] = {
      "wrap_with_set_grad_enabled", "wrap_with_autocast", "cond", "map_impl", "scan", "while_loop"};
  constexpr std::string_view kSpace = "higher_order.";
  return target.starts_with(kSpace) &&
         std::ranges::find(kTargets, target.substr(kSpace.size())) != std::end(kTargets);
}

std::vector<ir::Value*> import_control_flow(Call& call, std::string_view target,
                                            const ImportBody& import_body) {
  if (target.ends_with(".cond")) return import_cond(call, import_body);
  if (target.ends_with(".while_loop")) return import_while(call, import_body);
  if (target.ends_with(".map_impl")) return import_map(call, import_body);
  if (target.ends_with(".scan")) return import_scan(call, import_body);
  return import_wrapped(call, target, import_body);
}

uint32_t next_id(const ir::Graph& graph) {
  uint32_t next = 0;
  for (const ir::Value* input : graph.inputs()) next = std::max(next, input->id + 1);
  if (!graph.nodes().empty()) next = std::max(next, graph.nodes().back()->outputs.back()->id + 1);
  return next;
}

bool adds_checks(const ir::Graph& graph, uint32_t first_id) {
  return std::ranges::any_of(graph.nodes(), [&](const auto& node) {
    return node->outputs[0]->id >= first_id && ir::may_fail(*node);
  });
}

}  // namespace kiln::import
