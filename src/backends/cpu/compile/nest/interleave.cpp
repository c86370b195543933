#include "backends/cpu/compile/nest/interleave.h"

#include <algorithm>

#include "backends/cpu/compile/emit/element.h"
#include "backends/cpu/compile/nest/lane_loop.h"
#include "backends/cpu/compile/nest/nest_axis.h"
#include "plan/form/access.h"

namespace kiln::cpu {

using ir::Dim;
using llvm::Value;
using plan::Loop;

namespace {

constexpr int64_t kMostChannels = 4;

// Lane i of the result is element i % n of vector number i / n, counted from `first` on: n = vectors.size().
Value* interleaved(llvm::IRBuilder<>& ir, const std::vector<Value*>& vectors, int first) {
  const auto* type = llvm::cast<llvm::FixedVectorType>(vectors[0]->getType());
  const int lanes = static_cast<int>(type->getNumElements());
  const int count = static_cast<int>(vectors.size());
  Value* result = nullptr;
  for (int v = 0; v < count; ++v) {
    std::vector<int> order;
    for (int i = 0; i < lanes; ++i) {
      const int at = first + i;
      const bool is_own = at % count == v;
      order.push_back(is_own ? at / count + (v == 0 ? 0 : lanes) : i);
    }
    result = v == 0 ? ir.CreateShuffleVector(vectors[0], order)
                    : ir.CreateShuffleVector(result, vectors[static_cast<size_t>(v)], order);
  }
  return result;
}

class InterleavedEmitter {
 public:
  InterleavedEmitter(Emitter& emitter, const plan::LoopNest& nest, const Interleaved& form)
      : emitter_(emitter),
        nest_(nest),
        store_(std::get<plan::Store>(nest.stages.front())),
        lane_(nest.outer[form.lane]),
        channel_(nest.outer[form.channel]) {}

  Dim run() {
    std::vector<Loop> rows;
    for (const Loop& loop : nest_.outer) {
      if (loop.index != lane_.index && loop.index != channel_.index) rows.push_back(loop);
    }
    const int64_t work = estimated_work(nest_, channel_.extent().constant());
    return channel_.extent() *
           for_each_block(emitter_, rows, lane_, work, [&](const LaneRange& range) {
             for_lanes(emitter_, range, 1, [&](const Lanes& lanes, int) { emit_group(lanes); });
           });
  }

 private:
  void emit_group(const Lanes& lanes) {
    auto& ir = emitter_.ir();
    const DType dtype = emitter_.program().buffers[static_cast<size_t>(store_.buffer)].type.dtype;
    std::vector<plan::Expr> values;
    for (int64_t c = 0; c < channel_.extent().constant(); ++c)
      values.push_back(plan::substitute(store_.value, plan::replace_loops({channel_}, {Dim(c)})));
    std::vector<Value*> vectors;
    for (Value* value : emitter_.emit_all(values, lanes, Leaves()))
      vectors.push_back(to_memory(ir, value, dtype));
    const auto first = plan::substitute(store_.indices, plan::replace_loops({channel_}, {Dim(0)}));
    Value* base = emitter_.address(store_.buffer, first.front());
    const llvm::Align align(dtype_size(dtype));
    for (size_t k = 0; k < vectors.size(); ++k) {
      const int done = static_cast<int>(k) * lanes.count;
      Value* place = ir.CreateConstGEP1_64(vectors[0]->getType()->getScalarType(), base, done);
      Value* part = interleaved(ir, vectors, done);
      if (lanes.mask == nullptr) {
        ir.CreateAlignedStore(part, place, align);
      } else {
        const std::vector<Value*> masks(vectors.size(), lanes.mask);
        ir.CreateMaskedStore(part, place, align, interleaved(ir, masks, done));
      }
    }
  }

  Emitter& emitter_;
  const plan::LoopNest& nest_;
  const plan::Store& store_;
  const Loop lane_, channel_;
};

std::optional<int64_t> stride_of(const Dim& offset, const Loop& loop) {
  const auto linear = offset.as_linear_in(loop.index);
  if (!linear || !linear->first.is_constant()) return std::nullopt;
  return linear->first.constant();
}

}  // namespace

std::optional<Interleaved> find_interleaved(const plan::LoopNest& nest, size_t lane) {
  const auto* store = std::get_if<plan::Store>(&nest.stages.front());
  if (nest.stages.size() != 1 || store == nullptr || !store->loops.empty() || store->scan ||
      store->indices.size() != 1) {
    return std::nullopt;
  }
  const auto distance = stride_of(store->indices.front(), nest.outer[lane]);
  if (!distance || *distance < 2 || *distance > kMostChannels) return std::nullopt;
  for (size_t i = 0; i < nest.outer.size(); ++i) {
    if (nest.outer[i].extent().is_constant(*distance) && i != lane &&
        stride_of(store->indices.front(), nest.outer[i]) == 1) {
      return Interleaved{lane, i};
    }
  }
  return std::nullopt;
}

Dim emit_interleaved_nest(Emitter& emitter, const plan::LoopNest& nest, const Interleaved& form) {
  return InterleavedEmitter(emitter, nest, form).run();
}

}  // namespace kiln::cpu
