#include "backends/common/nest_simplify.h"

#include <algorithm>

#include "plan/form/access.h"
#include "plan/form/kernels.h"

namespace kiln::backend {

using ir::Dim;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;
using plan::Loop;
using plan::LoopNest;
using plan::Stage;

void for_each_index(const Stage& stage, const std::function<void(const Dim&)>& visitor) {
  if (const auto* store = std::get_if<plan::Store>(&stage)) {
    for (const Dim& index : store->indices) visitor(index);
  }
  plan::visit(value_of(stage), [&](const ExprNode& node) {
    if (node.kind == ExprKind::Position) visitor(node.index);
  });
}

void for_each_index(const LoopNest& nest, const std::function<void(const Dim&)>& visitor) {
  for (const Stage& stage : nest.stages) for_each_index(stage, visitor);
}

namespace {

using plan::IndexMap;

// --- One index per access -----------------------------------------------------------------------

Expr flat_load(const plan::Program& program, const ExprNode& node) {
  if (node.kind != ExprKind::Load || node.args.size() == 1) return nullptr;
  const auto& shape = program.buffers.at(static_cast<size_t>(node.buffer)).type.shape;
  const std::vector<Dim> strides = plan::dense_strides(shape);
  Dim fixed;
  Expr offset;
  for (size_t i = 0; i < node.args.size(); ++i) {
    const Expr& arg = node.args[i];
    if (arg->kind == ExprKind::Position) {
      fixed += arg->index * strides[i];
    } else if (arg->kind == ExprKind::Constant) {
      fixed += strides[i] * arg->integer;
    } else {
      Expr part = plan::apply(ir::Op::mul, {arg, plan::position(strides[i])});
      offset = offset ? plan::apply(ir::Op::add, {offset, part}) : part;
    }
  }
  const Expr position = plan::position(fixed);
  offset = offset ? plan::apply(ir::Op::add, {offset, position}) : position;
  return plan::load(node.buffer, node.dtype, {offset}, node.predicate);
}

void flatten_accesses(const plan::Program& program, LoopNest& nest) {
  for (Stage& stage : nest.stages) {
    value_of(stage) = plan::rewrite(value_of(stage),
                                    [&](const ExprNode& node) { return flat_load(program, node); });
    if (auto* store = std::get_if<plan::Store>(&stage)) {
      const auto& shape = program.buffers.at(static_cast<size_t>(store->buffer)).type.shape;
      store->indices = {plan::linearize(shape, store->indices)};
    }
  }
}

// --- Changes of loops ---------------------------------------------------------------------------

void substitute(Stage& stage, const IndexMap& map) {
  value_of(stage) = plan::substitute(value_of(stage), map);
  if (auto* store = std::get_if<plan::Store>(&stage)) {
    for (Dim& index : store->indices) index = index.substitute(map);
  }
}

// A list of loops, and the stages that may refer to them.
struct LoopList {
  std::vector<Loop>* loops;
  std::vector<Stage*> stages;
  bool ordered = false;  // keep the last loop as it is: it is a scan's, or gives positions
};

std::vector<LoopList> loop_lists(LoopNest& nest) {
  std::vector<LoopList> lists = {{&nest.outer, {}}};
  for (Stage& stage : nest.stages) {
    lists[0].stages.push_back(&stage);
    LoopList list{&loops_of(stage), {&stage}};
    if (const auto* store = std::get_if<plan::Store>(&stage))
      list.ordered = store->scan.has_value();
    if (const auto* reduction = std::get_if<plan::Reduction>(&stage)) {
      list.ordered =
          reduction->op == plan::ReduceOp::ArgMax || reduction->op == plan::ReduceOp::ArgMin;
    }
    lists.push_back(list);
  }
  return lists;
}

size_t changeable_loops(const LoopList& list) {
  return list.loops->size() - (list.ordered && !list.loops->empty() ? 1 : 0);
}

void substitute(LoopList& list, const std::vector<Loop>& loops, const plan::Indices& values) {
  const IndexMap map = plan::replace_loops(loops, values);
  for (Stage* stage : list.stages) substitute(*stage, map);
}

void drop_unit_loops(LoopList& list) {
  for (size_t i = changeable_loops(list); i-- > 0;) {
    if (!(*list.loops)[i].extent().is_constant(1)) continue;
    const Loop loop = (*list.loops)[i];
    list.loops->erase(list.loops->begin() + static_cast<std::ptrdiff_t>(i));
    substitute(list, {loop}, {Dim(0)});
  }
}

// --- Splitting: i -> i1 * n + i2, where indices contain i / n or i % n --------------------------

// The divisor of the loop index in some atom of the Dim.
std::optional<Dim> find_divisor(const Dim& dim, const Loop& loop) {
  for (const ir::Term& term : dim.terms()) {
    for (const ir::AtomPtr& atom : term.factors) {
      if (atom->kind == ir::AtomKind::Symbol) continue;
      const bool division = atom->kind == ir::AtomKind::FloorDiv || atom->kind == ir::AtomKind::Mod;
      if (division && atom->a.as_symbol() == loop.index && !atom->b.is_constant(1) &&
          ir::provably_divisible(loop.extent(), atom->b) && atom->b.lower_bound() > 0 &&
          !(atom->b == loop.extent())) {
        return atom->b;
      }
      if (auto divisor = find_divisor(atom->a, loop)) return divisor;
      if (auto divisor = find_divisor(atom->b, loop)) return divisor;
    }
  }
  return std::nullopt;
}

std::optional<Dim> find_divisor(const LoopList& list, const Loop& loop) {
  std::optional<Dim> divisor;
  for (const Stage* stage : list.stages) {
    for_each_index(*stage, [&](const Dim& index) {
      if (!divisor) divisor = find_divisor(index, loop);
    });
  }
  return divisor;
}

void split_loops(LoopList& list) {
  constexpr size_t kMostLoops = 12;  // more would not be a reshape
  for (size_t i = 0; i < changeable_loops(list) && list.loops->size() < kMostLoops;) {
    const Loop loop = (*list.loops)[i];
    const auto divisor = find_divisor(list, loop);
    if (!divisor) {
      ++i;
      continue;
    }
    const std::string& name = loop.index->name;
    const Loop high{ir::make_loop_symbol(name + "h", ir::floordiv(loop.extent(), *divisor))};
    const Loop low{ir::make_loop_symbol(name + "l", *divisor)};
    (*list.loops)[i] = high;
    list.loops->insert(list.loops->begin() + static_cast<std::ptrdiff_t>(i) + 1, low);
    substitute(list, {loop}, {Dim(high.index) * *divisor + Dim(low.index)});
  }
}

// --- Merging: (i, j) -> i * n + j, with n the extent of j ---------------------------------------

bool mergeable(const Dim& index, const Loop& high, const Loop& low) {
  const auto in_high = index.as_linear_in(high.index);
  const auto in_low = index.as_linear_in(low.index);
  return in_high && in_low && in_high->first == in_low->first * low.extent();
}

bool mergeable(const LoopList& list, const Loop& high, const Loop& low) {
  bool result = true;
  for (const Stage* stage : list.stages) {
    for_each_index(*stage,
                   [&](const Dim& index) { result = result && mergeable(index, high, low); });
  }
  return result;
}

bool merge_one(LoopList& list) {
  const size_t count = changeable_loops(list);
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = 0; j < count; ++j) {
      const Loop high = (*list.loops)[i], low = (*list.loops)[j];
      if (i == j || !mergeable(list, high, low)) continue;
      const Loop merged{
          ir::make_loop_symbol(high.index->name + low.index->name, high.extent() * low.extent())};
      (*list.loops)[j] = merged;
      list.loops->erase(list.loops->begin() + static_cast<std::ptrdiff_t>(i));
      substitute(list, {high, low}, {Dim(0), Dim(merged.index)});
      return true;
    }
  }
  return false;
}

}  // namespace

LoopNest simplify(const plan::Program& program, LoopNest nest) {
  flatten_accesses(program, nest);
  for (LoopList& list : loop_lists(nest)) drop_unit_loops(list);
  for (LoopList& list : loop_lists(nest)) split_loops(list);
  for (LoopList& list : loop_lists(nest)) {
    while (merge_one(list)) {
    }
  }
  return nest;
}

}  // namespace kiln::backend
