// Padding and triangles.
#include "import/ops/common.h"
#include "ir/scalar.h"

namespace kiln::import {
namespace {

using ir::Dim;

struct Padding {
  std::vector<Dim> before, after;
};

// PyTorch lists pairs from the last axis on.
Padding read_padding(Call& call, const Value* x, std::string_view name) {
  const std::vector<Dim> list = call.dims(name);
  const size_t rank = x->type.rank();
  call.expect(list.size() % 2 == 0 && list.size() <= 2 * rank,
              std::to_string(list.size()) + " sizes",
              "a pair for each of at most " + std::to_string(rank) + " axes");
  Padding padding{std::vector<Dim>(rank, Dim(0)), std::vector<Dim>(rank, Dim(0))};
  for (size_t i = 0; i < list.size() / 2; ++i) {
    padding.before[rank - 1 - i] = list[2 * i];
    padding.after[rank - 1 - i] = list[2 * i + 1];
  }
  return padding;
}

Value* pad(Call& call, Value* x, const Padding& padding, const std::string& mode, double value) {
  return call.make(Op::pad, {x},
                   {{"before", padding.before},
                    {"after", padding.after},
                    {"value", ir::held_number(x->type.dtype, value)},
                    {"mode", mode}});
}

// The end of each axis in front, its start behind.
Value* pad_circular(Call& call, Value* x, const Padding& padding) {
  for (size_t axis = 0; axis < x->type.rank(); ++axis) {
    const Dim &before = padding.before[axis], &after = padding.after[axis],
              size = x->type.shape[axis];
    if (before.is_constant(0) && after.is_constant(0)) continue;
    const auto sign_is_known = [](const Dim& dim) {
      return dim.lower_bound() >= 0 || dim.upper_bound() <= 0;
    };
    call.expect(sign_is_known(before) && sign_is_known(after),
                "the size " + before.str() + ", " + after.str() + ", which may have either sign",
                "0 or more, or 0 or less");
    const auto index = static_cast<int64_t>(axis);
    // What is added comes from the whole axis, before anything is taken from it.
    const bool crops_before = before.upper_bound() < 0, crops_after = after.upper_bound() < 0;
    const Dim start = crops_before ? Dim(0) - before : Dim(0);
    const Dim end = crops_after ? size + after : size;
    std::vector<Value*> parts;
    if (!crops_before && !before.is_constant(0))
      parts.push_back(slice(call, x, index, end - before, before));
    parts.push_back(slice(call, x, index, start, end - start));
    if (!crops_after && !after.is_constant(0)) parts.push_back(slice(call, x, index, start, after));
    x = parts.size() == 1 ? parts[0] : call.make(Op::concat, parts, {{"axis", index}});
  }
  return x;
}

Value* import_pad(Call& call) {
  Value* x = call.tensor("self");
  const std::string mode = call.text_or("mode", "constant");
  const Padding padding = read_padding(call, x, "pad");
  if (mode == "circular") return pad_circular(call, x, padding);
  return pad(call, x, padding, mode, call.real_or("value", 0));
}

Value* import_constant_pad(Call& call) {
  Value* x = call.tensor("self");
  return pad(call, x, read_padding(call, x, "pad"), "constant", call.real_or("value", 0));
}

Value* import_reflection_pad(Call& call) {
  Value* x = call.tensor("self");
  return pad(call, x, read_padding(call, x, "padding"), "reflect", 0);
}

Value* import_replication_pad(Call& call) {
  Value* x = call.tensor("self");
  return pad(call, x, read_padding(call, x, "padding"), "replicate", 0);
}

Value* import_circular_pad(Call& call) {
  Value* x = call.tensor("self");
  return pad_circular(call, x, read_padding(call, x, "pad"));
}

// Keeps elements whose column - row is on one side of the diagonal.
template <Op op>
Value* import_triangle(Call& call) {
  Value* x = call.tensor("self");
  const size_t rank = x->type.rank();
  call.expect(rank >= 2, "rank " + std::to_string(rank), "2 or more");
  const Expr row(call, unsqueeze(call, iota(call, x->type.shape[rank - 2]), 1));
  const Expr column(call, iota(call, x->type.shape[rank - 1]));
  const Expr keep = (column - row).apply(op, static_cast<double>(call.integer_or("diagonal", 0)));
  return keep.select({call, x}, {call, call.constant_like(x, 0)});
}

constexpr Row kRows[] = {
    {"aten.pad.default", import_pad},
    {"aten.constant_pad_nd.default", import_constant_pad},
    {"aten.reflection_pad1d.default", import_reflection_pad},
    {"aten.reflection_pad2d.default", import_reflection_pad},
    {"aten.reflection_pad3d.default", import_reflection_pad},
    {"aten.replication_pad1d.default", import_replication_pad},
    {"aten.replication_pad2d.default", import_replication_pad},
    {"aten.replication_pad3d.default", import_replication_pad},
    {"aten._pad_circular.default", import_circular_pad},
    {"aten.tril.default", import_triangle<Op::le>},
    {"aten.triu.default", import_triangle<Op::ge>},
};

}  // namespace

Rows pad_rows() { return kRows; }

}  // namespace kiln::import
