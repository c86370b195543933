#include "passes/rewrite.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ir/op_table.h"
#include "ir/scalar.h"
#include "support/error.h"

namespace kiln::passes {
namespace {

using ir::Node;
using ir::Op;
using ir::Value;

// A pass that still changes the graph after this many sweeps undoes its own work.
constexpr int kMaxSweeps = 100;

bool sweep(ir::Graph& graph, const Rule& rule) {
  Rewriter rewriter(graph);
  std::vector<Node*> replaced;
  for (const auto& node : graph.nodes()) {
    if (node->outputs.size() != 1) continue;
    Value* old = node->output();
    Value* replacement = rule(rewriter, *node);
    if (replacement == nullptr || replacement == old) continue;
    replace(graph, old, replacement);
    replaced.push_back(node.get());
  }
  erase_replaced(graph, replaced);
  return !replaced.empty();
}

bool same_type(const ir::Type& a, const ir::Type& b) {
  return a.dtype == b.dtype && std::equal(a.shape.begin(), a.shape.end(), b.shape.begin(),
                                          b.shape.end(), ir::provably_equal);
}

bool all_elements_equal(const ir::Literal& literal) {
  const size_t size = dtype_size(literal.dtype);
  if (literal.bytes.size() <= size) return !literal.bytes.empty();
  return std::memcmp(literal.bytes.data(), literal.bytes.data() + size,
                     literal.bytes.size() - size) == 0;
}

}  // namespace

ir::Builder Rewriter::before(Node& node) {
  ir::Builder builder(graph_, &node);
  builder.set_location(node.location);
  return builder;
}

bool rewrite(ir::Graph& graph, const Rule& rule) {
  bool changed = graph.erase_dead() > 0;
  for (int i = 0; sweep(graph, rule); ++i) {
    KILN_CHECK(i < kMaxSweeps, "rewriting does not end");
    changed = true;
  }
  return changed;
}

void replace(ir::Graph& graph, Value* from, Value* to) {
  KILN_CHECK(same_type(from->type, to->type),
             "%" + from->name + " of " + from->type.str() + " became " + to->type.str());
  graph.replace_all_uses(from, to);
  if (to->id < from->id) return;  // it was there before, under a name of its own
  const std::string name = from->name;
  graph.rename(from, name + ".old");
  graph.rename(to, name);
}

void erase_replaced(ir::Graph& graph, const std::vector<Node*>& replaced) {
  if (replaced.empty()) return;
  for (Node* node : replaced) {
    if (node->op == Op::check_index || node->op == Op::check_nonzero) graph.erase(node);
  }
  graph.erase_dead();
}

Node* producer(const Value* value, Op op) {
  if (value == nullptr || value->producer == nullptr || value->producer->op != op) return nullptr;
  return value->producer;
}

const ir::Literal* literal_of(const Value* value) {
  const Node* node = producer(value, Op::constant);
  return node ? &node->attr<ir::Literal>("value") : nullptr;
}

std::optional<double> uniform_value(const Value* value) {
  if (const ir::Literal* literal = literal_of(value)) {
    if (!literal->replaceable && all_elements_equal(*literal)) return literal->as_double(0);
    return std::nullopt;
  }
  if (const Node* full = producer(value, Op::full)) return full->attr<double>("value");
  for (Op move : {Op::expand, Op::reshape, Op::permute, Op::slice}) {
    if (const Node* node = producer(value, move)) return uniform_value(node->input(0));
  }
  return std::nullopt;
}

bool is_exact(DType dtype, double value) {
  if (is_floating(dtype)) return true;  // it was rounded to the dtype when the constant was made
  if (dtype == DType::Bool) return value == 0 || value == 1;
  if (std::abs(value) > 0x1p53 || value != std::trunc(value)) return false;
  const int bits = static_cast<int>(dtype_size(dtype)) * 8;
  const double low = is_signed_integer(dtype) ? -std::ldexp(1, bits - 1) : 0;
  const double high = std::ldexp(1, is_signed_integer(dtype) ? bits - 1 : bits) - 1;
  return value >= low && value <= high;
}

Value* filled(Rewriter& rewriter, Node& node, double value) {
  const ir::Type& type = node.output()->type;
  return rewriter.before(node).value(Op::full, {},
                                     {{"shape", type.shape},
                                      {"dtype", type.dtype},
                                      {"value", ir::held_number(type.dtype, value)}});
}

std::vector<int64_t> inverse(const std::vector<int64_t>& axes) {
  std::vector<int64_t> result(axes.size());
  for (size_t i = 0; i < axes.size(); ++i) result[axes[i]] = static_cast<int64_t>(i);
  return result;
}

std::vector<int64_t> compose(const std::vector<int64_t>& first,
                             const std::vector<int64_t>& second) {
  std::vector<int64_t> result;
  for (int64_t axis : second) result.push_back(first[axis]);
  return result;
}

bool is_identity(const std::vector<int64_t>& axes) {
  for (size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

}  // namespace kiln::passes
