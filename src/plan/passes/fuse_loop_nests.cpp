// Two nests that share their outer loops become one: a normalisation and the pointwise work on its
// result, a sum and the normalisation of it, reductions one after another. What the first one
// stores stays in registers or in the nearest cache.
//
// Before: nest K is the first to read what nest N stores, and the outer loops of N correspond one
// to one to loops of K in every Load. After: one nest at K's place, N's stages first. Loads of N's
// results are replaced by their values where that repeats no dear work; results that are read
// elsewhere are still stored.
//
// A nest has a limit of stages: a chain of normalisations, however long, is as many nests as it takes.
//
// A pointwise nest has no order among its loops: any of them may become outer loops of the other
// nest.
#include <algorithm>
#include <map>
#include <set>

#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

using SymbolMap = std::map<ir::SymbolPtr, ir::SymbolPtr>;  // looked up, never walked

bool has_loop(const std::vector<Loop>& loops, const ir::SymbolPtr& symbol) {
  return symbol && std::ranges::any_of(loops, [&](const Loop& l) { return l.index == symbol; });
}

int32_t reduction_count(const LoopNest& nest) {
  return static_cast<int32_t>(std::ranges::count_if(
      nest.stages, [](const Stage& s) { return std::holds_alternative<Reduction>(s); }));
}

// A pointwise nest as one flat list of loops, or any other nest as it is.
struct Side {
  LoopNest nest;
  bool flexible = false;

  explicit Side(const Kernel& kernel) : nest(std::get<LoopNest>(kernel.body)) {
    const auto pointwise = as_pointwise(kernel);
    flexible = pointwise.has_value();
    if (!flexible) return;
    nest.outer = pointwise->loops;
    std::get<Store>(nest.stages[0]).loops.clear();
  }
};

class Merger {
 public:
  Merger(const Program& program, const Uses& uses, size_t producer, size_t consumer)
      : program_(program),
        uses_(uses),
        n_(program.kernels[producer]),
        k_(program.kernels[consumer]),
        consumer_(consumer) {}

  std::optional<LoopNest> merge() {
    if ((n_.flexible && k_.flexible) || stores_in_pieces()) return std::nullopt;
    if (k_.flexible) reparametrise();
    if (!match_all()) return std::nullopt;
    if (n_.flexible && !split_producer()) return std::nullopt;
    if (!choose_outer()) return std::nullopt;
    return build();
  }

 private:
  Store* store_of(BufferId buffer) {
    for (Stage& stage : n_.nest.stages) {
      auto* store = std::get_if<Store>(&stage);
      if (store && store->buffer == buffer) return store;
    }
    return nullptr;
  }

  // Whether some result is made by several stores, as a concatenation is.
  bool stores_in_pieces() const {
    std::vector<BufferId> stored;
    for (const Stage& stage : n_.nest.stages) {
      const auto* store = std::get_if<Store>(&stage);
      if (!store) continue;
      if (std::ranges::find(stored, store->buffer) != stored.end()) return true;
      stored.push_back(store->buffer);
    }
    return false;
  }

  // Rewrites a pointwise consumer over the positions of what it reads, if those are a bijection of
  // its own.
  void reparametrise() {
    Store& store = std::get<Store>(k_.nest.stages[0]);
    for (BufferId buffer : loads(store.value)) {
      const Store* source = store_of(buffer);
      if (!source) continue;
      std::optional<Indices> at;
      visit(store.value, [&](const ExprNode& node) {
        if (node.kind == ExprKind::Load && node.buffer == buffer && !at) at = load_indices(node);
      });
      if (!at) return;
      refine(store, *at);
      const ir::Type& type = program_.buffers[buffer].type;
      const auto map = Bijection::find(linearize(type.shape, *at), k_.nest.outer, type.elements());
      if (!map) return;
      LoopSpace space = make_loops(type.shape);
      const Indices values = map->loops_at(linearize(type.shape, space.indices));
      const IndexMap replacement = replace_loops(k_.nest.outer, values);
      store.value = substitute(store.value, replacement);
      store.indices = substitute(store.indices, replacement);
      k_.nest.outer = std::move(space.loops);
      return;
    }
  }

  // Splits the loops of a pointwise consumer where it divides them to read at `at`.
  void refine(Store& store, Indices& at) {
    const RefinedLoops fine = refine_loops(k_.nest.outer, at);
    if (fine.loops.size() == k_.nest.outer.size()) return;
    const IndexMap map = replace_loops(k_.nest.outer, fine.values);
    store.value = substitute(store.value, map);
    store.indices = substitute(store.indices, map);
    at = substitute(at, map);
    k_.nest.outer = fine.loops;
  }

  // --- Correspondence of loops ---

  bool match_all() {
    for (const Stage& stage : k_.nest.stages) {
      bool matched = true;
      visit(value_of(stage), [&](const ExprNode& node) {
        if (node.kind != ExprKind::Load) return;
        if (Store* store = store_of(node.buffer)) matched = matched && match(*store, node);
      });
      if (!matched) return false;
    }
    return true;
  }

  bool match(const Store& store, const ExprNode& node) {
    const auto at = load_indices(node);
    if (!at || node.predicate || store.scan) return false;
    for (size_t i = 0; i < at->size(); ++i) {
      if (store.indices[i].is_constant(0)) continue;
      const ir::SymbolPtr own = store.indices[i].as_symbol();
      if (!own) return false;
      if (!has_loop(n_.nest.outer, own))
        continue;  // an inner loop of the store: any position will do
      const ir::SymbolPtr other = (*at)[i].as_symbol();
      const bool is_outer = has_loop(k_.nest.outer, other) && other->extent == own->extent;
      if (!record(own, is_outer ? other : nullptr)) return false;
    }
    return true;
  }

  // A loop of a pointwise producer that does not correspond becomes an inner loop; any other must
  // correspond.
  bool record(const ir::SymbolPtr& own, const ir::SymbolPtr& other) {
    const auto [it, added] = match_.emplace(own, other);
    if (!added && it->second != other) it->second = nullptr;
    return it->second != nullptr || n_.flexible;
  }

  ir::SymbolPtr match_of(const Loop& loop) const {
    const auto it = match_.find(loop.index);
    return it == match_.end() ? nullptr : it->second;
  }

  bool split_producer() {
    std::vector<Loop> outer, inner;
    for (const Loop& loop : n_.nest.outer) (match_of(loop) ? outer : inner).push_back(loop);
    n_.nest.outer = std::move(outer);
    std::get<Store>(n_.nest.stages[0]).loops = std::move(inner);
    return true;
  }

  // The outer loops of the result: the consumer's, as far as the producer has them.
  bool choose_outer() {
    std::vector<Loop> taken;
    for (const Loop& loop : n_.nest.outer) {
      const ir::SymbolPtr other = match_of(loop);
      if (!other || has_loop(taken, other)) return false;
      taken.push_back({other});
    }
    if (taken.size() == k_.nest.outer.size()) return true;
    if (!k_.flexible) return false;
    std::vector<Loop> rest;
    for (const Loop& loop : k_.nest.outer) {
      if (!has_loop(taken, loop.index)) rest.push_back(loop);
    }
    const TargetTraits& traits = program_.traits;
    const bool serial = points_at_opt(taken) < traits.min_parallel_points &&
                        points_at_opt(rest) > traits.large_task_points;
    if (serial) return false;
    k_.nest.outer = std::move(taken);
    std::get<Store>(k_.nest.stages[0]).loops = std::move(rest);
    return true;
  }

  // --- The merged nest ---

  IndexMap producer_map() const {
    Indices values;
    for (const Loop& loop : n_.nest.outer) values.push_back(Index(match_of(loop)));
    return replace_loops(n_.nest.outer, values);
  }

  std::optional<LoopNest> build() {
    LoopNest result;
    result.outer = k_.nest.outer;
    note_whole_reads();
    const IndexMap map = producer_map();
    for (Stage& stage : n_.nest.stages) {
      value_of(stage) = substitute(value_of(stage), map);
      if (auto* store = std::get_if<Store>(&stage))
        store->indices = substitute(store->indices, map);
    }
    for (Stage& stage : k_.nest.stages) {
      Expr value = rewritten(value_of(stage));
      if (!is_small_enough(program_.traits, value) || !loads_in_bounds(program_, value))
        return std::nullopt;
      value_of(stage) = std::move(value);
    }
    for (Stage& stage : n_.nest.stages) {
      if (is_still_needed(stage)) result.stages.push_back(std::move(stage));
    }
    for (Stage& stage : k_.nest.stages) result.stages.push_back(std::move(stage));
    return result;
  }

  // The consumer's expression with the producer's results in place and its own slots moved up.
  Expr rewritten(const Expr& value) {
    const int32_t shift = reduction_count(n_.nest);
    return rewrite(value, [&](const ExprNode& node) -> Expr {
      if (node.kind == ExprKind::Reduced) return reduced(node.slot + shift, node.dtype);
      if (node.kind != ExprKind::Load) return nullptr;
      const Store* store = store_of(node.buffer);
      return store && is_worth_repeating(*store) ? element(*store, node) : nullptr;
    });
  }

  static Expr element(const Store& store, const ExprNode& node) {
    const Indices at = *load_indices(node);
    Indices values;
    for (const Loop& loop : store.loops) {
      const auto index = std::ranges::find_if(
          store.indices, [&](const Index& i) { return i.as_symbol() == loop.index; });
      values.push_back(at[static_cast<size_t>(index - store.indices.begin())]);
    }
    return substitute(store.value, replace_loops(store.loops, values));
  }

  // Which results with checks a stage of the consumer reads throughout.
  void note_whole_reads() {
    for (const Stage& made : n_.nest.stages) {
      const auto* store = std::get_if<Store>(&made);
      if (!store || !has_checks(store->value)) continue;
      const bool whole = std::ranges::any_of(k_.nest.stages, [&](const Stage& stage) {
        return reads_all(program_, store->buffer, value_of(stage),
                         with_loops(k_.nest.outer, loops_of(stage)));
      });
      if (whole) read_whole_.insert(store->buffer);
    }
  }

  // Whether loads of a result are replaced by its value.
  bool is_worth_repeating(const Store& store) const {
    for (const Loop& loop : store.loops) {
      const auto is_loop = [&](const Index& i) { return i.as_symbol() == loop.index; };
      if (std::ranges::none_of(store.indices, is_loop)) return false;
    }
    if (store.loops.empty()) return true;
    // The consumer may read less than all.
    if (has_checks(store.value) && !read_whole_.contains(store.buffer)) return false;
    const int64_t cost = cost_of(program_.traits, store.value) + load_count(store.value);
    if (is_read_elsewhere(store.buffer)) return cost <= 1;  // it is stored in any case
    return load_sites(k_.nest, store.buffer) == 1 || cost <= program_.traits.near_load_cost;
  }

  bool is_read_elsewhere(BufferId buffer) const {
    return program_.buffers[buffer].kind != BufferKind::Temporary ||
           std::ranges::any_of(uses_.readers[buffer],
                               [&](size_t reader) { return reader != consumer_; }) ||
           is_read_by_producer(buffer);
  }
  bool is_read_by_producer(BufferId buffer) const {
    return std::ranges::any_of(n_.nest.stages, [&](const Stage& stage) {
      const auto read = loads(value_of(stage));
      return std::ranges::find(read, buffer) != read.end();
    });
  }

  bool is_still_needed(const Stage& stage) const {
    const auto* store = std::get_if<Store>(&stage);
    if (!store || is_read_elsewhere(store->buffer) || load_sites(k_.nest, store->buffer) > 0)
      return true;
    // A check stays, unless the consumer has it in place of what it reads.
    return has_checks(store->value) && !read_whole_.contains(store->buffer);
  }

  const Program& program_;
  const Uses& uses_;
  Side n_, k_;
  const size_t consumer_;
  SymbolMap match_;
  std::set<BufferId> read_whole_;  // looked up, never walked
};

// The first kernel that reads anything that a nest stores, if the nest is the only one to write
// there.
std::optional<size_t> first_reader(const Program& program, const Uses& uses, size_t producer) {
  std::optional<size_t> first;
  for (BufferId buffer : writes(program.kernels[producer])) {
    if (uses.writers[buffer].size() != 1) return std::nullopt;
    for (size_t reader : uses.readers[buffer]) {
      if (reader > producer && (!first || reader < *first)) first = reader;
    }
  }
  return first;
}

// Stages of a merged nest. Each merge looks through the whole nest, and code generators take longer than in proportion.
constexpr size_t kMostStages = 64;

bool is_short_enough(const Kernel& producer, const Kernel& consumer) {
  const size_t first = std::get<LoopNest>(producer.body).stages.size();
  const size_t second = std::get<LoopNest>(consumer.body).stages.size();
  return first + second <= kMostStages;
}

bool merge_with_reader(Program& program, Uses& uses, size_t producer) {
  const auto consumer = first_reader(program, uses, producer);
  if (!consumer || !std::holds_alternative<LoopNest>(program.kernels[*consumer].body)) return false;
  if (!is_short_enough(program.kernels[producer], program.kernels[*consumer])) return false;
  auto merged = Merger(program, uses, producer, *consumer).merge();
  if (!merged) return false;
  Kernel& kernel = program.kernels[*consumer];
  kernel.body = std::move(*merged);
  absorb_name(kernel, program.kernels[producer]);
  make_empty(program.kernels[producer]);
  uses.update(program, producer);
  uses.update(program, *consumer);
  return true;
}

}  // namespace

bool fuse_loop_nests(Program& program) {
  bool changed = false;
  Uses uses(program);
  // A merged nest takes the place of the consumer, further on, and is met there again.
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    if (!std::holds_alternative<LoopNest>(program.kernels[i].body) || is_empty(program.kernels[i]))
      continue;
    changed |= merge_with_reader(program, uses, i);
  }
  if (changed) remove_empty(program);
  return changed;
}

}  // namespace kiln::plan
