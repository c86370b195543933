// Loop nests of every kind, in all shapes that change how they are vectorised.
#include "cpu/nest_harness.h"

namespace kiln::test {
namespace {

TEST(LoopNestTest, PointwiseOfEverySize) {
  const std::string text = graph_text("%x: f32[s0], %z: f32[s0]",
                                      " %a = add(%x, %z)\n %b = mul(%a, %x)\n %y = relu(%b)");
  for (int64_t size : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 70}) {
    expect_compiled(text, {.sizes = {{"s0", size}}});
  }
}

TEST(LoopNestTest, PointwiseOfConstantSize) {
  for (int64_t size : {1, 5, 16, 24, 67, 4096, 5000}) {
    const std::string n = std::to_string(size);
    expect_compiled(graph_text("%x: f32[" + n + "]", " %y = neg(%x)"));
  }
}

TEST(LoopNestTest, Broadcasts) {
  expect_compiled(graph_text("%x: f32[s0, 24], %z: f32[24]", " %y = add(%x, %z)"));
  expect_compiled(graph_text("%x: f32[s0, s1], %z: f32[s0, 1]", " %y = mul(%x, %z)"));
  expect_compiled(graph_text("%x: f32[3, 1, 5], %z: f32[s0, 1]", " %y = sub(%x, %z)"));
  expect_compiled(graph_text("%x: f32[], %z: f32[s0]", " %y = div(%z, %x)"));
}

TEST(LoopNestTest, Permutes) {
  expect_compiled(graph_text("%x: f32[s0, s1]", " %y = permute(%x) {axes = [1, 0]}"));
  expect_compiled(graph_text("%x: f32[2, 33, 4, 7]", " %y = permute(%x) {axes = [0, 2, 1, 3]}"));
  expect_compiled(
      graph_text("%x: f32[s0, 3, 6]", " %a = permute(%x) {axes = [2, 0, 1]}\n %y = relu(%a)"));
}

TEST(LoopNestTest, ReshapedHeads) {
  expect_compiled(graph_text("%x: f32[s0, 12, 9, 64]",
                             " %a = permute(%x) {axes = [0, 2, 1, 3]}\n"
                             " %b = reshape(%a) {shape = [s0, 9, 768]}\n %y = relu(%b)",
                             "%y"),
                  {.sizes = {{"s0", 2}}});
}

TEST(LoopNestTest, Pads) {
  for (const char* mode : {"constant", "reflect", "replicate"}) {
    expect_compiled(
        graph_text("%x: f32[s0, 21]", " %y = pad(%x) {after = [0, 2], before = [1, 3], mode = \"" +
                                          std::string(mode) + "\", value = 1.5}"));
  }
}

TEST(LoopNestTest, SlicesAndFlips) {
  expect_compiled(
      graph_text("%x: f32[s0, 70]", " %y = slice(%x) {axis = 1, size = 23, start = 2, step = 3}"));
  expect_compiled(graph_text("%x: f32[s0, 37]", " %y = flip(%x) {axes = [1]}"));
  expect_compiled(graph_text("%x: f32[s0, 37]", " %y = flip(%x) {axes = [0]}"));
}

TEST(LoopNestTest, Concatenates) {
  expect_compiled(graph_text("%x: f32[s0, 21], %z: f32[s0, 5]", " %y = concat(%x, %z) {axis = 1}"));
  expect_compiled(graph_text("%x: f32[s0, 21], %z: f32[3, 21]", " %y = concat(%x, %z) {axis = 0}"));
}

TEST(LoopNestTest, Gathers) {
  expect_compiled(graph_text("%x: f32[9, 40], %i: i64[s0, 3]", " %y = gather(%x, %i) {axis = 0}"),
                  {.integer_limit = 9});
  expect_compiled(graph_text("%x: f32[s0, 40], %i: i64[30]", " %y = gather(%x, %i) {axis = 1}"),
                  {.integer_limit = 40});
  expect_compiled(
      graph_text("%x: f32[s0, 40], %i: i64[s0, 17]", " %y = gather_elements(%x, %i) {axis = 1}"),
      {.integer_limit = 40});
}

class ReductionTest : public testing::TestWithParam<std::string> {};

TEST_P(ReductionTest, OverEveryAxis) {
  const std::string op = GetParam();
  for (const char* axes : {"[0]", "[1]", "[2]", "[0, 1]", "[1, 2]", "[0, 2]", "[0, 1, 2]"}) {
    for (const char* shape : {"[s0, 5, 37]", "[3, s0, 16]", "[2, 70, 7]"}) {
      expect_compiled(graph_text("%x: f32" + std::string(shape),
                                 " %y = " + op + "(%x) {axes = " + axes + ", keepdim = false}"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ReductionTest,
                         testing::Values("reduce_sum", "reduce_mean", "reduce_prod", "reduce_max",
                                         "reduce_min"),
                         [](const auto& info) { return info.param; });

TEST(LoopNestTest, ReductionsOfOtherTypes) {
  for (const char* dtype : {"i64", "i32", "u8", "f64", "bool"}) {
    for (const char* op : {"reduce_max", "reduce_min"}) {
      expect_compiled(graph_text("%x: " + std::string(dtype) + "[s0, 37]",
                                 " %y = " + std::string(op) + "(%x) {axes = [1], keepdim = false}"),
                      {.integer_limit = 100});
    }
  }
  expect_compiled(
      graph_text("%x: i64[s0, 37]", " %y = reduce_sum(%x) {axes = [1], keepdim = false}"));
}

TEST(LoopNestTest, Positions) {
  for (const char* op : {"argmax", "argmin"}) {
    for (const char* axis : {"0", "1"}) {
      for (const char* dtype : {"f32", "i64", "u8"}) {
        expect_compiled(
            graph_text("%x: " + std::string(dtype) + "[s0, 133]",
                       " %y = " + std::string(op) + "(%x) {axis = " + axis + ", keepdim = false}"),
            {.integer_limit = 50});
      }
    }
  }
}

TEST(LoopNestTest, Scans) {
  expect_compiled(graph_text("%x: f32[s0, 37]", " %y = cumsum(%x) {axis = 0}"));
  expect_compiled(graph_text("%x: f32[s0, 37]", " %y = cumsum(%x) {axis = 1}"));
  expect_compiled(graph_text("%x: i64[s0, 37]", " %y = cumsum(%x) {axis = 1}"));
}

class RowTest : public testing::TestWithParam<int64_t> {};

TEST_P(RowTest, SoftmaxAndNorms) {
  const plan::Case options{.sizes = {{"s0", 3}, {"s1", GetParam()}}};
  const std::string n = std::to_string(GetParam());
  expect_compiled(graph_text("%x: f32[s0, s1]", " %y = softmax(%x) {axis = 1}"), options);
  expect_compiled(graph_text("%x: f32[s0, s1]", " %y = softmax(%x) {axis = 0}"), options);
  expect_compiled(graph_text("%x: f32[s0, s1]", " %y = log_softmax(%x) {axis = 1}"), options);
  expect_compiled(graph_text("%x: f32[s0, " + n + "], %w: f32[" + n + "], %wb: f32[" + n + "]",
                             " %y = layer_norm(%x, %w, %wb) {axes = 1, eps = 1e-05}"),
                  options);
  expect_compiled(graph_text("%x: f32[s0, " + n + "], %w: f32[" + n + "]",
                             " %y = rms_norm(%x, %w) {axes = 1, eps = 1e-06}"),
                  options);
}

INSTANTIATE_TEST_SUITE_P(Lengths, RowTest,
                         testing::Values(1, 2, 15, 16, 17, 31, 64, 100, 129, 197, 768, 1999));

std::string list(int64_t a, int64_t b) {
  return "[" + std::to_string(a) + ", " + std::to_string(b) + "]";
}

TEST(LoopNestTest, Pools) {
  for (const char* layout : {"nchw", "nhwc"}) {
    const std::string shape =
        layout == std::string("nchw") ? "[s0, 19, 14, 15]" : "[s0, 14, 15, 19]";
    const std::string attributes =
        std::string(", layout = \"") + layout +
        "\", padding_after = [1, 1], padding_before = [1, 1], stride = [2, 2]}";
    const plan::Case options{.sizes = {{"s0", 2}}};
    expect_compiled(
        graph_text("%x: f32" + shape,
                   " %y = max_pool(%x) {dilation = [1, 1], kernel = [3, 3]" + attributes),
        options);
    expect_compiled(
        graph_text("%x: f32" + shape,
                   " %y = avg_pool(%x) {count_padding = false, kernel = [3, 3]" + attributes),
        options);
  }
}

// Windows that slide over images: every width changes which pixels are at a border.
struct Image {
  int64_t width, kernel, stride, dilation = 1, before = -1, after = -1;
};

class WindowTest : public testing::TestWithParam<Image> {};

std::string window_attributes(const Image& image) {
  const int64_t same = (image.kernel - 1) / 2 * image.dilation;
  const int64_t before = image.before < 0 ? same : image.before,
                after = image.after < 0 ? same : image.after;
  return "{dilation = " + list(image.dilation, image.dilation) +
         ", layout = \"nhwc\", padding_after = " + list(after, after) +
         ", padding_before = " + list(before, before) +
         ", stride = " + list(image.stride, image.stride);
}

TEST_P(WindowTest, DepthwiseConvolution) {
  const std::string k = std::to_string(GetParam().kernel), w = std::to_string(GetParam().width);
  for (const char* channels : {"16", "40"}) {
    const std::string c = channels;
    expect_compiled(graph_text("%x: f32[2, 9, " + w + ", " + c + "], %w: f32[" + c + ", " + k +
                                   ", " + k + ", 1], %wb: f32[" + c + "]",
                               " %z = convolution(%x, %w, %wb) " + window_attributes(GetParam()) +
                                   ", groups = " + c + "}\n %y = relu(%z)"));
  }
}

TEST_P(WindowTest, MaxPool) {
  if (GetParam().kernel > 3) GTEST_SKIP() << "a padding of more than half of the window";
  const std::string k = std::to_string(GetParam().kernel), w = std::to_string(GetParam().width);
  for (const char* dtype : {"f32", "u8", "i32"}) {
    expect_compiled(graph_text("%x: " + std::string(dtype) + "[2, 9, " + w + ", 21]",
                               " %y = max_pool(%x) " + window_attributes(GetParam()) +
                                   ", kernel = [" + k + ", " + k + "]}"),
                    {.integer_limit = 100});
  }
}

TEST_P(WindowTest, AveragePool) {
  if (GetParam().dilation > 1) GTEST_SKIP() << "average pools have no dilation";
  const std::string k = std::to_string(GetParam().kernel), w = std::to_string(GetParam().width);
  std::string attributes = window_attributes(GetParam());
  attributes.replace(1, attributes.find("layout") - 1, "");
  for (const char* count : {"true", "false"}) {
    expect_compiled(graph_text("%x: f32[s0, 9, " + w + ", 21]",
                               " %y = avg_pool(%x) " + attributes + ", count_padding = " + count +
                                   ", kernel = [" + k + ", " + k + "]}"),
                    {.sizes = {{"s0", 2}}});
  }
}

INSTANTIATE_TEST_SUITE_P(Images, WindowTest,
                         testing::Values(Image{7, 7, 1}, Image{7, 3, 1}, Image{8, 3, 1},
                                         Image{9, 3, 2}, Image{14, 7, 1}, Image{15, 3, 2},
                                         Image{16, 3, 1}, Image{17, 3, 1}, Image{19, 7, 1},
                                         Image{28, 7, 1}, Image{30, 3, 2}, Image{33, 3, 1},
                                         Image{56, 7, 1}, Image{57, 3, 1, 2},
                                         Image{24, 3, 1, 1, 0, 0}, Image{29, 3, 2, 1, 0, 1},
                                         Image{31, 3, 1, 2}));

}  // namespace
}  // namespace kiln::test
