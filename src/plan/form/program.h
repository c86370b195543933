// The lowered program: buffers, and kernels in order of execution. Device-neutral.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ir/graph.h"
#include "plan/form/expr.h"
#include "plan/form/target_traits.h"

namespace kiln::plan {

enum class BufferKind : uint8_t { Input, Output, Constant, Temporary };

// A dense row-major tensor in memory.
struct Buffer {
  BufferKind kind = BufferKind::Temporary;
  std::string name;
  ir::Type type;
  ir::Literal literal;  // Constant only
  // Shares the memory of that buffer (in-place); -1: none. A temporary: of one whose last reader is
  // this one's writer. An output: of the input that it updates, so that what is not written stays
  // what the input was.
  BufferId alias_of = -1;
};

struct Loop {
  ir::SymbolPtr index;  // made by ir::make_loop_symbol: carries the extent
  const ir::Dim& extent() const { return index->extent; }
};

enum class ReduceOp : uint8_t { Sum, Prod, Max, Min, ArgMax, ArgMin };

// result[slot] = reduce over `loops` of value. Max and Min propagate NaN. ArgMax and ArgMin have
// one loop and give i64. Accumulates in f32 for f16, bf16 and f32.
struct Reduction {
  ReduceOp op = ReduceOp::Sum;
  std::vector<Loop> loops;
  Expr value;
};

// For every point of `loops`: buffer[indices] = value. With `scan`, the innermost of `loops` runs
// in order and what is stored is the running reduction of value along it.
struct Store {
  BufferId buffer = -1;
  std::vector<Loop> loops;
  std::vector<Index> indices;
  Expr value;
  std::optional<ReduceOp> scan;
};

using Stage = std::variant<Reduction, Store>;

// For every point of `outer`, in any order and in parallel: the stages one after another. The k-th
// Reduction stage (k = 0, 1, ...) is `Reduced` slot k for later stages.
//   softmax:   outer [b, i]; Reduction max over j of x; Reduction sum over j of exp(x - r0);
//              Store over j of exp(x - r0) / r1
//   pointwise: outer [i, j]; one Store without loops
struct LoopNest {
  std::vector<Loop> outer;
  std::vector<Stage> stages;
};

// A strided window on a buffer: element offset + sum(stride[i] * index[i]), in elements.
struct View {
  BufferId buffer = -1;
  ir::Dim offset;
  std::vector<ir::Dim> strides;
};

// The element types of a contraction, apart from those of its buffers. An element of an operand is
// read from its buffer, converted to `left` or `right` (an f32 that becomes bf16 is rounded), and
// multiplied; products are summed in `accumulator`, which is the type of Accumulator in the
// epilogue. A constant right operand is stored as `weight` and converted to `right` when it is read:
// 16 bits an element in the file and on the way from memory, whatever it is multiplied as.
//   a model in bf16, computed with as f32: left = right = accumulator = f32, weight = bf16
// Integers, for targets with integer_products: left = u8, right = weight = i8 (the filters of a Convolution are
// constant), and exact sums of i32; or a constant weight of i8 that is multiplied as f32.
// Float8, for targets with float8_products: left = right = weight = f8e4m3 and sums of f32, which hold every
// product exactly; or a constant weight of f8e4m3 that is multiplied as what the left operand is.
// With `tf32`, operands of f32 may be rounded to the 11 bits of TF32 before they are multiplied, and sums of
// products of f8e4m3 to about as many, as they may be anyway where results are stored in 16 bits or fewer.
struct Formats {
  DType left = DType::F32, right = DType::F32;
  DType accumulator = DType::F32;
  DType weight = DType::F32;  // `right` where the right operand is no constant
  bool tf32 = false;          // left and right are f32 or f8e4m3; MatMul and Convolution only
  bool operator==(const Formats&) const = default;
};

// Scales of a constant right operand of i8, for groups of `size` steps of k (the last one may be shorter):
// b[k, n] stands for (b[k, n] - zeros[k / size, n]) * scales[k / size, n], as f32. Scales are constants of f32, f16
// or bf16, finite; zeros are of i8, and all 0 where there are none. Views have strides [group, n].
// With `bits` of 4, elements are within [-8, 7], and two of them are stored in a byte.
struct Groups {
  int64_t size = 0;
  int bits = 8;  // or 4
  View scales;
  std::optional<View> zeros;
};

// out[batch..., m, n] = epilogue(sum over k of a[batch..., m, k] * b[batch..., k, n])
// A constant b with no batch stride is packed by the backend at compile time. Views have strides
// [batch..., m, k], [batch..., k, n] and [batch..., m, n]; a batch stride of 0 broadcasts. The
// epilogue is an Expr over the batch indices, `m` and `n`, in which Accumulator stands for the sum.
// With `pair`, a second right operand that is like b (a constant of the same type, the same strides),
// Accumulator 1 stands for its sum: the two products of a gated unit, silu(a b) * (a pair). Only for
// targets with paired_products. With `groups`, formats are those of f32 with a weight of i8.
struct MatMul {
  std::vector<Loop> batch;
  Loop m, n, k;
  View a, b, out;
  Formats formats;  // left: a; right: b
  Expr epilogue;
  std::optional<View> pair = std::nullopt;
  std::optional<Groups> groups = std::nullopt;  // of b; not with a pair
};

// The largest of the results of a convolution in windows, without those that the convolution does not have:
//   out[b, y, x, o] = max over ky < kernel_h, kx < kernel_w of
//       result[b, y * stride_h + ky - pad_top, x * stride_w + kx - pad_left, o]
// NaN is larger than anything, and a window without results gives -inf.
struct Pool {
  Loop y, x;
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, pad_top = 0, pad_left = 0;
};

// A second sum of a convolution, over the channels of one pixel of another image for each result:
//   sum over c of input[b, y * stride_h, x * stride_w, c] * weight[o, c]
// input: dense NHWC buffer; weight: constant dense [O, C]; both of the types of the first.
struct PixelSum {
  BufferId input = -1, weight = -1;
  ir::Dim height, width;  // of the input
  int64_t channels = 0, stride_h = 1, stride_w = 1;
};

// Channels-last 2-D convolution; 1-D has a height of 1.
//   out[b, y, x, o] = epilogue(sum over ky, kx, c of
//       input[b, y * stride_h + ky * dilation_h - pad_top,
//                x * stride_w + kx * dilation_w - pad_left, g * C/G + c] * weight[o, ky, kx, c])
// with g the group of o, and `padding` outside the input. input: dense NHWC buffer; weight: constant
// dense [O, KH, KW, C/G]. The epilogue is an Expr over b, y, x, o.
struct Convolution {
  Loop b, y, x, o;
  BufferId input = -1, weight = -1, out = -1;
  ir::Dim height, width;  // of the input
  int64_t channels = 0, groups = 1;
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  ir::Dim pad_top, pad_left;
  int64_t padding = 0;  // a u8; 0 for other inputs
  // Results of a side of the tiles of Winograd's algorithm, 2 or 4: another way to compute the same, with
  // other rounding (allows_winograd). 0: the sum as it is written.
  int64_t winograd = 0;
  Formats formats;  // left: the input; right: the weight
  Expr epilogue;
  // What is stored is the largest results of windows, which are results rounded to the type of `out`. Only for
  // targets with pooled_convolutions.
  std::optional<Pool> pool = std::nullopt;
  // In the epilogue Accumulator 1 stands for it. Only for targets with second_sums.
  std::optional<PixelSum> second = std::nullopt;
};

//   score[batch..., i, j] = scale * sum over d of q[batch..., i, d] * k[batch..., j, d] + bias
//   out[batch..., i, e]   = sum over j of (softmax over j of score) * v[batch..., j, e]
// Views have strides [batch..., i, d], [batch..., j, d], [batch..., j, e], [batch..., i, e]. `keep`
// (bool) masks scores out (minus infinity) and `bias` (f32) is added: Exprs over the batch indices,
// i and j, or null. A row that keeps nothing gives zeros, as PyTorch's attention does, or NaN, as
// its softmax does. Causal: j <= i.
struct Attention {
  std::vector<Loop> batch;
  Loop i, j;
  int64_t head_dim = 0, value_dim = 0;  // extents of d and e
  View q, k, v, out;
  double scale = 1;
  bool causal = false;
  bool nan_rows = false;
  Formats formats;  // left: q; right: k and v; scores and their softmax are of type accumulator
  Expr keep, bias;
};

// For every point of `outer`: the stable order of key over `element`. out[outer..., place] (i64) is
// which element has that place, for as many places as are wanted, the first ones. Not-a-number is
// the greatest key.
struct Sort {
  std::vector<Loop> outer;
  Loop element, place;
  Expr key;  // over outer and element; not bool
  bool descending = false;
  View out;  // strides [outer..., place]
};

// For every point of `outer` and `inner`:
//   for each `position`: out[outer..., position, inner...] = initial; nothing if it is null, where
//                        `out` is an output that updates an input
//   for each `write`, in order: out[outer..., index, inner...] = value, or what `combine` makes of
//                               both; nothing where the index is not a position
// `initial` is over outer, position and inner; `index` (i64) and `value` are over outer, write and
// inner. Of `combine`, ArgMax and ArgMin do not occur.
struct Scatter {
  std::vector<Loop> outer, inner;
  Loop position, write;
  Expr initial, index, value;
  std::optional<ReduceOp> combine;
  View out;  // strides [outer..., position, inner...]
};

// A kernel of the user's own (kiln_register_kernel): it reads the inputs and writes the outputs, all of them dense and
// whole. A buffer has the elements of its tensor, which may have another shape.
struct Custom {
  struct Tensor {
    BufferId buffer = -1;
    ir::Shape shape;
  };
  std::string kernel;     // "mylib::scaled_sine"
  std::string arguments;  // the others of the operator, a JSON object
  std::vector<Tensor> inputs, outputs;
};

// What a Check of an expression guards.
struct Check {
  std::string operation;  // "embedding", for the error
  int32_t input = -1;     // the input of the program that is checked as it is, if one is
  std::string fault;      // of a condition: what the error says; empty: what is checked says it
};

// A size that the run finds: the number that a kernel wrote to `count`, an i64 scalar. Kernels that
// mention the symbol come after that one.
struct DataSize {
  ir::SymbolPtr symbol;
  BufferId count = -1;
  std::optional<ir::Dim> bound;  // over symbols that are known before
};

// Kernels that run one after another, again and again, as long as a bool scalar is true, which is looked at before
// each time, the first one included.
struct Repeat {
  BufferId condition = -1;  // written before the first time, and each time
  int32_t outer = -1;       // the repeat that all of it is in, an earlier one
};

struct Kernel {
  std::string name;  // unique; from the ops it computes: "linear_gelu_3"
  std::variant<LoopNest, MatMul, Convolution, Attention, Sort, Scatter, Custom> body;
  std::vector<std::string>
      sources;          // names of the IR values it computes, for profiles and `inspect`
  int32_t repeat = -1;  // the innermost of the program's that it is in; its kernels are neighbours
};

struct Program {
  std::string name;
  std::vector<Buffer> buffers;
  std::vector<Kernel> kernels;
  std::vector<BufferId> inputs, outputs;  // in the order of the graph's
  // The graph's: outputs, by position, that update inputs. `update_inputs` makes aliases of them.
  std::map<size_t, size_t> updates;
  // Size symbols: those of the inputs in order of creation, then those of data_sizes.
  std::vector<ir::SymbolPtr> symbols;
  std::vector<DataSize> data_sizes;           // in the order in which a run finds them
  std::vector<Repeat> repeats;                // each behind the one that it is in
  std::vector<Check> checks;                  // that expressions refer to
  TargetTraits traits;                        // of the machine that it is for: what passes go by
  std::vector<ir::Requirement> requirements;  // the graph's

  BufferId add_buffer(Buffer buffer) {
    buffers.push_back(std::move(buffer));
    return static_cast<BufferId>(buffers.size() - 1);
  }
};

// The op that combines two values as a reduction does; not for ArgMax and ArgMin.
ir::Op combining_op(ReduceOp op);

// Buffers a kernel reads (epilogues included) and writes, each once, in order of first occurrence.
std::vector<BufferId> reads(const Kernel& kernel);
std::vector<BufferId> writes(const Kernel& kernel);

// Whether a stage is a sum, as i32, of products of elements of 8 bits (less their zero points).
bool sums_byte_products(const Stage& stage);
// Whether Winograd's algorithm can compute it: 3x3 of stride 1, without groups or dilation, multiplied in f32: of
// f32, f16 and bf16.
bool allows_winograd(const Program& program, const Convolution& convolution);
// Whether the target has a kernel for a convolution, with its result's type, and this pool.
bool allows_pool(const Program& program, const Convolution& convolution, const Pool& pool);
// Whether the target has a kernel for a convolution with this second sum.
bool allows_second_sum(const Program& program, const Convolution& convolution,
                       const PixelSum& second);

// Along one axis, where the filter of the first pixel of a convolution begins, relative to the first element of the
// image, and that of the last pixel relative to the last element; where neither depends on sizes.
struct Corner {
  int64_t lower = 0, upper = 0;
};
std::optional<Corner> corner_of(const ir::Dim& pad, const ir::Dim& pixels, int64_t stride,
                                const ir::Dim& size);

}  // namespace kiln::plan
