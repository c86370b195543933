// The stub backend in the suite: src/backends/stub, which is in no product and joins the tables
// here.
#include "backends/stub/compile/stub_backend.h"

#include "backends/stub/device/executable.h"
#include "compiler/backends.h"
#include "conformance/engine_runner.h"
#include "runtime/devices.h"

namespace kiln::conformance {
namespace {

constexpr Gaps kGaps[] = {
    {"the machine has no integers of 8 and 16 bits",
     "add_i16 add_i8 add_u8 bitwise_and_u8 bitwise_not_u8 cast_bool_u8 cast_f32_u8 cast_f64_u8 "
     "cast_i16_bool cast_i16_f16 cast_i16_f32 cast_i16_f64 cast_i16_i32 cast_i16_i64 "
     "cast_i16_u8 cast_i32_u8 cast_i64_u8 cast_i8_bool cast_i8_f16 cast_i8_f32 cast_i8_f64 "
     "cast_i8_i32 cast_i8_i64 cast_i8_u8 cast_u8_bool cast_u8_f16 cast_u8_f32 cast_u8_f64 "
     "cast_u8_i32 cast_u8_i64 cast_u8_u8 check_div_i16 check_div_i8 check_div_u8 "
     "check_floor_div_i16 check_floor_div_i8 check_floor_div_u8 check_fmod_i16 check_fmod_i8 "
     "check_fmod_u8 check_nonzero_i16 check_nonzero_i8 check_nonzero_u8 check_remainder_i16 "
     "check_remainder_i8 check_remainder_u8 dequantize_blocks_i8 dequantize_blocks_u8 "
     "dequantize_tensor_i16 dequantize_tensor_i8 dequantize_tensor_u8 dequantize_to_bf16 "
     "dequantize_to_f16 dequantize_to_f32 dequantize_to_f64 dequantized_weight_f32 "
     "fake_quantised_f32 gt_u8 lt_u8 maximum_u8 mul_u8 neg_i8 permute_large_i8 permute_u8 "
     "quantize_blocks_f32 quantize_by_input_f32 quantize_channels_f32 quantize_channels_f64 "
     "quantize_tensor_bf16 quantize_tensor_f16 quantize_tensor_f32 quantize_tensor_f64 "
     "quantize_unsigned_f32 reshape_u8 large_cast_u8 large_narrowing_f64 "
     "convolution_unrounded_f16 convolution_unrounded_bf16 max_pool_nhwc_i8 max_pool_nhwc_u8 "
     "integer_chain_f32 integer_convolution_1d_f32 integer_convolution_3d_f32 "
     "integer_convolution_dynamic_border_f32 integer_convolution_dynamic_f32 "
     "integer_convolution_f32 integer_convolution_i8_f32 integer_depthwise_f32 "
     "integer_depthwise_i8_f32 integer_depthwise_inside_f32 integer_depthwise_quantised_f32 "
     "integer_groups_of_two_f32 integer_residual_f32 integer_asymmetric_weight_f32 "
     "integer_asymmetric_weight_u8_f32 integer_asymmetric_weight_f64 permute_channels_last_f16 "
     "permute_channels_last_bf16 permute_channels_last_u8 permute_channels_last_i8 "
     "permute_channels_last_computed_f16 permute_channels_last_computed_bf16 "
     "integer_heads_f32 integer_linear_255_f32 integer_linear_i8_bf16 integer_linear_i8_f16 "
     "integer_linear_i8_f32 integer_linear_u8_f32 integer_linear_zero_f32 "
     "integer_matmul_u8_f32 integer_matmul_i8_f32 "
     "integer_matmul_by_row_f32 integer_product_of_bytes_f64 integer_weight_bf16 "
     "integer_weight_cast_f32 integer_weight_f16 integer_weight_f32 "
     "integer_weight_of_a_row_f32"},
    {"the machine has no 8-bit floats",
     "cast_bf16_f8e4m3 cast_bool_f8e4m3 cast_f16_f8e4m3 cast_f32_f8e4m3 cast_f64_f8e4m3 "
     "cast_f8e4m3_bf16 cast_f8e4m3_bool cast_f8e4m3_f16 cast_f8e4m3_f32 cast_f8e4m3_f64 "
     "cast_f8e4m3_i32 cast_f8e4m3_i64 cast_f8e4m3_small_bf16 cast_f8e4m3_small_f16 "
     "cast_f8e4m3_small_f32 cast_f8e4m3_small_f64 cast_f8e4m3_u8 cast_i16_f8e4m3 "
     "cast_i32_f8e4m3 cast_i64_f8e4m3 cast_i8_f8e4m3 cast_u8_f8e4m3 concat_f8e4m3 "
     "concat_last_f8e4m3 convolution_of_f8e4m3_f16 convolution_of_f8e4m3_f32 expand_f8e4m3 "
     "flip_f8e4m3 gather_elements_f8e4m3 gather_f8e4m3 gather_middle_f8e4m3 gather_nd_f8e4m3 "
     "linear_of_codes_bf16 linear_of_codes_f16 linear_of_codes_f32 "
     "linear_of_f8e4m3_bf16 linear_of_f8e4m3_f16 linear_through_f8e4m3_f16 "
     "linear_through_f8e4m3_f32 matmul_of_f8e4m3_f8e4m3 pad_constant_f8e4m3 pad_crop_f8e4m3 "
     "pad_reflect_f8e4m3 pad_replicate_f8e4m3 permute_f8e4m3 permute_large_f8e4m3 "
     "reshape_f8e4m3 round_trip_f8e4m3_bf16 round_trip_f8e4m3_f16 round_trip_f8e4m3_f32 "
     "round_trip_f8e4m3_f64 scatter_f8e4m3 scatter_rows_f8e4m3 slice_f8e4m3 "
     "slice_symbolic_f8e4m3 sum_of_f8e4m3_f8e4m3 where_f8e4m3"},
    {"the machine has no instruction for it",
     "acos_f32 acos_f64 acosh_f32 acosh_f64 asin_f32 asin_f64 asinh_f32 asinh_f64 atan2_f32 "
     "atan2_f64 atanh_f32 atanh_f64 ceil_f32 ceil_f64 check_fmod_i32 check_fmod_i64 cos_f32 "
     "cos_f64 cosh_f32 cosh_f64 erfc_f32 erfc_f64 exp2_f32 exp2_f64 expm1_f32 expm1_f64 "
     "floor_div_f32 floor_div_f64 fmod_f32 fmod_f64 fmod_i32 fmod_i64 gelu_none_f32 "
     "gelu_none_f64 gelu_tanh_f32 gelu_tanh_f64 hypot_f32 hypot_f64 linear_gelu_residual_f32 "
     "log10_f32 log10_f64 log1p_f32 log1p_f64 log2_f32 log2_f64 pow_f32 pow_f64 pow_i64 "
     "remainder_f32 remainder_f64 round_f32 round_f64 sigmoid_f32 sigmoid_f64 sign_f32 "
     "sign_f64 sign_i64 silu_f32 linear_gated_halves_f32 group_norm_activated_f32 "
     "sin_f32 sin_f64 sinh_f32 sinh_f64 tan_f32 tan_f64 trunc_f32 "
     "trunc_f64"},
    {"the machine has no 16-bit floats",
     "abs_f16 accumulate_wider_f16 add_bf16 add_f16 cast_bf16_bool cast_bf16_f16 cast_bf16_f32 "
     "cast_bf16_f64 cast_bf16_i32 cast_bf16_i64 cast_bf16_u8 cast_bool_f16 cast_f16_bool "
     "cast_f16_f16 cast_f16_f32 cast_f16_f64 cast_f16_i32 cast_f16_i64 cast_f16_u8 "
     "cast_f32_f16 cast_f64_f16 cast_i32_f16 cast_i64_f16 cosh_bf16 erfc_f16 exp2_bf16 "
     "exp2_f16 exp_bf16 exp_f16 gelu_none_bf16 gelu_tanh_bf16 hypot_f16 isinf_f16 "
     "layer_norm_f16 log_softmax_0_bf16 log_softmax_1_bf16 log_softmax_2_bf16 maximum_f16 "
     "mul_bf16 neg_bf16 neg_f16 permute_f16 reduce_mean_012_f16 reduce_mean_02_f16 "
     "reduce_mean_0_f16 reduce_mean_1_f16 reduce_mean_2_f16 relu_f16 reshape_f16 rms_norm_bf16 "
     "rsqrt_bf16 sigmoid_bf16 silu_f16 sinh_f16 softmax_0_bf16 softmax_1_bf16 softmax_2_bf16 "
     "softmax_rolled_bf16 sqrt_f16 tanh_f16 where_f16 large_add_f16 large_cast_f16 "
     "large_gather_normalised_f16 large_layer_norm_residual_f16 large_odd_f16 large_softmax_f16 "
     "large_transpose_f16 large_transposes_f16 large_depthwise_f16 large_overlapping_max_pool_f16 "
     "convolution_pool_f16 convolution_pool_bf16 convolution_pool_within_f16 "
     "convolution_projected_f16 convolution_projected_bf16 convolution_projected_strided_f16 "
     "convolution_projected_strided_bf16 convolution_projected_basic_f16 "
     "convolution_projected_basic_bf16 "
     "convolution_1d_stride_15_f16 convolution_1d_stride_16_f16 "
     "update_shift_bf16 update_slice_f16 update_statistics_bf16 update_statistics_f16 "
     "linear_windows_f16 linear_gated_halves_f16 linear_rows_first_bf16 "
     "linear_channels_first_f16 linear_channels_first_bf16 convolution_of_enlarged_f16 "
     "convolution_of_enlarged_bf16 attention_without_nan_f16 attention_without_nan_bf16 "
     "large_group_norm_activated_f16 attention_f16 attention_bf16 attention_causal_grouped_f16 "
     "attention_masked_bf16 attention_biased_f16 attention_wide_mask_f16 "
     "attention_wide_mask_bf16"},
    {"the machine keeps no position of an extreme",
     "argmax_0_f32 argmax_0_i64 argmax_1_f32 argmax_1_i64 argmax_2_f32 argmax_2_i64 "
     "large_argmax_f32 large_argmax_i64 large_argmin_columns_f32 argmin_0_f32 argmin_0_i64 "
     "argmin_1_f32 argmin_1_i64 argmin_2_f32 argmin_2_i64"},
    {"the machine carries nothing along a scan",
     "cumsum_0_f32 cumsum_0_f64 cumsum_0_i64 cumsum_1_f32 cumsum_1_f64 cumsum_1_i64 "
     "cumsum_2_f32 cumsum_2_f64 cumsum_2_i64 large_cumsum_columns_f32 large_cumsum_f32 "
     "large_cumsum_i64 "
     "cumprod_0_f32 cumprod_0_f64 cumprod_1_f32 cumprod_1_f64 cumprod_2_f32 cumprod_2_f64 "
     "cummax_0_f32 cummax_0_f64 cummax_0_i64 cummax_0_f16 cummax_0_u8 cummax_1_f32 "
     "cummax_1_f64 cummax_1_i64 cummax_1_f16 cummax_1_u8 cummax_2_f32 cummax_2_f64 "
     "cummax_2_i64 cummax_2_f16 cummax_2_u8 cummin_0_f32 cummin_0_f64 cummin_0_i64 "
     "cummin_0_f16 cummin_0_u8 cummin_1_f32 cummin_1_f64 cummin_1_i64 cummin_1_f16 "
     "cummin_1_u8 cummin_2_f32 cummin_2_f64 cummin_2_i64 cummin_2_f16 cummin_2_u8 "
     "cumprod_integers_i64 cumprod_integers_i32"},
    {"the machine places nothing by data",
     "argsort_f32 argsort_f64 argsort_f16 argsort_bf16 argsort_i64 argsort_u8 argsort_bool "
     "argsort_columns_f32 argsort_columns_i32 argsort_columns_i8 argsort_long_f32 "
     "argsort_long_f16 argsort_long_i64 argsort_best_f32 argsort_best_i64 argsort_best_f64 "
     "argsort_better_f32 argsort_better_i64 argsort_better_f16 argsort_better_u8 "
     "argsort_better_rising_f32 argsort_of_sum_f32 argsort_nan_f32 argsort_nan_f64 argsort_nan_f16 "
     "scatter_f32 "
     "scatter_f64 scatter_f16 scatter_bf16 scatter_i64 scatter_u8 scatter_bool "
     "scatter_rows_f32 scatter_rows_f16 scatter_rows_i32 scatter_rows_bool scatter_sum_f32 "
     "scatter_sum_f64 scatter_sum_i64 scatter_sum_i8 scatter_sum_bool scatter_sum_rows_f32 "
     "scatter_sum_rows_f64 scatter_sum_rows_f16 scatter_sum_rows_i64 scatter_flat_sum_f32 "
     "scatter_flat_sum_i64 scatter_prod_f32 scatter_prod_i64 scatter_max_f32 "
     "scatter_max_f16 scatter_max_i64 scatter_max_u8 scatter_max_bool scatter_min_f32 "
     "scatter_min_i32 scatter_outside_f32 scatter_of_computed_f32 scatter_of_pieces_f32 "
     "scatter_of_pieces_f16 scatter_of_pieces_i64 scatter_of_halves_f32 scatter_of_halves_f16 "
     "update_cache_attention_f32 "
     "update_cache_bf16 update_cache_bool update_cache_f16 update_cache_f32 update_cache_f64 "
     "update_cache_i64 update_layers_f16 update_layers_f32 update_sum_f32 update_sum_i64"},
    {"the machine adds one by one, and rounds at each step",
     "large_group_norm_activated_f32 large_softmax_long_f32 large_softmax_odd_f32 large_sum_f32 "
     "large_sum_of_alike_f32 large_sum_of_squares_f32"},
};

std::vector<Gap> stub_gaps() {
  std::vector<Gap> result;
  for (const Gaps& gaps : kGaps) add_gaps(gaps, result);
  for (const Gaps& gaps : kGapsOfRuns) add_gaps(gaps, result);
  return result;
}

bool join_tables() {
  add_backend(stub_backend());
  return runtime::add_device(stub::kDevice);
}

}  // namespace

std::vector<Backend> stub_backends() {
  static const bool kJoined = join_tables();
  Backend backend;
  backend.name = "stub";
  backend.unavailable = [] { return kJoined ? "" : "it is in no table"; };
  backend.compile = [](ir::Graph graph) { return compile_and_load(std::move(graph), "stub", ""); };
  backend.gaps = stub_gaps();
  return {backend};
}

}  // namespace kiln::conformance
