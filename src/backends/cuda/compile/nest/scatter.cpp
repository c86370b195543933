// Writing where data says: a thread for each point that writes do not cross, or several that share its
// positions. Each goes through all writes in their order and makes those that are to positions of its own,
// so that nothing is synchronised and equal indices are combined in the same order every time.
#include <algorithm>

#include "backends/cuda/compile/generate.h"
#include "backends/cuda/compile/nest/mapping.h"
#include "ir/size_overflow.h"
#include "plan/form/access.h"

namespace kiln::cuda {

using ir::Dim;
using plan::Loop;

namespace {

constexpr int kThreads = 128;
// Threads that fill the machine; and the most that share the positions of a point, each of which reads
// all of its indices.
constexpr int64_t kManyThreads = 132 * 512, kMostShares = 1024;

// A power of two.
int64_t shares_for(int64_t points, int64_t positions) {
  int64_t shares = 1;
  while (shares < kMostShares && points * shares < kManyThreads && shares * 2 <= positions)
    shares *= 2;
  return shares;
}

}  // namespace

std::string scatter_text(KernelContext& context, const plan::Scatter& scatter) {
  Emitter emitter(context);
  const std::vector<Loop> points = plan::with_loops(scatter.outer, scatter.inner);
  const Dim& positions = scatter.position.extent();
  const int64_t written = scatter.write.extent().at_opt();
  const int64_t places =
      scatter.initial ? positions.at_opt() : std::min(positions.at_opt(), written);
  const int64_t shares = shares_for(points_at_opt(points), places);
  // Neighbouring threads have neighbouring elements, of the last inner loop or of the positions.
  const Loop share = plan::make_loop("share", shares);
  const std::vector<Loop> loops =
      plan::with_loops(plan::with_loops(scatter.outer, {share}), scatter.inner);
  const Dim threads = points_of(loops);
  const ir::SymbolPtr thread = ir::make_loop_symbol("thread", threads);
  const std::string type = position_type(Dim(thread));
  emitter.interface().grid = {ir::ceildiv(threads, Dim(int64_t{kThreads}))};
  // A thread has at most every `shares`-th position.
  emitter.interface().task_writes = {
      {scatter.out.buffer, ir::ceildiv(positions, Dim(shares)) * kThreads}};
  emitter.line("const " + type + " thread = (" + type + ")blockIdx.x * " +
               std::to_string(kThreads) + " + (" + type + ")threadIdx.x;");
  emitter.bind(thread, "thread");
  emitter.open("if (thread < " + emitter.position(threads) + ")");
  bind_loops(emitter, loops, Dim(thread));

  Dim offset = scatter.out.offset;
  const std::vector<Loop> target =
      plan::with_loops(plan::with_loops(scatter.outer, {scatter.position}), scatter.inner);
  for (size_t i = 0; i < target.size(); ++i)
    offset += scatter.out.strides[i] * Dim(target[i].index);
  const std::string place_type = position_type(Dim(scatter.position.index));
  const std::string own = emitter.position(Dim(share.index));
  if (scatter.initial) {
    const std::string name = emitter.fresh("i");
    emitter.open("for (" + place_type + " " + name + " = " + own + "; " + name + " < " +
                 emitter.position(positions) + "; " + name + " += " + std::to_string(shares) + ")");
    emitter.bind(scatter.position.index, name);
    emitter.store(scatter.out.buffer, {offset}, emitter.value(scatter.initial));
    emitter.close();
  }

  open_loops(emitter, {scatter.write});
  // A thread that makes every write of its point asks for the value together with the index.
  const bool early = shares == 1 && !scatter.combine;
  const std::string written_value = early ? emitter.value(scatter.value) : "";
  const std::string index = emitter.declare("long long", "index", emitter.value(scatter.index));
  emitter.open("if (" + index + " >= 0 && " + index + " < " + emitter.position(positions) +
               " && (" + index + " & " + std::to_string(shares - 1) + ") == " + own + ")");
  emitter.bind(scatter.position.index,
               emitter.declare(place_type, "i", "(" + place_type + ")" + index));
  plan::Expr value = scatter.value;
  if (scatter.combine) {
    const plan::Expr before = plan::load_at(scatter.out.buffer, value->dtype, {offset});
    value = plan::apply(plan::combining_op(*scatter.combine), {before, value});
  }
  emitter.store(scatter.out.buffer, {offset}, early ? written_value : emitter.value(value));
  emitter.close();
  emitter.close();
  emitter.close();
  return emitter.finish({.threads = kThreads});
}

}  // namespace kiln::cuda
