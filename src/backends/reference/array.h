// The interpreter's tensors: every element as a double or an int64, whatever the dtype. Slow, and
// obvious.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backends/reference/reference.h"
#include "ir/graph.h"

namespace kiln::reference {

using Sizes = std::vector<int64_t>;

struct Array {
  DType dtype = DType::F32;
  Sizes shape;
  std::vector<double> floats;     // floating dtypes
  std::vector<int64_t> integers;  // integers and bool

  static Array zeros(DType dtype, Sizes shape);
  static Array from(const ir::Literal& literal);
  // Rounds to the dtype; integers wrap around.
  ir::Literal literal() const;

  bool floating() const { return is_floating(dtype); }
  int64_t elements() const;
  int64_t rank() const { return static_cast<int64_t>(shape.size()); }
  double as_double(int64_t i) const;
  int64_t as_int(int64_t i) const;
  // this[i] = other[j], of the same dtype.
  void copy_element(int64_t i, const Array& other, int64_t j);
  void set(int64_t i, double value);
  void set_int(int64_t i, int64_t value);
};

int64_t element_count(const Sizes& shape);
// Row-major strides, in elements.
Sizes row_major_strides(const Sizes& shape);
// Row-major position of an index.
int64_t offset_of(const Sizes& index, const Sizes& strides);
// The same where sizes of 1 broadcast and leading axes may be missing.
int64_t broadcast_offset(const Sizes& index, const Sizes& shape);
// Calls visitor(index, position) for every index in row-major order.
void for_each_index(const Sizes& shape, const std::function<void(const Sizes&, int64_t)>& visitor);

// What the evaluation of a node works on.
struct Call {
  const ir::Node& node;
  std::vector<Array> operands;  // empty Arrays where absent
  std::vector<bool> present;
  const SizeOf& size_of;

  const Array& operand(size_t i) const { return operands[i]; }
  bool has(size_t i) const { return i < present.size() && present[i]; }
  int64_t size(const ir::Dim& dim) const { return dim.evaluate(size_of); }
  Sizes sizes(const std::vector<ir::Dim>& dims) const;
  // A zeroed array of the type of output 0.
  Array result() const;
  const Sizes& ints(std::string_view name) const { return node.attr<Sizes>(name); }
  int64_t integer(std::string_view name) const { return node.attr<int64_t>(name); }
};

// One file each.
Array evaluate_source(const Call& call);
Array evaluate_unary(const Call& call);
Array evaluate_binary(const Call& call);
Array evaluate_where(const Call& call);
Array evaluate_reduce(const Call& call);
Array evaluate_cumsum(const Call& call);
Array evaluate_normalise(const Call& call);
Array evaluate_contract(const Call& call);
Array evaluate_pool(const Call& call);
Array evaluate_move(const Call& call);

}  // namespace kiln::reference
