// Each rule of docs/ir.md broken once; the verifier must name it.
#include "ir/verify.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "ir/builder.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

class VerifyTest : public testing::Test {
 protected:
  VerifyTest() { graph_.set_outputs({z_}, {"z"}); }

  void expect_broken(const std::string& rule) {
    try {
      verify(graph_);
      FAIL() << "nothing found";
    } catch (const InternalError& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("rule " + rule + " broken"))
          << error.what();
    }
  }

  Graph graph_;
  SymbolPtr s_ = make_size_symbol("s", 1, 8, 4);
  Value* x_ = graph_.add_input("x", {DType::F32, {s_, 4}});
  Value* y_ = Builder(graph_).value(Op::neg, {x_});
  Value* z_ = Builder(graph_).value(Op::softmax, {y_}, {{"axis", int64_t{1}}});
};

TEST_F(VerifyTest, AcceptsAGoodGraph) { EXPECT_NO_THROW(verify(graph_)); }

TEST_F(VerifyTest, R1NamesAreUnique) {
  y_->name = "x";
  expect_broken("R1");
}

TEST_F(VerifyTest, R1NamesAreNotEmpty) {
  y_->name = "";
  expect_broken("R1");
}

TEST_F(VerifyTest, R1SymbolNamesAreUnique) {
  graph_.add_input("w", {DType::F32, {make_size_symbol("s", 1, 8, 4)}});
  expect_broken("R1");
}

TEST_F(VerifyTest, R2ValuesKnowTheirProducer) {
  y_->producer = z_->producer;
  expect_broken("R2");
}

TEST_F(VerifyTest, R2InputsKnowTheirPlace) {
  x_->index = 1;
  expect_broken("R2");
}

TEST_F(VerifyTest, R2NodesHaveOutputs) {
  graph_.add_node(Op::neg, {x_}, {}, {});
  expect_broken("R2");
}

TEST_F(VerifyTest, R2UsesAreCounted) {
  y_->producer->inputs[0] = z_;
  expect_broken("R2");
}

TEST_F(VerifyTest, R3OperandsComeFirst) {
  graph_.set_input(y_->producer, 0, z_);
  expect_broken("R3");
}

TEST_F(VerifyTest, R3OutputsBelongToTheGraph) {
  Graph other;
  graph_.set_outputs({other.add_input("x", {DType::F32, {}})});
  expect_broken("R3");
}

TEST_F(VerifyTest, R4OperandCountFits) {
  graph_.add_node(y_->producer->op, {x_, x_, x_}, {}, {y_->type});
  expect_broken("R4");
}

TEST_F(VerifyTest, R4RequiredOperandsArePresent) {
  graph_.set_input(y_->producer, 0, nullptr);
  expect_broken("R4");
}

TEST_F(VerifyTest, R5AttributesArePresent) {
  z_->producer->attrs.clear();
  expect_broken("R5");
}

TEST_F(VerifyTest, R5AttributesHaveTheirType) {
  z_->producer->attrs["axis"] = 1.0;
  expect_broken("R5");
}

TEST_F(VerifyTest, R5AttributesAreKnown) {
  z_->producer->attrs["speed"] = int64_t{1};
  expect_broken("R5");
}

TEST_F(VerifyTest, R6TypesAreInferred) {
  z_->type.shape[1] = 5;
  expect_broken("R6");
}

TEST_F(VerifyTest, R6OperandsFit) {
  z_->producer->attrs["axis"] = int64_t{2};
  expect_broken("R6");
}

TEST_F(VerifyTest, R6FilledTensorsHoldTheirNumber) {
  Builder builder(graph_);
  Value* filled =
      builder.value(Op::full, {}, {{"shape", Shape{2}}, {"dtype", DType::I32}, {"value", 1.0}});
  const auto refuses = [&](DType dtype, double value) {
    filled->type.dtype = dtype;
    filled->producer->attrs["dtype"] = dtype;
    filled->producer->attrs["value"] = value;
    try {
      verify(graph_);
    } catch (const InternalError&) {
      return true;
    }
    return false;
  };
  for (const auto& [dtype, value] : {std::pair{DType::I32, 0.5},
                                     {DType::U8, -1.0},
                                     {DType::Bool, 2.0},
                                     {DType::I64, 0x1p63},
                                     {DType::I8, std::nan("")},
                                     {DType::F16, 0.1},
                                     {DType::F32, 0.1}})
    EXPECT_TRUE(refuses(dtype, value)) << dtype_name(dtype) << " " << value;
  for (const auto& [dtype, value] : {std::pair{DType::U8, 255.0},
                                     {DType::I64, -0x1p63},
                                     {DType::F16, -0.0},
                                     {DType::BF16, std::nan("")},
                                     {DType::F64, 0.1}})
    EXPECT_FALSE(refuses(dtype, value)) << dtype_name(dtype) << " " << value;
}

TEST_F(VerifyTest, R7SizesMentionInputSymbolsOnly) {
  Builder(graph_).value(
      Op::full, {},
      {{"shape", Shape{make_size_symbol("t", 1, 2, 1)}}, {"dtype", DType::F32}, {"value", 0.0}});
  expect_broken("R7");
}

TEST_F(VerifyTest, R7SizesAreFoundOnceAndBeforeTheyAreUsed) {
  Value* count = graph_.add_input("count", {DType::I64, {}});
  const SymbolPtr found = make_size_symbol("u", 0, 9, 4);
  const Attrs sizes = {{"shape", Shape{found}}, {"dtype", DType::F32}, {"value", 0.0}};
  Builder builder(graph_);
  Node* node = builder.node(Op::data_size, {count}, {{"size", Dim(found)}});
  builder.value(Op::full, {}, sizes);
  EXPECT_NO_THROW(verify(graph_));
  EXPECT_EQ(graph_.data_symbols(), std::vector<SymbolPtr>{found});
  Builder(graph_, node).value(Op::full, {}, sizes);
  expect_broken("R7");
}

TEST_F(VerifyTest, R7RangesAreOrdered) {
  graph_.add_input("w", {DType::F32, {make_size_symbol("t", 4, 8, 2)}});
  expect_broken("R7");
}

TEST_F(VerifyTest, R7SizesAreNotNegative) {
  graph_.add_input("w", {DType::F32, {-1}});
  expect_broken("R7");
}

TEST_F(VerifyTest, R8OutputNamesAreUnique) {
  graph_.set_outputs({y_, z_}, {"out", "out"});
  expect_broken("R8");
}

TEST_F(VerifyTest, R9OutputsUpdateInputsOfTheirType) {
  Value* other = graph_.add_input("other", z_->type);
  graph_.set_outputs({z_, z_}, {"a", "b"});
  const size_t at = other->index;
  graph_.updates = {{0, at}};
  EXPECT_NO_THROW(verify(graph_));
  graph_.updates = {{0, at}, {1, at}};
  expect_broken("R9");
  graph_.updates = {{2, at}};
  expect_broken("R9");
  graph_.updates = {{0, at + 1}};
  expect_broken("R9");
  const size_t scalar = graph_.add_input("scalar", {DType::F32, {}})->index;
  graph_.updates = {{0, scalar}};
  expect_broken("R9");
}

}  // namespace
}  // namespace kiln::ir
