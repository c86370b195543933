#include "runtime/workspace.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <queue>
#include <set>

#include "runtime/size_program.h"
#include "support/aligned_buffer.h"

namespace kiln::runtime {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::ProgramSpec;

// A temporary with all that share its memory.
struct Block {
  uint64_t size = 0, offset = 0;
  int32_t first_step = std::numeric_limits<int32_t>::max(), last_step = -1;

  bool meets(const Block& other) const {
    return first_step <= other.last_step && other.first_step <= last_step;
  }
  uint64_t end() const { return offset + size; }
};

// The end of the alias chain of every buffer. What is found is written back along the way, so that
// no chain is walked twice.
std::vector<size_t> alias_roots(const ProgramSpec& program) {
  constexpr size_t kUnknown = std::numeric_limits<size_t>::max();
  std::vector<size_t> roots(program.buffers.size(), kUnknown);
  const auto next = [&](size_t i) { return static_cast<size_t>(program.buffers[i].alias_of); };
  for (size_t i = 0; i < roots.size(); ++i) {
    size_t end = i;
    while (roots[end] == kUnknown && program.buffers[end].alias_of != -1) end = next(end);
    const size_t root = roots[end] == kUnknown ? end : roots[end];
    for (size_t at = i; roots[at] == kUnknown; at = next(at)) {
      roots[at] = root;
      if (at == end) break;
    }
  }
  return roots;
}

std::vector<Block> make_blocks(const ProgramSpec& program, std::span<const int64_t> sizes,
                               const std::vector<size_t>& roots) {
  std::vector<Block> blocks(program.buffers.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const BufferSpec& buffer = program.buffers[i];
    if (buffer.kind != BufferKind::Temporary) continue;
    Block& block = blocks[roots[i]];
    const auto size = static_cast<uint64_t>(sizes[static_cast<size_t>(buffer.bytes)]);
    block.size = std::max(block.size, align_up(size, kTensorAlignment));
    block.first_step = std::min(block.first_step, buffer.first_step);
    block.last_step = std::max(block.last_step, buffer.last_step);
  }
  return blocks;
}

// Largest first, each into the smallest gap that takes it.
class PlacementBySize {
 public:
  explicit PlacementBySize(WorkspacePlan& plan) : plan_(plan) {}

  void place(std::vector<Block*> blocks) {
    std::ranges::sort(blocks, [](const Block* a, const Block* b) {
      return a->size != b->size ? a->size > b->size : a < b;  // all are in one vector
    });
    for (Block* block : blocks) {
      block->offset = best_offset(*block);
      placed_.insert(std::ranges::upper_bound(placed_, block->offset, {}, &Block::offset), block);
    }
  }

 private:
  uint64_t best_offset(const Block& block) {
    uint64_t end = 0, smallest_gap = std::numeric_limits<uint64_t>::max();
    std::optional<uint64_t> best;
    plan_.visits += placed_.size();
    for (const Block* other : placed_) {
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

  WorkspacePlan& plan_;
  std::vector<Block*> placed_;  // in order of offsets
};

// In the order of the steps, each into the smallest piece that is free then.
class PlacementByStep {
 public:
  explicit PlacementByStep(WorkspacePlan& plan) : plan_(plan) {}

  void place(std::vector<Block*> blocks) {
    std::ranges::sort(blocks, [](const Block* a, const Block* b) {
      return a->first_step != b->first_step ? a->first_step < b->first_step : a < b;
    });
    const auto ends_later = [](const Block* a, const Block* b) {
      return a->last_step != b->last_step ? a->last_step > b->last_step : a > b;
    };
    std::priority_queue<Block*, std::vector<Block*>, decltype(ends_later)> live(ends_later);
    for (Block* block : blocks) {
      for (; !live.empty() && live.top()->last_step < block->first_step; live.pop())
        release(live.top()->offset, live.top()->size);
      take(*block);
      live.push(block);
    }
  }

 private:
  void take(Block& block) {
    ++plan_.visits;
    const auto found = by_size_.lower_bound({block.size, 0});
    if (found == by_size_.end()) {
      block.offset = end_;
      end_ += block.size;
      return;
    }
    const auto [size, offset] = *found;
    forget(offset, size);
    block.offset = offset;
    if (size > block.size) remember(offset + block.size, size - block.size);
  }

  // Joined with its free neighbours.
  void release(uint64_t offset, uint64_t size) {
    ++plan_.visits;
    const auto after = by_offset_.find(offset + size);
    if (after != by_offset_.end()) {
      const uint64_t more = after->second;
      forget(offset + size, more);
      size += more;
    }
    auto before = by_offset_.lower_bound(offset);
    if (before != by_offset_.begin() && (--before)->first + before->second == offset) {
      const auto [start, more] = *before;
      forget(start, more);
      offset = start;
      size += more;
    }
    remember(offset, size);
  }

  void remember(uint64_t offset, uint64_t size) {
    by_offset_[offset] = size;
    by_size_.insert({size, offset});
  }
  void forget(uint64_t offset, uint64_t size) {
    by_offset_.erase(offset);
    by_size_.erase({size, offset});
  }

  WorkspacePlan& plan_;
  std::map<uint64_t, uint64_t> by_offset_;           // free pieces: sizes by offset
  std::set<std::pair<uint64_t, uint64_t>> by_size_;  // and (size, offset)
  uint64_t end_ = 0;
};

// Whether offsets can be added up: every size is at most kLargestSize, but there may be many.
bool fits(const std::vector<Block*>& blocks) {
  uint64_t sum = 0;
  return std::ranges::all_of(blocks, [&](const Block* block) {
    return !__builtin_add_overflow(sum, block->size, &sum) && sum <= uint64_t{1} << 63;
  });
}

}  // namespace

std::vector<ProgramPart> parts_of(const ProgramSpec& program) {
  std::vector<ProgramPart> parts(1);
  for (size_t i = 0; i < program.data_sizes.size(); ++i) {
    const auto step = static_cast<size_t>(program.data_sizes[i].step);
    if (step != parts.back().first_step || i == 0) {
      parts.back().end_step = step;
      parts.push_back({.first_step = step});
    }
    parts.back().known = i + 1;
  }
  parts.back().end_step = program.steps.size();
  return parts;
}

std::vector<int32_t> parts_of_buffers(const ProgramSpec& program,
                                      const std::vector<ProgramPart>& parts) {
  std::vector<int32_t> result(program.buffers.size(), 0);
  for (size_t i = 0; i < result.size(); ++i) {
    const BufferSpec& buffer = program.buffers[i];
    if (buffer.kind != BufferKind::Temporary) continue;
    const auto behind = std::ranges::upper_bound(parts, static_cast<size_t>(buffer.first_step), {},
                                                 &ProgramPart::first_step);
    result[i] = static_cast<int32_t>(behind - parts.begin()) - 1;
  }
  return result;
}

Result<WorkspacePlan> plan_workspace(const ProgramSpec& program, std::span<const int64_t> sizes,
                                     std::span<const int32_t> buffer_parts, int32_t part) {
  const std::vector<size_t> roots = alias_roots(program);
  std::vector<Block> blocks = make_blocks(program, sizes, roots);
  // Aliases are of one part.
  for (size_t i = 0; i < buffer_parts.size(); ++i)
    if (buffer_parts[i] != part) blocks[i].size = 0;
  std::vector<Block*> wanted;
  for (Block& block : blocks)
    if (block.size > 0) wanted.push_back(&block);
  const Status too_large(StatusCode::OutOfMemory,
                         "the workspace for these input shapes is too large");
  if (!fits(wanted)) return too_large;

  WorkspacePlan plan;
  if (wanted.size() <= kMostPlacedBySize)
    PlacementBySize(plan).place(wanted);
  else
    PlacementByStep(plan).place(wanted);
  for (const Block* block : wanted) plan.size = std::max(plan.size, block->end());
  if (plan.size > static_cast<uint64_t>(kLargestSize)) return too_large;
  for (const size_t root : roots) plan.offsets.push_back(blocks[root].offset);
  return plan;
}

}  // namespace kiln::runtime
