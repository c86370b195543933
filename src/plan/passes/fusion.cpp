#include "plan/passes/fusion.h"

#include <algorithm>

#include "ir/op_table.h"
#include "ir/size_overflow.h"
#include "plan/form/bounds.h"
#include "plan/form/kernels.h"
#include "plan/form/rewrite.h"

namespace kiln::plan {
namespace {

using ir::Op;

constexpr size_t kMaxNameLength = 56;

int64_t cost_of(const TargetTraits& traits, Op op) {
  switch (ir::effort_of(op)) {
    case ir::OpEffort::Simple:
      return 1;
    case ir::OpEffort::Root:
      return traits.root_cost;
    case ir::OpEffort::Division:
      return traits.division_cost;
    case ir::OpEffort::Series:
      return traits.series_cost;
    case ir::OpEffort::Iterated:
      return traits.iterated_cost;
  }
  return 1;
}

// The plain loop an index stands for: none for an axis of size 1.
bool stores_plain_loops(const Pointwise& producer) {
  size_t found = 0;
  for (const Index& index : producer.indices) {
    if (index.is_constant(0)) continue;
    const ir::SymbolPtr symbol = index.as_symbol();
    const auto is_loop = [&](const Loop& loop) { return loop.index == symbol; };
    if (!symbol || std::ranges::none_of(producer.loops, is_loop)) return false;
    ++found;
  }
  return found == producer.loops.size();
}

Expr guard(const Expr& value, const Expr& predicate) {
  return apply(Op::where,
               {predicate, with_predicate(value, predicate), constant_int(value->dtype, 0)});
}

std::string stem_of(const std::string& name) { return name.substr(0, name.find_last_of('_')); }

}  // namespace

Expr with_predicate(const Expr& value, const Expr& predicate) {
  return rewrite(value, [&](const ExprNode& node) -> Expr {
    if (node.kind == ExprKind::Check) {
      return check(node.args[0], node.check_kind, node.index, node.check,
                   logical_and(predicate, node.predicate));
    }
    if (node.kind != ExprKind::Load) return nullptr;
    return load(node.buffer, node.dtype, node.args, logical_and(predicate, node.predicate));
  });
}

Uses::Uses(const Program& program)
    : readers(program.buffers.size()), writers(program.buffers.size()) {
  for (const Kernel& kernel : program.kernels) {
    const size_t i = touched_.size();
    touched_.push_back({reads(kernel), writes(kernel)});
    for (BufferId buffer : touched_[i].reads) readers[buffer].push_back(i);
    for (BufferId buffer : touched_[i].writes) writers[buffer].push_back(i);
  }
}

void Uses::update(const Program& program, size_t kernel) {
  readers.resize(std::max(readers.size(), program.buffers.size()));
  writers.resize(readers.size());
  const auto replace = [&](std::vector<std::vector<size_t>>& users, std::vector<BufferId>& known,
                           std::vector<BufferId> now) {
    if (known == now) return;
    for (BufferId buffer : known)
      users[buffer].erase(std::ranges::lower_bound(users[buffer], kernel));
    for (BufferId buffer : now)
      users[buffer].insert(std::ranges::lower_bound(users[buffer], kernel), kernel);
    known = std::move(now);
  };
  replace(readers, touched_[kernel].reads, reads(program.kernels[kernel]));
  replace(writers, touched_[kernel].writes, writes(program.kernels[kernel]));
}

std::optional<Pointwise> as_pointwise(const Kernel& kernel) {
  const auto* nest = std::get_if<LoopNest>(&kernel.body);
  if (!nest || nest->stages.size() != 1) return std::nullopt;
  const auto* store = std::get_if<Store>(&nest->stages[0]);
  if (!store || store->scan) return std::nullopt;
  return Pointwise{with_loops(nest->outer, store->loops), store->buffer, store->indices,
                   store->value};
}

Pointwise refined(Pointwise pointwise, BufferId buffer) {
  Indices read;
  visit(pointwise.value, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load || node.buffer != buffer) return;
    if (const auto at = load_indices(node)) read.insert(read.end(), at->begin(), at->end());
  });
  RefinedLoops fine = refine_loops(pointwise.loops, read);
  if (fine.loops.size() == pointwise.loops.size()) return pointwise;
  const IndexMap map = replace_loops(pointwise.loops, fine.values);
  return {std::move(fine.loops), pointwise.buffer, substitute(pointwise.indices, map),
          substitute(pointwise.value, map)};
}

Expr inline_load(const Pointwise& producer, const ExprNode& node) {
  if (!stores_plain_loops(producer)) return nullptr;
  const auto map = [&](const ir::SymbolPtr& symbol) -> Expr {
    for (size_t i = 0; i < producer.indices.size(); ++i) {
      if (producer.indices[i].as_symbol() == symbol) return node.args[i];
    }
    return nullptr;
  };
  const Expr value = substitute_values(producer.value, map);
  return node.predicate ? guard(value, node.predicate) : value;
}

bool reads_all(const Program& program, BufferId buffer, const Expr& value,
               const std::vector<Loop>& loops) {
  const ir::Type& type = program.buffers[buffer].type;
  bool result = false;
  visit(value, [&](const ExprNode& node) {
    if (result || node.kind != ExprKind::Load || node.buffer != buffer || node.predicate) return;
    const auto at = load_indices(node);
    if (!at) return;
    const RefinedLoops fine = refine_loops(loops, *at);
    const Index offset = linearize(type.shape, substitute(*at, replace_loops(loops, fine.values)));
    std::vector<Loop> used;  // others read the same again
    for (const Loop& loop : fine.loops) {
      if (offset.mentions(loop.index)) used.push_back(loop);
    }
    result = Bijection::find(offset, used, type.elements()).has_value();
  });
  return result;
}

bool loads_in_bounds(const Program& program, const Expr& expr) {
  bool result = true;
  visit(expr, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load) return;
    const ir::Shape& shape = program.buffers[node.buffer].type.shape;
    for (size_t i = 0; i < shape.size() && result; ++i) {
      result = provably_in_range(node.args[i], shape[i], node.predicate);
    }
  });
  return result;
}

int64_t cost_of(const TargetTraits& traits, const Expr& expr) {
  int64_t cost = 0;
  visit(expr, [&](const ExprNode& node) {
    if (node.kind == ExprKind::Apply) cost += cost_of(traits, node.op);
  });
  return cost;
}

int64_t load_count(const Expr& expr) {
  int64_t count = 0;
  visit(expr, [&](const ExprNode& node) { count += node.kind == ExprKind::Load; });
  return count;
}

bool is_small_enough(const TargetTraits& traits, const Expr& expr) {
  return operation_count(expr) <= traits.max_operations && load_count(expr) <= traits.max_loads;
}

int64_t load_sites(const Expr& expr, BufferId buffer) {
  int64_t sites = 0;
  visit(expr, [&](const ExprNode& node) {
    sites += node.kind == ExprKind::Load && node.buffer == buffer;
  });
  return sites;
}

int64_t load_sites(const LoopNest& nest, BufferId buffer) {
  int64_t sites = 0;
  for (const Stage& stage : nest.stages) sites += load_sites(value_of(stage), buffer);
  return sites;
}

int64_t points_at_opt(const std::vector<Loop>& loops) {
  int64_t points = 1;
  for (const Loop& loop : loops) points = ir::saturating_product({points, loop.extent().at_opt()});
  return points;
}

std::optional<Indices> only_load(const Expr& expr, BufferId buffer) {
  std::optional<Indices> result;
  bool unique = true;
  visit(expr, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load || node.buffer != buffer) return;
    const auto indices = load_indices(node);
    unique &= indices && !node.predicate && (!result || *result == *indices);
    if (indices) result = indices;
  });
  return unique ? result : std::nullopt;
}

void absorb_name(Kernel& kernel, const Kernel& producer) {
  const std::string name = stem_of(producer.name) + "_" + kernel.name;
  if (name.size() <= kMaxNameLength) kernel.name = name;
  std::vector<std::string> sources = producer.sources;
  sources.insert(sources.end(), kernel.sources.begin(), kernel.sources.end());
  kernel.sources = std::move(sources);
}

bool is_empty(const Kernel& kernel) {
  const auto* nest = std::get_if<LoopNest>(&kernel.body);
  return nest && nest->stages.empty();
}

void make_empty(Kernel& kernel) { kernel.body = LoopNest{}; }

void remove_empty(Program& program) { std::erase_if(program.kernels, is_empty); }

bool fuse_with_readers(Program& program, const std::function<BufferId(size_t kernel)>& result,
                       const std::function<bool(size_t producer, size_t reader)>& fuse) {
  bool changed = false;
  Uses uses(program);
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    const BufferId buffer = result(i);
    if (buffer < 0 || program.buffers[buffer].kind != BufferKind::Temporary ||
        uses.readers[buffer].size() != 1 || uses.writers[buffer].size() != 1)
      continue;
    const size_t reader = uses.readers[buffer][0];
    if (!fuse(i, reader)) continue;
    uses.update(program, i);
    uses.update(program, reader);
    changed = true;
  }
  if (changed) remove_empty(program);
  return changed;
}

}  // namespace kiln::plan
