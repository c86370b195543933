// matmul, linear and attention; convolution is in infer_window.cpp.
#include "ir/builder.h"
#include "ir/infer.h"
#include "ir/unequal_sizes.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

// A sum may be kept in a wider dtype than its operands have, never in a narrower one.
void check_accumulator(const Call& call) {
  if (!call.has_attr("accumulate")) return;
  const DType own = call.type(0).dtype, sum = call.attr<DType>("accumulate");
  const bool wide = sum == DType::F64 || (sum == DType::F32 && is_lossless(own, sum));
  call.expect(wide, "accumulate = " + std::string(dtype_name(sum)),
              is_lossless(own, DType::F32) ? "f32 or f64" : "f64");
}

Type infer_matmul(const Call& call) {
  const Shape &a = call.shape(0), &b = call.shape(1);
  call.expect(a.size() >= 2 && b.size() >= 2, "shapes " + shape_str(a) + " and " + shape_str(b),
              "ranks of 2 or more");
  const bool transposed = call.attr<bool>("transpose_b");
  const Dim &k = b[b.size() - (transposed ? 1 : 2)], &n = b[b.size() - (transposed ? 2 : 1)];
  call.expect_equal(a.back(), k, "shapes " + shape_str(a) + " and " + shape_str(b),
                    "equal contracted sizes");
  Shape result = broadcast_shapes(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2));
  result.push_back(a[a.size() - 2]);
  result.push_back(n);
  return {call.type(0).dtype, result};
}

Type infer_linear(const Call& call) {
  const Shape& x = call.shape(0);
  call.expect(!x.empty(), "a scalar", "rank 1 or more");
  call.expect_rank(1, 2);
  const Shape& weight = call.shape(1);
  call.expect_equal(x.back(), weight[1], "shapes " + shape_str(x) + " and " + shape_str(weight),
                    "equal contracted sizes");
  if (call.has(2)) {
    call.expect_rank(2, 1);
    call.expect_equal(call.shape(2)[0], weight[0], "a bias of size");
  }
  Type result = call.type(0);
  result.shape.back() = weight[0];
  return result;
}

void expect_mask(const Call& call, const Shape& scores) {
  const Type& mask = call.type(3);
  const DType query = call.type(0).dtype;
  const bool is_wide = mask.dtype == DType::F32 && is_16_bit_float(query);
  call.expect(mask.dtype == DType::Bool || mask.dtype == query || is_wide,
              "a mask of " + std::string(dtype_name(mask.dtype)) + " for a query of " +
                  std::string(dtype_name(query)),
              "bool, the dtype of the query, or f32 for one of 16 bits");
  const bool fits = [&] {
    try {
      return broadcast_shapes(mask.shape, scores).size() == scores.size();
    } catch (const UnequalSizes&) {
      throw;
    } catch (const CompileError&) {
      return false;
    }
  }();
  call.expect(fits, "a mask of shape " + shape_str(mask.shape),
              "broadcast to " + shape_str(scores));
}

}  // namespace

Type infer_attention(const Call& call) {
  for (size_t i = 0; i < 3; ++i) {
    call.expect_rank(i, 4);
    call.expect(call.type(i).dtype == call.type(0).dtype,
                std::string(dtype_name(call.type(i).dtype)), "operands of one dtype");
  }
  const Shape &q = call.shape(0), &k = call.shape(1), &v = call.shape(2);
  call.expect_equal(k[0], q[0], "keys of batch size");
  call.expect_equal(v[0], q[0], "values of batch size");
  call.expect_equal(k[3], q[3], "keys of head size");
  call.expect_equal(v[2], k[2], "values of length");
  call.expect_equal(v[1], k[1], "value heads");
  call.expect(provably_divisible(q[1], k[1]), k[1].str() + " key heads",
              "a divisor of " + q[1].str());
  if (call.has(3)) expect_mask(call, {q[0], q[1], q[2], k[2]});
  return {call.type(0).dtype, {q[0], q[1], q[2], v[3]}};
}

Type infer_contract(const Call& call) {
  check_accumulator(call);
  if (call.op() == Op::attention) return infer_attention(call);
  call.expect_same_dtypes();
  if (call.op() == Op::matmul) return infer_matmul(call);
  if (call.op() == Op::linear) return infer_linear(call);
  return infer_convolution(call);
}

}  // namespace kiln::ir
