// A whole graph: binds the size symbols, then evaluates node by node.
#include <algorithm>
#include <map>

#include "backends/reference/reference.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Literal;

// By creation number: the same order on every run.
using Sizes = std::map<uint64_t, int64_t>;

std::string describe(const ir::Value& input, size_t dim) {
  return "input " + input.name + " dimension " + std::to_string(dim);
}

void bind_size(const ir::Value& input, size_t dim, int64_t size, Sizes& sizes) {
  const ir::SymbolPtr symbol = input.type.shape[dim].as_symbol();
  if (!symbol) return;
  if (size < symbol->min || size > symbol->max) {
    throw CompileError("[run] got " + std::to_string(size) + " for " + describe(input, dim) +
                       ", expected " + std::to_string(symbol->min) + " to " +
                       std::to_string(symbol->max));
  }
  sizes.emplace(symbol->id, size);
}

void check_type(const ir::Value& input, const Literal& literal) {
  const bool fits = literal.dtype == input.type.dtype && literal.shape.size() == input.type.rank();
  if (fits) return;
  throw CompileError("[run] got " + literal.type().str() + " for input " + input.name +
                     ", expected " + input.type.str());
}

Sizes bind_sizes(const ir::Graph& graph, std::span<const Literal> inputs) {
  if (inputs.size() != graph.inputs().size()) {
    throw CompileError("[run] got " + std::to_string(inputs.size()) + " inputs, expected " +
                       std::to_string(graph.inputs().size()));
  }
  Sizes sizes;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ir::Value& input = *graph.inputs()[i];
    check_type(input, inputs[i]);
    for (size_t dim = 0; dim < input.type.rank(); ++dim)
      bind_size(input, dim, inputs[i].shape[dim], sizes);
  }
  return sizes;
}

void check_sizes(const ir::Graph& graph, std::span<const Literal> inputs, const SizeOf& size_of) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ir::Value& input = *graph.inputs()[i];
    for (size_t dim = 0; dim < input.type.rank(); ++dim) {
      const int64_t expected = input.type.shape[dim].evaluate(size_of);
      if (inputs[i].shape[dim] == expected) continue;
      throw CompileError("[run] got " + std::to_string(inputs[i].shape[dim]) + " for " +
                         describe(input, dim) + ", expected " + std::to_string(expected));
    }
  }
}

// How often each value is still needed: what is no longer is freed.
std::map<uint32_t, size_t> count_uses(const ir::Graph& graph) {
  std::map<uint32_t, size_t> uses;
  for (const auto& node : graph.nodes()) {
    for (const ir::Value* input : node->inputs) {
      if (input != nullptr) ++uses[input->id];
    }
  }
  for (const ir::Value* output : graph.outputs()) ++uses[output->id];
  return uses;
}

// The symbol of a data_size is what the node finds.
void find_size(const ir::Node& node, const Literal& count, const SizeOf& size_of, Sizes& sizes) {
  const ir::SymbolPtr symbol = node.attr<ir::Dim>("size").as_symbol();
  const int64_t size = count.as_int(0);
  int64_t most = symbol->max;
  if (node.has_attr("bound")) most = std::min(most, node.attr<ir::Dim>("bound").evaluate(size_of));
  if (size < symbol->min || size > most) {
    throw CompileError("[run] got the size " + symbol->name + " = " + std::to_string(size) +
                       ", expected " + std::to_string(symbol->min) + " to " + std::to_string(most));
  }
  sizes.emplace(symbol->id, size);
}

// The inferred type must be what came out: the reference checks shape inference, too.
void check_result(const ir::Value& value, const Literal& literal, const SizeOf& size_of) {
  bool fits = literal.dtype == value.type.dtype && literal.shape.size() == value.type.rank();
  for (size_t i = 0; fits && i < literal.shape.size(); ++i) {
    fits = literal.shape[i] == value.type.shape[i].evaluate(size_of);
  }
  KILN_CHECK(fits,
             "%" + value.name + " is " + literal.type().str() + ", inferred " + value.type.str());
}

}  // namespace

namespace {

std::vector<Literal> run(const ir::Graph& graph, std::span<const Literal> inputs, Sizes sizes) {
  const SizeOf size_of = [&](const ir::SymbolPtr& symbol) {
    const auto found = sizes.find(symbol->id);
    KILN_CHECK(found != sizes.end(), "the size " + symbol->name + " is not known");
    return found->second;
  };
  check_sizes(graph, inputs, size_of);

  std::map<uint32_t, size_t> uses = count_uses(graph);
  std::map<uint32_t, Literal> values;
  for (size_t i = 0; i < inputs.size(); ++i) values[graph.inputs()[i]->id] = inputs[i];
  for (const auto& node : graph.nodes()) {
    std::vector<const Literal*> operands;
    for (const ir::Value* input : node->inputs)
      operands.push_back(input == nullptr ? nullptr : &values.at(input->id));
    std::vector<Literal> results = evaluate(*node, operands, size_of);
    if (node->op == ir::Op::data_size) find_size(*node, results[0], size_of, sizes);
    for (size_t i = 0; i < results.size(); ++i) {
      check_result(*node->outputs[i], results[i], size_of);
      values[node->outputs[i]->id] = std::move(results[i]);
    }
    for (const ir::Value* input : node->inputs) {
      if (input != nullptr && --uses[input->id] == 0) values.erase(input->id);
    }
  }
  std::vector<Literal> outputs;
  for (const ir::Value* output : graph.outputs()) outputs.push_back(values.at(output->id));
  return outputs;
}

}  // namespace

std::vector<Literal> run(const ir::Graph& graph, std::span<const Literal> inputs) {
  return run(graph, inputs, bind_sizes(graph, inputs));
}

std::vector<Literal> run_body(const ir::Graph& body, std::span<const Literal> inputs,
                              const SizeOf& size_of) {
  Sizes sizes;
  for (const ir::SymbolPtr& symbol : body.outer_symbols) sizes.emplace(symbol->id, size_of(symbol));
  return run(body, inputs, std::move(sizes));
}

}  // namespace kiln::reference
