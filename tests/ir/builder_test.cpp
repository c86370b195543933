#include "ir/builder.h"

#include <gtest/gtest.h>

#include "support/error.h"

namespace kiln::ir {
namespace {

class BuilderTest : public testing::Test {
 protected:
  Graph graph_;
  Dim s_ = make_size_symbol("s", 1, 8, 4);
  Value* x_ = graph_.add_input("x", {DType::F32, {s_, 4}});
  Builder builder_{graph_};
};

TEST_F(BuilderTest, GivesTypesAndLocations) {
  builder_.set_location("model.py:3");
  const Node* node = builder_.node(Op::neg, {x_});
  EXPECT_EQ(node->output()->type, x_->type);
  EXPECT_EQ(node->location, "model.py:3");
}

TEST_F(BuilderTest, LeavesOutWhatDoesNothing) {
  EXPECT_EQ(builder_.cast(x_, DType::F32), x_);
  EXPECT_EQ(builder_.reshape(x_, {s_, 4}), x_);
  EXPECT_EQ(builder_.expand(x_, {s_, 4}), x_);
  EXPECT_TRUE(graph_.nodes().empty());
}

TEST_F(BuilderTest, MakesScalars) {
  EXPECT_EQ(builder_.scalar(DType::I64, 3)->type, (Type{DType::I64, {}}));
  EXPECT_EQ(builder_.cast(x_, DType::F16)->type.str(), "f16[s, 4]");
  EXPECT_EQ(builder_.reshape(x_, {4, s_})->type.str(), "f32[4, s]");
  EXPECT_EQ(builder_.permute(x_, {1, 0})->type.str(), "f32[4, s]");
  EXPECT_EQ(builder_.expand(x_, {2, s_, 4})->type.str(), "f32[2, s, 4]");
}

TEST_F(BuilderTest, FailedInferenceLeavesTheGraphAlone) {
  EXPECT_THROW(builder_.permute(x_, {0, 0}), CompileError);
  EXPECT_TRUE(graph_.nodes().empty());
}

TEST_F(BuilderTest, BroadcastsSymbolically) {
  EXPECT_EQ(broadcast_shapes({s_, 1}, {4}), (Shape{s_, 4}));
  EXPECT_EQ(broadcast_shapes({}, {s_}), (Shape{s_}));
  EXPECT_EQ(broadcast_shapes({1}, {s_}), (Shape{s_}));
  EXPECT_EQ(broadcast_shapes({s_ * 2}, {s_ + s_}), (Shape{s_ * 2}));
  EXPECT_EQ(broadcast_shapes({0}, {1}), (Shape{0}));
  EXPECT_THROW(broadcast_shapes({2}, {3}), CompileError);
  EXPECT_THROW(broadcast_shapes({s_}, {4}), CompileError);  // cannot be proven
}

}  // namespace
}  // namespace kiln::ir
