// Pointwise work on a concatenation is done piece by piece, without the concatenation: rotary
// embeddings read both halves of a row directly.
//
// Before: t is stored by a nest of one Store for each operand, and read by one pointwise kernel
// only, at its own loop index along the joined axis. After: the pointwise kernel has one Store for
// each operand, each with the operand's value in place.
//
// A Scatter that reads t at any position (keys that are rotated and written to a cache) picks the operand instead:
// it has one value for all points.
#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

struct Concat {
  BufferId buffer = -1;
  size_t axis = 0;
  std::vector<Loop> outer;
  std::vector<const Store*> pieces;
};

// Whether a store's indices are plain loops and zeros, but for `axis`.
bool is_plain_but_for(const Store& store, size_t axis) {
  for (size_t i = 0; i < store.indices.size(); ++i) {
    if (i != axis && !store.indices[i].is_constant(0) && !store.indices[i].as_symbol())
      return false;
  }
  return true;
}

// The joined axis: where the last piece starts past 0.
std::optional<size_t> joined_axis(const Store& last) {
  for (size_t i = 0; i < last.indices.size(); ++i) {
    if (!last.indices[i].is_constant(0) && !last.indices[i].as_symbol()) return i;
  }
  return std::nullopt;
}

std::optional<Concat> as_concat(const Kernel& kernel) {
  const auto* nest = std::get_if<LoopNest>(&kernel.body);
  if (!nest || nest->stages.size() < 2) return std::nullopt;
  Concat concat{-1, 0, nest->outer, {}};
  for (const Stage& stage : nest->stages) {
    const auto* store = std::get_if<Store>(&stage);
    if (!store || store->scan) return std::nullopt;
    if (concat.buffer >= 0 && store->buffer != concat.buffer) return std::nullopt;
    concat.buffer = store->buffer;
    concat.pieces.push_back(store);
  }
  const auto axis = joined_axis(*concat.pieces.back());
  if (!axis) return std::nullopt;
  concat.axis = *axis;
  for (const Store* piece : concat.pieces) {
    if (!is_plain_but_for(*piece, concat.axis)) return std::nullopt;
  }
  return concat;
}

// One piece of the axis: indices [first, first + size).
struct Piece {
  const Store* store = nullptr;
  ir::Dim first, size = 1;
  ir::SymbolPtr loop;  // of the store along the axis; null for a size of 1
};

std::optional<Piece> piece_of(const Concat& concat, const Store& store, const ir::Dim& first) {
  Piece piece{&store, first, 1, nullptr};
  const Index inner = store.indices[concat.axis] - first;
  if (inner.is_constant(0)) return piece;
  piece.loop = inner.as_symbol();
  if (!piece.loop) return std::nullopt;
  piece.size = piece.loop->extent;
  return piece;
}

// The pieces in order, if they make up the whole axis.
std::optional<std::vector<Piece>> pieces_of(const Program& program, const Concat& concat) {
  std::vector<Piece> pieces;
  ir::Dim first;
  for (const Store* store : concat.pieces) {
    auto piece = piece_of(concat, *store, first);
    if (!piece) return std::nullopt;
    first += piece->size;
    pieces.push_back(std::move(*piece));
  }
  if (!(first == program.buffers[concat.buffer].type.shape[concat.axis])) return std::nullopt;
  return pieces;
}

// The loop of the consumer that runs along the joined axis in every load of the concatenation.
std::optional<size_t> loop_along_axis(const Pointwise& consumer, const Concat& concat) {
  std::optional<size_t> result;
  bool ok = true;
  visit(consumer.value, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load || node.buffer != concat.buffer) return;
    const auto at = load_indices(node);
    const ir::SymbolPtr symbol = at && !node.predicate ? (*at)[concat.axis].as_symbol() : nullptr;
    const auto loop = std::ranges::find(consumer.loops, symbol, &Loop::index);
    ok = ok && symbol && loop != consumer.loops.end();
    if (!ok) return;
    const auto found = static_cast<size_t>(loop - consumer.loops.begin());
    ok = !result || *result == found;
    result = found;
  });
  return ok ? result : std::nullopt;
}

// The value of a piece where the concatenation is loaded; `inner` is the position within the piece.
Expr piece_element(const Concat& concat, const Piece& piece, const ExprNode& node,
                   const Index& inner) {
  const Indices at = *load_indices(node);
  return substitute(piece.store->value, [&](const ir::SymbolPtr& symbol) -> std::optional<Index> {
    if (symbol == piece.loop) return inner;
    for (size_t i = 0; i < at.size(); ++i) {
      if (i != concat.axis && piece.store->indices[i].as_symbol() == symbol) return at[i];
    }
    return std::nullopt;
  });
}

// The consumer's work on one piece.
Store store_piece(const Pointwise& consumer, const Concat& concat, const Piece& piece,
                  size_t along) {
  Store store{consumer.buffer, {}, {}, nullptr, {}};
  Indices values;
  Index inner;
  for (size_t i = along; i < consumer.loops.size(); ++i) {
    const ir::Dim& extent = i == along ? piece.size : consumer.loops[i].extent();
    const Loop loop = make_loop("j", extent);
    const bool is_single = extent.is_constant(1);
    if (!is_single) store.loops.push_back(loop);
    values.push_back(is_single ? Index(0) : Index(loop.index));
    if (i == along) {
      inner = values[0];
      values[0] += piece.first;
    }
  }
  const std::vector<Loop> replaced(consumer.loops.begin() + static_cast<std::ptrdiff_t>(along),
                                   consumer.loops.end());
  const IndexMap map = replace_loops(replaced, values);
  store.indices = substitute(consumer.indices, map);
  store.value = rewrite(substitute(consumer.value, map), [&](const ExprNode& node) -> Expr {
    if (node.kind != ExprKind::Load || node.buffer != concat.buffer) return nullptr;
    return piece_element(concat, piece, node, inner);
  });
  return store;
}

// Comparisons a value is worth, beside a kernel that is spared.
constexpr size_t kMostPicked = 4;

// The operand at a place of the concatenation, whichever it is.
Expr picked(const Concat& concat, const std::vector<Piece>& pieces, const ExprNode& node) {
  const Index at = (*load_indices(node))[concat.axis];
  Expr result;
  for (size_t i = pieces.size(); i-- > 0;) {
    const Piece& piece = pieces[i];
    const bool is_last = i + 1 == pieces.size();
    const Expr below =
        is_last ? nullptr : apply(ir::Op::lt, {position(at), position(piece.first + piece.size)});
    const Expr above = i == 0 ? nullptr : apply(ir::Op::ge, {position(at), position(piece.first)});
    const Expr value = with_predicate(piece_element(concat, piece, node, at - piece.first),
                                      logical_and(above, below));
    result = is_last ? value : apply(ir::Op::where, {below, value, result});
  }
  return result;
}

bool pick(Program& program, const Concat& concat, Scatter& scatter) {
  const auto pieces = pieces_of(program, concat);
  if (!pieces || pieces->size() > kMostPicked) return false;
  if (std::ranges::any_of(*pieces, [](const Piece& p) { return has_checks(p.store->value); }))
    return false;
  if (load_sites(scatter.index, concat.buffer) > 0) return false;
  if (scatter.initial && load_sites(scatter.initial, concat.buffer) > 0) return false;
  const int64_t points =
      points_at_opt(with_loops(with_loops(scatter.outer, {scatter.write}), scatter.inner));
  if (load_sites(scatter.value, concat.buffer) * points >
      program.buffers[concat.buffer].type.elements().at_opt())
    return false;
  bool ok = true;
  const Expr value = rewrite(scatter.value, [&](const ExprNode& node) -> Expr {
    if (node.kind != ExprKind::Load || node.buffer != concat.buffer) return nullptr;
    ok = ok && !node.predicate && load_indices(node);
    return ok ? picked(concat, *pieces, node) : nullptr;
  });
  if (!ok || !is_small_enough(program.traits, value) || !loads_in_bounds(program, value))
    return false;
  scatter.value = value;
  return true;
}

bool split(Program& program, size_t producer, size_t consumer) {
  const auto concat = as_concat(program.kernels[producer]);
  if (!concat) return false;
  if (auto* scatter = std::get_if<Scatter>(&program.kernels[consumer].body)) {
    if (!pick(program, *concat, *scatter)) return false;
    absorb_name(program.kernels[consumer], program.kernels[producer]);
    make_empty(program.kernels[producer]);
    return true;
  }
  const auto pointwise = as_pointwise(program.kernels[consumer]);
  if (!pointwise) return false;
  const int64_t elements = program.buffers[concat->buffer].type.elements().at_opt();
  if (points_at_opt(pointwise->loops) > elements) return false;
  const bool checks = std::ranges::any_of(
      concat->pieces, [](const Store* piece) { return has_checks(piece->value); });
  if (checks && !reads_all(program, concat->buffer, pointwise->value, pointwise->loops))
    return false;
  const auto pieces = pieces_of(program, *concat);
  const auto along = loop_along_axis(*pointwise, *concat);
  if (!pieces || !along) return false;
  const ir::Dim& joined = program.buffers[concat->buffer].type.shape[concat->axis];
  if (!(pointwise->loops[*along].extent() == joined)) return false;
  LoopNest nest;
  nest.outer.assign(pointwise->loops.begin(),
                    pointwise->loops.begin() + static_cast<std::ptrdiff_t>(*along));
  for (const Piece& piece : *pieces) {
    Store store = store_piece(*pointwise, *concat, piece, *along);
    if (!is_small_enough(program.traits, store.value) || !loads_in_bounds(program, store.value)) {
      return false;
    }
    nest.stages.push_back(std::move(store));
  }
  program.kernels[consumer].body = std::move(nest);
  absorb_name(program.kernels[consumer], program.kernels[producer]);
  make_empty(program.kernels[producer]);
  return true;
}

}  // namespace

bool split_concats(Program& program) {
  const auto result = [&](size_t i) {
    const auto concat = as_concat(program.kernels[i]);
    return concat ? concat->buffer : BufferId{-1};
  };
  return fuse_with_readers(program, result, [&](size_t producer, size_t reader) {
    return split(program, producer, reader);
  });
}

}  // namespace kiln::plan
