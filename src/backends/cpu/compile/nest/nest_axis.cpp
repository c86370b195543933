#include "backends/cpu/compile/nest/nest_axis.h"

#include <algorithm>
#include <cmath>

#include "backends/common/nest_simplify.h"
#include "ir/op_table.h"
#include "plan/form/kernels.h"

namespace kiln::cpu {

using ir::Dim;
using ir::SymbolPtr;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;
using plan::Loop;
using plan::LoopNest;
using plan::Stage;

namespace {

// Costs in units of one vector instruction; the model is the same for all targets, because the
// split of a nest into tasks depends on the choice.
constexpr double kLanes = 16;
constexpr double kTable = 12;  // a byte looked up in a table
constexpr double kGather = 16, kScatter = 24, kContiguous = 1, kBroadcast = 0.5;
constexpr double kSumOverLanes = 12, kLongOperation = 12;

bool mentions(const Expr& expr, const SymbolPtr& symbol) {
  bool found = false;
  plan::visit(expr, [&](const ExprNode& node) {
    found |= node.kind == ExprKind::Position && node.index.mentions(symbol);
  });
  return found;
}

double index_cost(const Dim& index, const SymbolPtr& lane, double gather) {
  if (!index.mentions(lane)) return kBroadcast;
  const auto linear = index.as_linear_in(lane);
  return linear && linear->first.is_constant(1) ? kContiguous : gather;
}

double load_cost(const ExprNode& load, const SymbolPtr& lane) {
  if (load.args.empty()) return kBroadcast;
  const Expr& offset = load.args[0];
  if (offset->kind == ExprKind::Position) return index_cost(offset->index, lane, kGather);
  if (!mentions(offset, lane)) return kBroadcast;
  // A sum of a position and what was read from memory: contiguous if only the position moves.
  if (offset->kind == ExprKind::Apply && offset->op == ir::Op::add) {
    for (size_t i : {size_t{0}, size_t{1}}) {
      const Expr& position = offset->args[i];
      if (position->kind == ExprKind::Position && !mentions(offset->args[1 - i], lane)) {
        return index_cost(position->index, lane, kGather);
      }
    }
  }
  const bool is_byte = offset->kind == ExprKind::Apply && offset->op == ir::Op::cast &&
                       offset->args[0]->dtype == DType::U8;
  return is_byte ? kTable : kGather;
}

double operation_cost(ir::Op op) {
  const ir::OpEffort effort = ir::effort_of(op);
  return effort == ir::OpEffort::Simple || effort == ir::OpEffort::Root ? 1 : kLongOperation;
}

// One evaluation of a stage with lanes along `lane`; null: scalars.
double evaluation_cost(const Stage& stage, const SymbolPtr& lane) {
  double cost = 1;
  plan::visit(value_of(stage), [&](const ExprNode& node) {
    if (node.kind == ExprKind::Apply) cost += operation_cost(node.op);
    if (node.kind == ExprKind::Load) cost += lane ? load_cost(node, lane) : kContiguous;
  });
  if (const auto* store = std::get_if<plan::Store>(&stage); store && lane) {
    for (const Dim& index : store->indices) cost += index_cost(index, lane, kScatter);
  }
  return cost;
}

double extent(const Loop& loop) {
  return std::max<double>(1, static_cast<double>(loop.extent().at_opt()));
}

double points(const std::vector<Loop>& loops) {
  double product = 1;
  for (const Loop& loop : loops) product *= extent(loop);
  return product;
}

double vectors(const Loop& loop) { return std::ceil(extent(loop) / kLanes); }

double outer_cost(const LoopNest& nest, const Loop& lane) {
  double cost = 0;
  for (const Stage& stage : nest.stages) {
    cost += points(loops_of(stage)) * evaluation_cost(stage, lane.index);
  }
  return cost * points(nest.outer) / extent(lane) * vectors(lane);
}

bool is_scan(const Stage& stage) {
  const auto* store = std::get_if<plan::Store>(&stage);
  return store != nullptr && store->scan.has_value();
}

// The cheapest loop of a stage for its lanes, and its cost; scans run one by one.
std::pair<std::optional<size_t>, double> inner_choice(const Stage& stage) {
  const std::vector<Loop>& loops = loops_of(stage);
  std::pair<std::optional<size_t>, double> best = {std::nullopt,
                                                   points(loops) * evaluation_cost(stage, nullptr)};
  if (is_scan(stage)) return best;
  const bool reduces = std::holds_alternative<plan::Reduction>(stage);
  for (size_t i = loops.size(); i-- > 0;) {
    const double count = points(loops) / extent(loops[i]) * vectors(loops[i]);
    const double cost =
        count * evaluation_cost(stage, loops[i].index) + (reduces ? kSumOverLanes : 0);
    if (cost < best.second) best = {i, cost};
  }
  return best;
}

}  // namespace

VectorAxes choose_axes(const LoopNest& nest) {
  VectorAxes result;
  double best = 0;
  for (const Stage& stage : nest.stages) {
    const auto [axis, cost] = inner_choice(stage);
    result.inner.push_back(axis);
    best += cost * points(nest.outer);
  }
  for (size_t i = nest.outer.size(); i-- > 0;) {
    const double cost = outer_cost(nest, nest.outer[i]);
    if (cost >= best) continue;
    best = cost;
    result.outer = i;
  }
  return result;
}

int64_t estimated_work(const LoopNest& nest, int64_t points_of_task) {
  double cost = 0;
  for (const Stage& stage : nest.stages) {
    cost += points(loops_of(stage)) * evaluation_cost(stage, nullptr);
  }
  return static_cast<int64_t>(std::min(cost * static_cast<double>(points_of_task), 1e15));
}

}  // namespace kiln::cpu
