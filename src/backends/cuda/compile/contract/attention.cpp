// Attention: on tensor cores for f16 and bf16 (attention_wgmma.cuh on Hopper, attention_mma.cuh for
// others and for few rows), on the ordinary units for f32 (attention_simt.cuh).
#include "backends/cuda/compile/contract/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <optional>

#include "backends/cuda/compile/contract/attention_cut.h"
#include "backends/cuda/compile/contract/contraction.h"
#include "support/error.h"

namespace kiln::cuda {
namespace {

using ir::Dim;

constexpr int64_t kLargestDim = 256;

// How a kernel on tensor cores is cut.
struct Cut {
  int warps = 4;      // of 16 rows each, or of
  int row_tiles = 1;  // times 16
  int parts = 1;      // of the keys, a warp each
  int cluster = 1;    // blocks that share the keys
  int keys = 64;      // of a step
  int64_t head_pad = 0, value_pad = 0;

  int rows() const { return warps * row_tiles * 16; }
  int threads() const { return warps * parts * 32; }
  int64_t shared_bytes() const {
    const int64_t pitch_k = head_pad + 8, pitch_v = value_pad + 8;
    const int64_t queries = rows() * std::max(pitch_k, pitch_v) * 2;
    const int64_t steps = int64_t{parts} * 2 * keys * (pitch_k + pitch_v) * 2;
    const int64_t combined = int64_t{parts + (cluster > 1 ? 1 : 0)} * 16 * (value_pad + 2) * 4;
    return std::max(queries + steps, parts * cluster > 1 ? combined : 0);
  }
};

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.9ef", value);
  return text;
}

class AttentionText {
 public:
  AttentionText(KernelContext& context, const plan::Attention& attention)
      : emitter_(context), context_(context), a_(attention), batch_(attention.batch) {
    type_ = emitter_.dtype_of(a_.q.buffer);
    const bool same =
        type_ == emitter_.dtype_of(a_.k.buffer) && type_ == emitter_.dtype_of(a_.v.buffer);
    const bool known = is_16_bit_float(type_) || type_ == DType::F32;
    if (!same || !known || a_.formats.accumulator != DType::F32)
      throw CompileError("[attention] got operands of " + std::string(dtype_name(type_)) +
                         ", expected f16, bf16 or f32 with sums in f32");
    if (a_.head_dim > kLargestDim || a_.value_dim > kLargestDim || a_.head_dim < 1 ||
        a_.value_dim < 1)
      throw CompileError("[attention] got heads of " + std::to_string(a_.head_dim) + " and " +
                         std::to_string(a_.value_dim) + " elements, expected 1 to " +
                         std::to_string(kLargestDim));
    fold_heads();
  }

  std::string run() {
    if (!is_16_bit_float(type_)) return simt_text();
    return suits_groups() ? group_text() : tensor_core_text();
  }

 private:
  // Few queries: those of the heads that read the same keys become rows of one tile.
  void fold_heads() {
    if (batch_.empty() || a_.i.extent().at_opt() > 8) return;
    const size_t last = batch_.size() - 1;
    const bool shared = a_.k.strides[last].is_constant(0) && a_.v.strides[last].is_constant(0);
    if (!shared || batch_[last].extent().is_constant(1)) return;
    head_ = batch_[last];
    batch_.pop_back();
  }

  Dim rows() const { return head_ ? head_->extent() * a_.i.extent() : a_.i.extent(); }

  Dim batches() const {
    Dim result = 1;
    for (const plan::Loop& loop : batch_) result *= loop.extent();
    return result;
  }

  std::string wide(const Dim& dim) { return "(long long)" + emitter_.position(dim); }

  // --- Positions ---

  // Offset of a view at the batch indices, the head and position of a row left out.
  Dim base_offset(const plan::View& view) const {
    Dim offset = view.offset;
    for (size_t i = 0; i < batch_.size(); ++i) offset += view.strides[i] * Dim(batch_[i].index);
    return offset;
  }
  Dim row_offset(const plan::View& view) const {
    Dim offset = base_offset(view) + stride_from_end(view, 2) * Dim(a_.i.index);
    if (head_) offset += view.strides[batch_.size()] * Dim(head_->index);
    return offset;
  }

  void bind(const plan::Loop& loop, const std::string& value) {
    const std::string type = position_type(Dim(loop.index));
    emitter_.bind(loop.index, emitter_.declare(type, "at", "(" + type + ")(" + value + ")"));
  }

  // The position, and the head, of a row.
  void bind_row(const std::string& row) {
    if (head_) {
      bind(a_.i, row + " % positions");
      bind(*head_, row + " / positions");
    } else {
      bind(a_.i, row);
    }
  }

  // The function that gives the pointer to a row of a view, or null.
  void emit_row(const std::string& name, const plan::View& view, const std::string& type,
                bool written) {
    emitter_.open("const auto " + name + " = [&](long long row) -> " + type + "*");
    emitter_.line("if (row >= rows) return nullptr;");
    bind_row("row");
    const std::string buffer =
        written ? emitter_.written_buffer(view.buffer) : emitter_.buffer(view.buffer);
    emitter_.line("return (" + type + "*)" + buffer + " + " + emitter_.position(row_offset(view)) +
                  ";");
    emitter_.close(";");
  }

  // Scores of a row for keys; in units of log 2 if `unit` is 1 / log 2.
  void emit_adjust(double unit) {
    emitter_.open("const auto adjust = [&](auto row, auto key, float score) -> float");
    std::vector<plan::Expr> exprs;
    if (a_.bias) exprs.push_back(a_.bias);
    if (a_.keep) exprs.push_back(a_.keep);
    emitter_.line("bool kept = key < keys && row < rows;");
    if (exprs.empty()) {
      emitter_.line("if (!kept) return minus_infinity();");
    } else {
      // Past the end the last row and key are read: behind a branch, each load would wait for those before.
      emitter_.line("row = row < rows ? row : rows - 1;");
      emitter_.line("key = key < keys ? key : keys - 1;");
    }
    bind_row("row");
    bind(a_.j, "key");
    const std::vector<std::string> values = emitter_.values(exprs);
    if (a_.bias) {
      // The lowest numbers, which hide a key, stay finite: a row of them alone is the mean of all values.
      emitter_.line("const float added = " + values.front() + ";");
      emitter_.line("score += fabsf(added) > 2e38f ? added : added * " + number(unit) + ";");
    }
    if (a_.keep) emitter_.line("kept = kept && " + values.back() + ";");
    if (a_.causal)
      emitter_.line("kept = kept && " + emitter_.position(Dim(a_.j.index)) +
                    " <= " + emitter_.position(Dim(a_.i.index)) + ";");
    emitter_.line("return kept ? score : minus_infinity();");
    emitter_.close(";");
  }

  // Which rows and batch a block has, and how many keys they see.
  void emit_place(int tile, int cluster) {
    emitter_.line("const long long positions = " + wide(a_.i.extent()) + ";");
    emitter_.line("const long long rows = " + wide(rows()) + ";");
    emitter_.line("const long long keys = " + wide(a_.j.extent()) + ";");
    emitter_.line("const unsigned block = blockIdx.x / " + std::to_string(cluster) + ";");
    emitter_.line("const unsigned tiles = (unsigned)((rows + " + std::to_string(tile - 1) + ") / " +
                  std::to_string(tile) + ");");
    if (a_.causal) {
      // The longest rows first.
      emitter_.line("const unsigned batches = gridDim.x / " + std::to_string(cluster) +
                    " / tiles;");
      emitter_.line("const long long batch = block % batches;");
      emitter_.line("const long long row0 = (long long)(tiles - 1 - block / batches) * " +
                    std::to_string(tile) + ";");
    } else {
      emitter_.line("const long long batch = block / tiles;");
      emitter_.line("const long long row0 = (long long)(block % tiles) * " + std::to_string(tile) +
                    ";");
    }
    bind_batch(emitter_, batch_, "batch");
    if (a_.causal && !head_) {
      emitter_.line("const long long last = row0 + " + std::to_string(tile) + " < rows ? row0 + " +
                    std::to_string(tile) + " : rows;");
      emitter_.line("const long long seen = last < keys ? last : keys;");
    } else if (a_.causal) {
      emitter_.line("const long long seen = positions < keys ? positions : keys;");
    } else {
      emitter_.line("const long long seen = keys;");
    }
  }

  void set_launch(int tile, int cluster, int64_t shared_bytes) {
    backend::KernelInterface& interface = context_.result.interface;
    context_.result.kind = engine::StepKind::Launch;
    context_.result.function = "kernel";
    interface.grid = {batches() * ir::ceildiv(rows(), tile) * cluster};
    interface.shared_bytes = shared_bytes;
    interface.task_writes[a_.out.buffer] = tile * a_.value_dim;
  }

  // --- Tensor cores ---

  Cut choose_cut() const {
    Cut cut;
    cut.head_pad = (a_.head_dim + 15) / 16 * 16;
    cut.value_pad = (a_.value_dim + 15) / 16 * 16;
    const int64_t rows = positive_opt(this->rows()), keys = positive_opt(a_.j.extent());
    const int64_t batches = positive_opt(this->batches());
    if (rows <= 16 && keys > 64) {
      cut.warps = 1;
      cut.parts = 4;
      cut.keys = 32;
      if (context_.target.sm >= 90) {
        // Measured: at least 64 keys a warp, no more blocks where two thirds of the machine are busy,
        // and short steps unless all of it is.
        const int64_t machine = multiprocessors(context_.target), most = machine * 2 / 3;
        if (batches < machine) cut.keys = 16;
        while (cut.cluster < 8 && batches * cut.cluster < most &&
               keys >= int64_t{cut.parts} * 64 * cut.cluster)
          cut.cluster *= 2;
      }
    } else if (rows <= 32) {
      cut.warps = rows <= 16 ? 1 : 2;
    }
    // Two tiles a warp halve what it reads of shared memory, and the warps that there is room for:
    // measured, worth it for wide heads only. Masks and biases want the registers.
    const int64_t width = std::max(cut.head_pad, cut.value_pad);
    const int64_t double_tiles = batches * ((rows + 127) / 128);
    if (rows > 64 && width > 64 && width <= 128 && a_.causal && !a_.keep && !a_.bias &&
        double_tiles >= multiprocessors(context_.target)) {
      cut.row_tiles = 2;
      cut.keys = 32;
    }
    constexpr int64_t kSharedBytes = 96 << 10;
    while (cut.keys > 16 && cut.shared_bytes() > kSharedBytes) cut.keys /= 2;
    if (cut.head_pad > 128 || cut.value_pad > 128) cut.keys = std::min(cut.keys, 32);
    return cut;
  }

  std::string tensor_core_text() {
    const Cut cut = choose_cut();
    Prelude text;
    text.flag("kBf16", type_ == DType::BF16);
    text.constant("kHeadDim", a_.head_dim);
    text.constant("kValueDim", a_.value_dim);
    text.constant("kHeadPad", cut.head_pad);
    text.constant("kValuePad", cut.value_pad);
    text.constant("kWarpsI", cut.warps);
    text.constant("kRowTiles", cut.row_tiles);
    text.constant("kParts", cut.parts);
    text.constant("kKeys", cut.keys);
    text.constant("kCluster", cut.cluster);
    text.flag("kNanRows", a_.nan_rows);
    text.real("kScale", number(a_.scale * std::numbers::log2e));
    for (const char* file : {"cluster", "mma", "attention_rows", "attention_mma"})
      text.include(file);
    emit_place(cut.rows(), cut.cluster);
    emit_row("query_row", a_.q, "const bits16", false);
    emit_row("out_row", a_.out, "bits16", true);
    emit_adjust(std::numbers::log2e);
    emit_full(cut);
    const auto view = [&](const char* name, const plan::View& v, const char* count) {
      const std::string base = emitter_.position(base_offset(v));
      emitter_.line(std::string("const Rows ") + name + " = make_rows(" +
                    emitter_.buffer(v.buffer) + " + " + base + ", " + count + ", " +
                    wide(stride_from_end(v, 2)) + ", " + wide(stride_from_end(v, 1)) + ");");
    };
    view("key_rows", a_.k, "keys");
    view("value_rows", a_.v, "keys");
    const plan::View& q = a_.q;
    std::string strides = "2 * (" + wide(stride_from_end(q, 2));
    if (head_) strides += " | " + wide(q.strides[batch_.size()]);
    emitter_.line("const bool aligned = " +
                  std::string(stride_from_end(q, 1).is_constant(1) ? "true" : "false") +
                  " && (((unsigned long long)(" + emitter_.buffer(q.buffer) + " + " +
                  emitter_.position(base_offset(q)) + ") | (unsigned long long)(" + strides +
                  "))) & 15) == 0;");
    emitter_.line("attend_rows(query_row, " + wide(stride_from_end(q, 1)) +
                  ", aligned, key_rows, value_rows, row0, seen, adjust, full, " +
                  wide(stride_from_end(a_.out, 1)) + ", out_row);");
    set_launch(cut.rows(), cut.cluster, cut.shared_bytes());
    return emitter_.finish(
        {.threads = cut.threads(), .min_blocks = 2, .cluster = cut.cluster, .before = text.str()});
  }

  // Steps in which every row keeps every score as it is.
  void emit_full(const Cut& cut) {
    std::string condition;
    if (a_.keep || a_.bias) {
      condition = "false";
    } else {
      condition = "key0 + " + std::to_string(cut.keys) + " <= keys";
      if (a_.causal)
        condition +=
            head_ ? " && false" : " && key0 + " + std::to_string(cut.keys) + " <= row0 + 1";
    }
    emitter_.line("const auto full = [&](long long key0) { return " + condition + "; };");
  }

  // --- Hopper ---

  bool suits_groups() const {
    if (context_.target.sm != 90 || head_) return false;
    // Twice, for what a tile or a step reaches beyond the end.
    const Dim items = batches() * ir::ceildiv(rows(), 64);
    return fits_int(rows() * 2) && fits_int(a_.j.extent() * 2) && fits_int(items * 2) &&
           positive_opt(rows()) > 32;
  }

  GroupCut choose_group_cut() const {
    AttentionSize size;
    size.batches = positive_opt(batches());
    size.rows = positive_opt(rows());
    size.keys = positive_opt(a_.j.extent());
    size.head_pad = (a_.head_dim + 15) / 16 * 16;
    size.value_pad = (a_.value_dim + 15) / 16 * 16;
    size.causal = a_.causal;
    size.adjusts = a_.keep || a_.bias;
    return cuda::choose_group_cut(size, multiprocessors(context_.target));
  }

  std::string group_text() {
    const GroupCut cut = choose_group_cut();
    Prelude text;
    text.flag("kBf16", type_ == DType::BF16);
    text.constant("kHeadDim", a_.head_dim);
    text.constant("kValueDim", a_.value_dim);
    text.constant("kHeadPad", cut.head_pad);
    text.constant("kValuePad", cut.value_pad);
    text.constant("kGroups", cut.groups);
    text.constant("kLoaderRegisters", cut.loader_registers());
    text.constant("kReaderRegisters", cut.reader_registers());
    text.constant("kKeys", cut.keys);
    text.constant("kLastKeys", cut.last_keys);
    text.constant("kStages", cut.stages);
    text.constant("kQueryStages", cut.query_stages);
    text.flag("kCausal", a_.causal);
    text.flag("kAdjusts", a_.keep || a_.bias);
    text.flag("kNanRows", a_.nan_rows);
    text.constant("kCluster", 1);
    text.real("kScale", number(a_.scale * std::numbers::log2e));
    for (const char* file : {"cluster", "mma", "hopper", "attention_rows"}) text.include(file);
    text.add(group_product("multiply_scores", cut.keys, type_, GroupOperands::Shared));
    if (cut.last_keys > 0)
      text.add(group_product("multiply_scores", cut.last_keys, type_, GroupOperands::Shared));
    text.add(group_product("multiply_values", static_cast<int>(cut.value_pad), type_,
                           GroupOperands::RegistersByTransposed));
    text.include("attention_wgmma");
    emitter_.line("const int rows = " + emitter_.position(rows()) + ";");
    emitter_.line("const int keys = " + emitter_.position(a_.j.extent()) + ";");
    emitter_.line("const unsigned tiles = (rows + kTileRows - 1) / kTileRows;");
    emitter_.line("const unsigned batches = " + emitter_.position(batches()) + ";");
    emit_item();
    emitter_.line("attend_items(tiles * batches, with_item);");
    const Dim items = batches() * ir::ceildiv(rows(), cut.rows());
    const Dim blocks = ir::min(items, multiprocessors(context_.target) * int64_t{cut.blocks});
    backend::KernelInterface& interface = context_.result.interface;
    context_.result.kind = engine::StepKind::Launch;
    context_.result.function = "kernel";
    interface.grid = {blocks};
    interface.shared_bytes = cut.shared_bytes();
    interface.task_writes[a_.out.buffer] =
        ir::ceildiv(items, ir::max(blocks, 1)) * (cut.rows() * a_.value_dim);
    return emitter_.finish(
        {.threads = cut.threads(), .min_blocks = cut.blocks, .before = text.str()});
  }

  // The function that calls another with an item and its masks and biases.
  void emit_item() {
    emitter_.open("const auto with_item = [&](unsigned number, const auto& use)");
    if (a_.causal) {
      // The longest rows first.
      emitter_.line("const unsigned batch = number % batches;");
      emitter_.line("const unsigned tile = tiles - 1 - number / batches;");
    } else {
      emitter_.line("const unsigned batch = number / tiles, tile = number % tiles;");
    }
    bind_batch(emitter_, batch_, "batch");
    emitter_.line("Item item;");
    const auto view = [&](const char* name, const plan::View& v, const char* count) {
      emitter_.line(std::string("item.") + name + " = make_rows(" + emitter_.buffer(v.buffer) +
                    " + " + emitter_.position(base_offset(v)) + ", " + count + ", " +
                    wide(stride_from_end(v, 2)) + ", " + wide(stride_from_end(v, 1)) + ");");
    };
    view("queries", a_.q, "rows");
    view("keys", a_.k, "keys");
    view("values", a_.v, "keys");
    emitter_.line("item.out = (bits16*)" + emitter_.written_buffer(a_.out.buffer) + " + " +
                  emitter_.position(base_offset(a_.out)) + ";");
    emitter_.line("item.out_row_stride = " + wide(stride_from_end(a_.out, 2)) + ";");
    emitter_.line("item.out_stride = " + wide(stride_from_end(a_.out, 1)) + ";");
    emitter_.line("item.row0 = tile * kTileRows;");
    emitter_.line(a_.causal ? "item.seen = min(keys, min(rows, item.row0 + kTileRows));"
                            : "item.seen = keys;");
    if (a_.keep || a_.bias) {
      emit_adjust(std::numbers::log2e);
    } else {
      emitter_.line("const auto adjust = [](int, int, float score) { return score; };");
    }
    emitter_.line("use(item, adjust);");
    emitter_.close(";");
  }

  // --- Ordinary units ---

  std::string simt_text() {
    constexpr int kTile = 32;
    Prelude text;
    text.constant("kHeadDim", a_.head_dim);
    text.constant("kValueDim", a_.value_dim);
    text.flag("kNanRows", a_.nan_rows);
    text.real("kScale", number(a_.scale));
    text.include("attention_simt");
    emit_place(kTile, 1);
    emit_row("query_row", a_.q, "const float", false);
    emit_row("out_row", a_.out, "float", true);
    emit_adjust(1);
    const auto view = [&](const plan::View& v) {
      const std::string base = emitter_.position(base_offset(v));
      return emitter_.buffer(v.buffer) + " + " + base + ", " + wide(stride_from_end(v, 2)) + ", " +
             wide(stride_from_end(v, 1));
    };
    emitter_.line("attend_rows(query_row, " + wide(stride_from_end(a_.q, 1)) + ", " + view(a_.k) +
                  ", " + view(a_.v) + ", row0, seen, adjust, " + wide(stride_from_end(a_.out, 1)) +
                  ", out_row);");
    const int64_t wide_row = std::max(a_.head_dim, a_.value_dim) + 1;
    set_launch(kTile, 1, (2 * kTile * wide_row + kTile * (kTile + 1)) * 4);
    return emitter_.finish({.threads = 256, .min_blocks = 2, .before = text.str()});
  }

  Emitter emitter_;
  KernelContext& context_;
  const plan::Attention& a_;
  std::vector<plan::Loop> batch_;
  std::optional<plan::Loop> head_;  // folded into the rows
  DType type_ = DType::F32;
};

}  // namespace

std::string attention_text(KernelContext& context, const plan::Attention& attention) {
  return AttentionText(context, attention).run();
}

}  // namespace kiln::cuda
