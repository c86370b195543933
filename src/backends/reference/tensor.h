// What the families of ops share: elements as doubles or 64-bit integers, and walks over shapes.
//
// Floating values are computed in double and rounded once, integers and bools in int64_t and
// wrapped.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/reference/reference.h"

namespace kiln::reference {

using Sizes = std::vector<int64_t>;
using ir::Literal;

// One node to evaluate.
struct Call {
  const ir::Node& node;
  std::span<const Literal* const> inputs;
  const SizeOf& size_of;

  bool has(size_t i) const { return i < inputs.size() && inputs[i] != nullptr; }
  const Literal& input(size_t i) const { return *inputs[i]; }
  const Sizes& shape(size_t i) const { return inputs[i]->shape; }
  DType dtype() const { return inputs[0]->dtype; }

  int64_t integer(std::string_view name) const { return node.attr<int64_t>(name); }
  const Sizes& integers(std::string_view name) const { return node.attr<Sizes>(name); }
  double real(std::string_view name) const { return node.attr<double>(name); }
  bool flag(std::string_view name) const { return node.attr<bool>(name); }
  const std::string& text(std::string_view name) const { return node.attr<std::string>(name); }
  int64_t dim(std::string_view name) const { return node.attr<ir::Dim>(name).evaluate(size_of); }
  Sizes dims(std::string_view name) const;

  // CompileError "[op] got X, expected Y": for data that no shape check can see.
  [[noreturn]] void fail(const std::string& got, const std::string& expected) const;
};

int64_t product(const Sizes& sizes);
Sizes row_major_strides(const Sizes& shape);
Sizes broadcast(const Sizes& a, const Sizes& b);

// Elements in row-major order, converted. T: double or int64_t.
template <typename T>
std::vector<T> load(const Literal& literal);
// The reverse: rounded to a floating dtype, wrapped to an integer one, != 0 for bool.
template <typename T>
Literal store(const std::vector<T>& values, DType dtype, Sizes shape);

// Steps through a shape in row-major order and keeps one offset, a dot product of index and
// strides.
class Walk {
 public:
  Walk(const Sizes& shape, Sizes strides)
      : shape_(shape), strides_(std::move(strides)), index_(shape.size(), 0) {}
  int64_t offset() const { return offset_; }
  void next();

 private:
  Sizes shape_, strides_, index_;
  int64_t offset_ = 0;
};

// Strides that read an operand as if it had the broadcast shape.
Sizes broadcast_strides(const Sizes& operand, const Sizes& result);

// A result with the elements of `input` at the offsets that a function gives for each result index;
// a negative offset stands for `fill`. Works on bytes, for every dtype.
Literal rearrange(const Literal& input, Sizes shape,
                  const std::function<int64_t(const Sizes& index)>& offset_of, double fill = 0);

// A shape seen as [outer, axis, inner].
struct Split {
  int64_t outer = 1, size = 1, inner = 1;
};
Split split_at(const Sizes& shape, int64_t axis);

// One per family.
Literal evaluate_source(const Call& call);
Literal evaluate_pointwise(const Call& call);
Literal evaluate_reduce(const Call& call);
Literal evaluate_scan(const Call& call);
Literal evaluate_normalise(const Call& call);
Literal evaluate_matmul(const Call& call);
Literal evaluate_attention(const Call& call);
Literal evaluate_convolution(const Call& call);
Literal evaluate_pool(const Call& call);
Literal evaluate_quantise(const Call& call);
Literal evaluate_move(const Call& call);
Literal evaluate_place(const Call& call);
Literal evaluate_gather(const Call& call);
std::vector<Literal> evaluate_control(const Call& call);

}  // namespace kiln::reference
