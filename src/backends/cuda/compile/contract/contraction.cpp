#include "backends/cuda/compile/contract/contraction.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "backends/cuda/compile/kernel_texts.h"
#include "ir/op_table.h"
#include "plan/form/access.h"
#include "support/error.h"

namespace kiln::cuda {

void Prelude::constant(std::string_view name, int64_t value) {
  text_ += "constexpr int " + std::string(name) + " = " + std::to_string(value) + ";\n";
}

void Prelude::flag(std::string_view name, bool value) {
  text_ += "constexpr bool " + std::string(name) + " = " + (value ? "true" : "false") + ";\n";
}

void Prelude::real(std::string_view name, std::string_view value) {
  text_ += "constexpr float " + std::string(name) + " = " + std::string(value) + ";\n";
}

void Prelude::alias(std::string_view name, std::string_view type) {
  text_ += "using " + std::string(name) + " = " + std::string(type) + ";\n";
}

void Prelude::include(std::string_view kernel) {
  text_ += "\n" + std::string(kernel_text(std::string(kernel) + ".cuh"));
}

Units units_of(const Target& target, DType left, DType right, const plan::Formats& formats) {
  if (formats.accumulator == DType::I32) return Units::TensorCores;
  if (left != right || formats.accumulator != DType::F32) return Units::Ordinary;
  if (is_16_bit_float(left) || left == DType::F8E4M3) return Units::TensorCores;
  if (left != DType::F32) return Units::Ordinary;
  if (formats.tf32) return Units::TensorCores;
  // TF32 is 8 to 16 times as fast as f32 on GPUs of data centres, as fast on others.
  return target.sm == 80 || target.sm == 90 ? Units::ThreeProducts : Units::Ordinary;
}

std::string_view bits_type(DType dtype) {
  if (dtype_size(dtype) == 1) return "unsigned char";
  return dtype == DType::F32 ? "unsigned" : "unsigned short";
}

void add_columns(Prelude& text, int columns, int sums, int vector) {
  text.constant("kVector", vector);
  text.constant("kTileN", columns);
  text.constant("kSums", sums);
  text.constant("kResultN", columns / sums);
}

void add_simt_tile(Prelude& text, const Tile& tile) {
  text.constant("kTileM", tile.m);
  add_columns(text, tile.n, tile.sums);
  text.constant("kTileK", tile.k);
  text.constant("kCluster", tile.cluster);
}

void add_tile(Prelude& text, const Tile& tile) {
  add_simt_tile(text, tile);
  text.constant("kWarpM", tile.warp_m);
  text.constant("kWarpN", tile.warp_n);
  text.constant("kStages", tile.stages);
  text.constant("kGroups", tile.groups);
  text.constant("kThreads", tile.threads());
  text.flag("kThreeProducts", tile.three_products);
  text.flag("kFloat8", tile.float8);
  text.flag("kRoundedSums", tile.rounded_sums);
}

namespace {

// Operand types of a product on sm_90: what its steps of k, sums and operands are called, and what follows
// the condition that sums are added to: signs, and which operands are transposed where that is possible.
struct GroupTypes {
  std::string k, types, tail;
  bool integers = false;
};

GroupTypes group_types(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return {"k8", ".f32.tf32.tf32", ", 1, 1"};
    case DType::F8E4M3:
      return {"k32", ".f32.e4m3.e4m3", ", 1, 1"};
    case DType::U8:
      return {"k32", ".s32.u8.s8", "", true};
    case DType::BF16:
      return {"k16", ".f32.bf16.bf16", ", 1, 1, 0, 0"};
    default:
      return {"k16", ".f32.f16.f16", ", 1, 1, 0, 0"};
  }
}

}  // namespace

// One instruction.
std::string group_product(const std::string& name, int n, DType dtype, GroupOperands operands) {
  const GroupTypes types = group_types(dtype);
  const bool tf32 = dtype == DType::F32;
  const std::string constraint = types.integers ? "\"+r\"" : "\"+f\"";
  const auto operand = [&](int i) { return "%" + std::to_string(n / 2 + i); };
  std::string registers, outputs;
  for (int i = 0; i < n / 2; ++i) {
    registers += (i > 0 ? ", %" : "%") + std::to_string(i);
    outputs += (i > 0 ? ", " : "") + constraint + "(c[" + std::to_string(i) + "])";
  }
  const std::string instruction = "wgmma.mma_async.sync.aligned.m64n" + std::to_string(n) +
                                  types.k + types.types + " {" + registers + "}, ";
  const std::string begin = "__device__ __forceinline__ void " + name +
                            (types.integers ? "(int" : "(float") + " (&c)[" +
                            std::to_string(n / 2) + "], ";
  const std::string condition = "  asm volatile(\n      \"{\\n.reg .pred p;\\nsetp.ne.b32 p, ";
  if (operands != GroupOperands::Shared) {
    const bool transposed = operands == GroupOperands::RegistersByTransposed;
    return begin + "unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned long long b" +
           (transposed ? "" : ", int accumulate") + ") {\n" + condition + operand(5) +
           ", 0;\\n\"\n      \"" + instruction + "{" + operand(0) + ", " + operand(1) + ", " +
           operand(2) + ", " + operand(3) + "}, " + operand(4) +
           (transposed ? ", p, 1, 1, 1"
            : tf32     ? ", p, 1, 1"
                       : ", p, 1, 1, 0") +
           ";\\n}\\n\"\n      : " + outputs +
           "\n      : \"r\"(a0), \"r\"(a1), \"r\"(a2), \"r\"(a3), \"l\"(b), \"r\"(" +
           (transposed ? "1" : "accumulate") + "));\n}\n";
  }
  return begin + "unsigned long long a, unsigned long long b, int accumulate) {\n" + condition +
         operand(2) + ", 0;\\n\"\n      \"" + instruction + operand(0) + ", " + operand(1) + ", p" +
         types.tail + ";\\n}\\n\"\n      : " + outputs +
         "\n      : \"l\"(a), \"l\"(b), \"r\"(accumulate));\n}\n";
}

std::string_view include_tile(Prelude& text, const Tile& tile) {
  for (const char* file : {"cluster", "tile_order", "tile_result", "mma", "float8", "tile_mma"})
    text.include(file);
  if (!tile.by_groups) return "multiply_tile";
  text.include("hopper");
  text.add(group_product("multiply_group", tile.n, DType::F32, GroupOperands::Registers));
  text.include("tile_exact");
  return "multiply_tile_by_groups";
}

void add_group_tile(Prelude& text, const GroupTile& tile, DType dtype, int64_t columns,
                    std::initializer_list<std::string_view> boxes, int64_t first_steps) {
  text.constant("kTileM", tile.m());
  add_columns(text, tile.n, tile.sums);
  const auto element = static_cast<int>(dtype_size(dtype));
  text.constant("kTileK", tile.k * 2 / element);
  text.flag("kAddApart", tile.add_apart);
  text.constant("kElementBytes", element);
  text.constant("kRowBlocks", tile.row_blocks);
  text.constant("kGroups", tile.groups);
  text.constant("kStages", tile.stages);
  text.constant("kCluster", tile.cluster);
  text.constant("kProducerRegisters", tile.producer_registers());
  text.constant("kConsumerRegisters", tile.registers());
  text.flag("kPingPong", tile.ping_pong);
  text.flag("kOneTile", tile.one_tile);
  text.flag("kHoldLoads", tile.hold_loads);
  text.flag("kWholeVectors", columns % 8 == 0);
  text.flag("kWholeChunks", columns % tile.columns() == 0);
  text.flag("kInTurns", tile.in_turns);
  text.constant("kFirstSteps", first_steps);
  for (const char* file : {"cluster", "tile_order", "tile_result", "gather_vector", "hopper",
                           "group_rows", tile.pairs ? "group_pairs" : "group_vectors"})
    text.include(file);
  text.add(group_product("multiply_group", tile.step_columns(), dtype, GroupOperands::Shared));
  if (tile.add_apart)
    text.add(group_product("multiply_part", tile.n > 192 ? tile.n / 2 : tile.n, dtype,
                           GroupOperands::Shared));
  for (std::string_view file : boxes) text.include(file);
  text.include("tile_wgmma");
}

void set_group_launch(KernelContext& context, const GroupTile& tile, plan::BufferId out,
                      const ir::Dim& m, const ir::Dim& n) {
  backend::KernelInterface& interface = context.result.interface;
  const ir::Dim tiles = ir::ceildiv(m, tile.m()) * ir::ceildiv(n, tile.columns());
  const ir::Dim blocks =
      tile.one_tile ? tiles * tile.cluster : ir::min(tiles, multiprocessors(context.target));
  interface.grid = {blocks};
  interface.shared_bytes = tile.shared_bytes();
  interface.task_writes[out] =
      tile.one_tile ? ir::Dim(tile.m() / tile.cluster * tile.columns())
                    : ir::ceildiv(tiles, ir::max(blocks, 1)) * (tile.m() * tile.columns());
}

bool is_placed(const plan::Program& program, plan::BufferId buffer) {
  return program.buffers[buffer].kind != plan::BufferKind::Output;
}

int multiprocessors(const Target& target) {
  switch (target.sm) {
    case 80:
      return 108;
    case 86:
      return 84;
    case 89:
      return 128;
    default:
      return 132;
  }
}

int64_t positive_opt(const ir::Dim& size) { return std::max<int64_t>(1, size.at_opt()); }

void bind_batch(Emitter& emitter, const std::vector<plan::Loop>& loops, const std::string& flat) {
  std::string rest = flat;
  for (size_t i = loops.size(); i-- > 0;) {
    const ir::Dim index(loops[i].index);
    const std::string type = position_type(index);
    const std::string extent = emitter.position(loops[i].extent());
    const std::string value = i == 0 ? rest : rest + " % " + extent;
    emitter.bind(loops[i].index,
                 emitter.declare(type, "at", "static_cast<" + type + ">(" + value + ")"));
    if (i > 0) rest = emitter.declare("long long", "rest", rest + " / " + extent);
  }
}

ir::Dim batch_offset(const plan::View& view, const std::vector<plan::Loop>& batch) {
  ir::Dim offset = view.offset;
  for (size_t i = 0; i < batch.size(); ++i) offset += view.strides[i] * ir::Dim(batch[i].index);
  return offset;
}

const ir::Dim& stride_from_end(const plan::View& view, size_t from_end) {
  return view.strides[view.strides.size() - from_end];
}

// --- The result ---

namespace {

// The offset of a load, in elements, if it is known where it lies.
std::optional<ir::Dim> load_offset(const plan::Program& program, const plan::ExprNode& load) {
  const auto indices = plan::load_indices(load);
  if (!indices) return std::nullopt;
  if (indices->size() == 1) return indices->front();
  return plan::linearize(program.buffers[load.buffer].type.shape, *indices);
}

// Loads whose elements for neighbouring columns are neighbours.
struct VectorLoad {
  const plan::ExprNode* node = nullptr;
  ir::Dim offset;
  std::string name;   // of the member of Loaded or Columns
  bool same = false;  // for all rows
};

std::vector<VectorLoad> vector_loads(const plan::Program& program, const ResultText& result) {
  std::vector<VectorLoad> loads;
  plan::visit(*result.epilogue, [&](const plan::ExprNode& node) {
    if (node.kind != plan::ExprKind::Load || node.predicate) return;
    std::optional<ir::Dim> offset = load_offset(program, node);
    if (!offset) return;
    if (result.simplify) offset = result.simplify(*offset);
    const auto linear = offset->as_linear_in(result.column.index);
    if (!linear || !linear->first.is_constant(1)) return;
    if (std::ranges::find(loads, &node, &VectorLoad::node) != loads.end()) return;
    const std::vector<ir::SymbolPtr> symbols = linear->second.symbols();
    const bool same = std::ranges::none_of(symbols, [](const auto& s) { return s->is_loop; });
    loads.push_back({&node, *offset, "of" + std::to_string(loads.size()), same});
  });
  return loads;
}

class ResultEmitter {
 public:
  ResultEmitter(Emitter& emitter, const ResultText& result) : emitter_(emitter), result_(result) {}

  std::string run(const std::string& m, const std::string& n) {
    find_loads();
    if (result_.pairs) return run_pairs(m, n);
    emit_loaded("Loaded", false);
    emit_loaded("Columns", true);
    emit_touch();
    emit_fetch("fetch", false);
    emit_fetch("fetch_columns", true);
    emit_finish();
    emit_finish_one();
    return "make_result<Loaded, Columns>(" + m + ", " + n +
           ", touch, fetch, fetch_columns, finish, finish_one)";
  }

 private:
  bool is_neighbourly(const ir::Dim& offset) const {
    const auto linear = offset.as_linear_in(result_.column.index);
    return linear && linear->first.is_constant(1);
  }

  void find_loads() {
    for (const VectorLoad& load : vector_loads(emitter_.program(), result_)) loads_.push_back(load);
  }

  // The types of what is fetched: of a vector, or the same for all rows.
  void emit_loaded(const std::string& name, bool same) {
    emitter_.open("struct " + name);
    for (const VectorLoad& load : loads_) {
      if (load.same == same)
        emitter_.line("Elements<" + std::string(memory_type(load.node->dtype)) + "> " + load.name +
                      ";");
    }
    emitter_.close(";");
  }

  ir::Dim out_offset() const {
    return result_.simplify ? result_.simplify(result_.out_offset) : result_.out_offset;
  }

  void bind(const std::string& row, const std::string& column) {
    result_.bind_row(row);
    const std::string type = position_type(ir::Dim(result_.column.index));
    const std::string first = result_.first_column.empty() ? "" : result_.first_column + " + ";
    emitter_.bind(
        result_.column.index,
        emitter_.declare(type, "column", "static_cast<" + type + ">(" + first + column + ")"));
  }

  void emit_touch() {
    emitter_.open("const auto touch = [&](long long first, unsigned to)");
    bind("0", "first");
    for (const VectorLoad& load : loads_) {
      if (load.same)
        emitter_.line("touch_element(&" + emitter_.element(load.node->buffer, {load.offset}) +
                      ", to);");
    }
    emitter_.close(";");
  }

  void emit_fetch(const std::string& name, bool same) {
    emitter_.open("const auto " + name + " = [&](" + (same ? "" : "long long row, ") +
                  "long long first, " + (same ? "Columns" : "Loaded") + "& loaded)");
    bind(same ? "0" : "row", "first");
    for (const VectorLoad& load : loads_) {
      if (load.same == same)
        emitter_.line("fetch_elements(&" + emitter_.element(load.node->buffer, {load.offset}) +
                      ", loaded." + load.name + ");");
    }
    emitter_.close(";");
  }

  // What the epilogue of the element `v` is made of: sums, and what was loaded, `place` of its member.
  Leaves begin_element(const std::string& place) {
    bind("row", "first + v");
    emitter_.line("const Acc sum = sums.of[0].at[v];");
    if (result_.sums == 2) emitter_.line("const Acc pair = sums.of[1].at[v];");
    Leaves leaves{.accumulators = {"sum", "pair"}};
    for (const VectorLoad& load : loads_) {
      const std::string member = (load.same ? "columns." : "loaded.") + load.name + place;
      leaves.loads[load.node] = emitter_.declare(register_type(load.node->dtype), "loaded",
                                                 "from_memory(" + member + ".at[v])");
    }
    return leaves;
  }

  // --- Pairs ---

  std::string run_pairs(const std::string& m, const std::string& n) {
    emitter_.open("struct ColumnPairs");
    for (const VectorLoad& load : loads_)
      emitter_.line("ElementPairs<" + std::string(memory_type(load.node->dtype)) + "> " +
                    load.name + ";");
    emitter_.close(";");
    emit_touch();
    emit_fetch_pairs();
    emit_finish_pair();
    emit_store();
    return "make_pair_result<" + std::string(memory_type(emitter_.dtype_of(result_.out))) +
           ", ColumnPairs>(" + m + ", " + n + ", touch, fetch_columns, finish, store)";
  }

  void emit_fetch_pairs() {
    emitter_.open(
        "const auto fetch_columns = [&](long long first, int groups, ColumnPairs& loaded)");
    bind("0", "first");
    for (const VectorLoad& load : loads_)
      emitter_.line("fetch_pairs(&" + emitter_.element(load.node->buffer, {load.offset}) +
                    ", groups, loaded." + load.name + ");");
    emitter_.close(";");
  }

  // What is computed of elements of 16 bits at the end of an epilogue is computed of both at once: sums, differences and
  // products of them are those that f32 gives, rounded, since f32 has more than twice as many bits.
  static const char* pair_function(const plan::ExprNode& node) {
    if (node.kind != plan::ExprKind::Apply || !is_16_bit_float(node.dtype)) return nullptr;
    switch (node.op) {
      case ir::Op::add:
        return "add_pairs";
      case ir::Op::sub:
        return "subtract_pairs";
      case ir::Op::mul:
        return "multiply_pairs";
      case ir::Op::relu:
        return "relu_pair";
      default:
        return nullptr;
    }
  }

  // The text of a pair, of parts that are computed one by one: those that are listed.
  std::string pair_text(const plan::Expr& value, const std::string& type,
                        std::vector<plan::Expr>& parts) {
    if (const char* function = pair_function(*value)) {
      std::string text = std::string(function) + "<" + type + ">(";
      for (size_t i = 0; i < value->args.size(); ++i)
        text += (i > 0 ? ", " : "") + pair_text(value->args[i], type, parts);
      return text + ")";
    }
    const bool rounds = value->kind == plan::ExprKind::Apply && value->op == ir::Op::cast &&
                        value->args[0]->dtype == DType::F32;
    parts.push_back(rounds ? value->args[0] : value);
    const std::string part = "part" + std::to_string(parts.size() - 1);
    return "packed<" + type + ">(" + part + "[0], " + part + "[1])";
  }

  void emit_finish_pair() {
    std::vector<plan::Expr> parts;
    const std::string type(memory_type(emitter_.dtype_of(result_.out)));
    const std::string text = pair_text(*result_.epilogue, type, parts);
    emitter_.open(
        "const auto finish = [&](long long row, long long first, const PairOfSums& sums, "
        "const ColumnPairs& columns, int group) -> unsigned");
    for (size_t i = 0; i < parts.size(); ++i)
      emitter_.line("float part" + std::to_string(i) + "[2];");
    emitter_.line("#pragma unroll");
    emitter_.open("for (int v = 0; v < 2; ++v)");
    const Leaves leaves = begin_element("[group]");
    for (size_t i = 0; i < parts.size(); ++i)
      emitter_.line("part" + std::to_string(i) + "[v] = " + emitter_.value(parts[i], leaves) + ";");
    emitter_.close();
    emitter_.line("return " + text + ";");
    emitter_.close(";");
  }

  void emit_store() {
    const std::string type(memory_type(emitter_.dtype_of(result_.out)));
    emitter_.open("const auto store = [&](long long row, long long first, const Elements<" + type +
                  ">& vector)");
    bind("row", "first");
    emitter_.written_buffer(result_.out);
    emitter_.line("store_elements(&" + emitter_.element(result_.out, {out_offset()}) +
                  ", vector);");
    emitter_.close(";");
  }

  // --- Vectors ---

  void emit_finish() {
    emitter_.open(
        "const auto finish = [&](long long row, long long first, const VectorSums& sums, "
        "const Loaded& loaded, const Columns& columns" +
        std::string(result_.keeps ? ", void* to)" : ")"));
    emitter_.line(std::string(register_type(emitter_.dtype_of(result_.out))) + " values[kVector];");
    emitter_.line("#pragma unroll");
    emitter_.open("for (int v = 0; v < kVector; ++v)");
    const Leaves leaves = begin_element("");
    emitter_.line("values[v] = " + emitter_.value(stored_value(), leaves) + ";");
    emitter_.close();
    if (result_.keeps) {
      const std::string type(memory_type(emitter_.dtype_of(result_.out)));
      emitter_.line("to_elements(values, *static_cast<Elements<" + type + ">*>(to));");
      return emitter_.close(";");
    }
    bind("row", "first");
    emitter_.written_buffer(result_.out);
    const ir::Dim offset = out_offset();
    if (is_neighbourly(offset)) {
      emitter_.line("store_elements(&" + emitter_.element(result_.out, {offset}) + ", values);");
    } else {
      emitter_.line("#pragma unroll");
      emitter_.open("for (int v = 0; v < kVector; ++v)");
      bind("row", "first + v");
      emitter_.store(result_.out, {offset}, "values[v]");
      emitter_.close();
    }
    emitter_.close(";");
  }

  // What is stored is rounded then: a conversion to the type of the buffer need not be made before.
  plan::Expr stored_value() const {
    const plan::Expr& value = *result_.epilogue;
    const bool converts = value->kind == plan::ExprKind::Apply && value->op == ir::Op::cast &&
                          is_16_bit_float(value->dtype) &&
                          value->dtype == emitter_.dtype_of(result_.out) &&
                          value->args[0]->dtype == DType::F32;
    return converts ? value->args[0] : value;
  }

  void emit_finish_one() {
    emitter_.open(
        "const auto finish_one = [&](long long row, long long first, const ColumnSums& sums)");
    if (result_.keeps) return emitter_.close(";");
    bind("row", "first");
    emitter_.store(result_.out, {out_offset()},
                   emitter_.value(stored_value(), {.accumulators = {"sums.of[0]", "sums.of[1]"}}));
    emitter_.close(";");
  }

  Emitter& emitter_;
  const ResultText& result_;
  std::vector<VectorLoad> loads_;
};

}  // namespace

std::string emit_result(Emitter& emitter, const ResultText& result, const std::string& m,
                        const std::string& n) {
  return ResultEmitter(emitter, result).run(m, n);
}

bool takes_pairs(const plan::Program& program, const ResultText& result, int64_t columns) {
  const DType out = program.buffers[result.out].type.dtype;
  const ir::Dim offset = result.simplify ? result.simplify(result.out_offset) : result.out_offset;
  const auto linear = offset.as_linear_in(result.column.index);
  if (!is_16_bit_float(out) || result.keeps || columns % 8 != 0 || !result.first_column.empty() ||
      !linear || !linear->first.is_constant(1))
    return false;
  const std::vector<VectorLoad> loads = vector_loads(program, result);
  bool suits = true;
  plan::visit(*result.epilogue, [&](const plan::ExprNode& node) {
    if (node.kind != plan::ExprKind::Load) return;
    const auto load = std::ranges::find(loads, &node, &VectorLoad::node);
    suits &= load != loads.end() && load->same;
  });
  return suits;
}

int row_loads(const plan::Program& program, const ResultText& result) {
  return static_cast<int>(
      std::ranges::count(vector_loads(program, result), false, &VectorLoad::same));
}

int epilogue_work(const plan::Expr& epilogue) {
  int work = 0;
  plan::visit(epilogue, [&](const plan::ExprNode& node) {
    if (node.kind != plan::ExprKind::Apply) return;
    switch (ir::effort_of(node.op)) {
      case ir::OpEffort::Simple:
        work += 1;
        break;
      case ir::OpEffort::Root:
        work += 8;
        break;
      case ir::OpEffort::Division:
        work += 10;
        break;
      case ir::OpEffort::Series:
        work += 16;
        break;
      case ir::OpEffort::Iterated:
        work += 40;
        break;
    }
  });
  return work;
}

// --- Weights ---

namespace {

constexpr std::string_view kRowsKey = "cuda_rows", kWindowsKey = "cuda_windows";

template <size_t N>
std::string key_of(std::string_view kind, const std::array<int64_t, N>& numbers) {
  std::string key(kind);
  for (const int64_t number : numbers) key += ":" + std::to_string(number);
  return key;
}

// Nothing for another text.
template <size_t N>
std::optional<std::array<int64_t, N>> numbers_of(std::string_view kind, std::string_view key) {
  if (!key.starts_with(kind)) return std::nullopt;
  std::array<int64_t, N> numbers{};
  const char* at = key.data() + kind.size();
  const char* const end = key.data() + key.size();
  for (int64_t& number : numbers) {
    if (at == end || *at != ':') return std::nullopt;
    const auto [next, error] = std::from_chars(at + 1, end, number);
    if (error != std::errc() || number < 0) return std::nullopt;
    at = next;
  }
  return at == end ? std::optional(numbers) : std::nullopt;
}

std::string key_of(const ConstantRows& rows) {
  return key_of<5>(kRowsKey, {rows.offset, rows.rows, rows.depth, rows.row_stride, rows.k_stride});
}

std::optional<ConstantRows> rows_of(std::string_view key) {
  const auto n = numbers_of<5>(kRowsKey, key);
  if (!n) return std::nullopt;
  const auto& [offset, rows, depth, row_stride, k_stride] = *n;
  return ConstantRows{offset, rows, depth, row_stride, k_stride};
}

std::string key_of(const ConstantWindows& w) {
  return key_of<6>(kWindowsKey,
                   {w.filters, w.height, w.width, w.channels, w.padded_width, w.padded_channels});
}

std::optional<ConstantWindows> windows_of(std::string_view key) {
  const auto n = numbers_of<6>(kWindowsKey, key);
  if (!n) return std::nullopt;
  const auto& [filters, height, width, channels, padded_width, padded_channels] = *n;
  return ConstantWindows{filters, height, width, channels, padded_width, padded_channels};
}

ir::Literal copy_rows(const ConstantRows& rows, const ir::Literal& literal) {
  std::byte* bytes = nullptr;
  ir::Literal result =
      ir::Literal::allocate(literal.dtype, {rows.rows, rows.padded_depth(literal.dtype)}, &bytes);
  const size_t size = dtype_size(literal.dtype);
  const int64_t padded = rows.padded_depth(literal.dtype);
  std::memset(bytes, 0, static_cast<size_t>(rows.rows * padded) * size);
  for (int64_t row = 0; row < rows.rows; ++row) {
    const std::byte* from =
        literal.bytes.data() + static_cast<size_t>(rows.offset + row * rows.row_stride) * size;
    std::byte* to = bytes + static_cast<size_t>(row * padded) * size;
    for (int64_t k = 0; k < rows.depth; ++k)
      std::memcpy(to + static_cast<size_t>(k) * size,
                  from + static_cast<size_t>(k * rows.k_stride) * size, size);
  }
  return result;
}

ir::Literal copy_windows(const ConstantWindows& w, const ir::Literal& literal) {
  std::byte* bytes = nullptr;
  ir::Literal result = ir::Literal::allocate(
      literal.dtype, {w.filters, w.height, w.padded_width, w.padded_channels}, &bytes);
  const size_t pixel = static_cast<size_t>(w.channels) * dtype_size(literal.dtype);
  const size_t padded = static_cast<size_t>(w.padded_channels) * dtype_size(literal.dtype);
  const auto rows = static_cast<size_t>(w.filters * w.height);
  std::memset(bytes, 0, rows * static_cast<size_t>(w.padded_width) * padded);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t x = 0; x < static_cast<size_t>(w.width); ++x)
      std::memcpy(bytes + (row * static_cast<size_t>(w.padded_width) + x) * padded,
                  literal.bytes.data() + (row * static_cast<size_t>(w.width) + x) * pixel, pixel);
  }
  return result;
}

}  // namespace

bool fits(const ConstantWindows& w, const ir::Literal& literal) {
  constexpr int64_t kMost = 1 << 10;  // of what is filled up
  if (std::min({w.filters, w.height, w.width, w.channels}) < 1) return false;
  if (w.padded_width < w.width || w.padded_channels < w.channels) return false;
  if (w.padded_width > kMost || w.padded_channels > kMost) return false;
  const auto elements = static_cast<__int128>(w.filters) * w.height * w.width * w.channels;
  return elements == literal.elements();
}

plan::BufferId derive_windows(backend::ConstantPool& constants, plan::BufferId original,
                              const ConstantWindows& windows) {
  return constants.derived(original, key_of(windows), [windows](const ir::Literal& literal) {
    return copy_windows(windows, literal);
  });
}

bool fits(const ConstantRows& rows, const ir::Literal& literal) {
  if (rows.rows == 0 || rows.depth == 0) return true;
  const auto last = static_cast<__int128>(rows.offset) +
                    static_cast<__int128>(rows.rows - 1) * rows.row_stride +
                    static_cast<__int128>(rows.depth - 1) * rows.k_stride;
  return last < literal.elements() &&
         static_cast<__int128>(rows.rows) * rows.depth <= literal.elements();
}

plan::BufferId derive_rows(backend::ConstantPool& constants, plan::BufferId original,
                           const ConstantRows& rows) {
  return constants.derived(original, key_of(rows),
                           [rows](const ir::Literal& literal) { return copy_rows(rows, literal); });
}

ir::Literal derive_constant(const std::string& key, const ir::Literal& original) {
  const auto check = [&](bool fit) {
    if (!fit)
      throw CompileError("[cuda] the constant \"" + key + "\" does not fit a tensor of " +
                         std::to_string(original.elements()) + " elements");
  };
  if (const auto rows = rows_of(key)) {
    check(fits(*rows, original));
    return copy_rows(*rows, original);
  }
  if (const auto windows = windows_of(key)) {
    check(fits(*windows, original));
    return copy_windows(*windows, original);
  }
  throw CompileError("[cuda] got the constant \"" + key +
                     "\", expected one that this version derives");
}

}  // namespace kiln::cuda
