// What the generators of MatMul, Convolution and Attention share: constants in front of the kernel
// texts, batch indices, and the epilogue as functions of a kernel.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/cuda/compile/contract/tiles.h"
#include "backends/cuda/compile/emit/emitter.h"

namespace kiln::cuda {

// Names of kernel texts and values of the constants that they use, as text.
class Prelude {
 public:
  void constant(std::string_view name, int64_t value);
  void flag(std::string_view name, bool value);
  void real(std::string_view name, std::string_view value);  // of type float
  void alias(std::string_view name, std::string_view type);
  void add(std::string_view text) { text_ += text; }
  void include(std::string_view kernel);  // a file of backends/cuda/kernels
  const std::string& str() const { return text_; }

 private:
  std::string text_;
};

// What multiplies the elements of a product.
enum class Units {
  Ordinary,       // fused multiply-adds: tile_simt.cuh
  TensorCores,    // f16, bf16, f8e4m3, u8 times i8, and f32 that may be rounded
  ThreeProducts,  // f32 exactly on tensor cores (tile_mma.cuh), where they are faster even so
};
Units units_of(const Target& target, DType left, DType right, const plan::Formats& formats);
// What that text knows elements as.
std::string_view bits_type(DType dtype);
// The constants that say which columns a block computes: `columns` sums of a row, of one or two right
// operands. `vector`: neighbours that an epilogue works on at a time.
void add_columns(Prelude& text, int columns, int sums, int vector = 8);
// The constants that say what a block computes.
void add_tile(Prelude& text, const Tile& tile);
// The texts of a block's product, after that of what is in front of it; the name of the function.
std::string_view include_tile(Prelude& text, const Tile& tile);
void add_simt_tile(Prelude& text, const Tile& tile);

// The same, and the texts of the kernel, for tile_wgmma.cuh and a result of so many columns. `boxes` are
// the texts of its operands. Of sums in turns, the first has `first_steps` steps.
void add_group_tile(Prelude& text, const GroupTile& tile, DType dtype, int64_t columns,
                    std::initializer_list<std::string_view> boxes, int64_t first_steps = 0);
// The launch of such a kernel for a result of m rows and n columns.
void set_group_launch(KernelContext& context, const GroupTile& tile, plan::BufferId out,
                      const ir::Dim& m, const ir::Dim& n);
// Whether the copy engine may read a buffer. It wants multiples of 16 bytes, and tensors of callers may
// begin anywhere: inputs that do are copied before a run (device/bound_program.cpp), results are not.
bool is_placed(const plan::Program& program, plan::BufferId buffer);

// The text of a function on sm_90 that adds 64 rows of A times n columns of B, 32 bytes along k, to the
// sums of a group of four warps: name(c, a, b, accumulate), operands contiguous along k in shared
// memory, sums replaced where `accumulate` is 0; with A in registers name(c, a0, a1, a2, a3, b, accumulate),
// or name(c, a0, a1, a2, a3, b), where B is contiguous across k.
enum class GroupOperands { Shared, Registers, RegistersByTransposed };
std::string group_product(const std::string& name, int n, DType dtype, GroupOperands operands);

// The multiprocessors of the machine that a target is tuned for.
int multiprocessors(const Target& target);
// A size to optimise for, at least 1.
int64_t positive_opt(const ir::Dim& size);

// Binds loops to the parts of a flat index, the last loop fastest.
void bind_batch(Emitter& emitter, const std::vector<plan::Loop>& loops, const std::string& flat);
// Offset of a view at the batch indices that are bound.
ir::Dim batch_offset(const plan::View& view, const std::vector<plan::Loop>& batch);
const ir::Dim& stride_from_end(const plan::View& view, size_t from_end);

// The result of a product, for tile_result.cuh.
struct ResultText {
  plan::BufferId out = -1;
  ir::Dim out_offset;  // of an element, over the loops
  const plan::Expr* epilogue = nullptr;
  plan::Loop column;
  // Binds the other loops, given the name of a variable with the row (long long).
  std::function<void(const std::string& row)> bind_row;
  // Where columns of the kernel begin, if that is not 0 (groups of a convolution): a name.
  std::string first_column;
  // Another form of an offset, which is simpler; may be null.
  std::function<ir::Dim(const ir::Dim&)> simplify;
  int sums = 1;  // of a column: 2 for a product with a pair
  // Vectors are given to the caller of `finish`, which has a place for each; nothing is stored.
  bool keeps = false;
  // For group_pairs.cuh, where takes_pairs allows it.
  bool pairs = false;
};
// Whether a result of so many columns can be finished as pairs of elements of 16 bits: all that its epilogue loads is the
// same for all rows, and neighbours for neighbouring columns.
bool takes_pairs(const plan::Program& program, const ResultText& result, int64_t columns);
// Loads of the epilogue that each row has of its own, such as a residual.
int row_loads(const plan::Program& program, const ResultText& result);
// Instructions that an element of the epilogue takes, about.
int epilogue_work(const plan::Expr& epilogue);
// Writes the functions; gives the text of the object: "make_result<Loaded>(m, n, ...)".
std::string emit_result(Emitter& emitter, const ResultText& result, const std::string& m,
                        const std::string& n);

// "n, k" in K-major order, rows padded to whole vectors: what weights are stored as where they are
// not so already.
struct ConstantRows {
  int64_t offset = 0, rows = 0, depth = 0, row_stride = 0, k_stride = 0;
  int64_t padded_depth(DType dtype) const {
    const int64_t vector = dtype_size(dtype) == 1 ? 16 : 8;
    return (depth + vector - 1) / vector * vector;
  }
};
// Whether every element lies in the literal, and they are no more than it has: a matrix that repeats
// elements is read as it is.
bool fits(const ConstantRows& rows, const ir::Literal& literal);
plan::BufferId derive_rows(backend::ConstantPool& constants, plan::BufferId original,
                           const ConstantRows& rows);
// Filters "o, ky, kx, c" for windows.cuh: channels and rows filled up with zeros.
struct ConstantWindows {
  int64_t filters = 0, height = 0, width = 0, channels = 0, padded_width = 0, padded_channels = 0;
};
bool fits(const ConstantWindows& windows, const ir::Literal& literal);
plan::BufferId derive_windows(backend::ConstantPool& constants, plan::BufferId original,
                              const ConstantWindows& windows);
// Backend::derive_constant.
ir::Literal derive_constant(const std::string& key, const ir::Literal& original);

}  // namespace kiln::cuda
