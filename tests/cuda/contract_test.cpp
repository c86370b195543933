// Kernels of contractions: each class of them compiles for each generation, without a register that
// spills or a warning, and says how much it writes. What they compute is checked on a GPU
// (tests/cuda/device).
#include <gtest/gtest.h>

#include <algorithm>
#include <ranges>
#include <set>

#include "backends/common/derived_constants.h"
#include "backends/cuda/compile/contract/attention_cut.h"
#include "backends/cuda/compile/contract/contraction.h"
#include "backends/cuda/compile/contract/tiles.h"
#include "backends/cuda/compile/nvrtc.h"
#include "cuda/kernels.h"
#include "helpers/random_values.h"
#include "support/error.h"

namespace kiln::test {
namespace {

struct Contraction {
  std::string name, graph;
  // By its name: "..._tf32".
  uint8_t tf32() const { return name.ends_with("_tf32") ? kAnyTf32 : 0; }
  static constexpr uint8_t kAnyTf32 = engine::kTf32Products | engine::kTf32Convolutions;
};

std::ostream& operator<<(std::ostream& out, const Contraction& c) { return out << c.name; }

std::string linear(const std::string& type, int m, int n, int k, const std::string& tail) {
  const std::string size = std::to_string(k), columns = std::to_string(n);
  return "graph main(%x0: " + type + "[m, " + size + "], %r: " + type + "[m, " + columns +
         "], %w: " + type + "[" + columns + ", " + size + "], %wb: " + type + "[" + columns +
         "]) symbols m in [0, 100000] opt " + std::to_string(m) +
         " {\n  %x = relu(%x0)\n  %l = linear(%x, %w, %wb)\n" + tail +
         "  %y = add(%g, %r)\n  return %y as \"y\"\n}";
}

// Two products whose results meet in an epilogue.
std::string gated(const std::string& type, int m, int n, int k) {
  const std::string size = std::to_string(k), columns = std::to_string(n);
  const std::string rows = m == 1 ? "1" : "m";
  return "graph main(%x0: " + type + "[" + rows + ", " + size + "], %w: " + type + "[" + columns +
         ", " + size + "], %w2: " + type + "[" + columns + ", " + size + "], %wb: " + type + "[" +
         columns + "])" + (m == 1 ? "" : " symbols m in [0, 100000] opt " + std::to_string(m)) +
         " {\n  %x = relu(%x0)\n  %g = linear(%x, %w, %wb)\n  %s = silu(%g)\n"
         "  %u = linear(%x, %w2)\n  %y = mul(%s, %u)\n  return %y as \"y\"\n}";
}

// The same of one weight, whose halves they are.
std::string gated_halves(const std::string& type, int m, int n, int k) {
  const std::string size = std::to_string(k), half = std::to_string(n);
  const std::string columns = std::to_string(2 * n);
  return "graph main(%x0: " + type + "[m, " + size + "], %w: " + type + "[" + columns + ", " +
         size + "]) symbols m in [0, 100000] opt " + std::to_string(m) +
         " {\n  %x = relu(%x0)\n  %h = linear(%x, %w)\n"
         "  %u = slice(%h) {axis = 1, start = 0, size = " +
         half +
         ", step = 1}\n"
         "  %g = slice(%h) {axis = 1, start = " +
         half + ", size = " + half +
         ", step = 1}\n"
         "  %a = gelu(%g) {approximate = \"none\"}\n  %y = mul(%u, %a)\n  return %y as \"y\"\n}";
}

// One row.
std::string row(const std::string& type, int n, int k) {
  const std::string size = std::to_string(k), columns = std::to_string(n);
  return "graph main(%x: " + type + "[1, " + size + "], %w: " + type + "[" + columns + ", " + size +
         "]) {\n  %y = linear(%x, %w)\n  return %y as \"y\"\n}";
}

// A linear layer whose operands are numbers of f8e4m3, computed with as `type`.
std::string float8(const std::string& type, int m, int n, int k, const std::string& tail) {
  const std::string size = std::to_string(k), columns = std::to_string(n);
  const std::string rows = m == 1 ? "1" : "m";
  return "graph main(%x: " + type + "[" + rows + ", " + size + "], %s: f32[" + rows +
         ", 1], %w: f8e4m3[" + columns + ", " + size + "], %wk: f32[" + columns +
         ", 1], %wb: " + type + "[" + columns + "])" +
         (m == 1 ? "" : " symbols m in [0, 100000] opt " + std::to_string(m)) +
         " {\n  %q = cast(%x) {dtype = f8e4m3}\n  %c = cast(%q) {dtype = f32}\n"
         "  %e = mul(%c, %s)\n  %a = cast(%e) {dtype = " +
         type +
         "}\n  %d = cast(%w) {dtype = f32}\n  %f = mul(%d, %wk)\n  %b = cast(%f) {dtype = " + type +
         "}\n  %l = linear(%a, %b, %wb)\n" + tail + "  return %g as \"y\"\n}";
}

// A row times weights of f8e4m3.
std::string float8_weight(const std::string& type, int n, int k) {
  const std::string size = std::to_string(k), columns = std::to_string(n);
  return "graph main(%x: " + type + "[1, " + size + "], %w: f8e4m3[" + columns + ", " + size +
         "], %wk: f32[" + columns +
         ", 1]) {\n  %d = cast(%w) {dtype = f32}\n  %f = mul(%d, %wk)\n  %b = cast(%f) {dtype = " +
         type + "}\n  %y = linear(%x, %b)\n  return %y as \"y\"\n}";
}

// A linear layer of integers.
std::string integers(int m, int n, int k, const std::string& type = "f32") {
  const std::string size = std::to_string(k), columns = std::to_string(n);
  const std::string rows = m == 1 ? "1" : "m";
  return "graph main(%x: f32[" + rows + ", " + size + "], %w: i8[" + columns + ", " + size +
         "], %wk: f32[" + columns + ", 1], %wb: f32[" + columns + "])" +
         (m == 1 ? "" : " symbols m in [0, 100000] opt " + std::to_string(m)) +
         " {\n  %s = constant() {value = f32[] 0.25}\n  %z = constant() {value = i64[] 120}\n"
         "  %q = quantize(%x, %s, %z) {dtype = u8, quant_min = 0, quant_max = 255}\n"
         "  %a = dequantize(%q, %s, %z) {dtype = f32}\n  %b = dequantize(%w, %wk) {dtype = f32}\n"
         "  %l = linear(%a, %b, %wb)\n  %r = relu(%l)\n  %y = cast(%r) {dtype = " +
         type + "}\n  return %y as \"y\"\n}";
}

std::string product(const std::string& type, int m, int n, int k, bool transposed) {
  return "graph main(%x: " + type + "[3, m, k], %v: " + type +
         (transposed ? "[3, n, k]" : "[3, k, n]") + ") symbols m in [0, 100000] opt " +
         std::to_string(m) + ", n in [0, 100000] opt " + std::to_string(n) +
         ", k in [0, 100000] opt " + std::to_string(k) +
         " {\n  %y = matmul(%x, %v) {transpose_b = " + (transposed ? "true" : "false") +
         "}\n  return %y as \"y\"\n}";
}

std::string convolution(const std::string& type, int channels, int filters, int kernel, int opt) {
  const std::string size = std::to_string(kernel), c = std::to_string(channels);
  const std::string o = std::to_string(filters);
  return "graph main(%x: " + type + "[n, 14, 14, " + c + "], %w: " + type + "[" + o + ", " + size +
         ", " + size + ", " + c + "], %wb: " + type + "[" + o + "]) symbols n in [0, 300] opt " +
         std::to_string(opt) +
         " {\n  %c = convolution(%x, %w, %wb) {stride = [1, 1], padding_before = [1, 1], "
         "padding_after = [1, 1], dilation = [1, 1], groups = 1, layout = \"nhwc\"}\n"
         "  %y = relu(%c)\n  return %y as \"y\"\n}";
}

// The stem of a network: what is stored is the largest results of windows.
std::string pooled(const std::string& type, int channels, int filters, int kernel, int opt) {
  std::string text = convolution(type, channels, filters, kernel, opt);
  const std::string end = "  return %y as";
  text.replace(text.find(end), end.size(),
               "  %p = max_pool(%y) {kernel = [3, 3], stride = [2, 2], padding_before = [1, 1], "
               "padding_after = [1, 1], dilation = [1, 1], layout = \"nhwc\"}\n  return %p as");
  return text;
}

// The input is a temporary, which the copy engine may read.
std::string placed(const std::string& type, int size, int channels, int filters, int kernel,
                   int stride, int opt, bool residual = true) {
  const std::string taps = std::to_string(kernel), c = std::to_string(channels);
  const std::string s = std::to_string(size), o = std::to_string(filters),
                    pad = std::to_string(kernel / 2), step = std::to_string(stride);
  const std::string out = std::to_string((size + kernel / 2 * 2 - kernel) / stride + 1);
  return "graph main(%x0: " + type + "[n, " + s + ", " + s + ", " + c + "], %r: " + type + "[n, " +
         out + ", " + out + ", " + o + "], %w: " + type + "[" + o + ", " + taps + ", " + taps +
         ", " + c + "], %wb: " + type + "[" + o + "]) symbols n in [0, 300] opt " +
         std::to_string(opt) + " {\n  %x = relu(%x0)\n  %c = convolution(%x, %w, %wb) {stride = [" +
         step + ", " + step + "], padding_before = [" + pad + ", " + pad + "], padding_after = [" +
         pad + ", " + pad +
         "], dilation = [1, 1], groups = 1, layout = \"nhwc\"}\n"
         "  %s = " +
         (residual ? "add(%c, %r)" : "neg(%c)") + "\n  %y = relu(%s)\n  return %y as \"y\"\n}";
}

// A residual block with a projection of its input.
std::string projected(const std::string& type, int size, int channels, int filters, int kernel,
                      int stride, int opt) {
  const std::string s = std::to_string(size), c = std::to_string(channels),
                    o = std::to_string(filters), taps = std::to_string(kernel),
                    wide = std::to_string(size * stride), pad = std::to_string(kernel / 2),
                    step = std::to_string(stride);
  const auto convolve = [](const std::string& of, const std::string& step, const std::string& pad) {
    return " = convolution(" + of + ") {stride = [" + step + ", " + step + "], padding_before = [" +
           pad + ", " + pad + "], padding_after = [" + pad + ", " + pad +
           "], dilation = [1, 1], groups = 1, layout = \"nhwc\"}\n";
  };
  return "graph main(%x: " + type + "[n, " + wide + ", " + wide + ", " + c + "], %z: " + type +
         "[n, " + s + ", " + s + ", " + c + "], %w: " + type + "[" + o + ", " + taps + ", " + taps +
         ", " + c + "], %wb: " + type + "[" + o + "], %w2: " + type + "[" + o + ", 1, 1, " + c +
         "]) symbols n in [0, 300] opt " + std::to_string(opt) + " {\n  %c" +
         convolve("%z, %w, %wb", "1", pad) + "  %e" + convolve("%x, %w2", step, "0") +
         "  %s = add(%c, %e)\n  %y = relu(%s)\n  return %y as \"y\"\n}";
}

struct Opt {
  int batches = 4, rows = 512, keys = 512;
};

std::string attention(const std::string& type, int dim, Opt opt, const std::string& mask,
                      bool causal) {
  const std::string d = std::to_string(dim);
  return "graph main(%q: " + type + "[b, 8, s, " + d + "], %k: " + type + "[b, 2, t, " + d +
         "], %v: " + type + "[b, 2, t, " + d + "]" + (mask.empty() ? "" : ", %m: " + mask) +
         ") symbols b in [1, 40] opt " + std::to_string(opt.batches) + ", s in [1, 5000] opt " +
         std::to_string(opt.rows) + ", t in [1, 5000] opt " + std::to_string(opt.keys) +
         " {\n  %y = attention(%q, %k, %v" + (mask.empty() ? "" : ", %m") +
         ") {scale = 0.2, causal = " + (causal ? "true" : "false") + "}\n  return %y as \"y\"\n}";
}

std::vector<Contraction> all_contractions() {
  const std::string to_float8 = "  %h = relu(%l)\n  %g = cast(%h) {dtype = f8e4m3}\n";
  const std::string plain = "  %g = neg(%l)\n", gelu = "  %g = gelu(%l) {approximate = \"none\"}\n";
  return {
      {"large_f16", linear("f16", 4096, 2304, 768, plain)},
      {"large_gelu_f16", linear("f16", 6304, 3072, 768, gelu)},
      {"deep_bf16", linear("bf16", 6304, 768, 3072, plain)},
      {"medium_f16", linear("f16", 512, 2048, 2048, plain)},
      {"shared_depth_f16", linear("f16", 128, 768, 3072, plain)},
      {"few_rows_bf16", linear("bf16", 16, 4096, 4096, gelu)},
      {"odd_f16", linear("f16", 300, 70, 33, gelu)},
      {"large_f32", linear("f32", 4096, 2304, 768, gelu)},
      {"small_f32", linear("f32", 100, 70, 33, plain)},
      {"medium_f32", linear("f32", 512, 2048, 2048, plain)},
      {"shared_depth_f32", linear("f32", 128, 768, 3072, gelu)},
      {"few_rows_f32", linear("f32", 16, 4096, 4096, plain)},
      {"dynamic_f32", product("f32", 4096, 4096, 1024, true)},
      {"dynamic_rows_f32", product("f32", 4096, 64, 512, false)},
      {"narrow_f32", product("f32", 40000, 16, 256, true)},
      {"placed_28_f32", placed("f32", 28, 128, 128, 3, 1, 32)},
      {"large_f64", linear("f64", 512, 512, 512, plain)},
      {"dynamic_f16", product("f16", 4096, 4096, 1024, true)},
      {"dynamic_rows_f16", product("f16", 4096, 64, 512, false)},
      {"narrow_bf16", product("bf16", 40000, 16, 256, true)},
      {"row_f16", row("f16", 2304, 768)},
      {"row_long_bf16", row("bf16", 2048, 8192)},
      {"row_bf16", row("bf16", 3072, 2048)},
      {"row_wide_bf16", row("bf16", 128256, 2048)},
      {"gated_row_bf16", gated("bf16", 1, 8192, 2048)},
      {"row_short_f32", row("f32", 100, 96)},
      {"row_f64", row("f64", 3072, 2048)},
      {"streamed_f16", linear("f16", 100000, 256, 64, plain)},
      {"streamed_gelu_bf16", linear("bf16", 100000, 384, 96, gelu)},
      {"streamed_columns_f16", linear("f16", 100000, 96, 384, plain)},
      {"streamed_deep_bf16", linear("bf16", 25088, 1024, 256, gelu)},
      {"streamed_narrow_f16", linear("f16", 100000, 64, 512, plain)},
      {"streamed_gated_bf16", gated("bf16", 100000, 512, 128)},
      {"streamed_tf32", linear("f32", 100000, 256, 64, gelu)},
      {"streamed_float8_f16", float8("f16", 100000, 512, 128, plain)},
      {"streamed_integers", integers(100000, 512, 128)},
      {"streamed_halved_f16", placed("f16", 56, 256, 512, 1, 2, 128)},
      {"few_tiles_f16", linear("f16", 128, 768, 768, plain)},
      {"few_tiles_tf32", linear("f32", 100, 512, 256, gelu)},
      {"few_tiles_integers", integers(128, 512, 768)},
      {"columns_of_160_f16", linear("f16", 8192, 320, 1280, gelu)},
      {"gated_halves_f16", gated_halves("f16", 8192, 1280, 320)},
      {"gated_f16", gated("f16", 512, 8192, 2048)},
      {"gated_large_bf16", gated("bf16", 6304, 3072, 768)},
      {"gated_shared_depth_f16", gated("f16", 128, 200, 3072)},
      {"gated_few_rows_f16", gated("f16", 16, 4096, 4096)},
      {"gated_odd_bf16", gated("bf16", 300, 70, 33)},
      {"gated_row_f16", gated("f16", 1, 8192, 2048)},
      {"gated_row_f32", gated("f32", 1, 300, 70)},
      {"gated_f32", gated("f32", 512, 2048, 512)},
      {"gated_f64", gated("f64", 100, 70, 33)},
      {"gated_tf32", gated("f32", 512, 8192, 2048)},
      {"float8_large_f16", float8("f16", 4096, 2304, 768, gelu)},
      {"float8_medium_bf16", float8("bf16", 512, 2048, 2048, to_float8)},
      {"float8_shared_depth_f16", float8("f16", 128, 768, 3072, plain)},
      {"float8_one_step_f16", float8("f16", 4096, 3072, 128, plain)},
      {"float8_few_rows_bf16", float8("bf16", 16, 4096, 4096, plain)},
      {"float8_odd_f16", float8("f16", 300, 70, 33, gelu)},
      {"float8_f32", float8("f32", 4096, 2304, 768, plain)},
      {"float8_few_rows_f32", float8("f32", 16, 4096, 4096, plain)},
      {"float8_tf32", float8("f32", 512, 2048, 2048, plain)},
      {"float8_row_f16", float8("f16", 1, 2304, 768, plain)},
      {"float8_weight_f16", float8_weight("f16", 2048, 8192)},
      {"float8_weight_bf16", float8_weight("bf16", 128256, 2048)},
      {"float8_weight_f32", float8_weight("f32", 300, 70)},
      {"integers_large", integers(4096, 2304, 768)},
      {"integers_shared_depth", integers(128, 768, 3072)},
      {"integers_large_f16", integers(4096, 2304, 768, "f16")},
      {"integers_streamed_bf16", integers(100000, 256, 64, "bf16")},
      {"integers_few_rows", integers(16, 4096, 4096)},
      {"integers_odd", integers(300, 70, 33)},
      {"integers_row", integers(1, 2304, 768)},
      {"convolution_f16", convolution("f16", 64, 64, 3, 32)},
      {"convolution_deep_bf16", convolution("bf16", 512, 256, 3, 1)},
      {"convolution_stem_f16", convolution("f16", 3, 64, 7, 32)},
      {"placed_56_f16", placed("f16", 56, 64, 64, 3, 1, 32)},
      {"placed_28_bf16", placed("bf16", 28, 128, 128, 3, 1, 32)},
      {"placed_14_f16", placed("f16", 14, 256, 256, 3, 1, 32)},
      {"placed_7_bf16", placed("bf16", 7, 512, 512, 3, 1, 1)},
      {"placed_halved_f16", placed("f16", 56, 256, 512, 1, 2, 32)},
      {"placed_half_steps_f16", placed("f16", 14, 96, 192, 3, 2, 32)},
      {"placed_half_steps_deep_bf16", placed("bf16", 14, 32, 64, 3, 1, 1)},
      {"projected_56_f16", projected("f16", 56, 64, 256, 1, 1, 32)},
      {"projected_strided_bf16", projected("bf16", 28, 256, 512, 1, 2, 128)},
      {"projected_7_f16", projected("f16", 7, 1024, 2048, 1, 2, 1)},
      {"projected_basic_bf16", projected("bf16", 28, 128, 128, 3, 2, 32)},
      {"projected_odd_f16", projected("f16", 9, 40, 88, 3, 1, 4)},
      {"convolution_window_bf16", convolution("bf16", 5, 70, 3, 300)},
      {"convolution_window_few_f16", convolution("f16", 1, 32, 5, 1)},
      {"convolution_pooled_f16", pooled("f16", 3, 64, 7, 300)},
      {"convolution_pooled_few_bf16", pooled("bf16", 4, 24, 3, 1)},
      {"convolution_f32", convolution("f32", 64, 64, 3, 8)},
      {"large_tf32", linear("f32", 4096, 2304, 768, gelu)},
      {"medium_tf32", linear("f32", 512, 2048, 2048, plain)},
      {"shared_depth_tf32", linear("f32", 128, 768, 3072, plain)},
      {"few_rows_tf32", linear("f32", 16, 4096, 4096, gelu)},
      {"odd_tf32", linear("f32", 300, 70, 33, gelu)},
      {"dynamic_tf32", product("f32", 4096, 4096, 1024, true)},
      {"dynamic_rows_tf32", product("f32", 4096, 64, 512, false)},
      {"narrow_tf32", product("f32", 40000, 16, 256, true)},
      {"convolution_tf32", convolution("f32", 64, 64, 3, 32)},
      {"convolution_deep_tf32", convolution("f32", 512, 256, 3, 1)},
      {"convolution_stem_tf32", convolution("f32", 3, 64, 7, 32)},
      {"placed_56_tf32", placed("f32", 56, 64, 64, 3, 1, 32)},
      {"placed_7_tf32", placed("f32", 7, 512, 512, 3, 1, 1)},
      {"placed_halved_tf32", placed("f32", 56, 256, 512, 1, 2, 32)},
      {"placed_half_steps_tf32", placed("f32", 14, 48, 192, 3, 2, 32)},
      {"attention_tf32", attention("f32", 64, {}, "bool[b, 1, s, t]", true)},
      {"attention_64_f16", attention("f16", 64, {}, "", false)},
      {"attention_128_bf16", attention("bf16", 128, {}, "", true)},
      {"attention_256_f16", attention("f16", 256, {}, "", false)},
      {"attention_20_f16", attention("f16", 20, {}, "bool[b, 1, s, t]", false)},
      {"attention_biased_bf16", attention("bf16", 64, {}, "bf16[8, s, t]", true)},
      {"attention_short_f16", attention("f16", 64, {16, 128, 128}, "", false)},
      {"attention_short_masked_bf16",
       attention("bf16", 64, {16, 128, 128}, "bool[b, 1, 1, t]", false)},
      {"attention_rows_f16", attention("f16", 64, {40, 197, 197}, "", false)},
      {"attention_rows_80_bf16", attention("bf16", 80, {40, 257, 257}, "", false)},
      {"attention_medium_f16", attention("f16", 64, {8, 512, 512}, "", true)},
      {"attention_uneven_f16", attention("f16", 64, {1, 2250, 1500}, "", false)},
      {"attention_long_bf16", attention("bf16", 64, {4, 2048, 2048}, "", false)},
      {"attention_long_masked_f16",
       attention("f16", 64, {4, 2048, 2048}, "bool[b, 1, s, t]", false)},
      {"attention_wide_f16", attention("f16", 128, {2, 2048, 2048}, "", false)},
      {"attention_wide_short_f16", attention("f16", 80, {1, 512, 512}, "", true)},
      {"attention_wide_biased_bf16", attention("bf16", 128, {}, "bf16[8, s, t]", true)},
      {"attention_192_bf16", attention("bf16", 192, {}, "bf16[8, s, t]", true)},
      {"attention_decode_f16", attention("f16", 128, {.rows = 1}, "bool[b, 1, 1, t]", false)},
      {"attention_f32", attention("f32", 64, {}, "bool[b, 1, s, t]", true)},
      {"attention_256_f32", attention("f32", 256, {}, "", false)},
  };
}

plan::Program planned(const std::string& graph, uint8_t tf32 = 0, const std::string& variant = "") {
  return plan_for_cuda(
      graph_with_constants(graph, {}, [](const ir::SymbolPtr& symbol) { return symbol->opt; }),
      tf32, variant);
}

class CudaContraction : public testing::TestWithParam<Contraction> {};

TEST_P(CudaContraction, CompilesWithoutSpills) {
  if (const std::string obstacle = cuda::nvrtc_obstacle(); !obstacle.empty())
    GTEST_SKIP() << obstacle;
  for (const cuda::Target& target : std::views::reverse(cuda::all_targets())) {
    const plan::Program program = planned(GetParam().graph, GetParam().tf32(), target.name);
    for (const cuda::KernelText& kernel : kernel_texts(program, target))
      EXPECT_EQ(problem_of(kernel.text, target), "") << target.name;
  }
}

// Blocks times what a block writes covers the result; shared memory is what the generation has.
TEST_P(CudaContraction, LaunchesCoverTheirResult) {
  const auto opt = [](const ir::SymbolPtr& symbol) { return symbol->opt; };
  for (const cuda::Target& target : cuda::all_targets()) {
    const plan::Program program = planned(GetParam().graph, GetParam().tf32(), target.name);
    for (const cuda::KernelText& kernel : kernel_texts(program, target)) {
      const backend::KernelInterface& interface = kernel.kernel.interface;
      const int64_t blocks = ir::product(interface.grid).evaluate(opt);
      for (const auto& [buffer, writes] : interface.task_writes) {
        const int64_t elements = ir::product(program.buffers[buffer].type.shape).evaluate(opt);
        EXPECT_GE(blocks * writes.evaluate(opt), elements) << target.name;
      }
      const int64_t most = target.sm == 90 ? 227 : 99;
      EXPECT_LE(interface.shared_bytes.evaluate(opt), most << 10) << target.name;
      EXPECT_LE(interface.block.at(0).constant(), 1024);
    }
  }
}

int constant_of(const std::string& text, const std::string& name) {
  const std::string before = "constexpr int " + name + " = ";
  const size_t at = text.find(before);
  return at == std::string::npos ? -1 : std::stoi(text.substr(at + before.size()));
}

// What one row times a matrix fetches before the kernel in front has ended is there for each thread: threads that
// would reach beyond the end of a column fetch nothing early.
TEST(CudaContractionTest, ColumnsOfOneRowAreAsLongAsWhatIsFetchedEarly) {
  for (const auto& [n, k] : {std::pair{3072, 2048},
                             {2048, 2048},
                             {512, 2048},
                             {2048, 8192},
                             {768, 768},
                             {100, 1024},
                             {128256, 2048}}) {
    for (const std::string& graph : {row("f16", n, k), gated("f16", 1, n, k)}) {
      const plan::Program program = planned(graph);
      const cuda::KernelText kernel =
          cuda::generate_text(program, program.kernels.back(), target_named("sm_90"));
      const int early = constant_of(kernel.text, "kEarly");
      EXPECT_GE(early, 1) << graph;
      EXPECT_LE(early * constant_of(kernel.text, "kAlong") * 32 * 8, k) << graph;
    }
  }
}

// What tuning tries beside the model's choice: each once, and they compile.
TEST(CudaContractionTest, OtherWaysAreOthersAndCompile) {
  for (const std::string& graph :
       {linear("f16", 512, 2048, 2048, "  %g = neg(%l)\n"),
        linear("f32", 512, 2048, 2048, "  %g = neg(%l)\n"), placed("f16", 14, 256, 256, 3, 1, 32),
        projected("f16", 28, 256, 512, 1, 2, 32)}) {
    const plan::Program program = planned(graph, 0, "sm_90");
    std::set<std::string> texts;
    size_t ways = 1;
    for (size_t way = 0; way < std::min<size_t>(ways, 8); ++way) {
      const cuda::KernelText kernel =
          cuda::generate_text(program, program.kernels.back(), target_named("sm_90"), way);
      ways = kernel.ways;
      EXPECT_TRUE(texts.insert(kernel.text).second) << way;
      if (cuda::nvrtc_obstacle().empty()) {
        EXPECT_EQ(problem_of(kernel.text, target_named("sm_90")), "") << way;
      }
    }
    EXPECT_GE(ways, 8U);
  }
}

INSTANTIATE_TEST_SUITE_P(All, CudaContraction, testing::ValuesIn(all_contractions()),
                         [](const testing::TestParamInfo<Contraction>& info) {
                           return info.param.name;
                         });

// How many groups have tiles of their own.
int turns_of(const std::string& graph) {
  const plan::Program program = planned(graph);
  const std::string text = kernel_texts(program, target_named("sm_90")).back().text;
  const bool take_turns = text.find("constexpr bool kPingPong = true") != std::string::npos;
  return take_turns ? constant_of(text, "kGroups") : 1;
}

// A residual of 51 MB waits for memory, one of 3 MB lies in the cache.
TEST(CudaContractionTest, ManyGroupsTakeTurnsWhereRowsAreStreamed) {
  const std::string neg = "  %g = neg(%l)\n", gelu = "  %g = gelu(%l) {approximate = \"none\"}\n";
  EXPECT_GT(turns_of(linear("f16", 100000, 256, 64, neg)), 2);
  EXPECT_GT(turns_of(linear("f16", 100000, 256, 64, gelu)), 2);
  EXPECT_LE(turns_of(linear("f16", 100000, 256, 64, gelu)), 4);  // six have few registers
  EXPECT_LE(turns_of(linear("f16", 6000, 256, 64, neg)), 2);
}

// Programs for Hopper alone have a second sum; those that other generations share do not.
TEST(CudaContractionTest, ProjectionsOfResidualBlocksAreSecondSumsOnHopper) {
  const std::string graph = projected("f16", 28, 256, 512, 1, 2, 32);
  for (const auto& [variant, kernels] :
       {std::pair{"sm_90", 1U}, {"sm_80", 2U}, {"compute_90", 2U}, {"", 2U}})
    EXPECT_EQ(planned(graph, 0, variant).kernels.size(), kernels) << variant;
}

// What each row loads is not brought to pairs; everything else of 16 bits is finished as such.
TEST(CudaContractionTest, ResultsOf16BitsAreFinishedAsPairs) {
  const auto has_pairs = [](const std::string& graph) {
    return kernel_texts(planned(graph, 0, "sm_90"), target_named("sm_90"))
               .back()
               .text.find("make_pair_result") != std::string::npos;
  };
  EXPECT_TRUE(has_pairs(projected("bf16", 28, 256, 512, 1, 2, 128)));
  EXPECT_TRUE(has_pairs(placed("f16", 28, 128, 128, 3, 1, 128, false)));
  EXPECT_FALSE(has_pairs(placed("f16", 28, 128, 128, 3, 1, 128)));
  EXPECT_FALSE(has_pairs(linear("f32", 4096, 2304, 768, "  %g = neg(%l)\n")));
}

TEST(CudaContractionTest, GroupsFitTheRegistersOfAMultiprocessor) {
  std::set<int> turns;
  for (const int64_t m : {64, 4096, 100000}) {
    for (const int64_t k : {64, 256, 3072}) {
      const cuda::ProductSize size{
          .m = m, .n = 512, .k = k, .row_loads = 1, .left_bytes = m * k * 2};
      for (const cuda::GroupTile& tile : cuda::rank_group_tiles(size)) {
        const int at_launch = 65536 / tile.threads() / 8 * 8;
        EXPECT_LE(tile.producer_registers() + tile.groups * tile.registers(),
                  (tile.groups + 1) * at_launch);
        if (tile.ping_pong) turns.insert(tile.groups);
      }
    }
  }
  EXPECT_EQ(turns, (std::set<int>{2, 3, 4, 6}));
}

// f32 is rounded where that is allowed and nowhere else: of products, convolutions, or both.
TEST(CudaContractionTest, RoundsToTf32WhereItIsAllowed) {
  const auto rounds = [](const std::string& graph, uint8_t tf32) {
    return kernel_texts(planned(graph, tf32), target_named("sm_80"))
               .back()
               .text.find("kThreeProducts = false") != std::string::npos;
  };
  const std::string products = product("f32", 256, 256, 256, true);
  const std::string convolutions = convolution("f32", 64, 64, 3, 32);
  const std::string wide = product("f64", 256, 256, 256, true);
  EXPECT_FALSE(rounds(products, 0));
  EXPECT_TRUE(rounds(products, engine::kTf32Products));
  EXPECT_FALSE(rounds(products, engine::kTf32Convolutions));
  EXPECT_FALSE(rounds(convolutions, 0));
  EXPECT_FALSE(rounds(convolutions, engine::kTf32Products));
  EXPECT_TRUE(rounds(convolutions, engine::kTf32Convolutions));
  EXPECT_FALSE(rounds(wide, Contraction::kAnyTf32));
}

// Sums of f8e4m3 are rounded where results have 16 bits or TF32 is allowed, and then those of each step are added
// apart; results of f32 are exact.
TEST(CudaContractionTest, MultipliesFloat8AndIntegersAsSuch) {
  const auto has = [](const std::string& graph, const char* target, const char* text,
                      uint8_t tf32 = 0) {
    return kernel_texts(planned(graph, tf32), target_named(target)).back().text.find(text) !=
           std::string::npos;
  };
  const std::string tail = "  %g = neg(%l)\n";
  const std::string half = float8("f16", 512, 2048, 2048, tail);
  const std::string wide = float8("f32", 512, 2048, 2048, tail);
  EXPECT_TRUE(has(half, "sm_90", "k32.f32.e4m3.e4m3"));
  EXPECT_TRUE(has(half, "sm_90", "kAddApart = true"));
  EXPECT_TRUE(has(float8("f16", 512, 2048, 128, tail), "sm_90", "kAddApart = false"));
  EXPECT_FALSE(has(wide, "sm_90", "wgmma"));
  EXPECT_TRUE(has(wide, "sm_90", "kRoundedSums = false"));
  EXPECT_TRUE(has(wide, "sm_90", "wgmma", engine::kTf32Products));
  for (const char* target : {"sm_80", "sm_86", "sm_89", "compute_90"}) {
    EXPECT_TRUE(has(half, target, "kFloat8 = true")) << target;
    EXPECT_TRUE(has(half, target, "kRoundedSums = true")) << target;
    EXPECT_TRUE(has(wide, target, "kRoundedSums = false")) << target;
    EXPECT_TRUE(has(integers(512, 2048, 2048), target, "using Acc = int;")) << target;
  }
  EXPECT_TRUE(has(integers(512, 2048, 2048), "sm_90", "k32.s32.u8.s8"));
  EXPECT_TRUE(has(float8_weight("f16", 2048, 8192), "sm_90", "using Element = float8_t;"));
  EXPECT_TRUE(has(float8_weight("f16", 2048, 8192), "sm_90", "using RowElement = half_t;"));
}

// f32 takes tensor cores, exactly, where those are fast enough for three products.
TEST(CudaContractionTest, MultipliesF32InThreeProducts) {
  for (const std::string& graph :
       {product("f32", 256, 256, 256, true), convolution("f32", 64, 64, 3, 32)}) {
    const plan::Program program = planned(graph);
    const auto has = [&](const char* target, const char* text) {
      return kernel_texts(program, target_named(target)).back().text.find(text) !=
             std::string::npos;
    };
    for (const char* target : {"sm_80", "sm_90"})
      EXPECT_TRUE(has(target, "kThreeProducts = true")) << target;
    for (const char* target : {"sm_86", "sm_89"}) EXPECT_TRUE(has(target, "fma_sum(")) << target;
  }
}

// What a multiprocessor has is enough for the blocks that a cut counts on.
TEST(CudaContractionTest, AttentionCutsFitTheMachine) {
  std::set<std::pair<int, int>> cuts;
  for (const int64_t rows : {33, 64, 128, 197, 512, 4096}) {
    for (const int64_t batches : {1, 12, 64, 384}) {
      for (const int64_t width : {16, 64, 80, 128, 256}) {
        for (const int kind : {0, 1, 2}) {
          const cuda::GroupCut cut = cuda::choose_group_cut({.batches = batches,
                                                             .rows = rows,
                                                             .keys = rows,
                                                             .head_pad = width,
                                                             .value_pad = width,
                                                             .causal = kind == 1,
                                                             .adjusts = kind == 2},
                                                            132);
          cuts.emplace(cut.groups, cut.keys);
          const int64_t registers =
              128 * (cut.loader_registers() + int64_t{cut.groups} * cut.reader_registers());
          EXPECT_LE(cut.blocks * registers, 65536);
          EXPECT_LE(cut.blocks * (cut.shared_bytes() + 1024), 228 << 10);
          EXPECT_LE(cut.blocks * cut.threads(), 2048);
          EXPECT_EQ(cut.keys % 16, 0);
          EXPECT_EQ(cut.last_keys % 16, 0);
          EXPECT_LE(2 * cut.last_keys, cut.keys);
          EXPECT_TRUE(kind == 0 || cut.last_keys == 0);
        }
      }
    }
  }
  EXPECT_GE(cuts.size(), 4U);
  // Twelve heads of 1500 rows: tiles of 64 or 128 rows would be a little more than two rounds of the machine.
  const cuda::AttentionSize uneven{
      .batches = 12, .rows = 1500, .keys = 1500, .head_pad = 64, .value_pad = 64};
  EXPECT_EQ(cuda::choose_group_cut(uneven, 132).groups, 3);
}

// Attention on Hopper stays on kernels of few rows where it decodes, and knows no other generation.
TEST(CudaContractionTest, AttentionUsesGroupsForManyRowsOnHopper) {
  const auto uses_groups = [](int rows, const char* target) {
    const plan::Program program = planned(attention("f16", 64, {.rows = rows}, "", false));
    return kernel_texts(program, target_named(target)).back().text.find("wgmma") !=
           std::string::npos;
  };
  EXPECT_TRUE(uses_groups(128, "sm_90"));
  EXPECT_FALSE(uses_groups(1, "sm_90"));
  EXPECT_FALSE(uses_groups(16, "sm_90"));
  EXPECT_FALSE(uses_groups(128, "sm_89"));
}

// Inputs may begin anywhere; the copy engine takes multiples of 16 bytes.
TEST(CudaContractionTest, CopyEngineReadsTemporariesAndConstantsOnly) {
  const std::string direct =
      "graph main(%x: f16[512, 768], %w: f16[768, 768]) {\n  %y = linear(%x, %w)\n  return %y\n}";
  const std::string behind =
      "graph main(%x0: f16[512, 768], %w: f16[768, 768]) {\n  %x = relu(%x0)\n"
      "  %y = linear(%x, %w)\n  return %y\n}";
  const auto maps = [](const std::string& graph) {
    return kernel_texts(planned(graph), target_named("sm_90")).back().kernel.interface.tensor_maps;
  };
  EXPECT_EQ(maps(direct).size(), 2U);
  ASSERT_EQ(maps(behind).size(), 2U);
  EXPECT_EQ(maps(behind)[0].sizes.front(), ir::Dim(768));
  EXPECT_EQ(maps(behind)[0].strides.front(), ir::Dim(1536));
}

// What a map of images says of a convolution: 3x3, stride 2, pad 1 of 15 x 15 pixels.
TEST(CudaContractionTest, CopyEngineReadsImages) {
  const auto maps = [](const std::string& graph, const char* target) {
    return kernel_texts(planned(graph), target_named(target)).back().kernel.interface.tensor_maps;
  };
  const auto images = maps(placed("f16", 15, 72, 64, 3, 2, 32), "sm_90");
  ASSERT_EQ(images.size(), 2U);
  const backend::TensorMapSpec& map = images[0];
  EXPECT_EQ(map.sizes[0], ir::Dim(72));
  EXPECT_EQ(map.sizes[1], ir::Dim(15));
  EXPECT_EQ(map.strides[1], ir::Dim(15 * 72 * 2));
  EXPECT_EQ(map.element_strides, (std::vector<int64_t>{1, 2, 2, 1}));
  EXPECT_EQ(map.lower_corner, (std::vector<int64_t>{-1, -1}));
  EXPECT_EQ(map.upper_corner, (std::vector<int64_t>{-1, -1}));
  EXPECT_EQ(map.box_channels, 32);  // 96 channels in three steps, not 128 in two
  EXPECT_EQ(images[1].box[1], 1);

  EXPECT_EQ(maps(placed("f16", 15, 72, 64, 3, 2, 32), "sm_80").size(), 0U);
  EXPECT_EQ(maps(convolution("f16", 64, 64, 3, 32), "sm_90").size(), 2U);    // an input
  EXPECT_EQ(maps(placed("f16", 15, 60, 64, 3, 2, 32), "sm_90").size(), 0U);  // no whole vectors
  EXPECT_EQ(maps(placed("f16", 40, 64, 64, 3, 9, 32), "sm_90").size(), 0U);  // strides to 8
}

// Rows of 7 as rows of 8, from a matrix that lies the other way.
TEST(CudaContractionTest, ConstantsBecomeRowsOfWholeVectors) {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(DType::F32, {7, 3}, &data);
  for (int64_t i = 0; i < 21; ++i) ir::Literal::set(data, DType::F32, i, static_cast<double>(i));
  const ir::Literal rows = cuda::derive_constant("cuda_rows:0:3:7:1:3", literal);
  EXPECT_EQ(rows.shape, (std::vector<int64_t>{3, 8}));
  EXPECT_EQ(rows.as_double(0), 0);
  EXPECT_EQ(rows.as_double(1), 3);
  EXPECT_EQ(rows.as_double(8), 1);
  EXPECT_EQ(rows.as_double(7), 0);
  for (const char* key :
       {"cuda_rows:0:3:7:1", "cuda_rows:0:3:7:1:3:1", "cuda_rows:0:3:7:1:-3", "cuda_rows:1:3:7:1:3",
        "cuda_rows:0:9223372036854775807:7:1:3", "rows", ""})
    EXPECT_THROW(cuda::derive_constant(key, literal), CompileError) << key;
}

// Two filters of 1 x 2 pixels of 3 channels, as pixels of 4 and rows of 4 pixels.
TEST(CudaContractionTest, FiltersBecomeWindows) {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(DType::F32, {2, 1, 2, 3}, &data);
  for (int64_t i = 0; i < 12; ++i)
    ir::Literal::set(data, DType::F32, i, static_cast<double>(i + 1));
  const ir::Literal windows = cuda::derive_constant("cuda_windows:2:1:2:3:4:4", literal);
  EXPECT_EQ(windows.shape, (std::vector<int64_t>{2, 1, 4, 4}));
  EXPECT_EQ(windows.as_double(2), 3);
  EXPECT_EQ(windows.as_double(3), 0);
  EXPECT_EQ(windows.as_double(4), 4);
  EXPECT_EQ(windows.as_double(8), 0);
  EXPECT_EQ(windows.as_double(16), 7);
  for (const char* key :
       {"cuda_windows:2:1:2:3:4", "cuda_windows:2:1:2:3:4:4:4", "cuda_windows:2:1:2:3:1:4",
        "cuda_windows:2:1:2:3:4:2", "cuda_windows:3:1:2:3:4:4", "cuda_windows:2:1:2:-3:4:4",
        "cuda_windows:2:1:2:3:9223372036854775807:4", "cuda_windows:2:1:0:3:4:4"})
    EXPECT_THROW(cuda::derive_constant(key, literal), CompileError) << key;
}

}  // namespace
}  // namespace kiln::test
