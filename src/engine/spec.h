// What an engine file says, as plain data: the writer takes it, the reader gives it back.
// docs/engine_format.md has the bytes. Depends on nothing but support, so that the compiler and the
// runtime share it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "support/dtype.h"
#include "support/hash.h"
#include "support/limits.h"

namespace kiln::engine {

// Sizes that depend on the input shapes are computed by one straight-line program of integer
// operations, run once per new shape. A slot is the index of one of its operations; operands are
// earlier slots.
using Slot = int32_t;

using kiln::kMaxRank;

enum class SizeOp : uint8_t {
  Constant = 0,  // immediate
  Symbol = 1,    // symbols[immediate]
  Add = 2,
  Sub = 3,
  Mul = 4,
  FloorDiv = 5,  // rounds towards minus infinity; the divisor is checked: zero is an error
  Mod = 6,
  Min = 7,
  Max = 8,
};

struct SizeInstruction {
  SizeOp op = SizeOp::Constant;
  Slot a = -1, b = -1;
  int64_t immediate = 0;
};

// A size that may vary. It is read off the shape of input `input`: its dimension `dim` is
// factor * symbol + offset. The shapes that the symbols give are compared with the caller's, so
// that a size that is of no such form is refused.
struct SymbolSpec {
  std::string name;
  int32_t input = 0, dim = 0;
  int64_t min = 0, max = 0, opt = 0;
  int64_t factor = 1, offset = 0;

  // The dimension's size for a value of the symbol, kept within what counts as unbounded.
  int64_t size_at(int64_t value) const {
    constexpr int64_t kUnbounded = int64_t{1} << 60;
    int64_t size = 0;
    if (__builtin_mul_overflow(factor, value, &size) || __builtin_add_overflow(size, offset, &size))
      return kUnbounded;
    return size < kUnbounded ? size : kUnbounded;
  }
};

struct TensorSpec {
  std::string name;
  DType dtype = DType::F32;
  std::vector<Slot> shape;  // checked against the caller's shape for inputs
};

enum class BufferKind : uint8_t { Input = 0, Output = 1, Constant = 2, Temporary = 3 };

struct BufferSpec {
  BufferKind kind = BufferKind::Temporary;
  int32_t index = -1;   // Input, Output: position among them
  uint64_t offset = 0;  // Constant: bytes into the weights section, a multiple of 64
  uint64_t constant_bytes = 0;
  Hash128 content_hash{};  // Constant: of its bytes; zeros: not said
  Slot bytes = -1;         // Input, Output, Temporary: size for the bound shape
  int32_t first_step = 0,
          last_step =
              0;  // Temporary: live from the start of one to the end of the other, inclusive
  int32_t alias_of = -1;  // Temporary: shares that buffer's memory (in-place)
  // Constant: which buffer of the planned program it is, and what was done to that one's contents
  // (backends/backend.h), so that a refit can do it to others.
  int32_t source = -1;
  std::string transform;
};

enum class CheckKind : uint8_t {
  Index = 0,         // 0 <= i < size
  IndexFromEnd = 1,  // -size <= i < size
  Nonzero = 2,       // a divisor
};

// What a kernel finds wrong with its data. The text for the error is made of this.
struct CheckSpec {
  std::string operation;  // "embedding"
  CheckKind kind = CheckKind::Index;
  Slot size = -1;      // of an index; -1 for a divisor
  int32_t input = -1;  // the input that holds what is checked, all of it; -1: it is computed
};

// A kernel returns one bit for each.
inline constexpr size_t kMostChecks = 64;

// One kernel call. The step runs `tasks` independent tasks, split over threads.
struct StepSpec {
  int32_t kernel = -1;
  std::vector<int32_t> buffers;  // handed to the kernel in this order
  std::vector<Slot> params;      // handed to the kernel in this order
  Slot tasks = -1;
  int64_t min_tasks_per_thread = 1;  // fewer are not worth another thread
  Slot scratch_bytes = -1;           // per thread; -1: none
  // By position in `buffers`: the most bytes of it that one task writes; -1: none. Empty in files
  // of versions that did not say it.
  std::vector<Slot> writes;
  std::vector<CheckSpec> checks;  // the i-th failed if the kernel returns bit i
};

// The machine code of all kernels for one level of CPU.
struct CodeVariant {
  std::string name;                 // "x86-64-v3", "x86-64-v4"
  uint64_t cpu_features = 0;        // support/cpu_features.h bits that must all be present
  std::vector<uint64_t> entry;      // byte offset of each kernel in `code`
  std::span<const std::byte> code;  // position-independent; text and read-only data, no relocations
};

struct KernelSpec {
  std::string name;
  std::string kind;  // "loop_nest", "matmul", "convolution", "attention"
  std::vector<std::string> sources;
  std::string key;  // hash of what it computes
};

struct Spec {
  std::string name;
  std::string producer;  // "kiln 0.1.0"
  std::string target;    // "cpu"
  std::vector<SymbolSpec> symbols;
  std::vector<SizeInstruction> sizes;
  std::vector<TensorSpec> inputs, outputs;
  std::vector<BufferSpec> buffers;
  std::vector<KernelSpec> kernels;
  std::vector<StepSpec> steps;
  std::vector<CodeVariant>
      variants;  // the most demanding first; the first that the CPU can run is used
  // What a refit needs to plan a model as this one was planned, and to know that it came out the
  // same.
  std::string program_hash;  // of everything but the contents of constants
  std::vector<std::string> disabled_passes;
  bool refittable = false;               // no pass looked at the values of weights
  std::string metadata;                  // the caller's, kept as it is
  bool emulate_precision_casts = false;  // every operator's 16-bit result is rounded
  bool unchecked = false;                // checks of the data were left out
};

// The ABI of a CPU kernel. `buffers` and `params` are the step's, resolved; buffers are non-null
// unless they have no elements. Runs tasks [begin, end) of the step. `scratch` is 64-byte aligned
// and private to the calling thread. Returns the bits of the step's checks that failed; memory
// is safe in either case. The result of a step without checks has no meaning. Kernels never
// allocate, block or call out; they may be run by many threads at once on different task ranges.
using CpuKernel = uint64_t (*)(void* const* buffers, const int64_t* params, void* scratch,
                               int64_t begin, int64_t end);

}  // namespace kiln::engine
