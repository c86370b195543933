// What an engine file says, as plain data: the writer takes it, the reader gives it back. An engine
// is an interface, which is what callers see, and programs that compute it: each for one kind of
// machine, with buffers, steps and code of its own. docs/engine_format.md has the bytes. Depends on
// nothing but support, so that the compiler and the runtime share it.
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

// Sizes that depend on the input shapes are computed by a straight-line program of integer
// operations, run once per new shape. A slot is the index of one of its operations; operands are
// earlier slots. The interface has the first slots; the slots of every program continue behind them.
using Slot = int32_t;

using kiln::kMaxRank;

enum class SizeOp : uint8_t {
  Constant = 0,  // immediate
  Symbol = 1,    // symbols[immediate], or behind them data_sizes
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

  bool operator==(const SizeInstruction&) const = default;
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

  bool operator==(const SymbolSpec&) const = default;
};

// A size that the run finds in its data: symbol symbols.size() + i of the size program is the i-th of
// these. Sizes that depend on it are known once the step of the program that writes it has run.
struct DataSizeSpec {
  std::string name;
  int64_t min = 0, max = 0, opt = 0;  // a run that finds another is an error
  Slot bound = -1;  // the most that it is, over sizes that are known before; -1: not said

  bool operator==(const DataSizeSpec&) const = default;
};

struct TensorSpec {
  std::string name;
  DType dtype = DType::F32;
  std::vector<Slot> shape;  // checked against the caller's shape for inputs
  // An output that is what this input is to be after a run, -1: none. In a program both are the same
  // memory, which holds the input to begin with.
  int32_t updates = -1;

  bool operator==(const TensorSpec&) const = default;
};

// Filters of 3x3 as Winograd's algorithm multiplies them, f32 [panels][points][channels][width], which a load makes of
// packed ones, [panels][9 * channels / filter_step][filter_width][filter_step]: they are 1.8 to 8 times as large.
struct WinogradSpec {
  int32_t filters = -1;      // the buffer that holds those; -1: nothing is made
  DType dtype = DType::F32;  // of those: f32, f16 or bf16
  int32_t results = 0;       // the side of a tile, 2 or 4: points are the square of that and 2
  int64_t channels = 0, outputs = 0;
  int32_t width = 0, filter_width = 0;  // columns of a panel; the last ones may be padding
  int32_t filter_step = 1;

  bool operator==(const WinogradSpec&) const = default;
};

inline constexpr int32_t kWidestPanel = 64;

// Sizes of what is made, and of what it is made of. -1: numbers are no such filters.
int64_t winograd_bytes(const WinogradSpec& winograd);
int64_t winograd_filter_bytes(const WinogradSpec& winograd);

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
  // Constant: what it is made of when the program is loaded, it has no place in the weights then.
  WinogradSpec winograd;

  bool is_made_at_load() const { return winograd.filters != -1; }
};

enum class CheckKind : uint8_t {
  Index = 0,         // 0 <= i < size
  IndexFromEnd = 1,  // -size <= i < size
  Nonzero = 2,       // a divisor, or a condition
};

// What a kernel finds wrong with its data. The text for the error is made of this.
struct CheckSpec {
  std::string operation;  // "embedding"
  CheckKind kind = CheckKind::Index;
  Slot size = -1;      // of an index; -1 for a divisor
  int32_t input = -1;  // the input that holds what is checked, all of it; -1: it is computed
  std::string fault;   // of a condition: what the error says behind the operation; else empty
};

// A kernel returns one bit for each.
inline constexpr size_t kMostChecks = 64;

enum class RequirementKind : uint8_t {
  Sizes = 0,  // of the model: sizes that do not fit together
  Index = 1,  // of an operator for which PyTorch raises an IndexError
};

// What has to be true of a call's sizes besides what the shapes of inputs say. It is checked once
// for every new combination of input shapes.
struct RequirementSpec {
  Slot condition = -1;  // has to be other than 0
  RequirementKind kind = RequirementKind::Sizes;
  std::string operation;  // "amax"; empty: the model's own
  std::string expected;   // for the error: "x.size(0) % 2 == 0"

  bool operator==(const RequirementSpec&) const = default;
};

// How a step runs. A program with a step of another kind is not read: it was made by a later
// version.
enum class StepKind : uint8_t {
  Tasks = 0,   // a kernel's independent tasks, split over threads of a CPU
  Launch = 1,  // a kernel on a grid of blocks
  Call = 2,    // a function of a library of the target
};

// How the copy engine of a GPU sees a buffer that a launch reads: a tensor of one to five axes, of
// which it brings boxes to the memory that a block shares. The run makes a map of it, an argument of
// the kernel, when buffers and sizes are known. NVIDIA: CUtensorMap.
struct TensorMapSpec {
  int32_t buffer = -1;  // position among the step's
  DType dtype = DType::F16;
  Slot offset = -1;                      // of the first element, in bytes
  std::vector<Slot> sizes;               // in elements, the fastest axis first
  std::vector<Slot> strides;             // in bytes, of the second axis and on
  std::vector<int32_t> box;              // in elements; images: empty
  std::vector<int32_t> element_strides;  // empty: 1 for each axis
  int32_t swizzle = 0;                   // bytes: 0, 32, 64 or 128
  // Images: boxes of pixels at the positions of a convolution's filters. Empty corners: no image.
  std::vector<int32_t> lower_corner, upper_corner;
  int32_t box_channels = 0, box_pixels = 0;
};

// The shape of a launch: one to three sizes each, the fastest first.
struct LaunchSpec {
  std::vector<Slot> grid, block;
  Slot shared_bytes = -1;  // of a block, beyond what the kernel declares; -1: none
  std::vector<TensorMapSpec> tensor_maps;
  // The kernel waits by itself for the steps before it, so that it may be started before they end.
  bool programmatic = false;
};

// One step of a program. Its units are independent of each other: tasks, blocks of a grid, or the
// one call. A Call of a CPU's program is a kernel of the user's own (kiln_register_kernel), whose `buffers` are
// its tensors, the inputs in front of those that it writes. `params` are of each of them in turn: the dtype, the
// rank, both Constant, and the sizes.
struct StepSpec {
  StepKind kind = StepKind::Tasks;
  int32_t kernel = -1;               // a Call: what describes it
  std::vector<int32_t> buffers;      // handed to the kernel in this order
  std::vector<Slot> params;          // handed to the kernel in this order
  Slot tasks = -1;                   // Tasks: how many
  int64_t min_tasks_per_thread = 1;  // Tasks: fewer are not worth another thread
  Slot scratch_bytes = -1;           // Tasks: per thread; otherwise of the whole step; -1: none
  std::vector<Slot> writes;  // by position in `buffers`: the most bytes of it that one unit writes;
                             // -1: none
  std::vector<CheckSpec> checks;  // the i-th failed if the kernel reports bit i
  LaunchSpec launch;              // Launch
  // What it has to do, for profiles: arithmetic operations, and bytes of memory read and written; -1: not
  // known. plan/form/work.h says what counts.
  Slot operations = -1, bytes = -1;
};

inline constexpr uint64_t kNoEntry = ~uint64_t{0};

// The two parts of a KernelSpec::function of a CPU's Call. Names have no spaces.
inline std::string called_kernel(const std::string& function) {
  return function.substr(0, function.find(' '));
}
inline std::string call_arguments(const std::string& function) {
  const size_t space = function.find(' ');
  return space == std::string::npos ? "{}" : function.substr(space + 1);
}

struct KernelSpec {
  std::string name;
  // "loop_nest", "matmul", "convolution", "attention", "sort", "scatter", "custom"
  std::string kind;
  std::vector<std::string> sources;
  std::string key;            // hash of what it computes
  uint64_t entry = kNoEntry;  // Tasks: where it begins in the code
  // Launch: its name in the code. Call: the library's and its name; of a CPU's program, that of a kernel of the user's
  // own, a space, and the arguments that are no tensors, a JSON object.
  std::string function;
  std::string precision;  // what it computes in, for profiles: "f32", "bf16", "u8"; "": not known
};

// Where a program has a size that the run finds: before step `step`, or at the end if that is their number,
// it is the i64 that `buffer` holds.
struct DataSizeSource {
  int32_t step = 0;
  int32_t buffer = -1;
};

// Steps that run one after another, again and again, as long as the byte in `buffer` is not 0, which is looked at
// before each time, the first one included. Two of them have no step in common, or one has all of the other's.
struct RepeatSpec {
  int32_t first_step = 0, end_step = 0;  // the first, and the one behind the last
  int32_t buffer = -1;

  bool operator==(const RepeatSpec&) const = default;
};

// The versions of the rules for a program that this version of Kiln reads: 6 for one of a CPU with constants that a load makes, 5 for one of a CPU with calls, 4 for one with steps that repeat, 3 for one of an interface with
// sizes that the run finds, 2 for one of an interface with outputs that update inputs, otherwise 1. A program
// of a later one is not read.
inline constexpr uint32_t kProgramVersion = 6, kCallProgramVersion = 5, kRepeatProgramVersion = 4,
                          kDataSizeProgramVersion = 3, kUpdateProgramVersion = 2,
                          kPlainProgramVersion = 1;

// How one kind of machine computes the interface.
struct ProgramSpec {
  // What a reader needs in order to choose one.
  std::string target;                 // "cpu"
  std::string variant;                // "x86-64-v3", "x86-64-v4"
  std::vector<std::string> features;  // all of them are needed: "avx2"; no spaces in a name
  uint32_t version = kPlainProgramVersion;

  // The reader's: what this version of Kiln does not know of the program, "the target \"npu\"". Then
  // nothing of what follows is there.
  std::string unknown;

  std::string program_hash;  // for a refit: of everything but the contents of constants
  std::vector<SizeInstruction> sizes;
  std::vector<BufferSpec> buffers;
  std::vector<KernelSpec> kernels;
  std::vector<StepSpec> steps;
  std::vector<DataSizeSource> data_sizes;  // of each of the interface's, in the order of the steps
  std::vector<RepeatSpec> repeats;         // in the order of their first steps, the longest first
  std::span<const std::byte> code;         // cpu: position-independent text and read-only data

  // "cpu:x86-64-v3"
  std::string name() const;
};

inline constexpr uint8_t kTf32Products = 1, kTf32Convolutions = 2;

struct Spec {
  std::string name;
  std::string producer;  // "kiln 0.1.0"
  std::vector<SymbolSpec> symbols;
  std::vector<SizeInstruction> sizes;  // of the shapes
  std::vector<TensorSpec> inputs, outputs;
  // What a refit needs to plan a model as this one was planned.
  std::vector<std::string> disabled_passes;
  bool refittable = false;               // no pass looked at the values of weights
  std::string metadata;                  // the caller's, kept as it is
  bool emulate_precision_casts = false;  // every operator's 16-bit result is rounded
  bool unchecked = false;                // checks of the data were left out
  // Where f32 was allowed to be rounded to TF32: kTf32Products and kTf32Convolutions.
  uint8_t tf32 = 0;
  // What the compiler quantised, which no refit can: "int8", "int8-weights", "int4-weights"; empty: nothing.
  std::string quantized;
  // The best first: the first that a machine can run is the one that it uses.
  std::vector<ProgramSpec> programs;
  std::vector<RequirementSpec> requirements;
  std::vector<DataSizeSpec> data_sizes;  // in the order in which a run finds them
};

// By step: the innermost of the repeats that it is in, -1: none. Empty for a program without any; they are valid.
std::vector<int32_t> innermost_repeats(const ProgramSpec& program);

// By slot of an interface, and of a program of it: how many of the data sizes have to be known, the first
// ones, before the slot's value is. The size programs are valid.
std::vector<int32_t> known_after(const Spec& spec, const ProgramSpec* program = nullptr);

// What begins a kernel's scratch: numbers that it keeps from one of its calls for a step to the next on the
// same thread, such as which rows it has copied. All are -1 in a thread's first call. A kernel that keeps
// none may use the memory as any other.
inline constexpr uint64_t kKeyBytes = 64;

// The ABI of a CPU kernel. `buffers` and `params` are the step's, resolved; buffers are non-null
// unless they have no elements. Runs tasks [begin, end) of the step. `scratch` is 64-byte aligned
// and private to the calling thread. Returns the bits of the step's checks that failed; memory
// is safe in either case. The result of a step without checks has no meaning. Kernels never
// allocate, block or call out; they may be run by many threads at once on different task ranges.
using CpuKernel = uint64_t (*)(void* const* buffers, const int64_t* params, void* scratch,
                               int64_t begin, int64_t end);

}  // namespace kiln::engine
