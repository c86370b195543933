#include "backends/cpu/compile/nest/tasks.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// The digits of task number `task` in the mixed base of the extents.
std::vector<Value*> first_point(Emitter& emitter, const std::vector<plan::Loop>& loops,
                                const std::vector<Value*>& extents) {
  auto& ir = emitter.ir();
  std::vector<Value*> point(loops.size());
  Value* rest = emitter.task_begin();
  for (size_t i = loops.size(); i-- > 1;) {
    // Extents of zero leave no tasks, but the division is made all the same.
    Value* divisor = ir.CreateBinaryIntrinsic(llvm::Intrinsic::umax, extents[i], ir.getInt64(1));
    point[i] = ir.CreateURem(rest, divisor);
    rest = ir.CreateUDiv(rest, divisor);
  }
  if (!loops.empty()) point[0] = rest;
  return point;
}

std::vector<Value*> next_point(Emitter& emitter, const std::vector<Value*>& point,
                               const std::vector<Value*>& extents) {
  auto& ir = emitter.ir();
  std::vector<Value*> next(point.size());
  Value* carry = ir.getInt64(1);
  for (size_t i = point.size(); i-- > 1;) {
    Value* counted = ir.CreateAdd(point[i], carry);
    Value* wraps = ir.CreateICmpEQ(counted, extents[i]);
    next[i] = ir.CreateSelect(wraps, ir.getInt64(0), counted);
    carry = ir.CreateZExt(wraps, ir.getInt64Ty());
  }
  if (!point.empty()) next[0] = ir.CreateAdd(point[0], carry);
  return next;
}

}  // namespace

void for_each_task(Emitter& emitter, const std::vector<plan::Loop>& loops,
                   const std::function<void()>& body) {
  ir::Dim tasks = 1;
  std::vector<Value*> extents;
  for (const plan::Loop& loop : loops) {
    tasks *= loop.extent();
    extents.push_back(emitter.value_of(loop.extent()));
  }
  emitter.interface().tasks = tasks;
  const std::vector<Value*> first = first_point(emitter, loops, extents);
  emitter.loop_carrying(emitter.task_begin(), emitter.task_end(), 1, first,
                        [&](Value*, const Emitter::Carried& point) {
                          for (size_t i = 0; i < loops.size(); ++i) {
                            emitter.bind(loops[i].index, point[i]);
                          }
                          body();
                          return next_point(emitter, point, extents);
                        });
}

}  // namespace kiln::cpu
