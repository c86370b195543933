#include "helpers/random_values.h"

#include <algorithm>
#include <cstring>

#include "ir/builder.h"
#include "ir/text.h"

namespace kiln::test {

ir::Literal random_literal(const ir::Type& type, const Values& values, const SizeOf& size_of,
                           std::mt19937& random) {
  std::vector<int64_t> shape;
  for (const ir::Dim& dim : type.shape) shape.push_back(dim.evaluate(size_of));
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(type.dtype, shape, &data);
  std::uniform_real_distribution<double> real(values.low, values.high);
  std::uniform_int_distribution<int64_t> whole(0,
                                               type.dtype == DType::Bool ? 1 : values.integers - 1);
  // Drawing takes longer than all else that a test does with a large one: it repeats what was drawn, a prime number of
  // elements, so that its rows differ.
  const int64_t elements = literal.elements(), drawn = std::min<int64_t>(elements, 262139);
  for (int64_t i = 0; i < drawn; ++i) {
    const double value =
        is_floating(type.dtype) ? real(random) : static_cast<double>(whole(random));
    ir::Literal::set(data, type.dtype, i, value);
  }
  const size_t size = literal.bytes.size(), period = elements == 0 ? size : size / elements * drawn;
  for (size_t at = period; at < size; at += period)
    std::memcpy(data + at, data, std::min(period, size - at));
  return literal;
}

ir::Graph graph_with_constants(const std::string& text, const Values& values,
                               const SizeOf& size_of) {
  ir::Graph graph = ir::parse_graph(text);
  std::mt19937 random(7);
  ir::Node* first = graph.nodes().empty() ? nullptr : graph.nodes().front().get();
  for (ir::Value* input : graph.inputs()) {
    if (!input->name.starts_with("w")) continue;
    ir::Literal literal = random_literal(input->type, values, size_of, random);
    graph.replace_all_uses(input, ir::Builder(graph, first).constant(std::move(literal)));
  }
  return graph;
}

std::vector<ir::Literal> random_inputs(const ir::Graph& graph, const Values& values,
                                       const SizeOf& size_of) {
  std::mt19937 random(1);
  std::vector<ir::Literal> inputs;
  for (const ir::Value* input : graph.inputs()) {
    inputs.push_back(random_literal(input->type, values, size_of, random));
  }
  return inputs;
}

}  // namespace kiln::test
