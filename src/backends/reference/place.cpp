// Sorting, and writing by index.
#include <algorithm>
#include <numeric>

#include "backends/reference/tensor.h"

namespace kiln::reference {
namespace {

// Not-a-number is the greatest.
template <typename T>
bool less(T a, T b) {
  return a < b || (b != b && a == a);
}

template <typename T>
Literal argsort(const Call& call) {
  const int64_t axis = call.integer("axis"), count = call.dim("count");
  const Split split = split_at(call.shape(0), axis);
  if (count < 0 || count > split.size)
    call.fail("count " + std::to_string(count), "0 to " + std::to_string(split.size));
  const bool descending = call.flag("descending");
  const std::vector<T> x = load<T>(call.input(0));
  Sizes shape = call.shape(0);
  shape[static_cast<size_t>(axis)] = count;
  std::vector<int64_t> result(static_cast<size_t>(product(shape)));
  std::vector<int64_t> order(static_cast<size_t>(split.size));
  for (int64_t outer = 0; outer < split.outer; ++outer) {
    for (int64_t inner = 0; inner < split.inner; ++inner) {
      const auto element = [&](int64_t i) {
        return x[static_cast<size_t>((outer * split.size + i) * split.inner + inner)];
      };
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
        return descending ? less(element(b), element(a)) : less(element(a), element(b));
      });
      for (int64_t i = 0; i < count; ++i)
        result[static_cast<size_t>((outer * count + i) * split.inner + inner)] =
            order[static_cast<size_t>(i)];
    }
  }
  return store(result, DType::I64, shape);
}

template <typename T>
T combined(const std::string& how, T a, T b) {
  if (how == "max") return a != a || a > b ? a : b;
  if (how == "min") return a != a || a < b ? a : b;
  if constexpr (std::is_same_v<T, double>) {
    if (how == "sum") return a + b;
    if (how == "prod") return a * b;
  } else {
    if (how == "sum") return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    if (how == "prod") return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  }
  return b;
}

template <typename T>
Literal scatter(const Call& call) {
  const Sizes& shape = call.shape(0);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const std::string& how = call.text("combine");
  std::vector<T> result = load<T>(call.input(0));
  const std::vector<T> source = load<T>(call.input(2));
  const std::vector<int64_t> index = load<int64_t>(call.input(1));
  const Sizes strides = row_major_strides(shape);
  Sizes written = shape;
  written[axis] = call.shape(1)[axis];
  Walk at_index(written, broadcast_strides(call.shape(1), written));
  Walk at_source(written, broadcast_strides(call.shape(2), written));
  Sizes along = strides;
  along[axis] = 0;
  Walk at_result(written, along);
  const int64_t writes = product(written);
  for (int64_t i = 0; i < writes; ++i) {
    const int64_t place = index[static_cast<size_t>(at_index.offset())];
    if (place >= 0 && place < shape[axis]) {
      T& target = result[static_cast<size_t>(at_result.offset() + place * strides[axis])];
      target = combined(how, target, source[static_cast<size_t>(at_source.offset())]);
    }
    at_index.next();
    at_source.next();
    at_result.next();
  }
  return store(result, call.dtype(), shape);
}

template <typename T>
Literal evaluate(const Call& call) {
  return call.node.op == ir::Op::argsort ? argsort<T>(call) : scatter<T>(call);
}

}  // namespace

Literal evaluate_place(const Call& call) {
  return is_floating(call.dtype()) ? evaluate<double>(call) : evaluate<int64_t>(call);
}

}  // namespace kiln::reference
