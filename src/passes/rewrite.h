// Local rewrites: what the passes share.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "ir/builder.h"
#include "ir/graph.h"

namespace kiln::passes {

// Handed to rules: makes nodes in front of the node that is looked at, and knows who uses what. Nodes that
// were replaced in a sweep are users until it ends: a measure of profit, on which no rule may depend to be right.
class Rewriter {
 public:
  explicit Rewriter(ir::Graph& graph) : graph_(graph) {}

  ir::Graph& graph() { return graph_; }
  // A builder in front of the node, with its location.
  ir::Builder before(ir::Node& node);
  // Whether one operand or graph output is the value.
  bool used_once(const ir::Value* value) const { return graph_.use_count(value) == 1; }
  // As Graph::users.
  const std::vector<ir::Node*>& users(const ir::Value* value) const { return graph_.users(value); }

 private:
  ir::Graph& graph_;
};

// Looks at one node with one output and returns the value to use instead of it, or null.
using Rule = std::function<ir::Value*(Rewriter&, ir::Node&)>;

// Applies the rule to every node in graph order, sweep after sweep, until nothing changes. Nodes
// left without users are removed. Returns whether anything changed.
bool rewrite(ir::Graph& graph, const Rule& rule);
// Redirects all uses. A node made just now takes the name that the user's model gave to the value
// it replaces.
void replace(ir::Graph& graph, ir::Value* from, ir::Value* to);
// Removes nodes without users after a pass has replaced the results of some: a check that was
// replaced, which would stay otherwise, goes as well.
void erase_replaced(ir::Graph& graph, const std::vector<ir::Node*>& replaced);

// The node that makes the value, if it is of that op; null otherwise, and for a null value.
ir::Node* producer(const ir::Value* value, ir::Op op);
// The literal, if the value is a constant.
const ir::Literal* literal_of(const ir::Value* value);
// The number that every element of the value equals, if that is known.
std::optional<double> uniform_value(const ir::Value* value);
// Whether the dtype holds the number, and a double does too, so that it may travel as an attribute
// of `full`.
bool is_exact(DType dtype, double value);
// The result of a node as a tensor filled with a number, rounded to the node's dtype.
ir::Value* filled(Rewriter& rewriter, ir::Node& node, double value);

// Axes of a permute, and its inverse: compose(axes, inverse(axes)) is the identity.
std::vector<int64_t> inverse(const std::vector<int64_t>& axes);
// permute(permute(x, first), second) is permute(x, compose(first, second)).
std::vector<int64_t> compose(const std::vector<int64_t>& first, const std::vector<int64_t>& second);
bool is_identity(const std::vector<int64_t>& axes);

}  // namespace kiln::passes
