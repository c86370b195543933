// The reserved field of an engine's header as a mark: it says what a file is kept for and changes
// nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kiln::engine {

// The mark of what may be an engine: 0 as it is written. Nothing for what does not begin like one;
// no more than the first kMarkBytes are looked at.
inline constexpr size_t kMarkBytes = 32;
std::optional<uint64_t> mark_of(std::span<const std::byte> bytes);
// What takes the place of an engine's first bytes so that it has the mark: header and section
// table. `bytes` are a sound engine.
std::vector<std::byte> marked_start(std::span<const std::byte> bytes, uint64_t mark);

}  // namespace kiln::engine
