// What PyTorch cannot ask of the reference: channels-last layouts, sizes, and errors. Values of the
// ops themselves are compared with PyTorch in tests/python/conformance.
#include "backends/reference/reference.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "ir/builder.h"
#include "support/error.h"

namespace kiln::reference {
namespace {

using ir::Literal;
using ir::Op;

Literal make(std::vector<int64_t> shape, const std::vector<double>& values,
             DType dtype = DType::F32) {
  std::byte* data = nullptr;
  Literal literal = Literal::allocate(dtype, std::move(shape), &data);
  for (size_t i = 0; i < values.size(); ++i)
    Literal::set(data, dtype, static_cast<int64_t>(i), values[i]);
  return literal;
}

// 0, 1, 2, ...
Literal count_up(std::vector<int64_t> shape, DType dtype = DType::F32) {
  int64_t elements = 1;
  for (int64_t size : shape) elements *= size;
  std::vector<double> values(elements);
  std::iota(values.begin(), values.end(), 0.0);
  return make(std::move(shape), values, dtype);
}

std::vector<double> values_of(const Literal& literal) {
  std::vector<double> values;
  for (int64_t i = 0; i < literal.elements(); ++i) values.push_back(literal.as_double(i));
  return values;
}

// One op applied to constants.
Literal apply(Op op, const std::vector<Literal>& operands, ir::Attrs attrs = {}) {
  ir::Graph graph;
  ir::Builder builder(graph);
  std::vector<ir::Value*> inputs;
  for (const Literal& operand : operands) inputs.push_back(builder.constant(operand));
  graph.set_outputs({builder.value(op, inputs, std::move(attrs))});
  return run(graph, {}).front();
}

Literal permute(const Literal& x, std::vector<int64_t> axes) {
  return apply(Op::permute, {x}, {{"axes", std::move(axes)}});
}

const std::vector<int64_t> kLast{0, 2, 3, 1}, kFirst{0, 3, 1, 2};

ir::Attrs window(const std::string& layout) {
  const std::vector<int64_t> ones{1, 1};
  return {{"stride", std::vector<int64_t>{2, 1}},
          {"padding_before", ones},
          {"padding_after", ones},
          {"layout", layout}};
}

TEST(ReferenceTest, ChannelsLastConvolutionIsTheSame) {
  const Literal x = count_up({2, 3, 4, 5}), weight = count_up({6, 3, 3, 2}), bias = count_up({6});
  ir::Attrs attrs = window("nchw");
  attrs.emplace("dilation", std::vector<int64_t>{1, 1});
  attrs.emplace("groups", int64_t{1});
  const Literal first = apply(Op::convolution, {x, weight, bias}, attrs);
  attrs.insert_or_assign("layout", std::string("nhwc"));
  const Literal last =
      apply(Op::convolution, {permute(x, kLast), permute(weight, kLast), bias}, attrs);
  EXPECT_EQ(permute(last, kFirst).shape, first.shape);
  EXPECT_EQ(values_of(permute(last, kFirst)), values_of(first));
}

TEST(ReferenceTest, ChannelsLastPoolsAreTheSame) {
  const Literal x = count_up({2, 3, 4, 5});
  for (const Op op : {Op::max_pool, Op::avg_pool}) {
    ir::Attrs attrs = window("nchw");
    attrs.emplace("kernel", std::vector<int64_t>{3, 2});
    if (op == Op::max_pool) attrs.emplace("dilation", std::vector<int64_t>{1, 1});
    if (op == Op::avg_pool) attrs.emplace("count_padding", false);
    const Literal first = apply(op, {x}, attrs);
    attrs.insert_or_assign("layout", std::string("nhwc"));
    const Literal last = apply(op, {permute(x, kLast)}, attrs);
    EXPECT_EQ(values_of(permute(last, kFirst)), values_of(first));
  }
}

TEST(ReferenceTest, TransposedOperandsOfMatmul) {
  const Literal a = count_up({2, 3}), b = count_up({4, 3});
  const Literal transposed = permute(b, {1, 0});
  EXPECT_EQ(values_of(apply(Op::matmul, {a, b}, {{"transpose_b", true}})),
            values_of(apply(Op::matmul, {a, transposed}, {{"transpose_b", false}})));
}

TEST(ReferenceTest, ReductionsOfNothing) {
  const ir::Attrs attrs{{"axes", std::vector<int64_t>{1}}, {"keepdim", false}};
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(values_of(apply(Op::reduce_sum, {make({2, 0}, {})}, attrs)),
            (std::vector<double>{0, 0}));
  EXPECT_EQ(values_of(apply(Op::reduce_prod, {make({1, 0}, {})}, attrs)), (std::vector<double>{1}));
  EXPECT_EQ(values_of(apply(Op::reduce_max, {make({1, 0}, {})}, attrs)),
            (std::vector<double>{-infinity}));
  EXPECT_EQ(values_of(apply(Op::reduce_min, {make({1, 0}, {}, DType::I8)}, attrs)),
            (std::vector<double>{127}));
  EXPECT_EQ(values_of(apply(Op::reduce_max, {make({1, 0}, {}, DType::U8)}, attrs)),
            (std::vector<double>{0}));
  EXPECT_EQ(values_of(apply(Op::reduce_max, {make({1, 0}, {}, DType::I32)}, attrs)),
            (std::vector<double>{std::numeric_limits<int32_t>::min()}));
}

TEST(ReferenceTest, IntegersWrap) {
  const Literal x = make({2}, {127, -128}, DType::I8), one = make({}, {1}, DType::I8);
  EXPECT_EQ(values_of(apply(Op::add, {x, one})), (std::vector<double>{-128, -127}));
  EXPECT_EQ(values_of(apply(Op::neg, {x})), (std::vector<double>{-127, -128}));
  EXPECT_EQ(values_of(apply(Op::cast, {make({2}, {300, -1}, DType::I32)}, {{"dtype", DType::U8}})),
            (std::vector<double>{44, 255}));
}

TEST(ReferenceTest, DivisionByZeroDoesNotTrap) {
  const Literal x =
      make({2}, {7, static_cast<double>(std::numeric_limits<int64_t>::min())}, DType::I64);
  for (const Op op : {Op::div, Op::floor_div, Op::remainder, Op::fmod}) {
    for (const double divisor : {0.0, -1.0}) {
      EXPECT_EQ(apply(op, {x, make({}, {divisor}, DType::I64)}).elements(), 2);
    }
  }
}

TEST(ReferenceTest, IndicesAreChecked) {
  const Literal x = count_up({3, 2});
  const auto take = [&](double index) {
    return values_of(
        apply(Op::gather, {x, make({1}, {index}, DType::I64)}, {{"axis", int64_t{0}}}));
  };
  EXPECT_EQ(take(2), (std::vector<double>{4, 5}));
  EXPECT_EQ(take(-3), (std::vector<double>{0, 1}));
  EXPECT_THROW(take(3), CompileError);
  EXPECT_THROW(take(-4), CompileError);
}

TEST(ReferenceTest, SourcesUseSizes) {
  const ir::SymbolPtr size = ir::make_size_symbol("s", 1, 8, 2);
  ir::Graph graph;
  ir::Builder builder(graph);
  graph.add_input("x", {DType::F32, {size, 2}});
  const ir::Dim twice = ir::Dim(size) * 2;
  graph.set_outputs({
      builder.value(Op::iota, {},
                    {{"size", twice},
                     {"dtype", DType::I64},
                     {"start", ir::Dim(size)},
                     {"step", int64_t{-1}}}),
      builder.value(Op::dim_value, {}, {{"value", twice}, {"dtype", DType::F32}}),
      builder.value(Op::full, {},
                    {{"shape", ir::Shape{size}}, {"dtype", DType::Bool}, {"value", 1.0}}),
  });
  const std::vector<Literal> outputs = run(graph, std::vector<Literal>{count_up({3, 2})});
  EXPECT_EQ(values_of(outputs[0]), (std::vector<double>{3, 2, 1, 0, -1, -2}));
  EXPECT_EQ(values_of(outputs[1]), (std::vector<double>{6}));
  EXPECT_EQ(values_of(outputs[2]), (std::vector<double>{1, 1, 1}));
}

class RunErrorTest : public testing::Test {
 protected:
  RunErrorTest() {
    const ir::SymbolPtr size = ir::make_size_symbol("s", 1, 8, 2);
    ir::Value* x = graph_.add_input("x", {DType::F32, {size, 2}});
    graph_.add_input("y", {DType::F32, {size}});
    graph_.set_outputs({x});
  }
  std::string message_of(const std::vector<Literal>& inputs) {
    try {
      run(graph_, inputs);
    } catch (const CompileError& error) {
      return error.what();
    }
    return "no error";
  }

  ir::Graph graph_;
};

TEST_F(RunErrorTest, NamesInputDimensionAndRange) {
  EXPECT_EQ(message_of({count_up({3, 2}), count_up({3})}), "no error");
  EXPECT_EQ(message_of({count_up({3, 2})}), "[run] got 1 inputs, expected 2");
  EXPECT_EQ(message_of({count_up({9, 2}), count_up({9})}),
            "[run] got 9 for input x dimension 0, expected 1 to 8");
  EXPECT_EQ(message_of({count_up({3, 4}), count_up({3})}),
            "[run] got 4 for input x dimension 1, expected 2");
  EXPECT_EQ(message_of({count_up({3, 2}), count_up({4})}),
            "[run] got 4 for input y dimension 0, expected 3");
  EXPECT_EQ(message_of({count_up({3, 2}, DType::F64), count_up({3})}),
            "[run] got f64[3, 2] for input x, expected f32[s, 2]");
}

}  // namespace
}  // namespace kiln::reference
