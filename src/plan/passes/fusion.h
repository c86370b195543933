// What the fusion passes share: who reads and writes a buffer, pointwise kernels and their cost.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "plan/form/access.h"
#include "plan/form/program.h"

namespace kiln::plan {

// Kernels that touch each buffer, in order of execution. A pass makes it once and says which kernels
// it changed, so that its time is not the square of their number.
class Uses {
 public:
  explicit Uses(const Program& program);
  // After a change of a kernel; buffers may have been added.
  void update(const Program& program, size_t kernel);

  std::vector<std::vector<size_t>> readers, writers;

 private:
  struct Touched {
    std::vector<BufferId> reads, writes;
  };
  std::vector<Touched> touched_;  // by kernel
};

// A kernel that stores one value at every position of its loops.
struct Pointwise {
  std::vector<Loop> loops;
  BufferId buffer = -1;
  Indices indices;
  Expr value;
};
std::optional<Pointwise> as_pointwise(const Kernel& kernel);

// The same work with its loops split where it divides them to read `buffer`.
Pointwise refined(Pointwise pointwise, BufferId buffer);

// The element of a pointwise kernel's result at a position given by a Load of it; null where the
// store's indices are not plain loops.
Expr inline_load(const Pointwise& producer, const ExprNode& load);

// Whether an expression, evaluated for all points of `loops`, provably loads every element of a
// buffer: what is checked where the buffer is stored is then checked as well where it is computed
// instead.
bool reads_all(const Program& program, BufferId buffer, const Expr& value,
               const std::vector<Loop>& loops);

// A value whose loads and checks keep to where a predicate holds.
Expr with_predicate(const Expr& value, const Expr& predicate);

// Whether every load of the expression is provably in bounds.
bool loads_in_bounds(const Program& program, const Expr& expr);

// Time of one evaluation, in simple operations; shared nodes count once.
int64_t cost_of(const TargetTraits& traits, const Expr& expr);
// Distinct places an expression loads from.
int64_t load_count(const Expr& expr);
// Whether a fused expression stays within the registers of the machine.
bool is_small_enough(const TargetTraits& traits, const Expr& expr);
// The position at which an expression loads a buffer, if it does so at one position only.
std::optional<Indices> only_load(const Expr& expr, BufferId buffer);
// How many loads of a buffer an expression or the stages of a nest make, at whatever positions.
int64_t load_sites(const Expr& expr, BufferId buffer);
int64_t load_sites(const LoopNest& nest, BufferId buffer);

// Number of points of loops at the sizes to optimise for.
int64_t points_at_opt(const std::vector<Loop>& loops);

// Names and sources of a kernel that takes over another's work.
void absorb_name(Kernel& kernel, const Kernel& producer);

// A kernel without work; removed by remove_empty.
bool is_empty(const Kernel& kernel);
void make_empty(Kernel& kernel);
void remove_empty(Program& program);

// For each kernel in order whose `result`, -1 for none, is a temporary that nothing else writes and one
// kernel reads: fuse(producer, reader) moves both into one of their places, the other is empty then, or
// changes nothing and returns false. A fused kernel that takes its reader's place is met there again.
bool fuse_with_readers(Program& program, const std::function<BufferId(size_t kernel)>& result,
                       const std::function<bool(size_t producer, size_t reader)>& fuse);

}  // namespace kiln::plan
