// What src/plan is told of the machine that a program is made for: which kernel forms its backend
// has, and what is cheap there. Everything else in src/plan holds for every machine.
//
// A backend states its own (the CPU's: backends/cpu/compile/cpu_backend.cpp); lower() puts them into
// Program::traits, where the passes find them. A field without a value means the most modest
// machine: loop nests alone, nothing fused that is not free. Traits change which kernels a program
// has, never what it computes.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "support/dtype.h"

namespace kiln::plan {

// What the epilogue of a MatMul or Convolution may do with the finished sum.
enum class EpilogueRule : uint8_t {
  OwnBias,  // add the bias of the op and convert: nothing is fused
  // Pointwise work whose loads are evenly spaced from one column to the next: a vector of
  // neighbouring columns is one strided access.
  EvenLoads,
  AnyLoads,  // any pointwise work, loads at arbitrary positions included
};

// What Winograd's algorithm costs beside its products, in multiply-adds of a product. The sums that products
// of few rows take are counted as if there were `fewest_rows`.
struct WinogradCosts {
  int64_t pixel = 0;   // an element of the transformed pixels
  int64_t result = 0;  // an element of the products, transformed back
  int64_t weight = 0;  // reading an element of a filter, transformed or not, from memory
  int64_t fewest_rows = 1;
};

// The convolutions whose kernels can store the largest results of windows instead of all: those of 16-bit
// elements, without groups and dilation, whose results have a multiple of `vector` channels, with at most so much
// of everything else.
struct PooledConvolutions {
  int64_t channels = 0;  // of the input
  int64_t kernel = 0, stride = 0;
  int64_t window = 0;  // of the pooling: its size and its stride
  int64_t vector = 1;
};

// The convolutions whose kernels can add up the pixels of a second image as well: of 16-bit elements, without groups,
// with constant filters and at least so many of them, and a number of channels that is a multiple of `vector`.
struct SecondSums {
  int64_t vector = 1;
  int64_t fewest_filters = 1;  // and pixels of the result: at the sizes to optimise for, and at any
  int64_t fewest_pixels = 1, most_pixels = 0;
  int64_t stride = 0;  // the largest
  int64_t reach = 0;   // the most elements between the first and the last tap of a filter
  // How far from the first and the last element of the image the filters of the first and of the last pixel may
  // begin, which has to be known: [-corner, corner).
  int64_t corner = 0;
};

struct TargetTraits {
  // --- Kernel forms ---

  // Element types of the result for which there are MatMul, Convolution and Attention kernels. An
  // op of another type is lowered to loop nests, which every backend has. Source: what the code
  // generator of each form accepts.
  std::vector<DType> matmul, convolution, attention;
  // There are kernels for Sort and Scatter, which nothing else can stand for: ops that need them are
  // errors without. Source: what the code generator accepts.
  bool places = false;
  // A run may wait for a number that a kernel wrote, and go on with sizes that depend on it. Otherwise
  // data_size is an error. Source: the device half runs programs in parts.
  bool data_sizes = false;
  // A run may look at a condition that a kernel wrote, and run kernels again. Otherwise repeat is an error.
  // Source: the device half.
  bool repeats = false;
  // A run may call kernels of the user's own, in memory that this process reads and writes. Otherwise custom is an
  // error. Source: the device half.
  bool calls = false;
  // Contractions multiply f16 and bf16 as they are and add up in f32; otherwise as f32. Source: the
  // machine has such instructions.
  bool native_16_bit = false;
  // MatMul multiplies u8 by i8 and adds up in i32. Otherwise quantised operands are multiplied as f32. Source:
  // what the code generator accepts.
  bool integer_products = false;
  // So does Convolution, with constant filters of i8; for targets with integer_products. Source: as above.
  bool integer_convolutions = false;
  // Depthwise convolutions, and others of few channels, of quantised operands are nests that sum products of bytes in
  // i32. Otherwise they are computed in f32. Source: the code generator multiplies bytes.
  bool integer_windows = false;
  // Scales of sums of products of integers that are quantised again are multiplied into one another. Source:
  // measured; epilogues take as long as the products.
  bool folds_scales = false;
  // MatMul multiplies f32 by constants of i8, which it widens, with scales for groups along k too. Source: as above.
  bool integer_weights = false;
  // MatMul multiplies numbers of f8e4m3 as they are and adds up in f32. Otherwise they are multiplied as what
  // they are cast to. Source: the machine has such instructions, or what stands for them is no slower.
  bool float8_products = false;
  // Most rows of a floating left operand for which MatMul multiplies it by constants of f8e4m3, which it widens;
  // with more rows they are widened before. 0: none. Source: measured; few rows wait for memory alone.
  int64_t float8_weight_rows = 0;
  // MatMul and Convolution can round operands of f32 to TF32 where that is allowed. Source: the machine
  // has such instructions.
  bool tf32 = false;
  // Fewest input channels per group for which a grouped convolution is a Convolution; narrower
  // ones (depthwise: 1) are loop nests. In elements; 1: all are. Source: the width of a register
  // tile, most of which a narrow group would leave empty.
  int64_t min_group_channels = 1;
  // Most input channels for which a convolution whose windows do not overlap (the patches of an image) is a
  // copy of the windows to rows and a MatMul. 0: it is a Convolution. Source: kernels of convolutions
  // read vectors of channels, of which few channels leave most empty.
  int64_t max_patch_channels = 0;
  // Convolution kernels may use Winograd's algorithm; without costs they do not. Source: measured.
  std::optional<WinogradCosts> winograd;
  // Loops of reductions and stores are sorted by their strides in memory. Source: neighbouring points are
  // computed by units that read memory together.
  bool loops_in_memory_order = false;
  // MatMul stores the elements of a row of its result together, and one by one where they lie apart. Source: vectors
  // run along the columns.
  bool results_in_rows = false;
  // The result of a MatMul or Convolution is not stored over what its epilogue loads, though memory would
  // be saved. Source: measured on the machine.
  bool results_apart = false;
  // Two products of the same left operand whose results meet in one epilogue are one MatMul with a
  // pair. Source: the backend has such kernels, which spare storing and loading one of the results.
  bool paired_products = false;
  // Convolutions whose results only a max pooling reads store what that would. Source: the backend has such
  // kernels, which spare storing and loading the results; without a value it has none.
  std::optional<PooledConvolutions> pooled_convolutions;
  // Two convolutions whose results are added, as those of a residual block with a projection, are one with a second
  // sum. Source: as above.
  std::optional<SecondSums> second_sums;
  EpilogueRule epilogue = EpilogueRule::OwnBias;

  // --- Costs, in simple operations: an addition of two registers is 1 ---

  // A square root or reciprocal, a quotient, a polynomial such as exp, and several of those such as
  // pow: the kinds of ir::OpEffort. Source: throughput on the machine.
  int64_t root_cost = 1, division_cost = 1, series_cost = 1, iterated_cost = 1;
  // What storing an element and loading it again later costs: a producer is computed again in its
  // readers while the repeated work per element stays within it. Source: bandwidth of memory
  // against throughput of arithmetic.
  int64_t round_trip_cost = 0;
  // What loading an element costs that the same task has just stored, so that it is in the nearest
  // cache or scratchpad.
  int64_t near_load_cost = 0;
  // What looking up a byte in a table of 256 costs: functions of a byte that cost more become such tables. 0: none do.
  int64_t byte_table_cost = 0;
  // Arithmetic on positions alone (masks, position ids) is never stored up to this cost.
  int64_t position_cost = 0;

  // --- Sizes of expressions: larger ones run out of registers ---

  int64_t max_operations = 0;  // Apply nodes of a fused expression
  int64_t max_loads = 0;       // distinct loads of a fused expression

  // --- Parallelism, in points of the loops at the sizes to optimise for ---

  // A nest with fewer outer points than this does not take over a pointwise nest in which each of
  // them would cover more than `large_task` points: that work needs the machine's whole width.
  int64_t min_parallel_points = 0;
  int64_t large_task_points = 0;
  // A nest with fewer outer points than few_reductions whose reductions take at least so many elements
  // shares them among more tasks. 0: never. Source: what a task reads in the time that starting
  // two more kernels takes.
  int64_t long_reduction = 0;
  int64_t few_reductions = 0;
  // Two neighbouring pointwise nests that do not depend on each other are one kernel if one of them has at most so
  // many points. 0: never. Source: measured; what is stored in the time that another kernel takes to begin.
  int64_t joined_points = 0;
  // Neighbours along an outer loop that are reduced at once, by one task: there so many points count as one.
  int64_t reduced_at_once = 1;
};

}  // namespace kiln::plan
