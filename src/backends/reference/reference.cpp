#include "backends/reference/reference.h"

#include <map>

#include "backends/reference/array.h"
#include "ir/op_table.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Literal;
using ir::OpKind;
using ir::Value;

Array evaluate_call(const Call& call) {
  switch (ir::op_info(call.node.op).kind) {
    case OpKind::Source:
      return evaluate_source(call);
    case OpKind::Unary:
      return evaluate_unary(call);
    case OpKind::Binary:
      return evaluate_binary(call);
    case OpKind::Ternary:
      return evaluate_where(call);
    case OpKind::Reduce:
      return evaluate_reduce(call);
    case OpKind::Scan:
      return evaluate_cumsum(call);
    case OpKind::Normalise:
      return evaluate_normalise(call);
    case OpKind::Contract:
      return evaluate_contract(call);
    case OpKind::Pool:
      return evaluate_pool(call);
    case OpKind::Move:
      return evaluate_move(call);
    case OpKind::Other:
      break;
  }
  throw InternalError("[" + std::string(ir::op_name(call.node.op)) + "] has no reference");
}

std::string shape_str(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

using SymbolValues = std::map<uint64_t, int64_t>;

// Binds the symbols that are a whole dimension, and checks every dimension.
SymbolValues bind_symbols(const ir::Graph& graph, std::span<const Literal> inputs) {
  SymbolValues values;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ir::Type& type = graph.inputs()[i]->type;
    if (inputs[i].dtype != type.dtype || inputs[i].shape.size() != type.rank()) {
      throw CompileError("[run] input " + graph.inputs()[i]->name + ": got " +
                         std::string(dtype_name(inputs[i].dtype)) + shape_str(inputs[i].shape) +
                         ", expected " + type.str());
    }
    for (size_t d = 0; d < type.rank(); ++d) {
      if (auto symbol = type.shape[d].as_symbol()) values.emplace(symbol->id, inputs[i].shape[d]);
    }
  }
  return values;
}

void check_shapes(const ir::Graph& graph, std::span<const Literal> inputs, const SizeOf& size_of) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ir::Type& type = graph.inputs()[i]->type;
    for (size_t d = 0; d < type.rank(); ++d) {
      if (type.shape[d].evaluate(size_of) == inputs[i].shape[d]) continue;
      throw CompileError("[run] input " + graph.inputs()[i]->name + ": got " +
                         shape_str(inputs[i].shape) + ", expected " + type.str());
    }
  }
}

}  // namespace

std::vector<Literal> evaluate(const ir::Node& node, std::span<const Literal* const> inputs,
                              const SizeOf& size_of) {
  if (node.op == ir::Op::constant) return {node.attr<Literal>("value")};
  Call call{node, {}, {}, size_of};
  for (const Literal* literal : inputs) {
    call.present.push_back(literal != nullptr);
    call.operands.push_back(literal != nullptr ? Array::from(*literal) : Array());
  }
  return {evaluate_call(call).literal()};
}

std::vector<Literal> run(const ir::Graph& graph, std::span<const Literal> inputs) {
  if (inputs.size() != graph.inputs().size()) {
    throw CompileError("[run] got " + std::to_string(inputs.size()) + " inputs, expected " +
                       std::to_string(graph.inputs().size()));
  }
  const SymbolValues symbols = bind_symbols(graph, inputs);
  const SizeOf size_of = [&](const ir::SymbolPtr& symbol) {
    const auto it = symbols.find(symbol->id);
    if (it == symbols.end()) throw CompileError("[run] no input gives the size " + symbol->name);
    return it->second;
  };
  check_shapes(graph, inputs, size_of);
  std::map<const Value*, Literal> values;
  for (size_t i = 0; i < inputs.size(); ++i) values[graph.inputs()[i]] = inputs[i];
  for (const auto& node : graph.nodes()) {
    std::vector<const Literal*> operands;
    for (const Value* value : node->inputs) operands.push_back(value ? &values.at(value) : nullptr);
    values[node->output()] = evaluate(*node, operands, size_of).front();
  }
  std::vector<Literal> outputs;
  for (const Value* value : graph.outputs()) outputs.push_back(values.at(value));
  return outputs;
}

}  // namespace kiln::reference
