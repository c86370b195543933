// Every family of ops: the plan, lowered and fused, computes what the reference computes, whatever
// the target is.
#include <gtest/gtest.h>

#include <algorithm>

#include "plan/compare.h"

namespace kiln::plan {
namespace {

// One graph over x: f32[s0, 3, 8] and more, with the body given.
std::string graph(const std::string& inputs, const std::string& body, const std::string& result) {
  return "graph main(" + inputs + ") symbols s0 in [1, 6] opt 4, s1 in [1, 9] opt 5 {\n" + body +
         "\n  return " + result + "\n}\n";
}

void check(const std::string& inputs, const std::string& body, const std::string& result = "%y",
           const Case& options = {}) {
  const std::string text = graph(inputs, body, result);
  expect_same_as_reference(text, options);
  Case smallest = options;
  smallest.sizes = {{"s0", 1}, {"s1", 1}};
  expect_same_as_reference(text, smallest);
  for (const TargetTraits& traits : other_traits()) {
    Case other = options;
    other.traits = traits;
    expect_same_as_reference(text, other);
  }
}

TEST(LowerTest, Pointwise) {
  check("%x: f32[s0, 3], %z: f32[3]", "%a = add(%x, %z)\n %b = mul(%a, %x)\n %y = tanh(%b)");
  check("%x: f32[s0, 1, 3], %z: f32[s1, 1]", "%y = sub(%x, %z)");
  check("%x: f32[], %z: f32[2]", "%y = div(%x, %z)");
  check("%x: f32[s0]", "%y = gelu(%x) {approximate = \"tanh\"}");
  check("%x: f32[s0]", "%y = gelu(%x) {approximate = \"none\"}");
  check("%x: f32[s0], %z: f32[s0]", "%c = lt(%x, %z)\n %y = where(%c, %x, %z)");
  check("%x: i64[s0]", "%y = cast(%x) {dtype = f32}");
  check("%x: i64[s0], %z: i64[s0]", "%y = remainder(%x, %z)", "%y", {.integer_limit = 5});
}

TEST(LowerTest, Quantised) {
  const std::string q = "{dtype = i8, quant_min = -128, quant_max = 127}";
  check("%x: f32[s0, 6], %s: f32[s0, 1], %z: i64[s0, 1]", "%y = quantize(%x, %s, %z) " + q);
  check("%x: f32[s0, 6], %s: f64[3]", "%y = quantize(%x, %s) " + q);
  check("%x: f16[s0, s1, 6], %s: f16[s1, 1]", "%y = quantize(%x, %s) " + q);
  check("%q: u8[s0, 6], %s: f32[2], %z: u8[]", "%y = dequantize(%q, %s, %z) {dtype = f32}");
  check("%q: i8[6*s0, 6], %s: f32[s0, 2]", "%y = dequantize(%q, %s) {dtype = bf16}");
  check("%x: f32[s0, 8], %wq: i8[3, 8], %ws: f32[3, 2]",
        "%w = dequantize(%wq, %ws) {dtype = f32}\n %y = linear(%x, %w)");
}

std::string quantised_layer(const std::string& dtype, const std::string& zero,
                            const std::string& layer) {
  const std::string range =
      dtype == "u8" ? "quant_min = 0, quant_max = 255" : "quant_min = -128, quant_max = 127";
  return "%s = constant() {value = f32[] 0.25}\n %z = constant() {value = i64[] " + zero + "}\n" +
         " %q = quantize(%x, %s, %z) {dtype = " + dtype + ", " + range + "}\n" +
         " %d = dequantize(%q, %s, %z) {dtype = f32}\n" +
         " %w = dequantize(%wq, %ws) {dtype = f32}\n %y = " + layer;
}

TEST(LowerTest, ProductsOfIntegers) {
  const std::string convolution =
      "convolution(%d, %w) {stride = [1, 1], padding_before = [1, 1], padding_after = [1, 1], "
      "dilation = [1, 1], groups = 1, layout = \"nhwc\"}";
  const auto check_layers = [&](const std::string& dtype, const std::string& zero) {
    SCOPED_TRACE(dtype + ", zero point " + zero);
    const Case options{.tolerance = 1e-4};
    check("%x: f32[s0, 6], %wq: i8[3, 6], %ws: f32[3, 1]",
          quantised_layer(dtype, zero, "linear(%d, %w)"), "%y", options);
    check("%x: f32[s0, 4, 3, 5], %wq: i8[3, 3, 3, 5], %ws: f32[3, 1, 1, 1]",
          quantised_layer(dtype, zero, convolution), "%y", options);
  };
  for (const char* zero : {"0", "127", "128", "255"}) check_layers("u8", zero);
  for (const char* zero : {"-128", "0", "127"}) check_layers("i8", zero);
  check_layers("u8", "300");  // a border of another value than u8 has
}

// Whether there are kernels with such a text.
bool lowers_to(const std::string& inputs, const std::string& body, const std::string& text) {
  const std::string graph = "graph main(" + inputs + ") {\n" + body + "\n return %y\n}\n";
  return kernels_text(lowered(graph)).find(text) != std::string::npos;
}

TEST(LowerTest, IntegersAreWhatMayBe) {
  const std::string integers = "formats = u8 * i8 -> i32";
  const std::string linear = "%x: f32[2, 6], %wq: i8[3, 6], %ws: f32";
  EXPECT_TRUE(lowers_to(linear + "[3, 1]", quantised_layer("u8", "9", "linear(%d, %w)"), integers));
  EXPECT_TRUE(lowers_to(linear + "[]", quantised_layer("i8", "9", "linear(%d, %w)"), integers));
  // A scale that changes along k.
  EXPECT_FALSE(
      lowers_to(linear + "[3, 2]", quantised_layer("u8", "9", "linear(%d, %w)"), integers));
  // Sums that may leave i32.
  const std::string longest = "%x: f32[1, 65536], %wq: i8[1, 65536], %ws: f32[]";
  EXPECT_TRUE(lowers_to(longest, quantised_layer("u8", "9", "linear(%d, %w)"), integers));
  const std::string longer = "%x: f32[1, 66000], %wq: i8[1, 66000], %ws: f32[]";
  EXPECT_FALSE(lowers_to(longer, quantised_layer("u8", "9", "linear(%d, %w)"), integers));
}

TEST(LowerTest, WeightsWithGroups) {
  const std::string linear = "%w = dequantize(%wq, %ws) {dtype = f32}\n %y = linear(%x, %w)";
  const std::string zeros = "%w = dequantize(%wq, %ws, %wz) {dtype = f32}\n %y = linear(%x, %w)";
  const std::string matmul =
      "%w = dequantize(%wq, %ws, %wz) {dtype = bf16}\n %c = cast(%w) {dtype = f32}\n"
      " %y = matmul(%x, %c) {transpose_b = false}";
  const std::string joined =
      "%w = dequantize(%wq, %ws, %wz) {dtype = f32}\n %v = reshape(%w) {shape = [3, 16]}\n"
      " %y = linear(%x, %v)";
  for (const char* type : {"i8", "u8"}) {
    SCOPED_TRACE(type);
    const std::string x = std::string("%x: f32[s0, 16], %wq: ") + type;
    // Elements are 0 to 2, so that they fit 4 bits, and 0 to 99.
    for (const int64_t limit : {3, 100}) {
      const Case options{.integer_limit = limit, .tolerance = 1e-4};
      check(x + "[3, 16], %ws: f32[3, 2]", linear, "%y", options);
      check(x + "[3, 16], %ws: f32[3, 1]", linear, "%y", options);
      check(x + "[3, 16], %ws: f32[3, 2], %wz: i32[3, 2]", zeros, "%y", options);
      check(x + "[3, 16], %ws: f32[3, 2], %wz: i32[3, 1]", zeros, "%y", options);
      check(x + "[3, 16], %ws: f32[3, 4]", linear, "%y", options);
      check(x + "[16, 5], %ws: bf16[2, 5], %wz: u8[2, 5]", matmul, "%y", options);
      check(x + "[3, 2, 8], %ws: f32[3, 2, 1], %wz: i64[3, 2, 1]", joined, "%y", options);
    }
  }
  const auto lowers = [&](const std::string& types, const std::string& text) {
    return lowers_to("%x: f32[2, 16], " + types, linear, text);
  };
  EXPECT_TRUE(lowers("%wq: i8[3, 16], %ws: f32[3, 2]", "groups of 8, 4 bits"));
  EXPECT_TRUE(lowers("%wq: u8[3, 16], %ws: f32[3, 1]", "groups of 16, 4 bits"));
  EXPECT_TRUE(lowers("%wq: i8[3, 16], %ws: f32[3, 4]", "groups of 4, 8 bits"));
  EXPECT_FALSE(lowers("%wq: i8[3, 16], %ws: f64[3, 2]", "groups"));
  EXPECT_FALSE(lowers_to("%x: f32[2, 16], %wq: i8[3, 16]",
                         "%w = cast(%wq) {dtype = f32}\n %y = linear(%x, %w)", "groups"));
}

TEST(LowerTest, ProjectionsWithGroupsAreOne) {
  const Program program = expect_same_as_reference(
      graph("%x: f32[s0, 16], %w0: i8[3, 16], %w1: f32[3, 2], %w2: i8[5, 16], %w3: f32[5, 2]",
            "%a = dequantize(%w0, %w1) {dtype = f32}\n %b = linear(%x, %a)\n"
            " %c = dequantize(%w2, %w3) {dtype = f32}\n %d = linear(%x, %c)\n"
            " %e = softmax(%b) {axis = 1}\n %f = softmax(%d) {axis = 1}",
            "%e, %f"));
  EXPECT_EQ(std::ranges::count_if(
                program.kernels,
                [](const Kernel& kernel) { return std::holds_alternative<MatMul>(kernel.body); }),
            1);
}

TEST(LowerTest, ProductsOfTwoQuantisedTensors) {
  const auto product = [](const std::string& x, const std::string& transposed,
                          const std::string& zero) {
    return "%s = constant() {value = f32[] 0.25}\n %z = constant() {value = i64[] " + zero +
           "}\n %a = dequantize(%x, %s, %z) {dtype = f32}\n %b = dequantize(%y0, " + x +
           ") {dtype = f32}\n %y = matmul(%a, %b) {transpose_b = " + transposed + "}";
  };
  for (const char* zero : {"0", "128"}) {
    for (const char* type : {"u8", "i8"}) {
      const std::string x = std::string("%x: ") + type + "[2, s0, 6], ";
      const std::string y = std::string("%y0: ") + type;
      check(x + y + "[2, s1, 6]", product("%s, %z", "true", zero));
      check(x + y + "[2, 6, 5]", product("%s", "false", zero));
      check(x + y + "[6, 5]", product("%s", "false", zero));
    }
  }
  EXPECT_TRUE(lowers_to("%x: u8[2, 3, 6], %y0: u8[2, 6, 5]", product("%s", "false", "9"),
                        "formats = u8 * i8 -> i32"));
}

// Numbers of f8e4m3 with scales: of the left operand %a, of the right one %b.
std::string float8_product(const std::string& a, const std::string& b, const std::string& product) {
  return "%c = cast(%x) {dtype = f32}\n %a = mul(%c, " + a +
         ")\n %d = cast(%w) {dtype = f32}\n %b = mul(" + b + ", %d)\n %y = " + product;
}

TEST(LowerTest, ProductsOfFloat8) {
  const Case options{.tolerance = 1e-4};
  const std::string x = "%x: f8e4m3[s0, 5, 32], %s: f32[s0, 5, 1], %w: f8e4m3[6, 32], ";
  const std::string linear = "linear(%a, %b)", bias = "linear(%a, %b, %wb)";
  check(x + "%ws: f32[6, 1], %wb: f32[6]", float8_product("%s", "%ws", bias), "%y", options);
  check(x + "%ws: f32[]", float8_product("%s", "%ws", linear), "%y", options);
  check(x + "%ws: f32[6, 32]", float8_product("%s", "%ws", linear), "%y", options);
  std::string computed = float8_product("%s", "%v", "matmul(%a, %b) {transpose_b = true}");
  check("%x: f8e4m3[s0, 7, 32], %s: f32[s0, 1, 1], %u: f8e4m3[s0, 5, 32], %v: f32[s0, 5, 1]",
        computed.replace(computed.find("%w"), 2, "%u"), "%y", options);
  // Rounded on the way, which is not done; a row with its weight alone in 8 bits.
  const std::string rounded =
      "%c = cast(%x) {dtype = f16}\n %d = cast(%w) {dtype = f32}\n %e = mul(%d, %ws)\n"
      " %b = cast(%e) {dtype = f16}\n %y = linear(%c, %b)";
  check("%x: f8e4m3[s0, 32], %w: f8e4m3[6, 32], %ws: f32[6, 1]", rounded, "%y",
        {.tolerance = 2e-2});
  check("%x: f16[1, 32], %w: f8e4m3[6, 32], %ws: f32[6, 1]",
        "%d = cast(%w) {dtype = f32}\n %e = mul(%d, %ws)\n %b = cast(%e) {dtype = f16}\n"
        " %y = linear(%x, %b)",
        "%y", {.tolerance = 2e-2});
}

TEST(LowerTest, Float8IsWhatMayBe) {
  const std::string both = "formats = f8e4m3 * f8e4m3 -> f32";
  const std::string linear = float8_product("%s", "%ws", "linear(%a, %b)");
  const std::string x = "%x: f8e4m3[2, 32], %w: f8e4m3[6, 32], ";
  EXPECT_TRUE(lowers_to(x + "%s: f32[2, 1], %ws: f32[6, 1]", linear, both));
  EXPECT_TRUE(lowers_to(x + "%s: f32[], %ws: f32[1, 1]", linear, both));
  // Scales that change along k.
  EXPECT_FALSE(lowers_to(x + "%s: f32[2, 1], %ws: f32[6, 32]", linear, both));
  EXPECT_FALSE(lowers_to(x + "%s: f32[1, 32], %ws: f32[6, 1]", linear, both));
  // Computed in the run and not contiguous along k.
  std::string matmul = float8_product("%s", "%v", "matmul(%a, %b) {transpose_b = false}");
  const std::string operands = "%x: f8e4m3[2, 32], %s: f32[], %v: f32[], ";
  EXPECT_TRUE(lowers_to(operands + "%w: f8e4m3[32, 6]", matmul, both));
  matmul.replace(matmul.find("%w"), 2, "%u");
  EXPECT_FALSE(lowers_to(operands + "%u: f8e4m3[32, 6]", matmul, both));
  // Rows of another type: one of them reads the weight in 8 bits.
  const std::string weight = "%d = cast(%w) {dtype = f32}\n %y = linear(%x, %d)";
  EXPECT_TRUE(lowers_to("%x: f32[1, 32], %w: f8e4m3[6, 32]", weight, ", weight f8e4m3"));
  EXPECT_FALSE(lowers_to("%x: f32[2, 32], %w: f8e4m3[6, 32]", weight, ", weight f8e4m3"));
}

TEST(LowerTest, WiderAccumulators) {
  check("%x: f32[s0, 8], %w: f32[3, 8]", "%y = linear(%x, %w) {accumulate = f64}");
  check("%q: f32[1, 2, s0, 4]",
        "%y = attention(%q, %q, %q) {scale = 0.5, causal = true, accumulate = f64}");
  EXPECT_NE(kernels_text(lowered("graph main(%x: f32[3, 8], %w: f32[3, 8]) {\n"
                                 "%y = linear(%x, %w) {accumulate = f64}\n return %y\n}"))
                .find("f64"),
            std::string::npos);
}

TEST(LowerTest, Sources) {
  check("%x: f32[s0]",
        "%a = iota() {dtype = f32, size = s0, start = 2, step = 3}\n %b = full() {dtype = f32, "
        "shape = [s0], value = 0.5}\n"
        "%c = dim_value() {dtype = f32, value = s0*2}\n %d = add(%a, %b)\n %e = mul(%d, %c)\n %y = "
        "add(%e, %x)");
}

TEST(LowerTest, Views) {
  check("%x: f32[s0, s1, 6]", "%y = reshape(%x) {shape = [s0*s1, 6]}");
  check("%x: f32[s0, s1, 6]",
        "%a = reshape(%x) {shape = [s0, s1, 2, 3]}\n %b = permute(%a) {axes = [0, 2, 1, 3]}\n"
        "%c = reshape(%b) {shape = [s0*2, s1, 3]}\n %y = neg(%c)");
  check("%x: f32[s0, 1], %z: f32[s1]", "%y = expand(%x) {shape = [2, s0, s1]}", "%y, %z");
  check("%x: f32[s0, 7]", "%y = slice(%x) {axis = 1, size = 3, start = 1, step = 2}");
  check("%x: f32[s0, 7]", "%y = flip(%x) {axes = [1]}");
  check("%x: f32[s0]", "%y = reshape(%x) {shape = [1, s0, 1]}", "%y, %x");
  check("%x: f32[2, 6]",
        "%a = reshape(%x) {shape = [3, 4]}\n %b = permute(%a) {axes = [1, 0]}\n"
        "%y = reshape(%b) {shape = [12]}");
}

TEST(LowerTest, OutputsThatAreInputsOrConstants) {
  check("%x: f32[s0]", "%c = constant() {value = f32[2] [1, 2]}\n %y = neg(%x)", "%x, %c, %y, %y");
}

TEST(LowerTest, Pad) {
  const std::string before = "before = [1, 2], after = [0, 1], ";
  check("%x: f32[s0, 4]", "%y = pad(%x) {" + before + "mode = \"constant\", value = 1.5}");
  check("%x: f32[s0, 4]",
        "%y = pad(%x) {before = [0, 3], after = [0, 2], mode = \"reflect\", value = 0}");
  check("%x: f32[s0, 4]", "%y = pad(%x) {" + before + "mode = \"replicate\", value = 0}");
  check("%x: f32[s0, 4]",
        "%y = pad(%x) {before = [0, -1], after = [1, -1], mode = \"constant\", value = 0}");
}

TEST(LowerTest, Concat) {
  check("%x: f32[s0, 2], %z: f32[s0, s1]", "%y = concat(%x, %z, %x) {axis = 1}");
  check("%x: f32[s0, 2], %z: f32[s1, 2]",
        "%a = neg(%x)\n %b = concat(%a, %z) {axis = 0}\n %y = exp(%b)");
  check("%x: f32[s0, 0]", "%y = concat(%x, %x, %x) {axis = 1}");
}

// More operands than one kernel takes.
TEST(LowerTest, ConcatOfMany) {
  for (const int count : {65, 129}) {
    std::string body, operands;
    for (int i = 0; i < count; ++i) {
      const std::string name = "%a" + std::to_string(i);
      body += name + (i % 3 == 0   ? " = neg(%x)\n"
                      : i % 3 == 1 ? " = add(%x, %z)\n"
                                   : " = softmax(%x) {axis = 1}\n");
      operands += (i == 0 ? "" : ", ") + name;
    }
    const std::string joined = "%c = concat(" + operands + ") {axis = 1}\n";
    check("%x: f32[s0, 2], %z: f32[s0, 1]", body + joined + " %y = exp(%c)");
  }
}

TEST(LowerTest, Gathers) {
  check("%x: f32[3, 4], %i: i64[s0, s1]", "%y = gather(%x, %i) {axis = 0}");
  check("%x: f32[s0, 4, 2], %i: i64[2]", "%y = gather(%x, %i) {axis = 1}");
  check("%x: f32[3, s1], %i: i64[2, s1]", "%y = gather_elements(%x, %i) {axis = 0}");
  check("%x: f32[2, 3, 3, s1], %i: i64[s0, 1], %j: i64[4]",
        "%y = gather_nd(%x, %i, %j) {axis = 1}");
  check("%x: f32[3, 4], %i: i64[s0]",
        "%t = permute(%x) {axes = [1, 0]}\n %y = gather(%t, %i) {axis = 1}");
}

TEST(LowerTest, GatherWrapsNegativeIndices) {
  check("%x: f32[4], %i: i64[s0]",
        "%c = constant() {value = i64[] 3}\n %j = sub(%i, %c)\n %y = gather(%x, %j) {axis = 0}");
}

TEST(LowerTest, Orders) {
  check("%x: f32[s0, 4, s1]", "%y = argsort(%x) {axis = 1, descending = false, count = 3}");
  check("%x: i64[s0, 4]", "%y = argsort(%x) {axis = 0, descending = true, count = s0}");
  check("%x: bool[4, s0]", "%y = argsort(%x) {axis = 0, descending = true, count = 4}");
  // The key is computed in the kernel, and the order is stored where it is copied to.
  check("%x: f32[s0, 4]",
        "%a = mul(%x, %x)\n %i = argsort(%a) {axis = 1, descending = true, count = 2}\n"
        "%t = permute(%i) {axes = [1, 0]}\n %y = reshape(%t) {shape = [2*s0]}");
}

TEST(LowerTest, Scatters) {
  for (const char* combine : {"replace", "sum", "prod", "max", "min"}) {
    const std::string attributes = std::string(", combine = \"") + combine + "\"}";
    check("%x: f32[s0, 4], %i: i64[7, 1], %v: f32[7, 4]",
          "%y = scatter(%x, %i, %v) {axis = 0" + attributes);
    check("%x: i64[2, 3, s1], %i: i64[1, s0, s1], %v: i64[2, s0, 1]",
          "%y = scatter(%x, %i, %v) {axis = 1" + attributes);
  }
  // What is written to, the indices and the values are computed in the kernel; negative indices write nothing.
  check("%x: f32[5, s0], %i: i64[6, 1], %v: f32[1, 1]",
        "%a = exp(%x)\n %c = constant() {value = i64[] 1}\n %j = sub(%i, %c)\n"
        "%z = scatter(%a, %j, %v) {axis = 0, combine = \"sum\"}\n %y = neg(%z)");
}

TEST(LowerTest, Reductions) {
  for (const char* op : {"reduce_sum", "reduce_mean", "reduce_prod", "reduce_max", "reduce_min"}) {
    const std::string name(op);
    check("%x: f32[s0, 3, s1]", "%y = " + name + "(%x) {axes = [1], keepdim = true}");
    check("%x: f32[s0, 3, s1]", "%y = " + name + "(%x) {axes = [0, 2], keepdim = false}");
  }
  check("%x: bool[s0, 4]", "%y = reduce_max(%x) {axes = [1], keepdim = false}");
  check("%x: i64[s0, 4]", "%y = reduce_sum(%x) {axes = [0, 1], keepdim = false}");
  check("%x: f32[s0, s1]", "%y = argmax(%x) {axis = 1, keepdim = false}");
  check("%x: f32[s0, s1]", "%y = argmin(%x) {axis = 0, keepdim = true}");
  check("%x: f32[s0, 1]", "%y = argmin(%x) {axis = 1, keepdim = true}");
  check("%x: f32[s0, s1, 2]", "%y = cumsum(%x) {axis = 1}");
}

TEST(LowerTest, HalfPrecisionSumsInF32) {
  check("%x: f16[s0, 64]", "%y = reduce_mean(%x) {axes = [1], keepdim = false}", "%y",
        {.tolerance = 1e-3});
}

TEST(LowerTest, Normalisations) {
  check("%x: f32[s0, s1, 3]", "%y = softmax(%x) {axis = 1}");
  check("%x: f32[s0, 8]", "%y = log_softmax(%x) {axis = 1}");
  check("%x: f32[s0, s1, 8], %g: f32[8], %b: f32[8]",
        "%y = layer_norm(%x, %g, %b) {axes = 1, eps = 1e-05}");
  check("%x: f32[s0, 2, 4]", "%y = layer_norm(%x, _, _) {axes = 2, eps = 1e-05}");
  check("%x: f32[s0, 8], %g: f32[8]", "%y = rms_norm(%x, %g) {axes = 1, eps = 1e-06}");
  check("%x: f32[s0, 6, s1], %g: f32[6], %b: f32[6]",
        "%y = group_norm(%x, %g, %b) {groups = 2, eps = 1e-05}");
  check("%x: f32[s0, 3, s1], %g: f32[3], %b: f32[3], %m: f32[3], %n: f32[3]",
        "%v = mul(%n, %n)\n %y = batch_norm(%x, %g, %b, %m, %v) {eps = 1e-03}");
}

TEST(LowerTest, MatMul) {
  check("%a: f32[s0, 5], %b: f32[5, 3]", "%y = matmul(%a, %b) {transpose_b = false}");
  check("%a: f32[s0, 2, s1, 5], %b: f32[s0, 2, 5, 3]", "%y = matmul(%a, %b) {transpose_b = false}");
  check("%a: f32[s0, 1, s1, 5], %b: f32[2, 3, 5]", "%y = matmul(%a, %b) {transpose_b = true}");
  check("%a: f32[s0, s1, 5], %b: f32[5, 3]", "%y = matmul(%a, %b) {transpose_b = false}");
  check("%a: f32[s1, 5], %b: f32[s0, 5, 3]", "%y = matmul(%a, %b) {transpose_b = false}");
  check("%a: f32[s1, 5], %b: f32[1, 1, 5, 3]", "%y = matmul(%a, %b) {transpose_b = false}");
  check("%a: f64[s0, 5], %b: f64[5, 3]", "%y = matmul(%a, %b) {transpose_b = false}");
  check("%a: f64[s0, s1, 5], %b: f64[3, 5]", "%y = linear(%a, %b)");
}

TEST(LowerTest, MatMulOfViews) {
  check("%a: f32[s0, s1, 2, 4], %b: f32[4, 3]",
        "%p = permute(%a) {axes = [0, 2, 1, 3]}\n %y = matmul(%p, %b) {transpose_b = false}");
  check("%a: f32[s0, s1, 6], %w: f32[5, 3]",
        "%r = reshape(%a) {shape = [s0, s1*2, 3]}\n %p = permute(%r) {axes = [1, 0, 2]}\n %y = "
        "linear(%p, %w)");
  check("%a: f32[4, 6], %w: f32[5, 4]",
        "%r = reshape(%a) {shape = [3, 8]}\n %p = permute(%r) {axes = [1, 0]}\n"
        "%f = reshape(%p) {shape = [6, 4]}\n %y = linear(%f, %w)");
}

TEST(LowerTest, Linear) {
  check("%x: f32[s0, s1, 5], %w: f32[3, 5], %wb: f32[3]", "%y = linear(%x, %w, %wb)");
  check("%x: f32[5], %w: f32[3, 5]", "%y = linear(%x, %w)");
}

std::string convolution(const std::string& attributes) {
  return "%y = convolution(%x, %w, %wb) {" + attributes + "}";
}

TEST(LowerTest, Convolutions) {
  const std::string plain =
      "stride = [2, 1], padding_before = [1, 0], padding_after = [1, 2], dilation = [1, 2], groups "
      "= ";
  check("%x: f32[s0, 6, 9, 8], %w: f32[4, 6, 3, 3], %wb: f32[4]",
        convolution(plain + "1, layout = \"nchw\""));
  check("%x: f32[s0, 9, 8, 6], %w: f32[4, 3, 3, 6], %wb: f32[4]",
        convolution(plain + "1, layout = \"nhwc\""));
  check("%x: f32[s0, 9, 8, 6], %w: f32[6, 3, 3, 1], %wb: f32[6]",
        convolution(plain + "6, layout = \"nhwc\""));
  check("%x: f32[s0, 6, 9, 8], %w: f32[12, 1, 3, 3], %wb: f32[12]",
        convolution(plain + "6, layout = \"nchw\""));
  check("%x: f32[s0, 9, 8, 8], %w: f32[6, 3, 3, 4], %wb: f32[6]",
        convolution(plain + "2, layout = \"nhwc\""));
}

TEST(LowerTest, ConvolutionsOfWindowsApart) {
  const std::string plain =
      "padding_before = [0, 0], padding_after = [0, 0], dilation = [1, 1], groups = 1, layout = ";
  check("%x: f32[s0, 3, 9, 8], %w: f32[4, 3, 2, 3], %wb: f32[4]",
        convolution("stride = [2, 3], " + plain + "\"nchw\""));
  check("%x: f32[s0, 9, 8, 3], %w: f32[4, 4, 2, 3], %wb: f32[4]",
        convolution("stride = [4, 2], " + plain + "\"nhwc\""));
  check("%x: f32[s0, 6, s1, 1], %w: f32[4, 3, 1, 1], %wb: f32[4]",
        convolution("stride = [3, 1], " + plain + "\"nhwc\""));
  check("%x: f32[s0, 9, 6], %w: f32[4, 3, 6], %wb: f32[4]",
        convolution("stride = [3], padding_before = [0], padding_after = [0], dilation = [1], "
                    "groups = 1, layout = \"nhwc\""));
}

TEST(LowerTest, ConvolutionsOfOtherRanks) {
  const std::string one =
      "stride = [1], padding_before = [1], padding_after = [1], dilation = [1], groups = 1, layout "
      "= ";
  check("%x: f32[s0, 9, 6], %w: f32[4, 3, 6], %wb: f32[4]", convolution(one + "\"nhwc\""));
  check("%x: f32[s0, 6, 9], %w: f32[4, 6, 3], %wb: f32[4]", convolution(one + "\"nchw\""));
  const std::string three =
      "stride = [1, 1, 2], padding_before = [0, 1, 0], padding_after = [0, 1, 0], "
      "dilation = [1, 1, 1], groups = 1, layout = ";
  check("%x: f32[s0, 2, 3, 4, 5], %w: f32[4, 2, 2, 3, 2], %wb: f32[4]",
        convolution(three + "\"nchw\""));
}

TEST(LowerTest, ConvolutionOfOnePixelIsAMatMul) {
  const std::string text =
      graph("%x: f32[s0, s1, 7, 6], %w: f32[4, 1, 1, 6], %wb: f32[4]",
            convolution("stride = [1, 1], padding_before = [0, 0], padding_after = [0, 0], "
                        "dilation = [1, 1], groups = 1, layout = \"nhwc\""),
            "%y");
  const Program program = expect_same_as_reference(text);
  ASSERT_EQ(program.kernels.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<MatMul>(program.kernels[0].body));
}

TEST(LowerTest, Pools) {
  const std::string window =
      "kernel = [3, 2], stride = [2, 1], padding_before = [1, 0], padding_after = [1, 1], ";
  for (const char* layout : {"nchw", "nhwc"}) {
    const std::string last = std::string("layout = \"") + layout + "\"}";
    check("%x: f32[s0, 6, 7, 5]", "%y = max_pool(%x) {" + window + "dilation = [1, 2], " + last);
    check("%x: f32[s0, 6, 7, 5]", "%y = avg_pool(%x) {" + window + "count_padding = true, " + last);
    check("%x: f32[s0, 6, 7, 5]",
          "%y = avg_pool(%x) {" + window + "count_padding = false, " + last);
    check("%x: f32[s0, 6, 7, 5]",
          "%y = avg_pool(%x) {" + window + "count_padding = true, divisor = 5, " + last);
  }
  check("%x: i64[s0, 6, 7, 5]",
        "%y = max_pool(%x) {" + window + "dilation = [1, 1], layout = \"nchw\"}");
}

TEST(LowerTest, Attention) {
  const std::string qkv = "%q: f32[s0, 4, s1, 8], %k: f32[s0, 2, 6, 8], %v: f32[s0, 2, 6, 3]";
  check(qkv, "%y = attention(%q, %k, %v) {causal = false, scale = 0.25}");
  check(qkv, "%y = attention(%q, %k, %v) {causal = true, scale = 0.25}");
  check(qkv + ", %m: bool[s0, 1, s1, 6]",
        "%y = attention(%q, %k, %v, %m) {causal = false, scale = 0.25}");
  check(qkv + ", %m: f32[s1, 6]", "%y = attention(%q, %k, %v, %m) {causal = false, scale = 0.25}");
}

TEST(LowerTest, AttentionOfOtherTypesIsNests) {
  const std::string qkv = "%q: f64[s0, 4, s1, 8], %k: f64[s0, 2, 6, 8], %v: f64[s0, 2, 6, 3]";
  check(qkv + ", %m: bool[s0, 1, s1, 6]",
        "%y = attention(%q, %k, %v, %m) {causal = true, scale = 0.25}");
}

}  // namespace
}  // namespace kiln::plan
