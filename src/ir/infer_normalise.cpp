// softmax, log_softmax and the norms.
#include "ir/infer.h"

namespace kiln::ir {
namespace {

// Operands from `first` on are per-channel: rank 1, of the size of axis 1.
void expect_per_channel(const Call& call, size_t first) {
  for (size_t i = first; i < call.count(); ++i) {
    if (!call.has(i)) continue;
    call.expect_rank(i, 1);
    call.expect_equal(call.shape(i)[0], call.shape(0)[1],
                      "operand " + std::to_string(i) + " of size");
  }
}

void expect_last_axes(const Call& call) {
  const int64_t axes = call.integer("axes");
  const size_t rank = call.type(0).rank();
  call.expect(axes >= 1 && axes <= static_cast<int64_t>(rank), "axes " + std::to_string(axes),
              "1 to " + std::to_string(rank));
  const Shape normalised(call.shape(0).end() - axes, call.shape(0).end());
  for (size_t i = 1; i < call.count(); ++i) {
    if (!call.has(i)) continue;
    call.expect_rank(i, normalised.size());
    for (size_t axis = 0; axis < normalised.size(); ++axis) {
      call.expect_equal(call.shape(i)[axis], normalised[axis],
                        "operand " + std::to_string(i) + " of size");
    }
  }
}

}  // namespace

Type infer_normalise(const Call& call) {
  call.expect_same_dtypes();
  const size_t rank = call.type(0).rank();
  switch (call.op()) {
    case Op::softmax:
    case Op::log_softmax:
      call.expect_axis(call.integer("axis"), rank);
      break;
    case Op::layer_norm:
    case Op::rms_norm:
      expect_last_axes(call);
      break;
    default:
      call.expect(rank >= 2, "an operand of shape " + shape_str(call.shape(0)), "rank 2 or more");
      expect_per_channel(call, 1);
  }
  if (call.op() == Op::group_norm) {
    const int64_t groups = call.integer("groups");
    call.expect(groups >= 1 && provably_divisible(call.shape(0)[1], groups),
                std::to_string(groups) + " groups",
                "a divisor of " + call.shape(0)[1].str() + " channels");
  }
  return call.type(0);
}

}  // namespace kiln::ir
