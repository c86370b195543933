#include "runtime/workspace.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "runtime/size_program.h"
#include "support/aligned_buffer.h"

namespace kiln::runtime {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::Spec;

// A temporary with all that share its memory.
struct Block {
  uint64_t size = 0, offset = 0;
  int32_t first_step = std::numeric_limits<int32_t>::max(), last_step = -1;

  bool meets(const Block& other) const {
    return first_step <= other.last_step && other.first_step <= last_step;
  }
  uint64_t end() const { return offset + size; }
};

// The end of the alias chain of every buffer.
std::vector<size_t> alias_roots(const Spec& spec) {
  std::vector<size_t> roots(spec.buffers.size());
  for (size_t i = 0; i < roots.size(); ++i) {
    size_t root = i;
    while (spec.buffers[root].alias_of != -1)
      root = static_cast<size_t>(spec.buffers[root].alias_of);
    roots[i] = root;
  }
  return roots;
}

std::vector<Block> make_blocks(const Spec& spec, std::span<const int64_t> sizes,
                               const std::vector<size_t>& roots) {
  std::vector<Block> blocks(spec.buffers.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const BufferSpec& buffer = spec.buffers[i];
    if (buffer.kind != BufferKind::Temporary) continue;
    Block& block = blocks[roots[i]];
    const auto size = static_cast<uint64_t>(sizes[static_cast<size_t>(buffer.bytes)]);
    block.size = std::max(block.size, align_up(size, kTensorAlignment));
    block.first_step = std::min(block.first_step, buffer.first_step);
    block.last_step = std::max(block.last_step, buffer.last_step);
  }
  return blocks;
}

// `placed` is in order of offsets.
uint64_t best_offset(const Block& block, const std::vector<Block*>& placed) {
  uint64_t end = 0, smallest_gap = std::numeric_limits<uint64_t>::max();
  std::optional<uint64_t> best;
  for (const Block* other : placed) {
    if (!other->meets(block)) continue;
    if (other->offset >= end) {
      const uint64_t gap = other->offset - end;
      if (gap >= block.size && gap < smallest_gap) {
        smallest_gap = gap;
        best = end;
      }
    }
    end = std::max(end, other->end());
  }
  return best.value_or(end);
}

}  // namespace

Result<WorkspacePlan> plan_workspace(const Spec& spec, std::span<const int64_t> sizes) {
  const std::vector<size_t> roots = alias_roots(spec);
  std::vector<Block> blocks = make_blocks(spec, sizes, roots);
  std::vector<Block*> order, placed;
  for (Block& block : blocks)
    if (block.size > 0) order.push_back(&block);
  std::ranges::sort(order, [](const Block* a, const Block* b) {
    return a->size != b->size ? a->size > b->size : a < b;  // all are in one vector
  });

  WorkspacePlan plan;
  for (Block* block : order) {
    block->offset = best_offset(*block, placed);
    placed.insert(std::ranges::upper_bound(placed, block->offset, {}, &Block::offset), block);
    plan.size = std::max(plan.size, block->end());
    if (plan.size > static_cast<uint64_t>(kLargestSize))
      return Status(StatusCode::OutOfMemory, "the workspace for these input shapes is too large");
  }
  for (const size_t root : roots) plan.offsets.push_back(blocks[root].offset);
  return plan;
}

}  // namespace kiln::runtime
