#include "ir/graph.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

std::vector<std::string> names(const Graph& graph) {
  std::vector<std::string> result;
  for (const auto& node : graph.nodes()) result.push_back(node->output()->name);
  return result;
}

class GraphTest : public testing::Test {
 protected:
  Graph graph_;
  Value* x_ = graph_.add_input("x", {DType::F32, {4}});
  Builder builder_{graph_};
};

TEST_F(GraphTest, NamesAreUnique) {
  EXPECT_EQ(builder_.value(Op::neg, {x_})->name, "neg");
  EXPECT_EQ(builder_.value(Op::neg, {x_})->name, "neg_1");
  EXPECT_EQ(graph_.add_input("x", {DType::F32, {}})->name, "x_1");
  EXPECT_EQ(graph_.unique_name("y"), "y");
  EXPECT_EQ(graph_.unique_name("y_1"), "y_1");
  EXPECT_EQ(graph_.unique_name("y"), "y_2");
}

TEST_F(GraphTest, RenamingFreesTheOldName) {
  Value* a = builder_.value(Op::neg, {x_});
  graph_.rename(a, "logits");
  EXPECT_EQ(a->name, "logits");
  EXPECT_EQ(builder_.value(Op::neg, {x_})->name, "neg");
  Value* b = builder_.value(Op::neg, {x_});
  graph_.rename(b, "logits");
  EXPECT_EQ(b->name, "logits_1");
}

TEST_F(GraphTest, InsertsBefore) {
  Value* a = builder_.value(Op::neg, {x_});
  Builder(graph_, a->producer).value(Op::exp, {x_});
  builder_.value(Op::abs, {x_});
  EXPECT_EQ(names(graph_), (std::vector<std::string>{"exp", "neg", "abs"}));
}

TEST_F(GraphTest, ReplacesEveryUse) {
  Value* a = builder_.value(Op::neg, {x_});
  Value* b = builder_.value(Op::add, {a, a});
  graph_.set_outputs({a, b});
  EXPECT_EQ(graph_.use_count(a), 3u);
  graph_.replace_all_uses(a, x_);
  EXPECT_EQ(graph_.use_count(a), 0u);
  EXPECT_EQ(b->producer->inputs, (std::vector<Value*>{x_, x_}));
  EXPECT_EQ(graph_.outputs()[0], x_);
}

TEST_F(GraphTest, ErasesOnlyWhatIsUnused) {
  Value* a = builder_.value(Op::neg, {x_});
  Value* b = builder_.value(Op::exp, {a});
  EXPECT_THROW(graph_.erase(a->producer), InternalError);
  graph_.erase(b->producer);
  graph_.erase(a->producer);
  EXPECT_TRUE(graph_.nodes().empty());
}

TEST_F(GraphTest, ErasesDeadChains) {
  Value* kept = builder_.value(Op::neg, {x_});
  builder_.value(Op::exp, {builder_.value(Op::abs, {kept})});
  graph_.set_outputs({kept});
  EXPECT_EQ(graph_.erase_dead(), 2u);
  EXPECT_EQ(names(graph_), std::vector<std::string>{"neg"});
}

TEST_F(GraphTest, ListsAUserForEachOperand) {
  Value* a = builder_.value(Op::add, {x_, x_});
  Value* b = builder_.value(Op::mul, {a, x_});
  const auto users = [&](const Value* value) {
    std::vector<Node*> list = graph_.users(value);
    std::ranges::sort(list, {}, [](const Node* node) { return node->output()->id; });
    return list;
  };
  EXPECT_EQ(users(x_), (std::vector<Node*>{a->producer, a->producer, b->producer}));
  EXPECT_TRUE(users(b).empty());
  graph_.replace_all_uses(a, x_);
  EXPECT_TRUE(users(a).empty());
  EXPECT_EQ(users(x_).size(), 4u);
}

TEST_F(GraphTest, SizeSymbolsAreThoseOfTheInputs) {
  const SymbolPtr first = make_size_symbol("a", 1, 2, 1), second = make_size_symbol("b", 1, 2, 1);
  graph_.add_input("y", {DType::F32, {second, Dim(first) * 2}});
  graph_.add_input("z", {DType::F32, {second}});
  EXPECT_EQ(graph_.size_symbols(), (std::vector<SymbolPtr>{first, second}));
}

TEST_F(GraphTest, AttributesKnowTheirType) {
  const Node* node =
      builder_.node(Op::reduce_sum, {x_}, {{"axes", std::vector<int64_t>{0}}, {"keepdim", true}});
  EXPECT_TRUE(node->attr<bool>("keepdim"));
  EXPECT_EQ(node->attr_or<int64_t>("missing", 7), 7);
  EXPECT_THROW(node->attr<bool>("missing"), InternalError);
  EXPECT_THROW(node->attr<double>("keepdim"), InternalError);
}

TEST_F(GraphTest, MovesWithItsNodes) {
  Value* a = builder_.value(Op::neg, {x_});
  graph_.set_outputs({a}, {"y"});
  Graph moved = std::move(graph_);
  Builder(moved, a->producer).value(Op::exp, {x_});
  EXPECT_EQ(names(moved), (std::vector<std::string>{"exp", "neg"}));
  EXPECT_EQ(moved.output_names(), std::vector<std::string>{"y"});
}

TEST(OpTableTest, NamesGoBothWays) {
  for (size_t i = 0; i < op_count(); ++i) {
    const Op op = static_cast<Op>(i);
    EXPECT_EQ(op_from_name(op_name(op)), op);
    EXPECT_FALSE(op_info(op).summary.empty() && op_info(op).name.empty());
  }
  EXPECT_FALSE(op_from_name("frobnicate").has_value());
}

TEST(OpTableTest, AttributesAreParsed) {
  ASSERT_NE(find_attribute(Op::avg_pool, "divisor"), nullptr);
  EXPECT_TRUE(find_attribute(Op::avg_pool, "divisor")->optional);
  EXPECT_EQ(find_attribute(Op::avg_pool, "kernel")->type, "ints");
  EXPECT_FALSE(find_attribute(Op::avg_pool, "kernel")->optional);
  EXPECT_EQ(find_attribute(Op::avg_pool, "speed"), nullptr);
  EXPECT_TRUE(attributes_of(Op::neg).empty());
}

}  // namespace
}  // namespace kiln::ir
