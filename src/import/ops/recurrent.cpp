// LSTM, GRU and plain recurrent networks: one step after the other. The input's share of all steps is one product in front.
#include <algorithm>
#include <string>

#include "import/ops/common.h"
#include "import/repeat.h"

namespace kiln::import {
namespace {

// Steps of all layers and directions that are copies of one; more are a loop.
constexpr int64_t kMaxSteps = 128;

enum class Cell { Lstm, Gru, Tanh, Relu };

struct Weights {
  Value *input = nullptr, *hidden = nullptr;
  Value *input_bias = nullptr, *hidden_bias = nullptr;
  Value* projection = nullptr;
};

struct State {
  Value *hidden, *cell = nullptr;
};

Expr linear(Call& call, Value* x, Value* weight, Value* bias) {
  std::vector<Value*> operands{x, weight};
  if (bias != nullptr) operands.push_back(bias);
  return {call, call.make(Op::linear, operands)};
}

// Part `index` of `count` equal ones along the last axis.
Expr gate(Call& call, const Expr& gates, int64_t index, int64_t count) {
  const int64_t axis = static_cast<int64_t>(gates.value()->type.rank()) - 1;
  const ir::Dim size = ir::floordiv(gates.value()->type.shape[axis], count);
  return {call, slice(call, gates, axis, size * index, size)};
}

State lstm_step(Call& call, const Expr& x, const State& state, const Weights& weights) {
  const Expr gates = x + linear(call, state.hidden, weights.hidden, weights.hidden_bias);
  const Expr input = gate(call, gates, 0, 4).apply(Op::sigmoid),
             forget = gate(call, gates, 1, 4).apply(Op::sigmoid);
  const Expr cell =
      forget * Expr(call, state.cell) + input * gate(call, gates, 2, 4).apply(Op::tanh);
  const Expr hidden = gate(call, gates, 3, 4).apply(Op::sigmoid) * cell.apply(Op::tanh);
  if (weights.projection == nullptr) return {hidden, cell};
  return {linear(call, hidden, weights.projection, nullptr), cell};
}

State gru_step(Call& call, const Expr& x, const State& state, const Weights& weights) {
  const Expr of_hidden = linear(call, state.hidden, weights.hidden, weights.hidden_bias);
  const auto sum = [&](int64_t index) {
    return gate(call, x, index, 3) + gate(call, of_hidden, index, 3);
  };
  const Expr reset = sum(0).apply(Op::sigmoid), update = sum(1).apply(Op::sigmoid);
  const Expr fresh = (gate(call, x, 2, 3) + reset * gate(call, of_hidden, 2, 3)).apply(Op::tanh);
  return {(Expr(call, state.hidden) - fresh) * update + fresh, nullptr};
}

State step(Call& call, Cell cell, const Expr& x, const State& state, const Weights& weights) {
  if (cell == Cell::Lstm) return lstm_step(call, x, state, weights);
  if (cell == Cell::Gru) return gru_step(call, x, state, weights);
  const Expr sum = x + linear(call, state.hidden, weights.hidden, weights.hidden_bias);
  return {sum.apply(cell == Cell::Tanh ? Op::tanh : Op::relu), nullptr};
}

Value* concat(Call& call, const std::vector<Value*>& parts, int64_t axis) {
  return parts.size() == 1 ? parts[0] : call.make(Op::concat, parts, {{"axis", axis}});
}

// Row `index` of the first axis.
Value* row(Call& call, Value* x, int64_t index) {
  ir::Shape shape(x->type.shape.begin() + 1, x->type.shape.end());
  return call.builder().reshape(slice(call, x, 0, index, 1), shape);
}

// What run gives, of steps that repeat.
Value* run_loop(Call& call, Cell cell, Value* shares, State& state, const Weights& weights) {
  RowLoop loop;
  loop.states = {state.hidden};
  if (state.cell != nullptr) loop.states.push_back(state.cell);
  loop.rows = {shares};
  loop.others = {weights.hidden, weights.hidden_bias, weights.projection};
  loop.steps = shares->type.shape[0];
  const size_t states = loop.states.size();
  const auto one = [&](ir::Builder& builder, const std::vector<Value*>& values) {
    Call inner(call, builder);
    Weights own;
    own.hidden = values[states + 1];
    own.hidden_bias = values[states + 2];
    own.projection = values[states + 3];
    const State now{values[0], states == 2 ? values[1] : nullptr};
    const State next = step(inner, cell, {inner, values[states]}, now, own);
    std::vector<Value*> results{next.hidden};
    if (states == 2) results.push_back(next.cell);
    results.push_back(next.hidden);
    return results;
  };
  const std::vector<Value*> results = repeat_rows(call.builder(), loop, one);
  state = {results[0], states == 2 ? results[1] : nullptr};
  return results.back();
}

struct Way {
  bool backwards = false, unrolled = true;
};

// The hidden states of all steps, [steps, batch, hidden], in the order of the input; `state` becomes the last one.
Value* run(Call& call, Cell cell, Value* x, State& state, const Weights& weights, Way way) {
  const auto [backwards, unrolled] = way;
  Value* shares = linear(call, x, weights.input, weights.input_bias);
  if (!unrolled) {
    const auto turned = [&](Value* value) {
      return way.backwards ? call.make(Op::flip, {value}, {{"axes", std::vector<int64_t>{0}}})
                           : value;
    };
    return turned(run_loop(call, cell, turned(shares), state, weights));
  }
  const int64_t steps = x->type.shape[0].constant();
  std::vector<Value*> outputs;
  for (int64_t i = 0; i < steps; ++i) {
    state =
        step(call, cell, {call, row(call, shares, backwards ? steps - 1 - i : i)}, state, weights);
    outputs.push_back(unsqueeze(call, state.hidden, 0));
  }
  if (backwards) std::ranges::reverse(outputs);
  return concat(call, outputs, 0);
}

std::vector<Weights> read_weights(Call& call, size_t cells) {
  const std::vector<Value*> params = call.tensors("params");
  const bool biased = call.boolean_or("has_biases", false);
  const size_t plain = biased ? 4 : 2, each = cells == 0 ? 0 : params.size() / cells;
  call.expect(each * cells == params.size() && (each == plain || each == plain + 1),
              std::to_string(params.size()) + " weights", std::to_string(plain * cells));
  std::vector<Weights> result;
  for (size_t i = 0; i < cells; ++i) {
    Value* const* at = params.data() + i * each;
    Weights weights{at[0], at[1]};
    if (biased) weights.input_bias = at[2], weights.hidden_bias = at[3];
    if (each > plain) weights.projection = at[plain];
    result.push_back(weights);
  }
  return result;
}

template <Cell cell>
std::vector<Value*> import_recurrent(Call& call) {
  const bool batch_first = call.boolean_or("batch_first", false);
  call.expect(!call.boolean_or("train", false) || call.real_or("dropout", 0) == 0,
              "dropout while training", "inference");
  Value* x = call.tensor("input");
  call.expect(x->type.rank() == 3, "an input of rank " + std::to_string(x->type.rank()), "rank 3");
  if (batch_first) x = call.builder().permute(x, {1, 0, 2});
  const int64_t layers = call.integer("num_layers"),
                directions = call.boolean_or("bidirectional", false) ? 2 : 1;
  const ir::Dim steps = x->type.shape[0];
  call.builder().require(
      {steps, "a sequence of one step at least", call.operation(), ir::Requirement::Kind::Sizes});
  const bool unrolled =
      steps.is_constant() && steps.constant() <= kMaxSteps / (layers * directions);
  const std::vector<Weights> weights = read_weights(call, static_cast<size_t>(layers * directions));
  const std::vector<Value*> first =
      cell == Cell::Lstm ? call.tensors("hx") : std::vector<Value*>{call.tensor("hx")};
  std::vector<Value*> hidden, cells;
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::vector<Value*> outputs;
    for (int64_t direction = 0; direction < directions; ++direction) {
      const int64_t index = layer * directions + direction;
      State state{row(call, first[0], index),
                  cell == Cell::Lstm ? row(call, first[1], index) : nullptr};
      outputs.push_back(run(call, cell, x, state, weights[static_cast<size_t>(index)],
                            {.backwards = direction == 1, .unrolled = unrolled}));
      hidden.push_back(unsqueeze(call, state.hidden, 0));
      if (cell == Cell::Lstm) cells.push_back(unsqueeze(call, state.cell, 0));
    }
    x = concat(call, outputs, 2);
  }
  if (batch_first) x = call.builder().permute(x, {1, 0, 2});
  std::vector<Value*> results{x, call.output_used(1) ? concat(call, hidden, 0) : nullptr};
  if (cell == Cell::Lstm) results.push_back(call.output_used(2) ? concat(call, cells, 0) : nullptr);
  return results;
}

// One step of a network whose loop is the model's own.
template <Cell cell>
State cell_step(Call& call, const State& state) {
  const Weights weights{call.tensor("w_ih"), call.tensor("w_hh"), call.optional_tensor("b_ih"),
                        call.optional_tensor("b_hh")};
  const Expr share = linear(call, call.tensor("input"), weights.input, weights.input_bias);
  return step(call, cell, share, state, weights);
}

std::vector<Value*> import_lstm_cell(Call& call) {
  const std::vector<Value*> state = call.tensors("hx");
  call.expect(state.size() == 2, std::to_string(state.size()) + " states", "two");
  const State next = cell_step<Cell::Lstm>(call, {state[0], state[1]});
  return {next.hidden, next.cell};
}

template <Cell cell>
Value* import_cell(Call& call) {
  return cell_step<cell>(call, {call.tensor("hx"), nullptr}).hidden;
}

constexpr Row kRows[] = {
    {"aten.lstm.input", import_recurrent<Cell::Lstm>},
    {"aten.gru.input", import_recurrent<Cell::Gru>},
    {"aten.rnn_tanh.input", import_recurrent<Cell::Tanh>},
    {"aten.rnn_relu.input", import_recurrent<Cell::Relu>},
    {"aten.lstm_cell.default", import_lstm_cell},
    {"aten.gru_cell.default", import_cell<Cell::Gru>},
    {"aten.rnn_tanh_cell.default", import_cell<Cell::Tanh>},
    {"aten.rnn_relu_cell.default", import_cell<Cell::Relu>},
};

}  // namespace

Rows recurrent_rows() { return kRows; }

}  // namespace kiln::import
