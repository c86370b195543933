#include "backends/cpu/compile/nest/long_sum.h"

#include <algorithm>

#include "ir/size_overflow.h"
#include "support/error.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;
using plan::Loop;

namespace {

// Terms of a chain: adding chains up is lost in the time of so many terms.
constexpr int64_t kChain = 64;
// Chains of chains of chains: 2^18 terms, each of several vectors; more are as many more of the longest chains.
constexpr int kLevels = 3;

// Loops, and how far apart the terms of one state are along the last.
struct Terms {
  std::vector<Loop> loops;
  int64_t apart = 1;
};

// Which loop the chains are parts of, and how many of its points each has.
struct Cut {
  size_t loop = 0;
  int64_t points = 1;
};

std::optional<Cut> chains_of(const Terms& of) {
  const std::vector<Loop>& loops = of.loops;
  int64_t terms = 1;
  for (size_t i = loops.size(); i-- > 0;) {
    const int64_t apart = i + 1 == loops.size() ? of.apart : 1;
    const int64_t most = loops[i].extent().upper_bound();
    const int64_t count = most / apart + (most % apart != 0);
    const int64_t product = ir::saturating_product({terms, count});
    if (product > kChain) return Cut{i, std::max<int64_t>(1, kChain / terms) * apart};
    terms = std::max<int64_t>(1, product);
  }
  return std::nullopt;
}

LaneRange whole(const Loop& loop) { return {loop, 0, loop.extent()}; }

std::vector<Loop> between(const std::vector<Loop>& loops, size_t begin, size_t end) {
  return {loops.begin() + static_cast<std::ptrdiff_t>(begin),
          loops.begin() + static_cast<std::ptrdiff_t>(end)};
}

State reduce_cutting(Emitter& emitter, const Reducer& reducer, const Terms& terms,
                     const State& initial, const RangeBody& body, int levels) {
  const std::vector<Loop>& loops = terms.loops;
  KILN_CHECK(!loops.empty(), "a reduction runs along a loop");
  const size_t last = loops.size() - 1;
  const auto inside_of = [&](size_t depth, const State& state) {
    return nested_loops(emitter, between(loops, depth, last), state,
                        [&](const State& carried) { return body(whole(loops[last]), carried); });
  };
  const auto cut = levels > 0 ? chains_of(terms) : std::optional<Cut>(std::nullopt);
  if (!cut) return inside_of(0, initial);

  const Loop& loop = loops[cut->loop];
  const Loop chains{ir::make_loop_symbol("chain", ir::ceildiv(loop.extent(), cut->points))};
  std::vector<Loop> outside = between(loops, 0, cut->loop);
  outside.push_back(chains);
  const auto add_chain = [&](const State& total) {
    const Dim first = Dim(chains.index) * cut->points;
    const LaneRange range{loop, first, ir::min(loop.extent(), first + cut->points)};
    const State chain = cut->loop == last
                            ? body(range, initial)
                            : each_point(emitter, range, initial, [&](const State& state) {
                                return inside_of(cut->loop + 1, state);
                              });
    return reducer.join_each(total, chain);
  };
  // Many chains are terms of longer ones.
  const RangeBody add_chains = [&](const LaneRange& range, const State& total) {
    return each_point(emitter, range, total, add_chain);
  };
  return reduce_cutting(emitter, reducer, {outside, 1}, initial, add_chains, levels - 1);
}

}  // namespace

State each_point(Emitter& emitter, const LaneRange& range, const State& state,
                 const std::function<State(const State&)>& body) {
  return emitter.loop_carrying(emitter.value_of(range.begin), emitter.value_of(range.end), 1, state,
                               [&](Value* index, const State& carried) {
                                 emitter.bind(range.loop.index, index);
                                 return body(carried);
                               });
}

State reduce_in_chains(Emitter& emitter, const Reducer& reducer, const std::vector<Loop>& loops,
                       int64_t terms_apart, const State& initial, const RangeBody& body) {
  return reduce_cutting(emitter, reducer, {loops, terms_apart}, initial, body,
                        reducer.rounds() ? kLevels - 1 : 0);
}

}  // namespace kiln::cpu
