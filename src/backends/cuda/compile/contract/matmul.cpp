// Matrix products: on tensor cores for f16, bf16, f8e4m3, integers and f32 as TF32 (tile_mma.cuh), on the
// ordinary units for f32 and f64 (tile_simt.cuh), and one row times a matrix (row_times_matrix.cuh).
#include "backends/cuda/compile/contract/matmul.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "backends/cuda/compile/contract/contraction.h"
#include "backends/cuda/compile/contract/tiles.h"
#include "support/error.h"

namespace kiln::cuda {
namespace {

using ir::Dim;

// Where B is read from: its own buffer or a constant made of it.
struct RightOperand {
  plan::BufferId buffer = -1;
  ir::Dim offset, column_stride, k_stride;
};

class MatMulText {
 public:
  MatMulText(KernelContext& context, const plan::MatMul& matmul)
      : emitter_(context), context_(context), matmul_(matmul) {
    a_type_ = emitter_.dtype_of(matmul.a.buffer);
    b_type_ = emitter_.dtype_of(matmul.b.buffer);
    check_formats();
    units_ = units_of(context_.target, a_type_, b_type_, matmul.formats);
    tensor_cores_ = units_ == Units::TensorCores;
    find_rows();
    size_.m = positive_opt(m_);
    sums_ = matmul.pair ? 2 : 1;
    size_.n = positive_opt(matmul.n.extent()) * sums_;
    size_.sums = sums_;
    size_.k = positive_opt(matmul.k.extent());
    for (const plan::Loop& loop : batch_) {
      size_.batch *= positive_opt(loop.extent());
      batches_ *= loop.extent();
    }
    right_ = operand(matmul.b);
    if (matmul.pair) pair_ = operand(*matmul.pair);
  }

  std::string run() {
    if (is_row()) return row_text();
    if (suits_groups()) return hopper_text();
    if (units_ == Units::Ordinary) return simt_text(context_.pick(simt_tiles()));
    if (units_ == Units::ThreeProducts)
      return tensor_core_text(context_.pick(rank_exact_tiles(
          context_.target, size_,
          pair_ || has_constant_rows() || form_of(right_.column_stride, right_.k_stride) != 1)));
    return tensor_core_text(context_.pick(mma_tiles()));
  }

 private:
  void check_formats() const {
    const plan::Formats& formats = matmul_.formats;
    const bool exact = is_lossless(a_type_, formats.left) && is_lossless(b_type_, formats.right) &&
                       is_lossless(b_type_, formats.weight);
    if (exact && is_lossless(formats.left, formats.accumulator)) return;
    throw CompileError(
        "[matmul] got operands of " + std::string(dtype_name(a_type_)) + " and " +
        std::string(dtype_name(b_type_)) +
        " that are rounded before they are multiplied, expected formats that hold them");
  }

  // --- Rows ---

  // Batch indices that B does not depend on are rows, if the rows of A follow one another in some order
  // of these loops: windows of an image are all of its rows, whatever windows they belong to.
  void find_rows() {
    rows_ = {matmul_.m};
    m_ = matmul_.m.extent();
    row_stride_ = stride_from_end(matmul_.a, 2);
    batch_ = matmul_.batch;
    const plan::View &a = matmul_.a, &b = matmul_.b;
    if (batch_.empty() || !std::all_of(b.strides.begin(), b.strides.end() - 2,
                                       [](const Dim& stride) { return stride.is_constant(0); }))
      return;
    std::vector<plan::Loop> loops = batch_;
    loops.push_back(matmul_.m);
    std::vector<size_t> order(loops.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (!std::all_of(a.strides.begin(), a.strides.end() - 1,
                     [](const Dim& stride) { return stride.is_constant(); }))
      return;
    std::ranges::stable_sort(order, std::ranges::greater(),
                             [&](size_t i) { return a.strides[i].constant(); });
    Dim points = 1;
    const int64_t last = a.strides[order.back()].constant();
    for (size_t i = order.size(); i-- > 0;) {
      if (last <= 0 || a.strides[order[i]] != points * last) return;
      points *= loops[order[i]].extent();
    }
    rows_.clear();
    for (size_t i : order) rows_.push_back(loops[i]);
    m_ = points;
    row_stride_ = last;
    batch_.clear();
  }

  // Binds the loops that make up a row.
  void bind_row(const std::string& row) {
    const ir::SymbolPtr flat = rows_.size() == 1 ? rows_[0].index : ir::make_loop_symbol("m", m_);
    const std::string type = position_type(Dim(flat));
    emitter_.bind(flat, emitter_.declare(type, "m", "(" + type + ")" + row));
    Dim rest(flat);
    for (size_t i = rows_.size(); i-- > 0 && rows_.size() > 1;) {
      const Dim value = i == 0 ? rest : ir::mod(rest, rows_[i].extent());
      emitter_.bind(rows_[i].index, emitter_.declare(position_type(Dim(rows_[i].index)), "at",
                                                     emitter_.position(value)));
      rest = ir::floordiv(rest, rows_[i].extent());
    }
  }

  // --- Operands ---

  RightOperand operand(const plan::View& view) const {
    return {view.buffer, batch_offset(view, matmul_.batch), stride_from_end(view, 1),
            stride_from_end(view, 2)};
  }

  // Whether the right operands are constants that rows can be made of.
  bool has_constant_rows() const {
    return constant_rows(matmul_.b) && (!matmul_.pair || constant_rows(*matmul_.pair));
  }

  std::optional<ConstantRows> constant_rows(const plan::View& b) const {
    const bool whole =
        context_.program.buffers[b.buffer].kind == plan::BufferKind::Constant &&
        b.offset.is_constant() && matmul_.n.extent().is_constant() &&
        matmul_.k.extent().is_constant() &&
        std::ranges::all_of(b.strides, [](const ir::Dim& s) { return s.is_constant(); }) &&
        std::all_of(b.strides.begin(), b.strides.end() - 2,
                    [](const ir::Dim& s) { return s.is_constant(0); });
    if (!whole) return std::nullopt;
    const ConstantRows rows{b.offset.constant(), matmul_.n.extent().constant(),
                            matmul_.k.extent().constant(), stride_from_end(b, 1).constant(),
                            stride_from_end(b, 2).constant()};
    if (!fits(rows, context_.program.buffers[b.buffer].literal)) return std::nullopt;
    return rows;
  }

  // Rows of constant right operands that begin at whole vectors, unless `as_is` accepts how they lie:
  // both, if there are two.
  template <typename Accepts>
  void arrange_constant(const Accepts& as_is) {
    if (!has_constant_rows()) return;
    std::vector<std::pair<const plan::View*, RightOperand*>> operands = {{&matmul_.b, &right_}};
    if (pair_) operands.emplace_back(&*matmul_.pair, &*pair_);
    const bool lies_well = std::ranges::all_of(
        operands, [&](const auto& each) { return as_is(*constant_rows(*each.first)); });
    if (lies_well) return;
    for (const auto& [view, operand] : operands) {
      const ConstantRows rows = *constant_rows(*view);
      *operand = {derive_rows(context_.result.constants, view->buffer, rows), 0,
                  rows.padded_depth(b_type_), 1};
    }
  }

  // Bytes of an element on tensor cores, and elements of B in 16 bytes.
  int element() const { return static_cast<int>(dtype_size(a_type_)); }
  int vector() const { return 16 / static_cast<int>(dtype_size(b_type_)); }

  bool is_vectors(const ConstantRows& rows, int64_t other_stride) const {
    return rows.offset % vector() == 0 && other_stride % vector() == 0;
  }

  // Which stride is 1: 0 along k, 1 across, 2 neither (tile_mma.cuh).
  int form_of(const ir::Dim& across, const ir::Dim& along) const {
    const auto is_odd = [&](const ir::Dim& stride) {
      return stride.is_constant() && stride.constant() % vector() != 0;
    };
    if (along.is_constant(1)) return is_odd(across) ? 2 : 0;
    if (across.is_constant(1)) return is_odd(along) || element() == 1 ? 2 : 1;
    return 2;
  }

  std::string pointer(plan::BufferId buffer, const ir::Dim& offset, const std::string& type) {
    return "(const " + type + "*)" + emitter_.buffer(buffer) + " + " + emitter_.position(offset);
  }

  std::string wide(const ir::Dim& dim) { return "(long long)" + emitter_.position(dim); }

  // --- Parts of the kernel ---

  void bind_sizes() {
    emitter_.line("const long long m = " + wide(m_) + ";");
    emitter_.line("const long long n = " + wide(matmul_.n.extent()) + ";");
    emitter_.line("const long long depth = " + wide(matmul_.k.extent()) + ";");
  }

  void declare_matrix(const std::string& name, const std::string& type, const std::string& data,
                      const std::string& rows, const ir::Dim& across, const ir::Dim& along) {
    emitter_.line("const " + type + " " + name + "{" + data + ", " + rows + ", depth, " +
                  wide(across) + ", " + wide(along) + "};");
  }

  void declare_operands(const std::string& a_type, const std::string& a_element,
                        const std::string& b_type, const std::string& b_element) {
    declare_matrix("a", a_type,
                   pointer(matmul_.a.buffer, batch_offset(matmul_.a, batch_), a_element), "m",
                   row_stride_, stride_from_end(matmul_.a, 1));
    declare_matrix("b", b_type, pointer(right_.buffer, right_.offset, b_element), "n",
                   right_.column_stride, right_.k_stride);
    if (pair_)
      declare_matrix("pair", b_type, pointer(pair_->buffer, pair_->offset, b_element), "n",
                     pair_->column_stride, pair_->k_stride);
  }

  ResultText result_text() {
    ResultText result;
    result.out = matmul_.out.buffer;
    result.out_offset = batch_offset(matmul_.out, matmul_.batch) +
                        stride_from_end(matmul_.out, 2) * Dim(matmul_.m.index) +
                        stride_from_end(matmul_.out, 1) * Dim(matmul_.n.index);
    result.epilogue = &matmul_.epilogue;
    result.column = matmul_.n;
    result.bind_row = [this](const std::string& row) { bind_row(row); };
    result.sums = sums_;
    return result;
  }

  std::string result(bool pairs = false) {
    ResultText text = result_text();
    text.pairs = pairs;
    return emit_result(emitter_, text, "m", "n");
  }

  void set_tiled_launch(const Tile& tile, int64_t operand_bytes) {
    backend::KernelInterface& interface = context_.result.interface;
    context_.result.kind = engine::StepKind::Launch;
    context_.result.function = "kernel";
    interface.grid = {batches_ * ir::ceildiv(m_, tile.m) *
                      ir::ceildiv(matmul_.n.extent(), tile.columns()) * tile.cluster};
    const int64_t sum = static_cast<int64_t>(dtype_size(matmul_.formats.accumulator));
    interface.shared_bytes = std::max(operand_bytes, tile.m * int64_t{tile.n + 4} * sum);
    interface.task_writes[matmul_.out.buffer] = tile.m / tile.cluster * tile.columns();
  }

  // --- The three kinds ---

  // Whether sums of f8e4m3 may have about 14 bits: their results have fewer, or callers allow it.
  bool has_rounded_sums() const {
    return a_type_ == DType::F8E4M3 &&
           (dtype_size(emitter_.dtype_of(matmul_.out.buffer)) <= 2 || matmul_.formats.tf32);
  }

  std::vector<Tile> mma_tiles() const {
    if (a_type_ == DType::F8E4M3)
      return rank_float8_tiles(context_.target, size_, has_rounded_sums());
    return rank_tiles(context_.target, size_, element());
  }

  std::string tensor_core_text(const Tile& tile) {
    arrange_constant([&](const ConstantRows& rows) {
      return (rows.k_stride == 1 && is_vectors(rows, rows.row_stride)) ||
             (!tile.by_groups && !pair_ && element() > 1 && rows.row_stride == 1 &&
              is_vectors(rows, rows.k_stride));
    });
    Prelude text;
    text.flag("kBf16", a_type_ == DType::BF16);
    text.alias("Bits", bits_type(a_type_));
    text.alias("Acc", register_type(matmul_.formats.accumulator));
    add_tile(text, tile);
    text.constant("kFormA", form_of(row_stride_, stride_from_end(matmul_.a, 1)));
    const int right_form = form_of(right_.column_stride, right_.k_stride);
    text.constant("kFormB", pair_ && right_form == 1 ? 2 : right_form);  // LoadPair has no other
    const std::string multiply(include_tile(text, tile));
    begin_tile();
    declare_operands("Operand", "Bits", "Operand", "Bits");
    const std::string object = result();
    emitter_.line("const Steps steps(depth);");
    if (pair_) emitter_.line("const OperandPair both{b, pair};");
    emitter_.line(multiply + "(LoadMatrix<kTileM, kFormA>(a, place.row0, steps.k0()), " +
                  (pair_ ? "LoadPair<kFormB>(both" : "LoadMatrix<kTileN, kFormB>(b") +
                  ", place.column0, steps.k0()), a, " + (pair_ ? "both" : "b") +
                  ", steps, depth, place.row0, place.column0, " + object + ");");
    set_tiled_launch(tile, tile.shared_bytes(element()));
    return emitter_.finish({.threads = tile.threads(),
                            .min_blocks = min_blocks(tile),
                            .cluster = tile.cluster,
                            .before = text.str()});
  }

  std::vector<Tile> simt_tiles() const {
    const size_t sum = dtype_size(matmul_.formats.accumulator);
    return rank_simt_tiles(context_.target, size_, static_cast<int>(sum));
  }

  std::string simt_text(const Tile& tile) {
    const DType sum = matmul_.formats.accumulator;
    Prelude text;
    text.alias("Acc", register_type(sum));
    add_simt_tile(text, tile);
    for (const char* file : {"multiply_add", "cluster", "tile_order", "tile_result", "tile_simt"})
      text.include(file);
    begin_tile();
    const std::string a_element = memory_type(a_type_), b_element = memory_type(b_type_);
    declare_operands("Matrix<" + a_element + ">", a_element, "Matrix<" + b_element + ">",
                     b_element);
    const std::string object = result();
    const auto along = [](const ir::Dim& across) {
      return across.is_constant(1) ? "false" : "true";
    };
    const std::string b = pair_ ? "MatrixPair<" + b_element + ">{b, pair}" : "b";
    emitter_.line(std::string("multiply_tile<") + along(row_stride_) + ", " +
                  along(right_.column_stride) + ">(a, " + b +
                  ", depth, place.row0, place.column0, " + object + ");");
    set_tiled_launch(
        tile, 2 * int64_t{tile.k} * (tile.m + tile.n + 8) * static_cast<int64_t>(dtype_size(sum)));
    return emitter_.finish({.threads = 256,
                            .min_blocks = min_blocks(tile),
                            .cluster = tile.cluster,
                            .before = text.str()});
  }

  // --- Hopper ---

  // What the copy engine can bring: rows that are contiguous along k and begin at multiples of 16
  // bytes, of memory that does.
  bool suits_groups() const {
    if (context_.target.sm != 90 || !tensor_cores_) return false;
    const Dim& m = m_;
    if (!batches_.is_constant(1) || !matmul_.k.extent().is_constant() ||
        !matmul_.n.extent().is_constant() || !fits_int(m))
      return false;
    // A tile has 64 rows at least; for few, smaller tiles of tile_mma.cuh read B as fast.
    if (size_.k < 32 || size_.n < 16 || size_.m <= 32) return false;
    if (a_type_ == DType::F8E4M3 && !has_rounded_sums()) return false;
    const auto in_vectors = [&](const Dim& dim) { return ir::provably_divisible(dim, vector()); };
    const plan::View& a = matmul_.a;
    const bool a_suits = is_placed(context_.program, a.buffer) &&
                         stride_from_end(a, 1).is_constant(1) &&
                         in_vectors(stride_from_end(a, 2)) && in_vectors(a.offset);
    const auto suits = [&](const RightOperand& b) {
      return is_placed(context_.program, b.buffer) && b.k_stride.is_constant(1) &&
             in_vectors(b.column_stride) && in_vectors(b.offset);
    };
    const bool b_suits = suits(right_) && (!pair_ || suits(*pair_));
    return a_suits && (b_suits || has_constant_rows());
  }

  backend::TensorMapSpec tensor_map(plan::BufferId buffer, const Dim& offset, const Dim& rows,
                                    const Dim& row_stride, int64_t box_rows) {
    emitter_.buffer(buffer);
    backend::TensorMapSpec map;
    map.buffer = buffer;
    map.dtype = a_type_;
    map.offset = offset * element();
    map.sizes = {matmul_.k.extent(), rows};
    map.strides = {row_stride * element()};
    map.box = {128 / element(), box_rows};
    map.swizzle = 128;
    return map;
  }

  // With the copy engine, or without it: as HopperWay has them.
  std::string hopper_text() {
    const std::vector<Tile> plain = mma_tiles();
    // One step has nothing to be added to.
    size_.add_apart = a_type_ == DType::F8E4M3 && size_.k > 128;
    size_.left_bytes = size_.m * size_.k * element();
    size_.k = (size_.k * element() + 1) / 2;
    size_.wide = element() == 4;
    size_.row_loads = row_loads(context_.program, result_text()) * std::max(element(), 2) / 2;
    size_.epilogue_work = epilogue_work(matmul_.epilogue);
    size_.pairs = takes_pairs(context_.program, result_text(), matmul_.n.extent().constant());
    const HopperWay way = context_.pick(hopper_ways(rank_group_tiles(size_), plain));
    if (const auto* tile = std::get_if<Tile>(&way)) return tensor_core_text(*tile);
    return group_text(std::get<GroupTile>(way));
  }

  std::string group_text(const GroupTile& tile) {
    arrange_constant([this](const ConstantRows& rows) {
      return rows.k_stride == 1 && is_vectors(rows, rows.row_stride);
    });
    Prelude text;
    text.flag("kBf16", a_type_ == DType::BF16);
    text.alias("Acc", register_type(matmul_.formats.accumulator));
    text.flag("kEarlyB",
              context_.program.buffers[matmul_.b.buffer].kind == plan::BufferKind::Constant);
    add_group_tile(text, tile, a_type_, matmul_.n.extent().constant(), {"matrix_wgmma"});
    bind_sizes();
    const std::string object = result(tile.pairs);
    emitter_.declare_wait();
    emitter_.line("multiply_tiles(MatrixBoxes{map_a, map_b, " +
                  std::string(pair_ ? "map_pair" : "map_b") + "}, depth, " + object + ", wait);");
    context_.result.interface.tensor_maps = {
        tensor_map(matmul_.a.buffer, batch_offset(matmul_.a, {}), m_, row_stride_, tile.m()),
        tensor_map(right_.buffer, right_.offset, matmul_.n.extent(), right_.column_stride,
                   tile.columns())};
    std::vector<std::string> names = {"map_a", "map_b"};
    if (pair_) {
      context_.result.interface.tensor_maps.push_back(tensor_map(
          pair_->buffer, pair_->offset, matmul_.n.extent(), pair_->column_stride, tile.columns()));
      names.emplace_back("map_pair");
    }
    set_group_launch(context_, tile, matmul_.out.buffer, m_, matmul_.n.extent());
    return emitter_.finish({.threads = tile.threads(),
                            .min_blocks = 1,
                            .cluster = tile.cluster,
                            .tensor_maps = names,
                            .before = text.str(),
                            .waits = true});
  }

  void begin_tile() {
    bind_sizes();
    emitter_.line("const TilePlace place(m, n, blockIdx.x / kCluster);");
    bind_batch(emitter_, batch_, "place.batch");
  }

  // One row, both operands contiguous along k.
  bool is_row() {
    const bool widens = b_type_ == DType::F8E4M3 && matmul_.formats.accumulator == DType::F32;
    const bool integers = matmul_.formats.accumulator == DType::I32;
    if (!m_.is_constant(1) || (a_type_ != b_type_ && !widens && !integers)) return false;
    if (!stride_from_end(matmul_.a, 1).is_constant(1)) return false;
    return has_constant_rows() || right_.k_stride.is_constant(1);
  }

  std::string row_text() {
    arrange_constant([this](const ConstantRows& rows) {
      return rows.k_stride == 1 && is_vectors(rows, rows.row_stride);
    });
    // Few columns: several warps share k, so that enough is asked of memory at a time.
    const int64_t wanted = int64_t{multiprocessors(context_.target)} * 16;
    const int64_t all = size_.n / sums_ * size_.batch;
    const int columns = all >= 4 * wanted ? 4 / sums_ : all >= wanted ? 2 : 1;
    int along = 1;
    const int64_t two_steps = std::max(512, 64 * vector());
    while (along < 8 && all / columns * along < wanted && size_.k >= two_steps * along) along *= 2;
    constexpr int kWarps = 8;
    const int block_columns = kWarps / along * columns;
    Prelude text;
    text.alias("Acc", register_type(matmul_.formats.accumulator));
    text.alias("RowElement", memory_type(a_type_));
    text.alias("Element", memory_type(b_type_));
    text.constant("kWarps", kWarps);
    text.constant("kAlong", along);
    text.constant("kColumns", columns);
    // 32 registers of what is fetched early, if columns are as long as that.
    const bool constant =
        context_.program.buffers[matmul_.b.buffer].kind == plan::BufferKind::Constant;
    const int slots = columns * sums_;
    const int64_t steps = size_.k / (int64_t{along} * 32 * vector());
    const int64_t most = std::max(1, 8 / slots);
    text.constant("kEarly", constant ? std::clamp<int64_t>(steps, 1, most) : 0);
    add_columns(text, 8 * sums_, sums_);
    text.constant("kTileM", 1);
    text.constant("kCluster", 1);
    for (const char* file :
         {"multiply_add", "cluster", "tile_result", "float8", "row_times_matrix"})
      text.include(file);
    bind_sizes();
    emitter_.line("const long long blocks = (n + kBlockColumns - 1) / kBlockColumns;");
    emitter_.line("const long long batch = blockIdx.x / blocks;");
    bind_batch(emitter_, batch_, "batch");
    const std::string element = memory_type(b_type_);
    const std::string a =
        pointer(matmul_.a.buffer, batch_offset(matmul_.a, batch_), memory_type(a_type_));
    const std::string b = pointer(right_.buffer, right_.offset, element);
    const std::string pair = pair_ ? pointer(pair_->buffer, pair_->offset, element) : b;
    result();
    emitter_.declare_wait();
    emitter_.line("multiply_row(" + a + ", " + b + ", " + pair + ", depth, n, " +
                  wide(right_.column_stride) +
                  ", blockIdx.x % blocks * kBlockColumns, finish_one, wait);");
    backend::KernelInterface& interface = context_.result.interface;
    context_.result.kind = engine::StepKind::Launch;
    context_.result.function = "kernel";
    interface.grid = {batches_ * ir::ceildiv(matmul_.n.extent(), block_columns)};
    interface.task_writes[matmul_.out.buffer] = block_columns;
    // All blocks of a product of 2000 columns at a time, each with what it fetches early. Unpacking bf16, or f8e4m3
    // beside f32, takes more than the 64 registers of a thread that this leaves.
    const bool unpacks =
        a_type_ == DType::BF16 || (a_type_ == DType::F32 && b_type_ == DType::F8E4M3);
    return emitter_.finish({.threads = kWarps * 32,
                            .min_blocks = unpacks ? 2 : 4,
                            .before = text.str(),
                            .waits = true});
  }

  Emitter emitter_;
  KernelContext& context_;
  const plan::MatMul& matmul_;
  DType a_type_ = DType::F32, b_type_ = DType::F32;
  Units units_ = Units::Ordinary;
  bool tensor_cores_ = false;
  ProductSize size_;
  std::vector<plan::Loop> rows_;   // the slowest first
  std::vector<plan::Loop> batch_;  // without those of the rows
  ir::Dim m_, row_stride_;
  ir::Dim batches_ = 1;
  RightOperand right_;
  std::optional<RightOperand> pair_;
  int sums_ = 1;  // of an element: 2 with a pair
};

}  // namespace

std::string matmul_text(KernelContext& context, const plan::MatMul& matmul) {
  return MatMulText(context, matmul).run();
}

}  // namespace kiln::cuda
