// LSTM, GRU and RNN, step by step: the number of steps is known, and each becomes part of the engine.
#include <algorithm>

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

// As PyTorch's recurrences: more steps make an engine that is slow to compile.
constexpr int64_t kMaxSteps = 128;

using Activation = Expr (*)(const Expr& x);

Activation find_activation(NodeCall& call, std::string name) {
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name == "sigmoid") return [](const Expr& x) { return x.apply(Op::sigmoid); };
  if (name == "tanh") return [](const Expr& x) { return x.apply(Op::tanh); };
  if (name == "relu") return [](const Expr& x) { return x.apply(Op::relu); };
  if (name == "softsign") return [](const Expr& x) { return x / (x.apply(Op::abs) + 1); };
  if (name == "softplus")
    return [](const Expr& x) {
      return x.apply(Op::maximum, 0) + (-x.apply(Op::abs)).apply(Op::exp).apply(Op::log1p);
    };
  call.fail("the activation " + name, "Sigmoid, Tanh, Relu, Softsign or Softplus");
}

// What one direction of a recurrence computes with.
struct Direction {
  Value *input, *hidden;  // weights: [gates * H, I], [gates * H, H]
  Value *input_bias = nullptr, *hidden_bias = nullptr;
  Value* peephole = nullptr;  // [3 * H]
  std::vector<Activation> activations;
  bool backwards = false;
};

struct State {
  Value *hidden, *cell = nullptr;
};

struct Layer {
  NodeCall& call;
  int64_t size;  // H
  double clip = 0;
  bool linear_before_reset = false, couples_gates = false;

  Expr gate(Value* x, int64_t i) const {
    return call.expr(slice(call.call(), x, rank_of(x) - 1, i * size, size));
  }
  Value* linear(Value* x, Value* weight, Value* bias) const {
    std::vector<Value*> operands{x, weight};
    if (bias != nullptr) operands.push_back(bias);
    return call.make(Op::linear, operands);
  }
  Expr clipped(const Expr& x) const {
    return clip == 0 ? x : x.apply(Op::maximum, -clip).apply(Op::minimum, clip);
  }
};

using Step = State (*)(const Layer& layer, const Direction& d, Value* share, const State& state);

State rnn_step(const Layer& layer, const Direction& d, Value* share, const State& state) {
  const Expr sum =
      layer.call.expr(share) + layer.call.expr(layer.linear(state.hidden, d.hidden, d.hidden_bias));
  return {d.activations[0](layer.clipped(sum))};
}

// Gates in the order of ONNX: update, reset, candidate.
State gru_step(const Layer& layer, const Direction& d, Value* share, const State& state) {
  NodeCall& call = layer.call;
  const Expr hidden = call.expr(state.hidden);
  const auto part = [&](Value* x, int64_t first, int64_t count) {
    return x == nullptr ? nullptr
                        : slice(call.call(), x, 0, first * layer.size, count * layer.size);
  };
  Value* gates = layer.linear(state.hidden, part(d.hidden, 0, 2), part(d.hidden_bias, 0, 2));
  const auto gate = [&](int64_t i) {
    return d.activations[0](layer.clipped(layer.gate(share, i) + layer.gate(gates, i)));
  };
  const Expr update = gate(0), reset = gate(1);
  Value *weight = part(d.hidden, 2, 1), *bias = part(d.hidden_bias, 2, 1);
  const Expr recurrent = layer.linear_before_reset
                             ? reset * call.expr(layer.linear(state.hidden, weight, bias))
                             : call.expr(layer.linear(reset * hidden, weight, bias));
  const Expr candidate = d.activations[1](layer.clipped(layer.gate(share, 2) + recurrent));
  return {(1 - update) * candidate + update * hidden};
}

// Gates in the order of ONNX: input, output, forget, cell. Peepholes: input, output, forget.
State lstm_step(const Layer& layer, const Direction& d, Value* share, const State& state) {
  NodeCall& call = layer.call;
  const Expr gates =
      call.expr(share) + call.expr(layer.linear(state.hidden, d.hidden, d.hidden_bias));
  const Expr cell = call.expr(state.cell);
  const auto gate = [&](int64_t i, const Expr& seen) {
    Expr sum = layer.gate(gates, i);
    if (d.peephole != nullptr) sum = sum + layer.gate(d.peephole, i) * seen;
    return d.activations[0](layer.clipped(sum));
  };
  const Expr input = gate(0, cell);
  const Expr forget = layer.couples_gates ? 1 - input : gate(2, cell);
  const Expr next = forget * cell + input * d.activations[1](layer.clipped(layer.gate(gates, 3)));
  return {gate(1, next) * d.activations[2](next), next};
}

struct Kind {
  Step step;
  int64_t gates;
  std::vector<std::string> activations;
};

// Entry i of the first axis, without it.
Value* entry(NodeCall& call, Value* x, int64_t i) {
  return call.builder().reshape(slice(call.call(), x, 0, i, 1),
                                Shape(x->type.shape.begin() + 1, x->type.shape.end()));
}

// Where step t is beyond the end of a sequence, nothing changes.
Value* kept(NodeCall& call, const Expr& valid, Value* now, Value* before) {
  return valid.select(call.expr(now), call.expr(before));
}

// The first `length` steps of each sequence backwards: x [steps, batch, ...].
Value* reversed(NodeCall& call, Value* x, Value* lengths) {
  if (lengths == nullptr) return call.make(Op::flip, {x}, {{"axes", std::vector<int64_t>{0}}});
  const size_t rank = x->type.rank();
  const Expr length = call.expr(along_axis(call, lengths, rank, 1));
  const Expr step = call.expr(along_axis(call, iota(call.call(), x->type.shape[0]), rank, 0));
  const Expr source = step.apply(Op::lt, length).select(length - 1 - step, step);
  return call.make(Op::gather_elements, {x, call.builder().expand(source, x->type.shape)},
                   {{"axis", int64_t{0}}});
}

struct Sequence {
  Value* x;                  // [steps, batch, I]
  Value* lengths = nullptr;  // [batch] i64
};

// All hidden states, [steps, batch, H]; `state` becomes the last one.
Value* run(const Layer& layer, const Kind& kind, const Direction& d, const Sequence& sequence,
           State& state) {
  NodeCall& call = layer.call;
  Value* x = d.backwards ? reversed(call, sequence.x, sequence.lengths) : sequence.x;
  const int64_t steps = x->type.shape[0].constant();
  Value* shares = layer.linear(x, d.input, d.input_bias);
  std::vector<Value*> outputs;
  for (int64_t t = 0; t < steps; ++t) {
    State next = kind.step(layer, d, entry(call, shares, t), state);
    Value* output = next.hidden;
    if (sequence.lengths != nullptr) {
      const Expr lengths = call.expr(unsqueeze(call.call(), sequence.lengths, 1));
      const Expr valid = lengths.apply(Op::gt, static_cast<double>(t));
      Value* zero = call.builder().scalar(output->type.dtype, 0);
      output = kept(call, valid, output, zero);
      next.hidden = kept(call, valid, next.hidden, state.hidden);
      if (next.cell != nullptr) next.cell = kept(call, valid, next.cell, state.cell);
    }
    state = next;
    outputs.push_back(unsqueeze(call.call(), output, 0));
  }
  Value* all = concat(call, outputs, 0);
  return d.backwards ? reversed(call, all, sequence.lengths) : all;
}

Direction read_direction(NodeCall& call, const Layer& layer, const Kind& kind, int64_t index,
                         bool backwards) {
  Direction d{entry(call, call.input(1), index), entry(call, call.input(2), index)};
  d.backwards = backwards;
  if (Value* bias = call.optional_input(3)) {
    Value* both = entry(call, bias, index);
    const int64_t half = kind.gates * layer.size;
    d.input_bias = slice(call.call(), both, 0, 0, half);
    d.hidden_bias = slice(call.call(), both, 0, half, half);
  }
  if (Value* peephole = call.optional_input(7)) d.peephole = entry(call, peephole, index);
  const std::vector<std::string> names = call.texts_or("activations", {});
  const size_t count = kind.activations.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t at = static_cast<size_t>(index) * count + i;
    d.activations.push_back(
        find_activation(call, at < names.size() ? names[at] : kind.activations[i]));
  }
  return d;
}

Layer read_layer(NodeCall& call) {
  Layer layer{call, call.integer("hidden_size")};
  call.expect(layer.size >= 1 && layer.size < (1 << 24),
              "hidden_size " + std::to_string(layer.size), "1 or more");
  layer.clip = call.real_or("clip", 0);
  if (call.node().op_type == "GRU")
    layer.linear_before_reset = call.flag_or("linear_before_reset", false);
  if (call.node().op_type == "LSTM") layer.couples_gates = call.flag_or("input_forget", false);
  return layer;
}

Value* first_state(NodeCall& call, const Layer& layer, Value* given, int64_t index,
                   const Sequence& sequence) {
  if (given != nullptr) return entry(call, given, index);
  return full(call, {sequence.x->type.shape[1], layer.size}, sequence.x->type.dtype, 0);
}

std::vector<Value*> recurrence(NodeCall& call, const Kind& kind) {
  const Layer layer = read_layer(call);
  const std::string direction = call.text_or("direction", "forward");
  call.expect(direction == "forward" || direction == "reverse" || direction == "bidirectional",
              "direction \"" + direction + "\"", "forward, reverse or bidirectional");
  const int64_t directions = direction == "bidirectional" ? 2 : 1;
  const bool batch_first = call.flag_or("layout", false);
  ir::Builder& builder = call.builder();
  const auto turned = [&](Value* x) {
    return x != nullptr && batch_first ? builder.permute(x, {1, 0, 2}) : x;
  };
  Sequence sequence{turned(call.input(0))};
  call.expect(sequence.x->type.rank() == 3,
              "an input of shape " + shape_text(sequence.x->type.shape), "rank 3");
  const int64_t steps = known_size(call, sequence.x->type.shape[0], "the number of steps");
  call.expect(steps >= 1 && steps * directions <= kMaxSteps, std::to_string(steps) + " steps",
              "1 to " + std::to_string(kMaxSteps) + " in all directions");
  if (Value* lengths = call.optional_input(4)) sequence.lengths = builder.cast(lengths, DType::I64);
  Value *hidden = turned(call.optional_input(5)), *cell = nullptr;
  const bool has_cell = kind.gates == 4;
  if (has_cell) cell = turned(call.optional_input(6));
  std::vector<Value*> all, last, last_cells;
  for (int64_t i = 0; i < directions; ++i) {
    const Direction d = read_direction(call, layer, kind, i, direction == "reverse" || i == 1);
    State state{first_state(call, layer, hidden, i, sequence),
                has_cell ? first_state(call, layer, cell, i, sequence) : nullptr};
    all.push_back(unsqueeze(call.call(), run(layer, kind, d, sequence, state), 1));
    last.push_back(unsqueeze(call.call(), state.hidden, 0));
    if (has_cell) last_cells.push_back(unsqueeze(call.call(), state.cell, 0));
  }
  Value* y = concat(call, all, 1);  // [steps, directions, batch, H]
  if (batch_first) y = builder.permute(y, {2, 0, 1, 3});
  std::vector<Value*> results{y, turned(concat(call, last, 0))};
  if (has_cell) results.push_back(turned(concat(call, last_cells, 0)));
  return results;
}

std::vector<Value*> import_lstm(NodeCall& call) {
  return recurrence(call, {lstm_step, 4, {"Sigmoid", "Tanh", "Tanh"}});
}
std::vector<Value*> import_gru(NodeCall& call) {
  return recurrence(call, {gru_step, 3, {"Sigmoid", "Tanh"}});
}
std::vector<Value*> import_rnn(NodeCall& call) { return recurrence(call, {rnn_step, 1, {"Tanh"}}); }

constexpr OperatorRow kRows[] = {
    {"GRU", import_gru},
    {"LSTM", import_lstm},
    {"RNN", import_rnn},
};

}  // namespace

OperatorRows recurrent_operators() { return kRows; }

}  // namespace kiln::import::onnx
