// Scan: a graph over the slices of tensors along an axis of each.
#include "import/onnx/body_loop.h"
#include "import/onnx/importer.h"
#include "import/size_condition.h"

namespace kiln::import::onnx {
namespace {

using ir::Op;

Value* reversed(NodeCall& call, Value* x) {
  return call.make(Op::flip, {x}, {{"axes", std::vector<int64_t>{0}}});
}

// Axes and directions of as many tensors, from attributes that may be left out.
struct Order {
  std::vector<int64_t> axes, backward;
};

Order read_order(NodeCall& call, const std::string& which, size_t count) {
  const std::vector<int64_t> zeros(count, 0);
  Order order{call.integers_or("scan_" + which + "_axes", zeros),
              call.integers_or("scan_" + which + "_directions", zeros)};
  for (const auto* each : {&order.axes, &order.backward})
    call.expect(each->size() == count,
                std::to_string(each->size()) + " axes or directions for scan " + which + "s",
                std::to_string(count));
  for (const int64_t direction : order.backward)
    call.expect(direction == 0 || direction == 1, "direction " + std::to_string(direction),
                "0 or 1");
  return order;
}

// The inputs that are gone over, with the axis in front.
std::vector<Value*> rows_of(NodeCall& call, size_t states, size_t count) {
  const Order order = read_order(call, "input", count);
  std::vector<Value*> rows;
  for (size_t i = 0; i < count; ++i) {
    Value* x = call.input(states + i);
    call.expect(x->type.rank() >= 1, "a scan input of rank 0", "rank 1 or more");
    x = move_axis(call.call(), x, call.axis(order.axes[i], x->type.rank()), 0);
    rows.push_back(order.backward[i] == 1 ? reversed(call, x) : x);
    const Dim &first = rows[0]->type.shape[0], &size = x->type.shape[0];
    if (ir::provably_equal(first, size)) continue;
    call.builder().require({is_equal(first, size),
                            "scan inputs of the same length (" + first.str() + ")", "Scan",
                            ir::Requirement::Kind::Sizes});
  }
  return rows;
}

}  // namespace

std::vector<Value*> Importer::import_scan(Names& names, const Node& node, int64_t version,
                                          const std::vector<Value*>& inputs, int depth) {
  NodeCall call(node, version, inputs, context_);
  constexpr int64_t kFirstVersion = 9;
  call.expect(version >= kFirstVersion, "version " + std::to_string(version) + ", with a batch",
              "9 or later");
  const Graph& body = call.graph("body");
  const int64_t rows = call.integer("num_scan_inputs");
  call.expect(rows >= 1 && static_cast<size_t>(rows) <= inputs.size() &&
                  body.inputs.size() == inputs.size(),
              std::to_string(rows) + " scan inputs of " + std::to_string(inputs.size()) +
                  " inputs, and a body with " + std::to_string(body.inputs.size()),
              "one scan input or more, and an input of the body for each");
  const size_t states = inputs.size() - static_cast<size_t>(rows);
  call.expect(body.outputs.size() >= states,
              "a body with " + std::to_string(body.outputs.size()) + " outputs",
              "a new value for each of " + std::to_string(states) + " states");
  BodyLoop loop{.body = body};
  for (const ValueInfo& input : body.inputs) loop.inputs.push_back(input.name);
  for (size_t i = 0; i < states; ++i) loop.states.push_back(call.input(i));
  loop.rows = rows_of(call, states, static_cast<size_t>(rows));
  loop.steps = loop.rows[0]->type.shape[0];
  const Order order = read_order(call, "output", body.outputs.size() - states);
  call.expect_all_read();
  std::vector<Value*> results = run_body(names, call, loop, depth);
  for (size_t i = states; i < results.size(); ++i) {
    Value* x = results[i];
    if (order.backward[i - states] == 1) x = reversed(call, x);
    results[i] = move_axis(call.call(), x, 0, call.axis(order.axes[i - states], x->type.rank()));
  }
  return results;
}

}  // namespace kiln::import::onnx
