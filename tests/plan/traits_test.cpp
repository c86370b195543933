// What the traits of a target decide: the forms of kernels, what epilogues hold and how much is
// computed twice. That the numbers stay the same is checked here, by lower_test and by random_test.
#include <gtest/gtest.h>

#include <algorithm>

#include "plan/compare.h"
#include "plan/form/kernels.h"

namespace kiln::plan {
namespace {

constexpr const char* kBlock =
    R"(graph main(%x: f32[s, 8, 8], %w1: f32[8, 8], %w2: f32[16, 8], %wb: f32[16])
    symbols s in [1, 8] opt 2 {
  %q = reshape(%x) {shape = [s, 8, 2, 4]}
  %p = permute(%q) {axes = [0, 2, 1, 3]}
  %a = attention(%p, %p, %p) {causal = true, scale = 0.5}
  %b = permute(%a) {axes = [0, 2, 1, 3]}
  %c = reshape(%b) {shape = [s, 8, 8]}
  %d = linear(%c, %w1)
  %e = add(%d, %x)
  %f = linear(%e, %w2, %wb)
  %y = gelu(%f) {approximate = "none"}
  return %y as "y"
})";

Program planned(const std::string& text, const TargetTraits& traits) {
  return expect_same_as_reference(text, {.traits = traits});
}

template <typename Form>
size_t count(const Program& program) {
  return static_cast<size_t>(std::ranges::count_if(program.kernels, [](const Kernel& kernel) {
    return std::holds_alternative<Form>(kernel.body);
  }));
}

TEST(TraitsTest, WithoutFormsEverythingIsLoopNests) {
  const Program program = planned(kBlock, {});
  EXPECT_EQ(count<LoopNest>(program), program.kernels.size()) << to_text(program);
}

TEST(TraitsTest, FormsAreChosenByElementType) {
  for (const DType dtype : {DType::F32, DType::F64}) {
    const std::string type(dtype_name(dtype));
    const std::string text = "graph main(%x: " + type + "[3, 4], %w: " + type +
                             "[4, 4]) {\n  %y = linear(%x, %w)\n  return %y\n}";
    TargetTraits traits = test_traits();
    traits.matmul = {dtype};
    EXPECT_EQ(count<MatMul>(lower(make_graph(text), traits)), 1U);
    traits.matmul = {dtype == DType::F32 ? DType::F64 : DType::F32};
    EXPECT_EQ(count<LoopNest>(lower(make_graph(text), traits)), 1U);
  }
}

// 32 sums are enough tasks for 8 threads, but not where a vector holds 16 of them.
TEST(TraitsTest, ReductionsThatAreMadeAtOnceCountAsOne) {
  const std::string apart =
      "graph main(%x: f32[100, 200, 32]) {\n  %y = reduce_sum(%x) {axes = [0, 1], keepdim = "
      "false}\n  return %y\n}";
  const std::string behind =
      "graph main(%x: f32[32, 20000]) {\n  %y = reduce_sum(%x) {axes = [1], keepdim = false}\n  "
      "return %y\n}";
  TargetTraits traits = test_traits();
  traits.few_reductions = 8;
  EXPECT_EQ(planned(apart, traits).kernels.size(), 1U);
  traits.reduced_at_once = 16;
  EXPECT_EQ(planned(apart, traits).kernels.size(), 2U);
  EXPECT_EQ(planned(behind, traits).kernels.size(), 1U);
}

TEST(TraitsTest, HalfPrecisionIsMultipliedAsItIsWhereTheMachineCan) {
  const std::string text =
      "graph main(%x: bf16[3, 4], %w: bf16[4, 4]) {\n  %y = linear(%x, %w)\n  return %y\n}";
  TargetTraits traits = test_traits();
  const auto formats = [&] {
    return std::get<MatMul>(planned(text, traits).kernels.front().body).formats;
  };
  EXPECT_EQ(formats(), (Formats{DType::F32, DType::F32, DType::F32, DType::BF16}));
  traits.native_16_bit = true;
  EXPECT_EQ(formats(), (Formats{DType::BF16, DType::BF16, DType::F32, DType::BF16}));
}

TEST(TraitsTest, HalfPrecisionNestsSumInF32) {
  TargetTraits traits;
  const Program program = expect_same_as_reference(
      "graph main(%x: f16[3, 40], %w: f16[5, 40]) {\n  %y = linear(%x, %w)\n  return %y\n}",
      {.tolerance = 2e-3, .traits = traits});
  const auto& nest = std::get<LoopNest>(program.kernels.at(0).body);
  EXPECT_EQ(std::get<Reduction>(nest.stages.at(0)).value->dtype, DType::F32) << to_text(program);
}

TEST(TraitsTest, EpiloguesOfTheOpAloneHoldItsBias) {
  TargetTraits traits = test_traits();
  traits.epilogue = EpilogueRule::OwnBias;
  const Program program = planned(kBlock, traits);
  EXPECT_EQ(count<MatMul>(program), 2U) << to_text(program);
  for (const Kernel& kernel : program.kernels) {
    const auto* matmul = std::get_if<MatMul>(&kernel.body);
    if (matmul == nullptr) continue;
    EXPECT_LE(operation_count(matmul->epilogue), 1) << to_text(program);
  }
  EXPECT_LT(planned(kBlock, test_traits()).kernels.size(), program.kernels.size());
}

// A bias that is looked up, column by column.
TEST(TraitsTest, EpiloguesLoadUnevenlyWhereTheTargetCan) {
  const std::string text = R"(graph main(%x: f32[3, 4], %t: f32[9], %i: i64[6], %w: f32[6, 4]) {
  %m = linear(%x, %w)
  %g = gather(%t, %i) {axis = 0}
  %y = add(%m, %g)
  return %y
})";
  TargetTraits traits = test_traits();
  traits.round_trip_cost = 1000;  // the look-up is made in every row
  traits.epilogue = EpilogueRule::AnyLoads;
  EXPECT_EQ(planned(text, traits).kernels.size(), 1U);
  traits.epilogue = EpilogueRule::EvenLoads;
  EXPECT_EQ(planned(text, traits).kernels.size(), 2U);
  traits.epilogue = EpilogueRule::OwnBias;
  EXPECT_EQ(planned(text, traits).kernels.size(), 2U);
}

TEST(TraitsTest, NarrowGroupsAreNests) {
  const std::string text = R"(graph main(%x: f32[2, 5, 5, 12], %w: f32[8, 3, 3, 3]) {
  %y = convolution(%x, %w) {dilation = [1, 1], groups = 4, layout = "nhwc", padding_after = [1, 1],
    padding_before = [1, 1], stride = [1, 1]}
  return %y
})";
  TargetTraits traits = test_traits();
  traits.min_group_channels = 3;
  EXPECT_EQ(count<Convolution>(planned(text, traits)), 1U);
  traits.min_group_channels = 4;
  EXPECT_EQ(count<Convolution>(planned(text, traits)), 0U);
}

// The patches of an image of few channels: copied to rows from where the image lies, and multiplied.
TEST(TraitsTest, WindowsApartAreRowsOfAMatMul) {
  const std::string ending =
      " {dilation = [1, 1], groups = 1, layout = \"nhwc\", padding_after = [0, 0],\n"
      "    padding_before = [0, 0], stride = [2, 4]}\n  return %y\n}";
  const std::string last =
      "graph main(%x: f32[s, 7, t, 3], %w: f32[5, 2, 4, 3], %wb: f32[5])"
      " symbols s in [1, 8] opt 2, t in [4, 20] opt 9 {\n"
      "  %y = convolution(%x, %w, %wb)" +
      ending;
  const std::string first =
      "graph main(%i: f32[s, 3, 7, t], %w: f32[5, 2, 4, 3])"
      " symbols s in [1, 8] opt 2, t in [4, 20] opt 9 {\n"
      "  %x = permute(%i) {axes = [0, 2, 3, 1]}\n"
      "  %y = convolution(%x, %w)" +
      ending;
  TargetTraits traits = test_traits();
  for (const std::string& text : {last, first}) {
    traits.max_patch_channels = 3;
    const Program program = planned(text, traits);
    EXPECT_EQ(count<MatMul>(program), 1U) << to_text(program);
    EXPECT_EQ(program.kernels.size(), 2U) << to_text(program);
    traits.max_patch_channels = 2;
    EXPECT_EQ(count<Convolution>(planned(text, traits)), 1U);
  }
  traits.max_patch_channels = 3;
  std::string overlapping = last;
  overlapping.replace(overlapping.find("[2, 4]}"), 6, "[2, 3]");
  EXPECT_EQ(count<Convolution>(planned(overlapping, traits)), 1U);
}

// A residual that nobody reads any more, and the sum with it.
TEST(TraitsTest, ResultsLieApartWhereTheTargetWantsIt) {
  const std::string text =
      R"(graph main(%x: f32[3, 4], %w: f32[4, 4]) {
  %r = softmax(%x) {axis = 1}
  %l = linear(%r, %w)
  %a = linear(%l, %w)
  %s = add(%a, %r)
  %y = softmax(%s) {axis = 0}
  return %y
})";
  TargetTraits traits = test_traits();
  const auto aliases = [](const Program& program) {
    return std::ranges::count_if(program.buffers,
                                 [](const Buffer& buffer) { return buffer.alias_of >= 0; });
  };
  EXPECT_EQ(aliases(planned(text, traits)), 1);
  traits.results_apart = true;
  EXPECT_EQ(aliases(planned(text, traits)), 0);
}

size_t occurrences(const Program& program, ir::Op op) {
  size_t result = 0;
  for (const Kernel& kernel : program.kernels) {
    for_each_expr(kernel, [&](const Expr& expr) {
      visit(expr, [&](const ExprNode& node) {
        result += node.kind == ExprKind::Apply && node.op == op ? 1 : 0;
      });
    });
  }
  return result;
}

// exp(x), read by two kernels that cannot be one.
TEST(TraitsTest, WorkIsRepeatedWithinTheCostOfARoundTrip) {
  const std::string text = R"(graph main(%x: f32[40, 30]) {
  %e = exp(%x)
  %a = reduce_sum(%e) {axes = [0], keepdim = false}
  %b = reduce_sum(%e) {axes = [1], keepdim = false}
  return %a, %b
})";
  TargetTraits traits = test_traits();
  traits.round_trip_cost = 11;  // a series and a load
  EXPECT_EQ(occurrences(planned(text, traits), ir::Op::exp), 2U);
  traits.round_trip_cost = 10;
  EXPECT_EQ(occurrences(planned(text, traits), ir::Op::exp), 1U);
  traits.series_cost = 9;
  EXPECT_EQ(occurrences(planned(text, traits), ir::Op::exp), 2U);
}

TEST(TraitsTest, ExpressionsStayWithinTheRegisters) {
  std::string text = "graph main(%x: f32[40], %z: f32[40]) {\n  %v0 = add(%x, %z)\n";
  for (int i = 0; i < 12; ++i) {
    const std::string last = "%v" + std::to_string(i), next = "%v" + std::to_string(i + 1);
    text += "  " + next + " = " + (i % 2 == 0 ? "mul(" : "sub(") + last + ", %x)\n";
  }
  text += "  return %v12\n}";
  TargetTraits traits = test_traits();
  for (const int64_t most : {13, 6, 1}) {
    traits.max_operations = most;
    const Program program = planned(text, traits);
    EXPECT_EQ(program.kernels.size(), static_cast<size_t>((13 + most - 1) / most));
    for (const Kernel& kernel : program.kernels) {
      for_each_expr(kernel, [&](const Expr& e) { EXPECT_LE(operation_count(e), most); });
    }
  }
  traits = test_traits();
  traits.max_loads = 1;
  EXPECT_GT(planned(text, traits).kernels.size(), 1U);
}

bool any_fixed_weight(const Program& program) {
  return std::ranges::any_of(program.buffers, [](const Buffer& buffer) {
    return buffer.kind == BufferKind::Constant && !buffer.literal.replaceable;
  });
}

// Whatever is made of weights that a refit may replace is replaceable.
TEST(TraitsTest, DerivedConstantsStayReplaceable) {
  const std::string projections = R"(graph main(%x: f32[3, 4], %w1: f32[6, 4], %w2: f32[5, 4]) {
  %a = linear(%x, %w1)
  %b = linear(%x, %w2)
  %c = reshape(%a) {shape = [18]}
  %d = reshape(%b) {shape = [15]}
  %y = concat(%c, %d) {axis = 0}
  %z = reduce_sum(%a) {axes = [0], keepdim = false}
  %v = reduce_sum(%b) {axes = [0], keepdim = false}
  return %z, %v, %y
})";
  const std::string depthwise = R"(graph main(%x: f32[2, 5, 5, 4], %w: f32[4, 3, 3, 1]) {
  %y = convolution(%x, %w) {dilation = [1, 1], groups = 4, layout = "nhwc", padding_after = [1, 1],
    padding_before = [1, 1], stride = [1, 1]}
  return %y
})";
  const std::string patches = R"(graph main(%i: f32[2, 3, 4, 4], %w: f32[4, 2, 2, 3]) {
  %x = permute(%i) {axes = [0, 2, 3, 1]}
  %y = convolution(%x, %w) {dilation = [1, 1], groups = 1, layout = "nhwc", padding_after = [0, 0],
    padding_before = [0, 0], stride = [2, 2]}
  return %y
})";
  Case options;
  options.traits = test_traits();
  options.traits.max_patch_channels = 3;
  for (const std::string& text : {projections, depthwise, patches}) {
    ir::Graph graph = make_graph(text);
    EXPECT_TRUE(any_fixed_weight(expect_same_as_reference(graph, options)));
    for (const auto& node : graph.nodes()) {
      if (node->op != ir::Op::constant) continue;
      auto literal = node->attr<ir::Literal>("value");
      literal.replaceable = true;
      node->attrs["value"] = literal;
    }
    const Program program = expect_same_as_reference(graph, options);
    EXPECT_FALSE(any_fixed_weight(program)) << to_text(program);
  }
}

}  // namespace
}  // namespace kiln::plan
