#include "import/control_flow.h"

#include <algorithm>
#include <utility>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

using ir::Op;
using ir::Value;
using Inputs = std::vector<std::pair<std::string, Argument>>;
using Values = std::vector<Value*>;

// Steps of a loop, each of which is a copy of its body.
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
  return import_body(graph_at(call, body), operands_from(call, body + 1));
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

Values import_cond(Call& call, ir::Graph& graph, const ImportBody& import_body) {
  const Argument& argument = call.node().inputs.at(0).second;
  const Values operands = operands_from(call, 3);
  if (const bool* known = std::get_if<bool>(&argument))
    return import_body(graph_at(call, *known ? 1 : 2), operands);
  Value* condition = condition_of(call, argument);
  const uint32_t first_id = next_id(graph);
  const size_t requirements = graph.requirements.size();
  const Values yes = import_body(graph_at(call, 1), operands);
  const Values no = import_body(graph_at(call, 2), operands);
  call.expect(!adds_checks(graph, first_id) && graph.requirements.size() == requirements,
              "a condition, and branches with indices, divisors or sizes that have to be checked",
              "branches that cannot fail, because both are computed");
  call.expect(yes.size() == no.size(), "branches with different numbers of results", "equal ones");
  Values results;
  for (size_t i = 0; i < yes.size(); ++i) {
    call.expect(yes[i] != nullptr && no[i] != nullptr, "a result that is no tensor", "tensors");
    call.expect(yes[i]->type == no[i]->type,
                "branches of types " + yes[i]->type.str() + " and " + no[i]->type.str(),
                "equal types");
    results.push_back(call.make(Op::where, {condition, yes[i], no[i]}));
  }
  return results;
}

// Row `index` of the first axis.
Value* row(Call& call, Value* x, int64_t index) {
  return call.builder().reshape(slice(call, x, 0, ir::Dim(index), 1),
                                ir::Shape(x->type.shape.begin() + 1, x->type.shape.end()));
}

int64_t num_steps(Call& call, const Values& rows) {
  call.expect(!rows.empty() &&
                  std::ranges::none_of(
                      rows, [](const Value* x) { return x == nullptr || x->type.rank() == 0; }),
              "nothing to go over", "tensors with a first axis");
  const ir::Dim& steps = rows[0]->type.shape[0];
  call.expect(steps.is_constant(), steps.str() + " steps",
              "a number that does not depend on sizes, because loops are unrolled");
  call.expect(steps.constant() >= 1 && steps.constant() <= kMaxSteps, steps.str() + " steps",
              "1 to " + std::to_string(kMaxSteps) + ", because loops are unrolled");
  return steps.constant();
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
  std::vector<Values> steps;
  for (int64_t i = 0, n = num_steps(call, rows); i < n; ++i) {
    Values operands;
    for (Value* x : rows) operands.push_back(row(call, x, i));
    append(operands, others);
    steps.push_back(import_body(graph_at(call, 0), operands));
  }
  Values results;
  for (size_t i = 0; i < steps[0].size(); ++i) results.push_back(stack(call, steps, i));
  return results;
}

// scan(body, state, rows, others): the body gives a new state and results, which are stacked.
Values import_scan(Call& call, const ImportBody& import_body) {
  Values state = operands_at(call, 1);
  const Values rows = operands_at(call, 2), others = operands_from(call, 3);
  std::vector<Values> steps;
  for (int64_t i = 0, n = num_steps(call, rows); i < n; ++i) {
    Values operands = state;
    for (Value* x : rows) operands.push_back(row(call, x, i));
    append(operands, others);
    Values results = import_body(graph_at(call, 0), operands);
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
  constexpr std::string_view kTargets[] = {"wrap_with_set_grad_enabled", "wrap_with_autocast",
                                           "cond", "map_impl", "scan"};
  constexpr std::string_view kSpace = "higher_order.";
  return target.starts_with(kSpace) &&
         std::ranges::find(kTargets, target.substr(kSpace.size())) != std::end(kTargets);
}

std::vector<ir::Value*> import_control_flow(Call& call, std::string_view target, ir::Graph& graph,
                                            const ImportBody& import_body) {
  if (target.ends_with(".cond")) return import_cond(call, graph, import_body);
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
    return node->outputs[0]->id >= first_id &&
           (node->op == Op::check_index || node->op == Op::check_nonzero ||
            node->op == Op::data_size);
  });
}

}  // namespace kiln::import
