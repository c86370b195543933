#include "plan/form/access.h"

#include <algorithm>

#include "plan/form/fold.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

// Splits the axes of two shapes of equal element count in the shortest runs of equal products.
struct AxisRun {
  size_t from_begin = 0, from_end = 0, to_begin = 0, to_end = 0;
};

// Grows the run until the products agree, or to the end if they never do.
AxisRun next_run(const ir::Shape& from, const ir::Shape& to, size_t from_begin, size_t to_begin) {
  for (size_t length = 2; length <= from.size() + to.size(); ++length) {
    for (size_t n = 1; n < length; ++n) {
      const size_t from_end = from_begin + n, to_end = to_begin + (length - n);
      if (from_end > from.size() || to_end > to.size()) continue;
      const ir::Shape a(from.begin() + static_cast<std::ptrdiff_t>(from_begin),
                        from.begin() + static_cast<std::ptrdiff_t>(from_end));
      const ir::Shape b(to.begin() + static_cast<std::ptrdiff_t>(to_begin),
                        to.begin() + static_cast<std::ptrdiff_t>(to_end));
      if (ir::product(a) == ir::product(b)) return {from_begin, from_end, to_begin, to_end};
    }
  }
  return {from_begin, from.size(), to_begin, to.size()};
}

template <typename T>
std::vector<T> part(const std::vector<T>& values, size_t begin, size_t end) {
  return {values.begin() + static_cast<std::ptrdiff_t>(begin),
          values.begin() + static_cast<std::ptrdiff_t>(end)};
}

// A constant or symbolic divisor of `loop`, as in floordiv(loop, d) or mod(loop, d), that divides
// its extent.
std::optional<ir::Dim> find_divisor(const ir::Dim& dim, const Loop& loop) {
  for (const ir::Term& term : dim.terms()) {
    for (const ir::AtomPtr& atom : term.factors) {
      if (atom->kind == ir::AtomKind::Symbol) continue;
      const bool divides = atom->kind == ir::AtomKind::FloorDiv || atom->kind == ir::AtomKind::Mod;
      if (divides && atom->a.as_symbol() == loop.index &&
          ir::provably_divisible(loop.extent(), atom->b)) {
        return atom->b;
      }
      if (auto found = find_divisor(atom->a, loop)) return found;
      if (auto found = find_divisor(atom->b, loop)) return found;
    }
  }
  return std::nullopt;
}

std::optional<ir::Dim> find_divisor(const Indices& indices, const Loop& loop) {
  for (const Index& index : indices) {
    if (auto found = find_divisor(index, loop)) return found;
  }
  return std::nullopt;
}

bool mentions_any(const ir::Dim& dim, const std::vector<Loop>& loops) {
  return std::ranges::any_of(loops, [&](const Loop& loop) { return dim.mentions(loop.index); });
}

}  // namespace

std::vector<ir::Dim> dense_strides(const ir::Shape& shape) {
  std::vector<ir::Dim> strides(shape.size());
  ir::Dim stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

Index linearize(const ir::Shape& shape, const Indices& indices) {
  KILN_CHECK(shape.size() == indices.size());
  const std::vector<ir::Dim> strides = dense_strides(shape);
  Index offset;
  for (size_t i = 0; i < shape.size(); ++i) offset += indices[i] * strides[i];
  return offset;
}

Indices delinearize(const ir::Shape& shape, const Index& offset) {
  // Nothing is read at any place of an empty tensor, and its sizes divide nothing.
  const auto is_zero = [](const ir::Dim& size) { return size.is_constant(0); };
  if (std::ranges::any_of(shape, is_zero)) return Indices(shape.size());
  const std::vector<ir::Dim> strides = dense_strides(shape);
  Indices indices(shape.size());
  bool leading = true;  // the leading index needs no modulo: offsets are in range
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i].is_constant(1)) continue;
    const Index quotient = ir::floordiv(offset, strides[i]);
    indices[i] = leading ? quotient : ir::mod(quotient, shape[i]);
    leading = false;
  }
  return indices;
}

Indices reshape_indices(const ir::Shape& from, const ir::Shape& to, const Indices& indices) {
  Indices result;
  size_t i = 0, j = 0;
  while (i < from.size() && j < to.size()) {
    const AxisRun run = next_run(from, to, i, j);
    const Index offset = linearize(part(to, j, run.to_end), part(indices, j, run.to_end));
    const Indices inner = delinearize(part(from, i, run.from_end), offset);
    result.insert(result.end(), inner.begin(), inner.end());
    i = run.from_end;
    j = run.to_end;
  }
  result.resize(from.size());  // what is left has size 1
  return result;
}

Loop make_loop(const char* name, ir::Dim extent) {
  return {ir::make_loop_symbol(name, std::move(extent))};
}

std::vector<Loop> with_loops(std::vector<Loop> loops, const std::vector<Loop>& inner) {
  loops.insert(loops.end(), inner.begin(), inner.end());
  return loops;
}

LoopSpace make_loops(const ir::Shape& shape, const char* prefix) {
  LoopSpace space;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i].is_constant(1)) {
      space.indices.push_back(0);
      continue;
    }
    space.loops.push_back({ir::make_loop_symbol(prefix + std::to_string(i), shape[i])});
    space.indices.push_back(Index(space.loops.back().index));
  }
  return space;
}

std::optional<Affine> as_affine(const Index& offset, const std::vector<Loop>& loops) {
  Affine result{offset, {}};
  for (const Loop& loop : loops) {
    auto linear = result.base.as_linear_in(loop.index);
    if (!linear || mentions_any(linear->first, loops)) return std::nullopt;
    result.strides.push_back(linear->first);
    result.base = linear->second;
  }
  return result;
}

IndexMap replace_loops(const std::vector<Loop>& loops, const Indices& values) {
  KILN_CHECK(loops.size() == values.size());
  return [loops, values](const ir::SymbolPtr& symbol) -> std::optional<Index> {
    for (size_t i = 0; i < loops.size(); ++i) {
      if (loops[i].index == symbol) return values[i];
    }
    return std::nullopt;
  };
}

Indices substitute(const Indices& indices, const IndexMap& map) {
  Indices result;
  for (const Index& index : indices) result.push_back(index.substitute(map));
  return result;
}

RefinedLoops refine_loops(const std::vector<Loop>& loops, const Indices& indices) {
  constexpr size_t kMostLoops = 16;  // sizes too large to reason about could be split for ever
  RefinedLoops result;
  Indices current = indices;
  std::vector<Loop> pending(loops.rbegin(), loops.rend());
  for (const Loop& loop : loops) result.values.push_back(Index(loop.index));
  while (!pending.empty()) {
    const Loop loop = pending.back();
    pending.pop_back();
    const bool full = result.loops.size() + pending.size() + 1 >= kMostLoops;
    const auto divisor = full ? std::nullopt : find_divisor(current, loop);
    if (!divisor) {
      result.loops.push_back(loop);
      continue;
    }
    const Loop high{ir::make_loop_symbol(loop.index->name, ir::floordiv(loop.extent(), *divisor))};
    const Loop low{ir::make_loop_symbol(loop.index->name, *divisor)};
    const IndexMap map = replace_loops({loop}, {Index(high.index) * *divisor + Index(low.index)});
    current = substitute(current, map);
    result.values = substitute(result.values, map);
    pending.push_back(low);
    pending.push_back(high);
  }
  return result;
}

// The loops in order of their strides must make up a mixed radix number: each stride is the product
// of the extents below.
std::optional<Bijection> Bijection::find(const Index& offset, const std::vector<Loop>& loops,
                                         const ir::Dim& elements) {
  const auto affine = as_affine(offset, loops);
  if (!affine || !affine->base.is_constant(0) || elements.is_constant(0)) return std::nullopt;
  Bijection result;
  for (const Loop& loop : loops) result.extents_.push_back(loop.extent());
  std::vector<bool> used(loops.size());
  ir::Dim below = 1;
  for (size_t found = 0; found < loops.size(); ++found) {
    size_t next = 0;
    while (next < loops.size() && (used[next] || !(affine->strides[next] == below))) ++next;
    if (next == loops.size()) return std::nullopt;
    used[next] = true;
    result.order_.push_back(next);
    below *= loops[next].extent();
  }
  if (!(below == elements)) return std::nullopt;
  return result;
}

// Digit by digit: the small steps keep the divisions simple enough to be proven away.
Indices Bijection::loops_at(const Index& offset) const {
  Indices result(extents_.size());
  Index rest = offset;
  for (size_t k = 0; k < order_.size(); ++k) {
    const ir::Dim& extent = extents_[order_[k]];
    const bool is_last = k + 1 == order_.size();
    result[order_[k]] = is_last ? rest : ir::mod(rest, extent);
    if (!is_last) rest = ir::floordiv(rest, extent);
  }
  return result;
}

std::optional<Indices> load_indices(const ExprNode& load) {
  Indices indices;
  for (const Expr& arg : load.args) {
    const auto index = as_index(arg);
    if (!index) return std::nullopt;
    indices.push_back(*index);
  }
  return indices;
}

}  // namespace kiln::plan
