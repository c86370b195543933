// quantize and dequantize: in f32, or in f64 where the operands say so. Unlike elsewhere each step is
// rounded, because a step decides to which integer a number in the middle goes.
#include <algorithm>
#include <cmath>

#include "backends/reference/tensor.h"
#include "ir/scalar.h"

namespace kiln::reference {
namespace {

// Where the elements of an operand lie that is broadcast to x in blocks: one of its elements for
// each block.
class Blocks {
 public:
  Blocks(const Sizes& own, const Sizes& x) : strides_(row_major_strides(own)) {
    const size_t offset = x.size() - own.size();
    skip_ = offset;
    for (size_t i = 0; i < own.size(); ++i) {
      size_.push_back(own[i] == 0 ? 1 : std::max<int64_t>(x[offset + i] / own[i], 1));
    }
  }

  int64_t offset(const Sizes& index) const {
    int64_t result = 0;
    for (size_t i = 0; i < size_.size(); ++i) {
      result += index[skip_ + i] / size_[i] * strides_[i];
    }
    return result;
  }

 private:
  Sizes strides_, size_;
  size_t skip_ = 0;
};

void step(Sizes& index, const Sizes& shape) {
  for (size_t d = shape.size(); d-- > 0;) {
    if (++index[d] < shape[d]) return;
    index[d] = 0;
  }
}

// T: what is computed in.
template <typename T>
T quantised(T x, T inverse, T zero_point, const Call& call) {
  const T whole = std::nearbyint(x * inverse) + zero_point;
  if (std::isnan(whole)) return whole;
  return std::clamp(whole, static_cast<T>(call.integer("quant_min")),
                    static_cast<T>(call.integer("quant_max")));
}

// 1 / scale in the precision of the scale.
double reciprocal(double scale, DType dtype) {
  return dtype == DType::F64 ? 1 / scale : 1 / static_cast<float>(scale);
}

template <typename T>
Literal evaluate_as(const Call& call) {
  const bool quantises = call.node.op == ir::Op::quantize;
  const Sizes& shape = call.shape(0);
  const std::vector<double> x = load<double>(call.input(0)), scale = load<double>(call.input(1));
  const std::vector<double> zero_points =
      call.has(2) ? load<double>(call.input(2)) : std::vector<double>{0};
  const Blocks scales(call.shape(1), shape);
  const Blocks zeros(call.has(2) ? call.shape(2) : Sizes{}, shape);
  const DType dtype = call.node.attr<DType>("dtype");
  std::byte* data = nullptr;
  Literal result = Literal::allocate(dtype, shape, &data);
  Sizes index(shape.size(), 0);
  for (size_t i = 0; i < x.size(); ++i, step(index, shape)) {
    const T zero_point = static_cast<T>(zero_points[zeros.offset(index)]);
    const double s = scale[scales.offset(index)];
    const T value = static_cast<T>(x[i]);
    const T number =
        quantises
            ? quantised(value, static_cast<T>(reciprocal(s, call.input(1).dtype)), zero_point, call)
            : (value - zero_point) * static_cast<T>(s);
    ir::set_element(data, static_cast<int64_t>(i), ir::make_scalar(dtype, number));
  }
  return result;
}

}  // namespace

Literal evaluate_quantise(const Call& call) {
  const size_t decides = call.node.op == ir::Op::quantize ? 0 : 1;
  return call.input(decides).dtype == DType::F64 ? evaluate_as<double>(call)
                                                 : evaluate_as<float>(call);
}

}  // namespace kiln::reference
