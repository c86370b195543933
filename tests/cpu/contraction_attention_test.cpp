// Attention kernels: masks, causal rows, grouped heads, strides and run-time sizes.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cpu/contraction_harness.h"

namespace kiln::test {
namespace {

using plan::BufferId;
using plan::Loop;

constexpr double kTolerance = 2e-6;

// Pairs of bf16 meet weights that are rounded to bf16: by 2^-9 of each, of values up to 3.
Tolerance tolerance_of(DType dtype) {
  Tolerance tolerance = kTolerance;
  if (dtype == DType::BF16) tolerance.bf16 = 3.0 / 512;
  return tolerance;
}

Loop loop(const char* name, const ir::Dim& extent) { return {ir::make_loop_symbol(name, extent)}; }

enum class Mask { None, Keep, KeepNothingSometimes, Bias };

struct Case {
  int64_t batch = 2, heads = 3, group = 1;  // `group` query heads share one key head
  int64_t queries = 9, keys = 11, head_dim = 16, value_dim = 16;
  bool causal = false;
  Mask mask = Mask::None;
  bool dynamic = false;
  double scale = 0.25;
  DType dtype = DType::F32;  // of q, k and v; results are f32

  std::string name() const {
    std::string text;
    for (int64_t part : {batch, heads, group, queries, keys, head_dim, value_dim})
      text += std::to_string(part) + " ";
    return text + (causal ? "causal " : "") + "mask " + std::to_string(static_cast<int>(mask)) +
           (dynamic ? " dynamic " : " ") + std::string(dtype_name(dtype));
  }
};

// Strides of [batch, key heads, group, row, column] in a tensor [batch, rows, heads, columns].
plan::View heads_view(BufferId buffer, const ir::Dim& rows, int64_t heads, int64_t group,
                      int64_t columns, bool grouped) {
  const int64_t all = grouped ? heads * group : heads;
  return {buffer,
          0,
          {rows * (all * columns), grouped ? group * columns : columns, grouped ? columns : 0,
           all * columns, 1}};
}

void add_mask(ContractionProgram& contraction, plan::Attention& attention, const Case& c) {
  const ir::Dim m = attention.i.extent(), n = attention.j.extent();
  if (c.mask == Mask::Bias) {
    const BufferId bias = contraction.input({m, n}, {c.queries, c.keys});
    attention.bias = plan::load_at(bias, DType::F32, {attention.i.index, attention.j.index});
  } else if (c.mask != Mask::None) {
    const int64_t kept = c.mask == Mask::Keep ? 4 : 1;  // of -3 ... 3
    int64_t element = 0;
    ir::Literal keep = bool_literal({c.batch, c.keys}, [&] {
      const bool nothing = c.mask == Mask::KeepNothingSometimes && element++ < c.keys;
      return !nothing && contraction.next_value() < static_cast<float>(kept);
    });
    const BufferId buffer = contraction.input_of({c.batch, n}, std::move(keep));
    attention.keep =
        plan::load_at(buffer, DType::Bool, {attention.batch[0].index, attention.j.index});
  }
}

ContractionProgram make_attention(const Case& c) {
  ContractionProgram contraction;
  const ir::Dim m = c.dynamic ? ir::Dim(contraction.symbol("m", 1, 300, 64)) : ir::Dim(c.queries);
  const ir::Dim n = c.dynamic ? ir::Dim(contraction.symbol("n", 1, 300, 64)) : ir::Dim(c.keys);
  plan::Attention attention;
  attention.batch = {loop("b", c.batch), loop("h", c.heads), loop("g", c.group)};
  attention.i = loop("i", m);
  attention.j = loop("j", n);
  attention.head_dim = c.head_dim;
  attention.value_dim = c.value_dim;
  attention.scale = c.scale;
  contraction.dtype = c.dtype;
  attention.formats = contraction.formats();
  attention.causal = c.causal;
  const int64_t all = c.heads * c.group;
  attention.q = heads_view(
      contraction.input({c.batch, m, all, c.head_dim}, {c.batch, c.queries, all, c.head_dim}), m,
      c.heads, c.group, c.head_dim, true);
  attention.k = heads_view(
      contraction.input({c.batch, n, c.heads, c.head_dim}, {c.batch, c.keys, c.heads, c.head_dim}),
      n, c.heads, c.group, c.head_dim, false);
  attention.v = heads_view(contraction.input({c.batch, n, c.heads, c.value_dim},
                                             {c.batch, c.keys, c.heads, c.value_dim}),
                           n, c.heads, c.group, c.value_dim, false);
  contraction.dtype = DType::F32;
  add_mask(contraction, attention, c);
  attention.out = heads_view(contraction.output({c.batch, m, all, c.value_dim}), m, c.heads,
                             c.group, c.value_dim, true);
  contraction.add_kernel(std::move(attention));
  return contraction;
}

void check(const Case& c) {
  SCOPED_TRACE(c.name());
  expect_matches_interpreter(make_attention(c), tolerance_of(c.dtype));
}

TEST(ContractionAttention, EveryRowCount) {
  for (int64_t queries = 1; queries <= 34; ++queries)
    check({.batch = 1, .heads = 1, .queries = queries});
  for (int64_t queries : {63, 64, 65, 100, 129})
    check({.batch = 1, .heads = 1, .queries = queries});
}

TEST(ContractionAttention, EveryKeyCount) {
  for (int64_t keys = 1; keys <= 34; ++keys)
    check({.batch = 1, .heads = 1, .queries = 5, .keys = keys});
  for (int64_t keys : {47, 48, 49, 64, 96, 97, 144, 200})
    check({.batch = 1, .queries = 5, .keys = keys});
}

TEST(ContractionAttention, HeadDimensions) {
  for (int64_t dim : {1, 8, 17, 32, 40, 64, 80, 96, 128}) {
    check({.heads = 2, .queries = 20, .keys = 30, .head_dim = dim, .value_dim = dim});
  }
  check({.head_dim = 24, .value_dim = 56});
}

TEST(ContractionAttention, Causal) {
  for (int64_t size : {1, 2, 15, 16, 17, 48, 70, 130})
    check({.heads = 1, .queries = size, .keys = size, .causal = true});
  check({.queries = 40, .keys = 20, .causal = true});
  check({.queries = 20, .keys = 40, .causal = true});
}

TEST(ContractionAttention, Masks) {
  for (Mask mask : {Mask::Keep, Mask::KeepNothingSometimes, Mask::Bias}) {
    check({.mask = mask});
    check({.queries = 70, .keys = 50, .mask = mask});
    check({.queries = 33, .keys = 33, .causal = true, .mask = mask});
  }
}

// Rows of K that are whole vectors are read where they lie: numbers of keys that fill vectors and panels or not, heads of one
// vector to more than are held in registers.
TEST(ContractionAttention, SingleQuery) {
  for (int64_t keys : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 65, 96, 256, 257})
    check({.queries = 1, .keys = keys, .head_dim = 64, .value_dim = 64});
  for (int64_t dim : {8, 16, 20, 24, 32, 48, 64, 72, 96, 128, 144, 256})
    check({.queries = 1, .keys = 50, .head_dim = dim, .value_dim = 32});
  for (Mask mask : {Mask::Keep, Mask::KeepNothingSometimes, Mask::Bias}) {
    for (int64_t keys : {1, 31, 32, 33})
      check({.queries = 1, .keys = keys, .head_dim = 32, .mask = mask});
  }
  check({.queries = 1, .keys = 20, .causal = true});
  for (DType dtype : {DType::F32, DType::F16, DType::BF16})
    check({.group = 4, .queries = 1, .keys = 70, .head_dim = 64, .dtype = dtype});
}

// V of several heads, whose rows lie apart, is packed for many rows of queries: columns and keys that fill its panels or not.
TEST(ContractionAttention, ValuesOfSeveralHeads) {
  for (int64_t queries : {47, 48, 49, 100}) {
    for (int64_t dim : {1, 16, 17, 32, 40, 64})
      check({.heads = 2, .queries = queries, .keys = 50, .head_dim = 16, .value_dim = dim});
    for (int64_t keys : {1, 31, 32, 97}) check({.queries = queries, .keys = keys});
  }
  check({.heads = 2, .group = 2, .queries = 60, .keys = 60, .causal = true});
}

// Powers of two: of scores that differ by more than what f32 has numbers for.
TEST(ContractionAttention, ScoresFarApart) {
  for (double scale : {4.0, 20.0, 3000.0})
    check({.queries = 30, .keys = 70, .mask = Mask::Bias, .scale = scale});
}

TEST(ContractionAttention, SixteenBitOperands) {
  for (DType dtype : {DType::F16, DType::BF16}) {
    for (int64_t queries : {1, 5, 15, 16, 40, 70}) {
      for (int64_t keys : {1, 7, 16, 48, 100})
        check({.heads = 1, .queries = queries, .keys = keys, .dtype = dtype});
    }
    for (int64_t dim : {1, 17, 40, 64})
      check({.queries = 20, .head_dim = dim, .value_dim = dim, .dtype = dtype});
    check({.heads = 2, .group = 4, .queries = 20, .keys = 20, .causal = true, .dtype = dtype});
    check({.queries = 70, .keys = 50, .mask = Mask::Bias, .dtype = dtype});
  }
}

// Tiles of AMX: rows, keys and head dimensions that fill them or do not.
TEST(ContractionAttention, Tiles) {
  const auto check_bf16 = [](Case c) {
    c.dtype = DType::BF16;
    SCOPED_TRACE(c.name());
    expect_tiles_match_interpreter(make_attention(c), tolerance_of(c.dtype));
  };
  const Case usual{.queries = 5, .dtype = DType::BF16};
  EXPECT_TRUE(serves("x86-64-v4-amx", make_attention(usual).program));
  if (const std::string reason = missing_amx(); !reason.empty()) GTEST_SKIP() << reason;
  for (int64_t queries : {5, 15, 16, 17, 31, 33, 65, 130})
    check_bf16({.batch = 1,
                .heads = 2,
                .queries = queries,
                .keys = queries,
                .head_dim = 64,
                .value_dim = 64});
  for (int64_t keys : {1, 2, 31, 32, 33, 48, 63, 64, 65, 97})
    check_bf16({.batch = 1, .queries = 20, .keys = keys, .head_dim = 32, .value_dim = 32});
  for (int64_t dim : {16, 18, 24, 40, 48, 80, 96, 128})
    check_bf16({.heads = 2, .queries = 20, .keys = 30, .head_dim = dim, .value_dim = dim});
  for (int64_t size : {5, 17, 33, 70, 130})
    check_bf16({.heads = 1, .queries = size, .keys = size, .causal = true});
  for (Mask mask : {Mask::Keep, Mask::KeepNothingSometimes, Mask::Bias})
    check_bf16({.queries = 30, .keys = 45, .mask = mask});
  for (int64_t size : {1, 6, 33, 64, 65, 200})
    check_bf16(
        {.heads = 1, .queries = size, .keys = size, .causal = size % 2 == 0, .dynamic = true});
}

TEST(ContractionAttention, GroupedHeads) {
  check({.heads = 2, .group = 4, .queries = 20, .keys = 20, .causal = true});
  check({.heads = 1, .group = 3});
}

// Compiled once and run with every size; `keys` is how many more keys there are than queries.
void check_run_time_sizes(Case c, int64_t keys) {
  c.dynamic = true;
  SCOPED_TRACE(c.name());
  std::vector<ContractionProgram> runs;
  for (int64_t size : {1, 3, 8, 16, 31, 64, 100}) {
    if (size > 31 && !kTakesLarge) break;
    c.queries = size;
    c.keys = size + keys;
    runs.push_back(make_attention(c));
  }
  expect_runs_match_interpreter(runs, tolerance_of(c.dtype));
}

TEST(ContractionAttention, RunTimeSizes) {
  check_run_time_sizes({}, 2);
  check_run_time_sizes({.causal = true}, 0);
  check_run_time_sizes({.mask = Mask::Keep}, 1);
  check_run_time_sizes({.group = 4, .head_dim = 64, .value_dim = 64, .mask = Mask::Keep}, 20);
  check_run_time_sizes({.dtype = DType::BF16}, 2);
  check_run_time_sizes({.causal = true, .dtype = DType::F16}, 0);
  check_run_time_sizes({.head_dim = 20, .value_dim = 20, .mask = Mask::Bias}, 0);
}

// The sums of the interpreter are the less accurate ones here.
TEST(ContractionAttention, LongRows) {
  const Case c{.batch = 1, .heads = 1, .queries = 40, .keys = 3000};
  expect_matches_interpreter(make_attention(c), 1e-5);
}

// The softmax neither overflows nor loses a row whose scores are all very negative.
TEST(ContractionAttention, LargeScores) {
  check({.queries = 20, .keys = 20, .scale = 100});
  check({.queries = 20, .keys = 20, .causal = true, .scale = 100});
  check({.queries = 20, .keys = 20, .scale = -50});
}

}  // namespace
}  // namespace kiln::test
