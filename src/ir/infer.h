// Shape inference: what the families of ops share. Internal to ir/; ir/builder.h is the way in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace kiln::ir {

// One application of an op whose result types are wanted. Operand counts and attribute types are
// already checked.
class Call {
 public:
  Call(Op op, const std::vector<Value*>& inputs, const Attrs& attrs)
      : op_(op), inputs_(inputs), attrs_(attrs) {}

  Op op() const { return op_; }
  size_t count() const { return inputs_.size(); }
  bool has(size_t i) const { return i < inputs_.size() && inputs_[i] != nullptr; }
  const Type& type(size_t i) const { return inputs_[i]->type; }
  const Shape& shape(size_t i) const { return inputs_[i]->type.shape; }

  template <typename T>
  const T& attr(std::string_view name) const {
    return std::get<T>(attrs_.find(name)->second);
  }
  int64_t integer(std::string_view name) const { return attr<int64_t>(name); }
  const std::vector<int64_t>& integers(std::string_view name) const {
    return attr<std::vector<int64_t>>(name);
  }
  const std::vector<Dim>& dims(std::string_view name) const { return attr<std::vector<Dim>>(name); }
  // What the op table says: a dtype of an operand, of an attribute or of the op's own.
  DType result_dtype() const;
  bool has_attr(std::string_view name) const { return attrs_.find(name) != attrs_.end(); }

  // CompileError "[op] got X, expected Y".
  [[noreturn]] void fail(const std::string& got, const std::string& expected) const;
  void expect(bool condition, const std::string& got, const std::string& expected) const {
    if (!condition) fail(got, expected);
  }
  void expect_same_dtypes() const;
  // Fails unless a tensor of the dtype can hold the number exactly.
  void expect_held(double value, DType dtype) const;
  void expect_rank(size_t i, size_t rank) const;
  // In bounds, sorted and without repetition where `sorted`.
  void expect_axis(int64_t axis, size_t rank) const;
  void expect_axes(const std::vector<int64_t>& axes, size_t rank, bool sorted) const;
  // Fails unless the sizes are provably equal: with UnequalSizes where they may be equal in some runs.
  void expect_equal(const Dim& got, const Dim& expected, const std::string& what) const;
  void expect_equal(const Dim& a, const Dim& b, const std::string& got,
                    const std::string& expected) const;

 private:
  Op op_;
  const std::vector<Value*>& inputs_;
  const Attrs& attrs_;
};

std::string shape_str(const Shape& shape);
std::string list_str(const std::vector<int64_t>& values);

// One per family of ops.def.
Type infer_source(const Call& call);
Type infer_pointwise(const Call& call);
Type infer_reduce(const Call& call);
Type infer_normalise(const Call& call);
Type infer_contract(const Call& call);
Type infer_attention(const Call& call);
Type infer_convolution(const Call& call);
Type infer_pool(const Call& call);
Type infer_quantise(const Call& call);
Type infer_move(const Call& call);
Type infer_place(const Call& call);
std::vector<Type> infer_control(const Call& call);

// Result type of a convolution or pooling window along one spatial axis.
struct Window {
  int64_t kernel = 1, stride = 1, padding_before = 0, padding_after = 0, dilation = 1;
};
Dim window_count(const Call& call, const Dim& size, const Window& window);

}  // namespace kiln::ir
