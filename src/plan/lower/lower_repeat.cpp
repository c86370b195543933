// repeat: the kernels of a body, which run again and again.
//
// Each carried value has a buffer, which holds what it is before the first time and is overwritten when all kernels of
// the body have run. In between nobody writes it, so that the order in which new values are made does not matter.
#include "plan/form/kernels.h"
#include "plan/lower/lowering.h"
#include "support/error.h"

namespace kiln::plan {

void lower_repeat(Lowering& lowering, const ir::Node& node) {
  if (!lowering.traits().repeats)
    throw CompileError(
        "[repeat] got a loop whose steps the run counts, for a target whose runs do not, expected "
        "the CPU");
  lowering.add_repeat(node);
}

void Lowering::add_repeat(const ir::Node& node) {
  const ir::Graph& body = *node.attr<std::shared_ptr<ir::Graph>>("body");
  const BufferId condition = add_temporary(node.output()->name + "_condition", {DType::Bool, {}});
  std::vector<BufferId> carried{condition};
  for (const ir::Value* output : node.outputs) carried.push_back(define(output));
  for (size_t i = 0; i < carried.size(); ++i) emit_copy(node.inputs[i], carried[i], "begin");
  for (size_t i = 0; i < body.inputs().size(); ++i)
    buffers_[body.inputs()[i]] =
        i < node.outputs.size() ? carried[i + 1] : shaped(node.inputs[i + 1]);

  const auto number = static_cast<int32_t>(program_.repeats.size());
  program_.repeats.push_back({condition, repeat_});
  const int32_t outer = std::exchange(repeat_, number);
  const size_t first = program_.kernels.size();
  for (const auto& inner : body.nodes()) lower_node(*this, *inner);
  carry(body, carried);
  for (size_t i = first; i < program_.kernels.size(); ++i)
    if (program_.kernels[i].repeat == -1) program_.kernels[i].repeat = number;
  repeat_ = outer;
}

// A buffer with the elements and the shape of a value.
BufferId Lowering::shaped(const ir::Value* value) {
  const BufferId buffer = dense(value);
  if (program_.buffers[buffer].type == value->type) return buffer;
  const BufferId copy = add_temporary(value->name, value->type);
  emit_copy(value, copy, "copy");
  return copy;
}

// What a carried value is next may be made of others as they are now.
void Lowering::carry(const ir::Graph& body, const std::vector<BufferId>& carried) {
  std::vector<BufferId> sources;
  for (size_t i = 0; i < carried.size(); ++i) {
    const ir::Value* next = body.outputs()[i];
    const ir::Value* under = next;
    while (!has_buffer(under) && under->producer && is_view(under->producer->op))
      under = under->producer->input(0);
    const auto found = buffers_.find(under);
    const bool is_carried =
        found != buffers_.end() && std::ranges::find(carried, found->second) != carried.end();
    if (is_carried && under == next && found->second == carried[i]) {
      sources.push_back(carried[i]);
      continue;
    }
    sources.push_back(is_carried ? add_temporary(next->name + "_next", next->type) : -1);
    if (is_carried) emit_copy(next, sources.back(), "next");
  }
  for (size_t i = 0; i < carried.size(); ++i) {
    if (sources[i] == carried[i]) continue;
    if (sources[i] == -1) {
      emit_copy(body.outputs()[i], carried[i], "carry");
      continue;
    }
    LoopSpace space = make_loops(body.outputs()[i]->type.shape);
    Store store{carried[i],
                {},
                space.indices,
                load_at(sources[i], body.outputs()[i]->type.dtype, space.indices),
                {}};
    program_.kernels.push_back({"carry_" + std::to_string(kernel_count_++),
                                LoopNest{std::move(space.loops), {std::move(store)}},
                                {body.outputs()[i]->name}});
  }
}

}  // namespace kiln::plan
