// Primitives that PyTorch's decompositions leave behind.
#include "import/ops/common.h"

namespace kiln::import {
namespace {

Value* import_convert(Call& call) { return cast_if(call, call.tensor("a"), call.dtype("dtype")); }

Value* import_div(Call& call) {
  const std::vector<Value*> values =
      promote(call.builder(), {call.operand("self"), call.operand("other")});
  Value* divisor = values[1];
  if (is_integer(divisor->type.dtype)) {
    divisor = call.make(Op::check_nonzero, {divisor}, {{"operator", std::string("div")}});
  }
  return call.make(Op::div, {values[0], divisor});
}

Value* import_sum(Call& call) {
  Value* x = cast_if(call, call.tensor("inp"), call.dtype("output_dtype"));
  return reduce(call, Op::reduce_sum, x, call.axes_or_all("dims", x->type.rank()), false);
}

// Axis i of the operand becomes axis broadcast_dimensions[i] of the result.
Value* import_broadcast_in_dim(Call& call) {
  Value* x = call.tensor("a");
  const ir::Shape shape = call.dims("shape");
  const std::vector<int64_t> places = call.integers("broadcast_dimensions");
  call.expect(places.size() == x->type.rank(), std::to_string(places.size()) + " dimensions",
              std::to_string(x->type.rank()));
  ir::Shape aligned(shape.size(), ir::Dim(1));
  for (size_t i = 0; i < places.size(); ++i) {
    aligned[call.normalise_axis(places[i], shape.size())] = x->type.shape[i];
  }
  return call.builder().expand(call.builder().reshape(x, aligned), shape);
}

constexpr Row kRows[] = {
    {"prims.convert_element_type.default", import_convert},
    {"prims.div.default", import_div},
    {"prims.sum.default", import_sum},
    {"prims.broadcast_in_dim.default", import_broadcast_in_dim},
};

}  // namespace

Rows prims_rows() { return kRows; }

}  // namespace kiln::import
