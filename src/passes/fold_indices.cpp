#include <algorithm>
#include <numeric>

#include "ir/op_table.h"
#include "passes/index_functions.h"
#include "passes/pass.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Builder;
using ir::Dim;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;

// start + step * (position along `axis`), in a tensor of some shape.
struct Progression {
  size_t axis = 0;
  Dim start;
  int64_t step = 0;  // 0: all elements equal
};

std::optional<Progression> progression_of(const IndexFunction& function) {
  if (function.margin) return std::nullopt;
  Progression result{.start = function.value};
  for (size_t axis = 0; axis < function.index.size(); ++axis) {
    const ir::SymbolPtr symbol = function.index[axis].as_symbol();
    if (!symbol || !result.start.mentions(symbol)) continue;
    const auto linear = result.start.as_linear_in(symbol);
    if (!linear || !linear->first.is_constant() || result.step != 0) return std::nullopt;
    result = {axis, linear->second, linear->first.constant()};
  }
  return result;
}

// A shape of ones except for one axis.
Shape along(size_t rank, size_t axis, const Dim& size) {
  Shape shape(rank, Dim(1));
  shape[axis] = size;
  return shape;
}

class IndexFolder {
 public:
  explicit IndexFolder(ir::Graph& graph) : graph_(graph) {}

  bool run() {
    std::vector<Node*> replaced;
    for (const auto& node : graph_.nodes()) {
      functions_.analyse(*node);
      Value* result = fold(*node);
      if (result == nullptr) continue;
      functions_.share(node->output(), result);
      replace(graph_, node->output(), result);
      replaced.push_back(node.get());
    }
    erase_replaced(graph_, replaced);
    return !replaced.empty();
  }

 private:
  Value* fold(Node& node) {
    Builder builder(graph_, &node);
    builder.set_location(node.location);
    if (node.op == Op::attention) return causal_mask(builder, node);
    if (const IndexFunction* function = functions_.find(node.output())) {
      const bool checks = node.op == Op::check_index || node.op == Op::check_nonzero;
      if (checks) return node.input(0);  // it has a function only where the check holds
      return is_plain(node) ? nullptr : progression(builder, node.output()->type, *function);
    }
    if (node.op == Op::gather || node.op == Op::gather_nd) return gather_in_order(builder, node);
    return nullptr;
  }

  // Sources, and sources put into shape: nothing simpler says the same.
  static bool is_plain(const Node& node) {
    if (ir::op_info(node.op).kind == ir::OpKind::Source) return true;
    if (node.op != Op::reshape && node.op != Op::expand) return false;
    return node.input(0)->producer != nullptr && is_plain(*node.input(0)->producer);
  }

  // f(positions) -> full, or iota or dim_value put into shape
  static Value* progression(Builder& builder, const ir::Type& type, const IndexFunction& function) {
    const auto found = progression_of(function);
    if (!found) return nullptr;
    const auto& [axis, start, step] = *found;
    if (step != 0) {
      Value* line = builder.value(
          Op::iota, {},
          {{"size", type.shape[axis]}, {"dtype", type.dtype}, {"start", start}, {"step", step}});
      return builder.expand(builder.reshape(line, along(type.rank(), axis, type.shape[axis])),
                            type.shape);
    }
    if (!start.is_constant()) {
      Value* size = builder.value(Op::dim_value, {}, {{"value", start}, {"dtype", type.dtype}});
      return builder.expand(size, type.shape);
    }
    const double value = static_cast<double>(start.constant());
    return builder.value(Op::full, {},
                         {{"shape", type.shape}, {"dtype", type.dtype}, {"value", value}});
  }

  // One index of a gather: the elements it picks along its axis of x, and the axis of the block of
  // result axes that all indices bring together along which it runs; kNowhere if it picks one
  // element.
  struct Pick {
    Progression elements;
    Dim size = 1;
    size_t place = kNowhere;
  };
  static constexpr size_t kNowhere = ~size_t{0};

  // gather(x, start + step * i) -> slice(x), put into shape; every index must be such a progression
  // along an axis of its own
  Value* gather_in_order(Builder& builder, Node& node) {
    const size_t first = static_cast<size_t>(node.attr<int64_t>("axis"));
    std::vector<Pick> picks;
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      const auto pick = pick_of(node, i);
      if (!pick) return nullptr;
      const bool shared = std::any_of(picks.begin(), picks.end(), [&](const Pick& other) {
        return pick->place != kNowhere && other.place == pick->place;
      });
      if (shared) return nullptr;
      picks.push_back(*pick);
    }
    Value* x = node.input(0);
    for (size_t i = 0; i < picks.size(); ++i) {
      x = builder.value(Op::slice, {x},
                        {{"axis", static_cast<int64_t>(first + i)},
                         {"start", picks[i].elements.start},
                         {"size", picks[i].size},
                         {"step", std::max<int64_t>(picks[i].elements.step, 1)}});
    }
    return place_axes(builder, node, x, picks);
  }

  // Nothing where the index is not a progression, runs backwards or may leave x.
  std::optional<Pick> pick_of(const Node& node, size_t i) const {
    const IndexFunction* function = functions_.find(node.input(i));
    const auto elements = function ? progression_of(*function) : std::nullopt;
    if (!elements || elements->step < 0) return std::nullopt;
    Pick pick{*elements};
    const size_t first = static_cast<size_t>(node.attr<int64_t>("axis"));
    if (elements->step != 0) {
      pick.place = elements->axis + block_rank(node) - function->index.size();
      pick.size = node.output()->type.shape[first + pick.place];
    }
    const Dim& extent = node.input(0)->type.shape[first + i - 1];
    if (elements->step == 0 && elements->start.upper_bound() < 0) pick.elements.start += extent;
    const Dim last = pick.elements.start + (pick.size - 1) * elements->step;
    const bool inside = pick.elements.start.lower_bound() >= 0 && provably_less(last, extent);
    return inside ? std::optional(pick) : std::nullopt;
  }

  // The number of axes that the indices of a gather bring.
  static size_t block_rank(const Node& node) {
    return node.output()->type.rank() + node.inputs.size() - 1 - node.input(0)->type.rank();
  }

  // The sliced axes of x moved to their places in the block, and broadcast along the rest of it.
  static Value* place_axes(Builder& builder, const Node& node, Value* x,
                           const std::vector<Pick>& picks) {
    const size_t first = static_cast<size_t>(node.attr<int64_t>("axis"));
    std::vector<int64_t> axes(x->type.rank());
    std::iota(axes.begin(), axes.end(), int64_t{0});
    std::stable_sort(
        axes.begin() + first, axes.begin() + first + picks.size(),
        [&](int64_t a, int64_t b) { return picks[a - first].place < picks[b - first].place; });
    if (!is_identity(axes)) x = builder.permute(x, axes);
    const Shape& out = node.output()->type.shape;
    Shape shape = out;
    for (size_t i = 0; i < block_rank(node); ++i) {
      const bool runs = std::any_of(picks.begin(), picks.end(),
                                    [&](const Pick& pick) { return pick.place == i; });
      if (!runs) shape[first + i] = 1;
    }
    return builder.expand(builder.reshape(x, std::move(shape)), out);
  }

  // --- Causal masks ---

  static void collect_conjuncts(Value* value, std::vector<Value*>& out) {
    const Node* both = producer(value, Op::bitwise_and);
    const Node* wide = producer(value, Op::expand);
    if (both != nullptr) {
      collect_conjuncts(both->input(0), out);
      collect_conjuncts(both->input(1), out);
    } else if (wide != nullptr) {
      collect_conjuncts(wide->input(0), out);
    } else {
      out.push_back(value);
    }
  }

  // Whether the mask keeps exactly j <= i.
  bool is_causal(const Value* mask) const {
    const IndexFunction* function = functions_.find(mask);
    if (function == nullptr || !function->margin || function->index.size() < 2) return false;
    const Dim &i = function->index[function->index.size() - 2], &j = function->index.back();
    return function->value == i - j;
  }

  // attention(q, k, v, mask and j <= i) -> attention(q, k, v, mask), causal
  Value* causal_mask(Builder& builder, Node& node) {
    if (node.input(3) == nullptr || node.input(3)->type.dtype != DType::Bool) return nullptr;
    std::vector<Value*> conjuncts, kept;
    collect_conjuncts(node.input(3), conjuncts);
    for (Value* mask : conjuncts) {
      if (!is_causal(mask)) kept.push_back(mask);
    }
    if (kept.size() == conjuncts.size()) return nullptr;
    std::vector<Value*> inputs = {node.input(0), node.input(1), node.input(2)};
    Value* rest = nullptr;
    for (Value* mask : kept) rest = rest ? builder.value(Op::bitwise_and, {rest, mask}) : mask;
    if (rest != nullptr) inputs.push_back(rest);
    ir::Attrs attrs = node.attrs;
    attrs["causal"] = true;
    return builder.value(Op::attention, std::move(inputs), std::move(attrs));
  }

  ir::Graph& graph_;
  IndexFunctions functions_;
};

}  // namespace

// Integer and bool tensors that are functions of their position alone become full, iota or
// dim_value; a gather whose indices count up becomes a slice; a mask of attention that keeps j <= i
// becomes its attribute. Language models as exported compute their masks from such tensors, and
// after this pass little of that is left. All facts are proven for every size in range.
bool fold_indices(ir::Graph& graph, PassContext&) { return IndexFolder(graph).run(); }

}  // namespace kiln::passes
