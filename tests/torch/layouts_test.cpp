#include "torch/layouts.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace kiln::torch_op {
namespace {

std::vector<int> order_of(const Layout& layout) {
  return {layout.order.begin(), layout.order.begin() + layout.rank};
}

TEST(Layouts, SpecsWithoutOrdersHaveNone) {
  for (const char* spec : {"", "f32[]", "f32[i0_0,8];i64[max(i0_0,2)]", ";;"}) {
    EXPECT_TRUE(parse_layouts(spec).results.empty()) << spec;
    EXPECT_TRUE(parse_layouts(spec).inputs.empty()) << spec;
  }
}

TEST(Layouts, EveryResultHasOne) {
  const std::vector<Layout> layouts =
      parse_layouts("f32[4]{0};i64[2,i0_0];f32[2,3,4]{2,0,1}").results;
  ASSERT_EQ(layouts.size(), 3u);
  EXPECT_EQ(order_of(layouts[0]), (std::vector<int>{0}));
  EXPECT_TRUE(layouts[1].is_row_major());
  EXPECT_EQ(order_of(layouts[2]), (std::vector<int>{2, 0, 1}));
  EXPECT_EQ(parse_layouts("{1,0};").results.size(), 2u);
  EXPECT_EQ(parse_layouts(";{1,0}").results.size(), 2u);
}

TEST(Layouts, InputsAreBehindTheResults) {
  const Layouts both = parse_layouts("f32[2,3]{1,0};f32[]<;{0,2,1}@cuda:0");
  ASSERT_EQ(both.results.size(), 2u);
  ASSERT_EQ(both.inputs.size(), 2u);
  EXPECT_TRUE(both.inputs[0].is_row_major());
  EXPECT_EQ(order_of(both.inputs[1]), (std::vector<int>{0, 2, 1}));
  const Layouts inputs = parse_layouts("f32[2,3]<{1,0}");
  EXPECT_TRUE(inputs.results.empty());
  EXPECT_EQ(inputs.inputs.size(), 1u);
}

TEST(Layouts, TakesInputsInTheirOrder) {
  const std::array<int64_t, 4> shape{2, 3, 5, 6}, strides{90, 1, 18, 3};
  const Placement taken = in_order(shape, strides, parse_layouts("<{0,2,3,1}").inputs[0]);
  EXPECT_EQ((std::vector<int64_t>{taken.shape.begin(), taken.shape.begin() + 4}),
            (std::vector<int64_t>{2, 5, 6, 3}));
  EXPECT_EQ((std::vector<int64_t>{taken.strides.begin(), taken.strides.begin() + 4}),
            (std::vector<int64_t>{90, 18, 3, 1}));
  EXPECT_THROW(in_order(shape, strides, parse_layouts("<{1,0}").inputs[0]), std::runtime_error);
}

TEST(Layouts, UpToSixteenDimensions) {
  const std::string order = "15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,0";
  EXPECT_EQ(parse_layouts("{" + order + "}").results[0].rank, 16);
  EXPECT_THROW(parse_layouts("{16," + order + "}"), std::runtime_error);
  EXPECT_THROW(parse_layouts("{0," + order + "}"), std::runtime_error);
}

TEST(Layouts, RefusesWhatIsNoOrder) {
  for (const char* spec : {"{",
                           "{}",
                           "{1}",
                           "{0,0}",
                           "{0,2}",
                           "{-1}",
                           "{0",
                           "{0,",
                           "{0,}",
                           "{,0}",
                           "{0}x",
                           "{0}}",
                           "{0 }",
                           "{ 0}",
                           "{0;1}",
                           "f32[2]<{1}",
                           "<{0}x",
                           "{a}",
                           "{0.0}",
                           "{99999999999999999999}",
                           "f32[2]{1,0};{"}) {
    EXPECT_THROW(parse_layouts(spec), std::runtime_error) << spec;
  }
}

TEST(Layouts, PlacesDimensionsInTheirOrder) {
  const Layout nhwc = parse_layouts("{0,2,3,1}").results[0];
  const std::array<int64_t, 4> stored{2, 5, 6, 3};
  const Placement placed = place(stored, nhwc);
  EXPECT_EQ((std::vector<int64_t>{placed.shape.begin(), placed.shape.begin() + 4}),
            (std::vector<int64_t>{2, 3, 5, 6}));
  EXPECT_EQ((std::vector<int64_t>{placed.strides.begin(), placed.strides.begin() + 4}),
            (std::vector<int64_t>{90, 1, 18, 3}));
}

TEST(Layouts, EmptyTensorsHaveTheStridesThatPyTorchGivesThem) {
  const std::array<int64_t, 3> stored{4, 0, 2};
  const Placement placed = place(stored, parse_layouts("{2,1,0}").results[0]);
  EXPECT_EQ((std::vector<int64_t>{placed.strides.begin(), placed.strides.begin() + 3}),
            (std::vector<int64_t>{1, 2, 2}));
}

TEST(Layouts, RefusesAnotherRank) {
  const std::array<int64_t, 3> stored{1, 2, 3};
  EXPECT_THROW(place(stored, parse_layouts("{1,0}").results[0]), std::runtime_error);
}

}  // namespace
}  // namespace kiln::torch_op
