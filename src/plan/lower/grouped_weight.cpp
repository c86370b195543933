#include "plan/lower/grouped_weight.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

namespace kiln::plan {
namespace {

using ir::Op;

// Elements of 4 bits that the kernels take at a time along k: groups are of a multiple of them, or one.
constexpr int64_t kNibbles = 8;
// From numbers of u8 to those of i8, and from the 0 to 15 of 4 bits to their -8 to 7.
constexpr int64_t kShift = 128, kNibbleShift = 8;
// No difference of two integers of 8 bits is as large.
constexpr double kLargestDifference = 256;

struct Range {
  int64_t low = 0, high = 0;
  void add(int64_t value) { low = std::min(low, value), high = std::max(high, value); }
  bool within(int64_t least, int64_t greatest) const { return low >= least && high <= greatest; }
};

const ir::Literal* constant_of(const ir::Value* value) {
  if (value->producer == nullptr || value->producer->op != Op::constant) return nullptr;
  return &value->producer->attr<ir::Literal>("value");
}

// Elements of a literal: base + n * strides[0] + group * strides[1] + place in the group * strides[2].
struct Places {
  const ir::Literal* literal = nullptr;
  int64_t base = 0;
  std::array<int64_t, 3> strides{};
  int64_t at(int64_t n, int64_t group, int64_t place = 0) const {
    return base + n * strides[0] + group * strides[1] + place * strides[2];
  }
};

// n, and k as a group and a place in it.
struct GroupLoops {
  Loop n, group, place;
  IndexMap map;
};

GroupLoops split(const Loop& n, const Loop& k, int64_t size) {
  const Loop group = make_loop("group", ir::ceildiv(k.extent(), size));
  const Loop place = make_loop("r", size);
  return {n, group, place, replace_loops({k}, {Index(group.index) * size + Index(place.index)})};
}

std::optional<Places> places(const ir::Value* value, const Indices& at, const GroupLoops& loops) {
  Places result;
  result.literal = constant_of(value);
  if (result.literal == nullptr) return std::nullopt;
  const Index offset = linearize(value->type.shape, substitute(at, loops.map));
  const auto affine = as_affine(offset, {loops.n, loops.group, loops.place});
  if (!affine || !affine->base.is_constant()) return std::nullopt;
  result.base = affine->base.constant();
  for (size_t i = 0; i < affine->strides.size(); ++i) {
    if (!affine->strides[i].is_constant()) return std::nullopt;
    result.strides[i] = affine->strides[i].constant();
  }
  return result;
}

// Those of a scale or zero point, which is the same all over a group.
std::optional<Places> block_places(const Quantised& weight, const ir::Value* value,
                                   const GroupLoops& loops) {
  const ir::Shape& x = weight.node->output()->type.shape;
  auto result = places(value, block_indices(value->type.shape, x, weight.at), loops);
  if (result && result->strides[2] != 0) return std::nullopt;
  return result;
}

// What groups along k may be of, the largest first: sizes of blocks of x, and all of k.
std::set<int64_t, std::greater<>> possible_sizes(const Quantised& weight, int64_t k) {
  std::set<int64_t, std::greater<>> sizes = {k};
  const ir::Shape& x = weight.node->output()->type.shape;
  for (const ir::Value* value : {weight.scale(), weight.zero_point()}) {
    if (value == nullptr) continue;
    const ir::Shape& own = value->type.shape;
    for (size_t i = 0; i < own.size(); ++i) {
      const ir::Dim& extent = x[x.size() - own.size() + i];
      if (!extent.is_constant() || !own[i].is_constant() || own[i].constant() < 1) continue;
      const int64_t size = extent.constant() / own[i].constant();
      if (size > 1 && size < k) sizes.insert(size);
    }
  }
  return sizes;
}

// Everything at its place, for groups of one size.
struct Source {
  Places values, scales;
  std::optional<Places> zeros;
  int64_t n = 0, k = 0, size = 0;
  int64_t groups() const { return (k + size - 1) / size; }
  // Elements of a group that there are.
  int64_t places_of(int64_t group) const { return std::min(size, k - group * size); }
  int64_t zero(int64_t row, int64_t group) const {
    return zeros ? zeros->literal->as_int(zeros->at(row, group)) : 0;
  }
  int64_t value(int64_t row, int64_t group, int64_t place) const {
    const int64_t at = values.at(row, group, place);
    return values.literal->dtype == DType::U8 ? values.literal->data<uint8_t>()[at]
                                              : values.literal->data<int8_t>()[at];
  }
};

std::optional<Source> source_of(const Quantised& weight, const Loop& n, const Loop& k,
                                int64_t size) {
  const GroupLoops loops = split(n, k, size);
  const auto values = places(weight.node->input(0), weight.at, loops);
  const auto scales = block_places(weight, weight.scale(), loops);
  if (!values || !scales || values->literal->replaceable) return std::nullopt;
  Source source{*values, *scales, {}, n.extent().constant(), k.extent().constant(), size};
  if (weight.zero_point() == nullptr) return source;
  source.zeros = block_places(weight, weight.zero_point(), loops);
  if (!source.zeros || source.zeros->literal->replaceable) return std::nullopt;
  return source;
}

template <typename Body>
void for_each_group(const Source& source, const Body& body) {
  for (int64_t row = 0; row < source.n; ++row) {
    for (int64_t group = 0; group < source.groups(); ++group) body(row, group);
  }
}

// Nothing where the weight, of the dtype of the dequantize, would not be finite.
std::optional<ir::Literal> scales_of(const Source& source, DType dtype) {
  const ir::Literal& from = *source.scales.literal;
  if (!is_floating(from.dtype) || !is_lossless(from.dtype, DType::F32)) return std::nullopt;
  const double limit = dtype == DType::F16 ? 65504 : 0x1p127;
  std::byte* data = nullptr;
  ir::Literal scales = ir::Literal::allocate(from.dtype, {source.n, source.groups()}, &data);
  scales.replaceable = from.replaceable;
  bool finite = true;
  for_each_group(source, [&](int64_t row, int64_t group) {
    const double scale = from.as_double(source.scales.at(row, group));
    finite &= std::abs(scale) * kLargestDifference < limit;  // false for NaN
    ir::Literal::set(data, from.dtype, row * source.groups() + group, scale);
  });
  if (!finite) return std::nullopt;
  return scales;
}

// How elements and zero points are stored: less `shift`, or elements less their zero points.
struct Storage {
  int bits = 8;
  bool subtracted = false;
  int64_t shift = 0;
};

std::optional<Storage> storage_of(const Source& source) {
  Range values, zeros, differences;
  for_each_group(source, [&](int64_t row, int64_t group) {
    const int64_t zero = source.zero(row, group);
    zeros.add(zero);
    for (int64_t place = 0; place < source.places_of(group); ++place) {
      const int64_t value = source.value(row, group, place);
      values.add(value);
      differences.add(value - zero);
    }
  });
  const bool is_unsigned = source.values.literal->dtype == DType::U8;
  const bool in_nibbles = source.size % kNibbles == 0 || source.groups() == 1;
  const auto shifted = [&](int bits, int64_t shift) -> std::optional<Storage> {
    if (!zeros.within(-kShift + shift, kShift - 1 + shift)) return std::nullopt;
    return Storage{bits, false, shift};
  };
  if (in_nibbles && differences.within(-8, 7)) return Storage{4, true, 0};
  const int64_t nibble_shift = is_unsigned ? kNibbleShift : 0;
  if (in_nibbles && values.within(-8 + nibble_shift, 7 + nibble_shift))
    return shifted(4, nibble_shift);
  if (differences.within(-kShift, kShift - 1)) return Storage{8, true, 0};
  return shifted(8, is_unsigned ? kShift : 0);
}

ir::Literal values_of(const Source& source, const Storage& storage) {
  std::byte* data = nullptr;
  ir::Literal values =
      ir::Literal::allocate(DType::I8, {source.n, source.groups() * source.size}, &data);
  auto* to = reinterpret_cast<int8_t*>(data);
  for_each_group(source, [&](int64_t row, int64_t group) {
    const int64_t zero = storage.subtracted ? source.zero(row, group) : storage.shift;
    for (int64_t place = 0; place < source.places_of(group); ++place)
      to[place] = static_cast<int8_t>(source.value(row, group, place) - zero);
    to += source.size;
  });
  return values;
}

ir::Literal zeros_of(const Source& source, const Storage& storage) {
  std::byte* data = nullptr;
  ir::Literal zeros = ir::Literal::allocate(DType::I8, {source.n, source.groups()}, &data);
  auto* to = reinterpret_cast<int8_t*>(data);
  for_each_group(source, [&](int64_t row, int64_t group) {
    *to++ = static_cast<int8_t>(source.zero(row, group) - storage.shift);
  });
  return zeros;
}

}  // namespace

std::optional<GroupedWeight> grouped_weight(const Quantised& weight, const Loop& n, const Loop& k) {
  const bool is_fixed = n.extent().is_constant() && k.extent().is_constant();
  if (!is_fixed || weight.scale() == nullptr || k.extent().constant() < 1 ||
      n.extent().constant() < 1)
    return std::nullopt;
  for (const int64_t size : possible_sizes(weight, k.extent().constant())) {
    const auto source = source_of(weight, n, k, size);
    if (!source) continue;
    const auto storage = storage_of(*source);
    auto scales = scales_of(*source, weight.node->output()->type.dtype);
    if (!storage || !scales) return std::nullopt;
    GroupedWeight result{values_of(*source, *storage), std::move(*scales), {}, size, storage->bits};
    if (!storage->subtracted) result.zeros = zeros_of(*source, *storage);
    return result;
  }
  return std::nullopt;
}

}  // namespace kiln::plan
