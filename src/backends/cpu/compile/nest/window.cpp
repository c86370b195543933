#include "backends/cpu/compile/nest/window.h"

#include <algorithm>
#include <limits>

#include "backends/common/nest_simplify.h"
#include "plan/form/access.h"
#include "plan/form/fold.h"

namespace kiln::cpu {

using ir::Dim;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;
using plan::Loop;
using plan::LoopNest;

namespace {

constexpr int64_t kLongestRow = 1024;  // pixels: each is looked at while compiling
constexpr int64_t kWidestTap = 16;
constexpr int64_t kTilePixels = 8;  // sums in registers on every target

bool mentions(const Expr& expr, const ir::SymbolPtr& symbol) {
  bool found = false;
  plan::visit(expr, [&](const ExprNode& node) {
    found |= node.kind == ExprKind::Position && node.index.mentions(symbol);
  });
  return found;
}

// The parts of a conjunction of bools.
void add_conditions(const Expr& predicate, std::vector<Expr>& conditions) {
  if (!predicate) return;
  if (predicate->kind == ExprKind::Apply && predicate->op == ir::Op::bitwise_and) {
    add_conditions(predicate->args[0], conditions);
    add_conditions(predicate->args[1], conditions);
  } else if (std::ranges::find(conditions, predicate) == conditions.end()) {
    conditions.push_back(predicate);
  }
}

// Where the first load with a predicate, or else the first load that moves with the window, has it.
std::vector<Expr> find_conditions(const Expr& value) {
  std::vector<Expr> conditions;
  plan::visit(value, [&](const ExprNode& node) {
    if (node.kind == ExprKind::Load && conditions.empty())
      add_conditions(node.predicate, conditions);
  });
  return conditions;
}

Expr conjunction(const std::vector<Expr>& conditions) {
  Expr result;
  for (const Expr& condition : conditions) result = plan::logical_and(result, condition);
  return result;
}

Expr assume(const Expr& value, const std::vector<Expr>& conditions) {
  return plan::rewrite(value, [&](const ExprNode& node) -> Expr {
    const bool known = std::ranges::any_of(
        conditions, [&](const Expr& condition) { return condition.get() == &node; });
    return known ? plan::constant_int(DType::Bool, 1) : nullptr;
  });
}

bool contains_all(const Expr& predicate, const std::vector<Expr>& conditions) {
  std::vector<Expr> present;
  add_conditions(predicate, present);
  return std::ranges::all_of(conditions, [&](const Expr& condition) {
    return std::ranges::find(present, condition) != present.end();
  });
}

bool is_lowest(const ExprNode& node) {
  if (node.kind != ExprKind::Constant) return false;
  if (is_floating(node.dtype)) return node.number == -std::numeric_limits<double>::infinity();
  if (node.dtype == DType::U8 || node.dtype == DType::Bool) return node.integer == 0;
  const auto bits = static_cast<int>(dtype_size(node.dtype)) * 8;
  return node.integer == std::numeric_limits<int64_t>::min() >> (64 - bits);
}

// Whether the value adds nothing to the reduction where one of the conditions fails.
bool vanishes(const Expr& value, plan::ReduceOp op, const std::vector<Expr>& conditions) {
  if (conditions.empty()) return true;
  if (value->kind == ExprKind::Load && op == plan::ReduceOp::Sum) {
    return contains_all(value->predicate, conditions);
  }
  if (value->kind != ExprKind::Apply) return false;
  if (op == plan::ReduceOp::Sum && value->op == ir::Op::cast) {
    return vanishes(value->args[0], op, conditions);
  }
  if (op == plan::ReduceOp::Sum && value->op == ir::Op::mul) {
    return vanishes(value->args[0], op, conditions) || vanishes(value->args[1], op, conditions);
  }
  return op == plan::ReduceOp::Max && value->op == ir::Op::where && is_lowest(*value->args[2]) &&
         contains_all(value->args[0], conditions);
}

// The loop with the smallest constant stride in an offset, `except` left out.
std::optional<size_t> innermost(const Dim& offset, const std::vector<Loop>& loops,
                                std::optional<size_t> except) {
  std::optional<size_t> best;
  int64_t smallest = 0;
  for (size_t i = 0; i < loops.size(); ++i) {
    if (i == except || !offset.mentions(loops[i].index)) continue;
    const auto linear = offset.as_linear_in(loops[i].index);
    if (!linear || !linear->first.is_constant()) return std::nullopt;
    const int64_t stride = std::abs(linear->first.constant());
    if (!best || stride < smallest) {
      best = i;
      smallest = stride;
    }
  }
  return best;
}

// The offset of the load that moves with most loops: the image.
std::optional<Dim> image_offset(const Expr& value) {
  std::optional<Dim> best;
  plan::visit(value, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load || node.args.empty()) return;
    const Expr& offset = node.args[0];
    if (offset->kind != ExprKind::Position) return;
    if (!best || offset->index.symbols().size() > best->symbols().size()) best = offset->index;
  });
  return best;
}

const plan::Reduction* only_reduction(const LoopNest& nest) {
  const auto* reduction = std::get_if<plan::Reduction>(&nest.stages.front());
  if (reduction == nullptr || reduction->loops.empty()) return nullptr;
  if (reduction->op != plan::ReduceOp::Sum && reduction->op != plan::ReduceOp::Max) return nullptr;
  for (size_t i = 1; i < nest.stages.size(); ++i) {
    const auto* store = std::get_if<plan::Store>(&nest.stages[i]);
    if (store == nullptr || !store->loops.empty()) return nullptr;
  }
  return reduction;
}

// Splits the conditions of the value into those of the window's row and those of its tap. False if
// some condition is neither, or depends on the lane.
bool split_conditions(Window& window, const LoopNest& nest, const plan::Reduction& reduction) {
  const Expr value = plan::rewrite(reduction.value, [](const ExprNode&) { return nullptr; });
  std::vector<Expr> row, tap;
  const ir::SymbolPtr& pixel = nest.outer[window.pixel].index;
  const ir::SymbolPtr& tap_index = reduction.loops[window.tap].index;
  for (const Expr& condition : find_conditions(value)) {
    if (mentions(condition, nest.outer[window.lane].index)) return false;
    const bool moves = mentions(condition, pixel) || mentions(condition, tap_index);
    (moves ? tap : row).push_back(condition);
  }
  for (const Expr& condition : tap) {
    for (size_t i = 0; i < reduction.loops.size(); ++i) {
      if (i != window.tap && mentions(condition, reduction.loops[i].index)) return false;
    }
    for (size_t i = 0; i < nest.outer.size(); ++i) {
      if (i != window.pixel && mentions(condition, nest.outer[i].index)) return false;
    }
  }
  if (!vanishes(value, reduction.op, row) || !vanishes(value, reduction.op, tap)) return false;
  std::vector<Expr> all = row;
  all.insert(all.end(), tap.begin(), tap.end());
  window.row_guard = conjunction(row);
  window.tap_guard = conjunction(tap);
  window.value = assume(value, all);
  return true;
}

// Whether all taps of a pixel are inside the image.
bool is_interior(const Window& window, const Loop& pixel, const Loop& tap, int64_t at) {
  if (!window.tap_guard) return true;
  const Expr guard = plan::substitute(window.tap_guard, plan::replace_loops({pixel}, {Dim(at)}));
  for (int64_t t = 0; t < tap.extent().constant(); ++t) {
    const auto known =
        plan::as_scalar(plan::substitute(guard, plan::replace_loops({tap}, {Dim(t)})));
    if (!known || !known->truth()) return false;
  }
  return true;
}

// `pixels` from `first` on, in tiles of nearly equal size; each a tile of its own, or as loops.
void add_tiles(std::vector<Window::Tiles>& tiles, int64_t first, int64_t pixels, bool loops) {
  if (pixels == 0) return;
  const int64_t count = (pixels + kTilePixels - 1) / kTilePixels;
  const int64_t size = pixels / count, larger = pixels % count;
  const auto add = [&](int64_t tile_pixels, int64_t tile_count) {
    if (tile_count == 0) return;
    if (loops) tiles.push_back({first, tile_pixels, tile_count});
    for (int64_t t = 0; t < tile_count; ++t, first += tile_pixels) {
      if (!loops) tiles.push_back({first, tile_pixels, 1});
    }
  };
  add(size + 1, larger);
  add(size, count - larger);
}

void choose_tiles(Window& window, const Loop& pixel, const Loop& tap) {
  const int64_t width = pixel.extent().constant();
  int64_t left = 0, right = width;
  while (left < width && !is_interior(window, pixel, tap, left)) ++left;
  while (right > left && !is_interior(window, pixel, tap, right - 1)) --right;
  for (int64_t x = left; x < right; ++x) {
    if (!is_interior(window, pixel, tap, x)) right = left;  // no such window is known
  }
  if (width <= 2 * kTilePixels || right <= left) return add_tiles(window.tiles, 0, width, false);
  // Border tiles take interior pixels along to fill up.
  const auto filled = [](int64_t pixels) {
    return (pixels + kTilePixels - 1) / kTilePixels * kTilePixels;
  };
  int64_t begin = filled(left), end = width - filled(width - right);
  if (begin > end) {
    begin = left;
    end = right;
  }
  add_tiles(window.tiles, 0, begin, false);
  add_tiles(window.tiles, begin, end - begin, true);
  add_tiles(window.tiles, end, width - end, false);
}

}  // namespace

std::optional<Window> find_window(const LoopNest& nest, size_t lane) {
  const plan::Reduction* reduction = only_reduction(nest);
  if (reduction == nullptr) return std::nullopt;
  const auto offset = image_offset(reduction->value);
  if (!offset) return std::nullopt;
  const auto pixel = innermost(*offset, nest.outer, lane);
  const auto tap = innermost(*offset, reduction->loops, std::nullopt);
  if (!pixel || !tap) return std::nullopt;
  const Loop& pixels = nest.outer[*pixel];
  const Loop& taps = reduction->loops[*tap];
  const auto small = [](const Dim& extent, int64_t most) {
    return extent.is_constant() && extent.constant() >= 1 && extent.constant() <= most;
  };
  if (!small(pixels.extent(), kLongestRow) || !small(taps.extent(), kWidestTap))
    return std::nullopt;
  Window window;
  window.lane = lane;
  window.pixel = *pixel;
  window.tap = *tap;
  if (!split_conditions(window, nest, *reduction)) return std::nullopt;
  choose_tiles(window, pixels, taps);
  return window;
}

}  // namespace kiln::cpu
