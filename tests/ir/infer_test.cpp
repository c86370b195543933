// Shape inference: symbolic results, and what each op refuses. Written in the text form.
#include <gtest/gtest.h>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "ir/text.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

constexpr const char* kInputs =
    "graph main(%x: f32[b, s, 8], %w: f32[6, 8], %v: f32[6], %i: i64[3, 1], %j: i64[b, s, 8], %c: "
    "bool[s, 1], "
    "%h: f16[4], %img: f32[b, 4, s, 32], %k: f32[6, 4, 3, 3], %d: f32[4, 1, 3, 3], %q: f32[b, 4, "
    "s, 16], "
    "%n: f32[b, 2, 10, 16], %z: f32[], %ch: f32[4], %q4: f32[2, 1, 8], %f8: f8e4m3[4, 6]) symbols "
    "b in [1, 32] opt 8, "
    "s in [8, 256] opt "
    "64 {\n";

// The type of the one op, or the message without its position.
std::string infer(const std::string& op) {
  try {
    const Graph graph = parse_graph(kInputs + ("%y = " + op) + "\n return %y }");
    return graph.outputs()[0]->type.str();
  } catch (const CompileError& error) {
    const std::string message = error.what();
    return message.substr(message.find(": ") + 2);
  }
}

TEST(InferTest, Sources) {
  EXPECT_EQ(infer("full() {shape = [b, 2], dtype = i32, value = 1}"), "i32[b, 2]");
  EXPECT_EQ(infer("iota() {size = s, dtype = i64, start = b, step = 2}"), "i64[s]");
  EXPECT_EQ(infer("dim_value() {value = b*s, dtype = i64}"), "i64[]");
}

TEST(InferTest, OperandsAndAttributesMustFitTheTable) {
  EXPECT_EQ(infer("neg(%x, %x)"), "[neg] got 2 operands, expected 1");
  EXPECT_EQ(infer("layer_norm() {axes = 1, eps = 0}"),
            "[layer_norm] got 0 operands, expected 1 to 3");
  EXPECT_EQ(infer("concat() {axis = 0}"), "[concat] got 0 operands, expected 1 or more");
  EXPECT_EQ(infer("add(%x, _)"), "[add] got no operand 1, expected a value");
  EXPECT_EQ(infer("cast(%x)"), "[cast] got no attribute dtype, expected dtype");
}

TEST(InferTest, Pointwise) {
  EXPECT_EQ(infer("add(%x, %z)"), "f32[b, s, 8]");
  EXPECT_EQ(infer("lt(%x, %z)"), "bool[b, s, 8]");
  EXPECT_EQ(infer("isnan(%h)"), "bool[4]");
  EXPECT_EQ(infer("cast(%c) {dtype = bf16}"), "bf16[s, 1]");
  EXPECT_EQ(infer("where(%c, %x, %z)"), "f32[b, s, 8]");
  EXPECT_EQ(infer("add(%x, %h)"), "[add] got dtypes f32 and f16, expected operands of one dtype");
  EXPECT_EQ(infer("add(%x, %v)"),
            "[add] got shapes [b, s, 8] and [6], expected sizes that are equal or 1");
  EXPECT_EQ(infer("exp(%i)"), "[exp] got i64, expected a floating dtype");
  EXPECT_EQ(infer("bitwise_not(%x)"), "[bitwise_not] got f32, expected an integer dtype or bool");
  EXPECT_EQ(infer("where(%x, %x, %x)"), "[where] got a condition of f32, expected bool");
  EXPECT_EQ(infer("where(%c, %x, %h)"), "[where] got branches of f32 and f16, expected one dtype");
  EXPECT_EQ(infer("gelu(%x) {approximate = \"fast\"}"),
            "[gelu] got approximate \"fast\", expected none or tanh");
}

// What the table says of an op is what inference does: dtypes that it takes, and the one that it
// gives.
TEST(InferTest, PointwiseOpsAndReductionsKeepToTheTable) {
  for (size_t i = 0; i < op_count(); ++i) {
    const auto op = static_cast<Op>(i);
    const OpInfo& info = op_info(op);
    const bool reduces = info.kind == OpKind::Reduce;
    const bool plain = is_pointwise(op) && info.attributes.empty() && op != Op::where;
    if (!plain && !reduces) continue;
    Attrs attrs;
    if (reduces) attrs["keepdim"] = true;
    if (find_attribute(op, "axes") != nullptr) attrs["axes"] = std::vector<int64_t>{0};
    if (find_attribute(op, "axis") != nullptr) attrs["axis"] = int64_t{0};
    for (int code = 0; code < kDTypeCount; ++code) {
      const auto dtype = static_cast<DType>(code);
      const Type operand{dtype, {Dim(2)}};
      Graph graph;
      std::vector<Value*> inputs;
      for (int k = 0; k < info.operands.max; ++k) inputs.push_back(graph.add_input("x", operand));
      SCOPED_TRACE(std::string(info.name) + " of " + std::string(dtype_name(dtype)));
      if (!takes_dtype(info.takes, dtype) || is_storage_only(dtype)) {
        EXPECT_THROW(infer_types(op, inputs, attrs), CompileError);
        continue;
      }
      const DType result = gives_bool(op)             ? DType::Bool
                           : info.gives == Gives::I64 ? DType::I64
                                                      : dtype;
      EXPECT_EQ(infer_types(op, inputs, attrs).at(0), (Type{result, {Dim(reduces ? 1 : 2)}}));
    }
  }
}

TEST(InferTest, WhatIsOnlyStoredIsMovedAndCast) {
  EXPECT_EQ(infer("cast(%f8) {dtype = f32}"), "f32[4, 6]");
  EXPECT_EQ(infer("cast(%h) {dtype = f8e4m3}"), "f8e4m3[4]");
  EXPECT_EQ(infer("permute(%f8) {axes = [1, 0]}"), "f8e4m3[6, 4]");
  EXPECT_EQ(infer("concat(%f8, %f8) {axis = 0}"), "f8e4m3[8, 6]");
  EXPECT_EQ(infer("full() {shape = [2], dtype = f8e4m3, value = 1}"), "f8e4m3[2]");
  const std::string reason = "got f8e4m3, expected a dtype that is computed with: cast it first";
  EXPECT_EQ(infer("add(%f8, %f8)"), "[add] " + reason);
  EXPECT_EQ(infer("matmul(%f8, %f8) {transpose_b = true}"), "[matmul] " + reason);
  EXPECT_EQ(infer("reduce_sum(%f8) {axes = [0], keepdim = true}"), "[reduce_sum] " + reason);
  EXPECT_EQ(infer("isnan(%f8)"), "[isnan] " + reason);
  EXPECT_EQ(infer("quantize(%x, %f8) {dtype = i8, quant_min = -128, quant_max = 127}"),
            "[quantize] " + reason);
}

TEST(InferTest, Quantised) {
  const std::string q = " {dtype = i8, quant_min = -128, quant_max = 127}";
  EXPECT_EQ(infer("quantize(%x, %z)" + q), "i8[b, s, 8]");
  EXPECT_EQ(infer("quantize(%img, %q4)" + q), "i8[b, 4, s, 32]");
  EXPECT_EQ(infer("dequantize(%i, %z, %i) {dtype = bf16}"), "bf16[3, 1]");
  EXPECT_EQ(infer("quantize(%i, %z)" + q), "[quantize] got i64, expected a floating dtype");
  EXPECT_EQ(infer("dequantize(%x, %z) {dtype = f32}"),
            "[dequantize] got f32, expected an integer dtype");
  EXPECT_EQ(infer("quantize(%x, %i)" + q),
            "[quantize] got a scale of i64, expected a floating dtype");
  EXPECT_EQ(infer("quantize(%x, %v)" + q),
            "[quantize] got operand 1 of shape [6], expected sizes that divide those of [b, s, 8]");
  EXPECT_EQ(infer("quantize(%v, %x)" + q),
            "[quantize] got operand 1 of shape [b, s, 8], expected at most the rank of [6]");
  EXPECT_EQ(infer("quantize(%x, %z, %c)" + q),
            "[quantize] got a zero point of bool, expected a number");
  EXPECT_EQ(infer("quantize(%x, %z) {dtype = f32, quant_min = 0, quant_max = 1}"),
            "[quantize] got dtype f32, expected an integer dtype");
  EXPECT_EQ(infer("quantize(%x, %z) {dtype = u8, quant_min = -1, quant_max = 1}"),
            "[quantize] got quant_min = -1, expected a value of u8");
  EXPECT_EQ(infer("quantize(%x, %z) {dtype = i8, quant_min = 3, quant_max = 2}"),
            "[quantize] got quant_max = 2, expected 3 to 127");
  EXPECT_EQ(infer("dequantize(%i, %z) {dtype = i32}"),
            "[dequantize] got dtype i32, expected a floating dtype");
}

TEST(InferTest, Accumulators) {
  EXPECT_EQ(infer("linear(%x, %w) {accumulate = f64}"), "f32[b, s, 6]");
  EXPECT_EQ(infer("linear(%x, %w) {accumulate = f32}"), "f32[b, s, 6]");
  EXPECT_EQ(infer("linear(%x, %w) {accumulate = bf16}"),
            "[linear] got accumulate = bf16, expected f32 or f64");
  EXPECT_EQ(infer("attention(%q, %q, %q) {scale = 1, causal = false, accumulate = i32}"),
            "[attention] got accumulate = i32, expected f32 or f64");
}

TEST(InferTest, Reductions) {
  EXPECT_EQ(infer("reduce_sum(%x) {axes = [0, 2], keepdim = false}"), "f32[s]");
  EXPECT_EQ(infer("reduce_max(%x) {axes = [0, 2], keepdim = true}"), "f32[1, s, 1]");
  EXPECT_EQ(infer("argmax(%x) {axis = 1, keepdim = false}"), "i64[b, 8]");
  EXPECT_EQ(infer("cumsum(%i) {axis = 0}"), "i64[3, 1]");
  EXPECT_EQ(infer("cummax(%x) {axis = 2}"), "f32[b, s, 8]");
  EXPECT_EQ(infer("cumprod(%x) {axis = 3}"), "[cumprod] got axis 3, expected an axis of rank 3");
  EXPECT_EQ(infer("reduce_sum(%x) {axes = [3], keepdim = true}"),
            "[reduce_sum] got axis 3, expected an axis of rank 3");
  EXPECT_EQ(infer("reduce_sum(%x) {axes = [-1], keepdim = true}"),
            "[reduce_sum] got axis -1, expected an axis of rank 3");
  EXPECT_EQ(infer("reduce_sum(%x) {axes = [1, 0], keepdim = true}"),
            "[reduce_sum] got axes [1, 0], expected sorted axes");
  EXPECT_EQ(infer("reduce_mean(%i) {axes = [0], keepdim = true}"),
            "[reduce_mean] got i64, expected a floating dtype");
}

TEST(InferTest, Normalisations) {
  EXPECT_EQ(infer("softmax(%x) {axis = 2}"), "f32[b, s, 8]");
  EXPECT_EQ(infer("layer_norm(%v, %v, %v) {axes = 1, eps = 1e-5}"), "f32[6]");
  EXPECT_EQ(infer("batch_norm(%img, %ch, %ch, %ch, %ch) {eps = 1e-5}"), "f32[b, 4, s, 32]");
  EXPECT_EQ(infer("group_norm(%img, %ch, _) {groups = 2, eps = 1e-5}"), "f32[b, 4, s, 32]");
  EXPECT_EQ(infer("softmax(%x) {axis = 3}"), "[softmax] got axis 3, expected an axis of rank 3");
  EXPECT_EQ(infer("rms_norm(%x, %v) {axes = 1, eps = 0}"),
            "[rms_norm] got operand 1 of size 6, expected 8");
  EXPECT_EQ(infer("layer_norm(%x) {axes = 4, eps = 0}"),
            "[layer_norm] got axes 4, expected 1 to 3");
  EXPECT_EQ(infer("group_norm(%img) {groups = 3, eps = 0}"),
            "[group_norm] got 3 groups, expected a divisor of 4 channels");
  EXPECT_EQ(infer("batch_norm(%img, %ch, %ch, %ch, %v) {eps = 0}"),
            "[batch_norm] got operand 4 of size 6, expected 4");
}

TEST(InferTest, Contractions) {
  EXPECT_EQ(infer("matmul(%x, %w) {transpose_b = true}"), "f32[b, s, 6]");
  EXPECT_EQ(infer("matmul(%q, %q) {transpose_b = true}"), "f32[b, 4, s, s]");
  EXPECT_EQ(infer("linear(%x, %w, %v)"), "f32[b, s, 6]");
  EXPECT_EQ(infer("matmul(%x, %w) {transpose_b = false}"),
            "[matmul] got shapes [b, s, 8] and [6, 8], expected equal contracted sizes");
  EXPECT_EQ(infer("matmul(%v, %w) {transpose_b = false}"),
            "[matmul] got shapes [6] and [6, 8], expected ranks of 2 or more");
  EXPECT_EQ(infer("linear(%x, %w, %ch)"), "[linear] got a bias of size 4, expected 6");
  EXPECT_EQ(infer("linear(%i, %i)"), "[linear] got i64, expected a floating dtype");
}

TEST(InferTest, Attention) {
  EXPECT_EQ(infer("attention(%q, %q, %q) {scale = 0.25, causal = true}"), "f32[b, 4, s, 16]");
  EXPECT_EQ(infer("attention(%q, %n, %n) {scale = 0.25, causal = false}"), "f32[b, 4, s, 16]");
  EXPECT_EQ(infer("attention(%n, %q, %q) {scale = 1, causal = false}"),
            "[attention] got 4 key heads, expected a divisor of 2");
  EXPECT_EQ(infer("attention(%q, %q, %n) {scale = 1, causal = false}"),
            "[attention] got values of length 10, expected s");
  EXPECT_EQ(infer("attention(%q, %q, %q, %c) {scale = 1, causal = false}"), "f32[b, 4, s, 16]");
  EXPECT_EQ(infer("attention(%q, %q, %q, %h) {scale = 1, causal = false}"),
            "[attention] got a mask of f16 for a query of f32, expected bool, the dtype of the "
            "query, or f32 for one of 16 bits");
  EXPECT_EQ(infer("attention(%q, %q, %q, %w) {scale = 1, causal = false}"),
            "[attention] got a mask of shape [6, 8], expected broadcast to [b, 4, s, s]");
}

TEST(InferTest, Convolution) {
  const std::string window =
      " {stride = [2, 1], padding_before = [1, 0], padding_after = [1, 0], dilation = [1, 2], ";
  EXPECT_EQ(infer("convolution(%img, %k)" + window + "groups = 1, layout = \"nchw\"}"),
            "f32[b, 6, floordiv(s + 1, 2), 28]");
  EXPECT_EQ(infer("convolution(%img, %d)" + window + "groups = 4, layout = \"nchw\"}"),
            "f32[b, 4, floordiv(s + 1, 2), 28]");
  EXPECT_EQ(infer("convolution(%img, %k)" + window + "groups = 2, layout = \"nchw\"}"),
            "[convolution] got a weight for channels 8, expected 4");
  EXPECT_EQ(
      infer("convolution(%img, %k)" + window + "groups = 1, layout = \"nchw\", result = f32}"),
      "[convolution] got result = f32, expected f32 of 16-bit operands");
  EXPECT_EQ(infer("convolution(%img, %k)" + window + "groups = 1, layout = \"hwcn\"}"),
            "[convolution] got layout \"hwcn\", expected nchw or nhwc");
  EXPECT_EQ(infer("convolution(%img, %k, %ch)" + window + "groups = 1, layout = \"nchw\"}"),
            "[convolution] got a bias of size 4, expected 6");
  EXPECT_EQ(infer("convolution(%img, %k) {stride = [0, 1], padding_before = [1, 0], padding_after "
                  "= [1, 0], dilation = [1, 2], groups = 1, layout = \"nchw\"}"),
            "[convolution] got stride [0, 1], expected values of 1 or more");
  EXPECT_EQ(infer("convolution(%img, %k) {stride = [1], padding_before = [0, 0], padding_after = "
                  "[0, 0], dilation = [1, 1], groups = 1, layout = \"nchw\"}"),
            "[convolution] got stride [1], expected 2 values");
}

TEST(InferTest, Pools) {
  EXPECT_EQ(infer("max_pool(%img) {kernel = [3, 3], stride = [2, 2], padding_before = [1, 1], "
                  "padding_after = [1, 1], dilation = [1, 1], layout = \"nchw\"}"),
            "f32[b, 4, floordiv(s + 1, 2), 16]");
  EXPECT_EQ(infer("avg_pool(%img) {kernel = [s, 3], stride = [2, 2], padding_before = [1, 1], "
                  "padding_after = [1, 1], count_padding = true, layout = \"nchw\"}"),
            "got 's', expected an integer");
  EXPECT_EQ(infer("avg_pool(%x) {kernel = [2], stride = [2], padding_before = [0], padding_after = "
                  "[0], count_padding = true, layout = \"nchw\"}"),
            "f32[b, s, 4]");
  EXPECT_EQ(infer("max_pool(%x) {kernel = [20], stride = [2], padding_before = [0], padding_after "
                  "= [0], dilation = [1], layout = \"nchw\"}"),
            "[max_pool] got a window of 20, expected at most the padded size 8");
}

TEST(InferTest, Moves) {
  EXPECT_EQ(infer("reshape(%x) {shape = [b*s, 2, 4]}"), "f32[b*s, 2, 4]");
  EXPECT_EQ(infer("permute(%x) {axes = [2, 0, 1]}"), "f32[8, b, s]");
  EXPECT_EQ(infer("expand(%c) {shape = [b, s, s]}"), "bool[b, s, s]");
  EXPECT_EQ(infer("slice(%x) {axis = 1, start = s - 2, size = 2, step = 1}"), "f32[b, 2, 8]");
  EXPECT_EQ(infer("flip(%x) {axes = [0, 2]}"), "f32[b, s, 8]");
  EXPECT_EQ(
      infer("pad(%x) {before = [0, 1, 0], after = [0, 0, -2], value = 0, mode = \"constant\"}"),
      "f32[b, s + 1, 6]");
  EXPECT_EQ(infer("concat(%x, %x) {axis = 1}"), "f32[b, s*2, 8]");
  EXPECT_EQ(infer("gather(%x, %i) {axis = 1}"), "f32[b, 3, 1, 8]");
  EXPECT_EQ(infer("gather_elements(%x, %j) {axis = 1}"), "f32[b, s, 8]");
  EXPECT_EQ(infer("gather_nd(%x, %i, %i) {axis = 0}"), "f32[3, 1, 8]");
}

TEST(InferTest, MovesRefuse) {
  EXPECT_EQ(infer("reshape(%x) {shape = [b, 9]}"),
            "[reshape] got [b, 9] from [b, s, 8], expected the same number of elements");
  EXPECT_EQ(infer("permute(%x) {axes = [0, 1]}"),
            "[permute] got axes [0, 1], expected each axis of [b, s, 8]");
  EXPECT_EQ(infer("expand(%x) {shape = [b, s, 9]}"),
            "[expand] got [b, s, 8] to [b, s, 9], expected sizes that are equal or 1");
  EXPECT_EQ(infer("expand(%x) {shape = [8]}"),
            "[expand] got [b, s, 8] to [8], expected no fewer axes");
  EXPECT_EQ(infer("slice(%x) {axis = 2, start = 4, size = 3, step = 2}"),
            "[slice] got start 4 size 3 step 2 of 8, expected a range in bounds");
  EXPECT_EQ(infer("slice(%x) {axis = 2, start = 0, size = 3, step = 0}"),
            "[slice] got step 0, expected 1 or more");
  EXPECT_EQ(infer("pad(%v) {before = [-4], after = [-3], value = 0, mode = \"constant\"}"),
            "[pad] got a result of size -1, expected 0 or more");
  EXPECT_EQ(infer("pad(%v) {before = [0, 0], after = [0], value = 0, mode = \"constant\"}"),
            "[pad] got 2 and 1 sizes, expected one for each axis of [6]");
  EXPECT_EQ(infer("pad(%v) {before = [0], after = [0], value = 0, mode = \"mirror\"}"),
            "[pad] got mode \"mirror\", expected constant, reflect or replicate");
  EXPECT_EQ(infer("concat(%w, %v) {axis = 0}"),
            "[concat] got operand 1 of shape [6], expected rank 2");
  EXPECT_EQ(infer("concat(%x, %q) {axis = 0}"),
            "[concat] got operand 1 of shape [b, 4, s, 16], expected rank 3");
  EXPECT_EQ(infer("argsort(%x) {axis = 1, descending = true, count = 3}"), "i64[b, 3, 8]");
  EXPECT_EQ(infer("argsort(%x) {axis = 2, descending = true, count = 9}"),
            "[argsort] got count 9, expected 0 to 8");
  EXPECT_EQ(infer("scatter(%w, %i, %z) {axis = 0, combine = \"sum\"}"),
            "[scatter] got operand 2 of shape [], expected rank 2");
  EXPECT_EQ(infer("scatter(%w, %i, %w) {axis = 0, combine = \"sum\"}"),
            "[scatter] got operand 2 of shape [6, 8], expected [3, 8], or 1 in place of sizes");
  EXPECT_EQ(infer("scatter(%x, %j, %x) {axis = 0, combine = \"mean\"}"),
            "[scatter] got combine \"mean\", expected replace, sum, prod, max or min");
  EXPECT_EQ(infer("scatter(%x, %j, %x) {axis = 0, combine = \"max\"}"), "f32[b, s, 8]");
  EXPECT_EQ(infer("scatter(%x, %x, %x) {axis = 0, combine = \"max\"}"),
            "[scatter] got an index of f32, expected i64");
  EXPECT_EQ(infer("gather(%x, %x) {axis = 0}"), "[gather] got an index of f32, expected i64");
  EXPECT_EQ(infer("gather_nd(%x, %i) {axis = 3}"),
            "[gather_nd] got 1 indices at axis 3, expected axes of [b, s, 8]");
}

TEST(InferTest, CustomResultsAreWhatTheNodeSays) {
  Graph graph;
  Value* x = graph.add_input("x", {DType::F32, {2, 3}});
  Builder builder(graph);
  const auto made = [&](std::vector<int64_t> dtypes, std::vector<int64_t> ranks, Shape shapes) {
    return builder
        .node(Op::custom, {x},
              {{"kernel", std::string("my::op")},
               {"arguments", std::string("{}")},
               {"dtypes", std::move(dtypes)},
               {"ranks", std::move(ranks)},
               {"shapes", std::move(shapes)}})
        ->outputs;
  };
  const auto results = made({0, 8, 9}, {2, 0, 1}, {2, 3, 5});
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0]->type.str(), "f32[2, 3]");
  EXPECT_EQ(results[1]->type.str(), "i64[]");
  EXPECT_EQ(results[2]->type.str(), "bool[5]");
  EXPECT_THROW(made({}, {}, {}), CompileError);
  EXPECT_THROW(made({0}, {1, 1}, {2, 3}), CompileError);
  EXPECT_THROW(made({0}, {3}, {2, 3}), CompileError);
  EXPECT_THROW(made({0}, {1}, {2, 3}), CompileError);
  EXPECT_THROW(made({99}, {1}, {2}), CompileError);
  EXPECT_THROW(made({0}, {-1}, {}), CompileError);
}

}  // namespace
}  // namespace kiln::ir
