// The size program of an engine: what it gives for one set of input shapes, and for all that are
// allowed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/spec.h"
#include "support/size_arithmetic.h"
#include "support/status.h"

namespace kiln::runtime {

// No tensor of an engine is larger, in bytes: far above any machine, far below overflow.
inline constexpr int64_t kLargestSize = int64_t{1} << 46;

inline bool is_function(engine::SizeOp op) { return op >= engine::SizeOp::Add; }
// Of an operation that is a function of two slots.
SizeFunction function_of(engine::SizeOp op);

// One value for each slot of the interface, and of a program of it. `symbols` are those of the inputs and, behind
// them, the data sizes that are known: what needs others is 0.
Result<std::vector<int64_t>> evaluate_sizes(const engine::Spec& spec,
                                            std::span<const int64_t> symbols);
Result<std::vector<int64_t>> evaluate_sizes(const engine::Spec& spec,
                                            const engine::ProgramSpec& program,
                                            std::span<const int64_t> symbols);

struct SizeRange {
  int64_t min = 0, max = 0;
};

// What every slot of the interface can be over the ranges of the symbols, by interval arithmetic: never too narrow.
// The first symbols have the values given.
std::vector<SizeRange> size_ranges(const engine::Spec& spec, std::span<const int64_t> known = {});
// The data sizes that the value of a slot is made of, as "u0, u1"; empty: none.
std::string data_sizes_str(const engine::Spec& spec, engine::Slot slot);

// A slot of the interface as a formula over the symbols: "2*(s0 + 1)". "..." stands for what nests too deep, for the
// rest of a long name, and for the rest of a long formula: it has no more than kLongestFormula
// characters, whatever the file says.
inline constexpr size_t kLongestFormula = 160;
std::string size_str(const engine::Spec& spec, engine::Slot slot);

}  // namespace kiln::runtime
