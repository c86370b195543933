// Tiles through shared memory: a nest that reads x along one loop and stores along another, a transpose
// with whatever is computed on the way. Read straight, one of the two would touch a line of memory for
// each element. A block of 32 x 8 threads reads a tile of 32 x 32 elements along the rows of x and
// stores it along the rows of the result, or of 64 x 64 where elements of 16 bits can be read in pairs;
// the tile's rows are a bit longer, so that its columns lie in different banks.
#include <algorithm>

#include "backends/cuda/compile/nest/mapping.h"
#include "backends/cuda/compile/nest/stage_writer.h"
#include "plan/form/kernels.h"

namespace kiln::cuda {

using ir::Dim;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;
using plan::Loop;
using plan::LoopNest;

namespace {

constexpr int kColumns = 32, kRows = 8;  // of threads
constexpr int64_t kShortestSide = 16;
// Tiles of 8.25 KiB at most, in the 48 KiB that a block may declare.
constexpr size_t kMostTiles = 5;

bool is_contiguous(const Dim& offset, const ir::SymbolPtr& index) {
  const auto linear = offset.as_linear_in(index);
  return linear && linear->first.is_constant(1);
}

// A load that is contiguous along `along` and goes in steps along `across`.
bool is_turned(const ExprNode& node, const Loop& across, const Loop& along) {
  if (node.kind != ExprKind::Load || node.predicate || node.args.size() != 1 ||
      node.args[0]->kind != ExprKind::Position)
    return false;
  const Dim& offset = node.args[0]->index;
  return is_contiguous(offset, along.index) && offset.mentions(across.index) &&
         !is_contiguous(offset, across.index);
}

struct Turned {
  size_t across = 0, along = 0;  // outer loops: contiguous in the result, in the loads
  std::vector<const ExprNode*> loads;
};

std::optional<Turned> find_turned(const LoopNest& nest) {
  const auto* store = nest.stages.size() == 1 ? std::get_if<plan::Store>(&nest.stages[0]) : nullptr;
  if (store == nullptr || !store->loops.empty() || store->indices.size() != 1) return std::nullopt;
  const auto long_enough = [](const Loop& loop) { return loop.extent().at_opt() >= kShortestSide; };
  for (size_t across = 0; across < nest.outer.size(); ++across) {
    if (!long_enough(nest.outer[across]) ||
        !is_contiguous(store->indices[0], nest.outer[across].index))
      continue;
    for (size_t along = 0; along < nest.outer.size(); ++along) {
      if (along == across || !long_enough(nest.outer[along])) continue;
      Turned turned{across, along, {}};
      plan::visit(store->value, [&](const ExprNode& node) {
        if (is_turned(node, nest.outer[across], nest.outer[along]) && node.buffer != store->buffer)
          turned.loads.push_back(&node);
      });
      if (!turned.loads.empty() && turned.loads.size() <= kMostTiles) return turned;
    }
  }
  return std::nullopt;
}

class TransposeNest {
 public:
  TransposeNest(Emitter& emitter, const LoopNest& nest, const Turned& turned)
      : emitter_(emitter),
        nest_(nest),
        turned_(turned),
        across_(nest.outer[turned.across]),
        along_(nest.outer[turned.along]),
        writer_(emitter, nest),
        lanes_(count_lanes()),
        tile_(kColumns * lanes_) {}

  void write() {
    const std::vector<Loop> tiles = tile_loops();
    const Dim blocks = points_of(tiles);
    emitter_.interface().grid = {blocks};
    note_writes(emitter_.context(), nest_, Dim(int64_t{tile_} * tile_));
    writer_.plan_access(nest_.stages[0], {along_.index, lanes_, ""});
    writer_.plan_access(nest_.stages[0], {across_.index, lanes_, ""});
    writer_.declare_flag();
    const ir::SymbolPtr block = ir::make_loop_symbol("block", blocks);
    emitter_.bind(block,
                  emitter_.declare(position_type(Dim(block)), "block",
                                   "(" + std::string(position_type(Dim(block))) + ")blockIdx.x"));
    bind_loops(emitter_, tiles, Dim(block));
    bind_tile(tiles);
    std::map<const ExprNode*, std::string> names = load_tiles();
    emitter_.line("__syncthreads();");
    store_tile(names);
  }

 private:
  const plan::Store& stored() const { return std::get<plan::Store>(nest_.stages[0]); }

  // Pairs where all of it is of 16 bits.
  int count_lanes() const {
    const auto fits = [&](DType dtype, const Loop& loop) {
      return dtype_size(dtype) == 2 && ir::provably_divisible(loop.extent(), Dim(2));
    };
    const bool result = fits(stored().value->dtype, across_) &&
                        writer_.access().is_vector(stored(), {across_.index, 2, ""}) &&
                        std::ranges::all_of(turned_.loads, [&](const ExprNode* load) {
                          return fits(load->dtype, along_) &&
                                 writer_.access().is_vector(*load, {along_.index, 2, ""});
                        });
    return result ? 2 : 1;
  }

  // The loops without the two of the tile, then the number of the tile along either.
  std::vector<Loop> tile_loops() const {
    std::vector<Loop> loops;
    for (size_t i = 0; i < nest_.outer.size(); ++i) {
      if (i != turned_.across && i != turned_.along) loops.push_back(nest_.outer[i]);
    }
    for (const Loop& loop : {across_, along_})
      loops.push_back({ir::make_loop_symbol("tile", ir::ceildiv(loop.extent(), Dim(tile_)))});
    return loops;
  }

  void bind_tile(const std::vector<Loop>& tiles) {
    const auto first = [&](const Loop& tile, const Loop& loop) {
      return emitter_.declare(position_type(Dim(loop.index)), "first",
                              emitter_.position(Dim(tile.index) * tile_));
    };
    first_across_ = first(tiles[tiles.size() - 2], across_);
    first_along_ = first(tiles[tiles.size() - 1], along_);
    emitter_.line("const int column = (int)threadIdx.x % 32" +
                  std::string(lanes_ > 1 ? " * 2" : "") + ", row = (int)threadIdx.x / 32;");
  }

  // Opens a loop over the rows of the tile that a thread has a part in, with both loops bound where
  // they are inside of their extents.
  std::string open_rows(const Loop& fast, const std::string& first_fast, const Loop& slow,
                        const std::string& first_slow) {
    emitter_.line("#pragma unroll");
    emitter_.open("for (int r = row; r < " + std::to_string(tile_) +
                  "; r += " + std::to_string(kRows) + ")");
    const std::string i =
        emitter_.declare(position_type(Dim(fast.index)), "i", first_fast + " + column");
    const std::string j =
        emitter_.declare(position_type(Dim(slow.index)), "i", first_slow + " + r");
    emitter_.bind(fast.index, i);
    emitter_.bind(slow.index, j);
    emitter_.open("if (" + i + " < " + emitter_.position(fast.extent()) + " && " + j + " < " +
                  emitter_.position(slow.extent()) + ")");
    return i;
  }
  void close_rows() {
    emitter_.close();
    emitter_.close();
  }

  std::map<const ExprNode*, std::string> load_tiles() {
    std::map<const ExprNode*, std::string> names;
    std::vector<const ExprNode*> distinct;
    for (const ExprNode* load : turned_.loads) {
      const auto same = std::ranges::find_if(distinct, [&](const ExprNode* other) {
        return other->buffer == load->buffer && other->args[0]->index == load->args[0]->index;
      });
      if (same != distinct.end()) {
        names[load] = names[*same];
        continue;
      }
      distinct.push_back(load);
      names[load] = emitter_.fresh("tile");
      emitter_.line("__shared__ " + std::string(memory_type(load->dtype)) + " " + names[load] +
                    "[" + std::to_string(tile_) + "][" + std::to_string(tile_ + lanes_) + "];");
    }
    open_rows(along_, first_along_, across_, first_across_);
    for (const ExprNode* load : distinct) {
      const std::string buffer = emitter_.buffer(load->buffer);
      const std::string offset = emitter_.position(load->args[0]->index);
      const std::string place = names[load] + "[r][column]";
      emitter_.line(lanes_ > 1
                        ? "copy_lanes<2>(" + buffer + " + " + offset + ", aligned, &" + place + ");"
                        : place + " = " + buffer + "[" + offset + "];");
    }
    close_rows();
    return names;
  }

  void store_tile(const std::map<const ExprNode*, std::string>& names) {
    const std::string first = open_rows(across_, first_across_, along_, first_along_);
    std::map<const ExprNode*, std::string> kept;
    for (const ExprNode* load : turned_.loads)
      kept[load] =
          "from_memory(" + names.at(load) + (lanes_ > 1 ? "[column + e][r])" : "[column][r])");
    writer_.keep(std::move(kept));
    writer_.store(stored(), {across_.index, lanes_, first}, {});
    close_rows();
  }

  Emitter& emitter_;
  const LoopNest& nest_;
  const Turned& turned_;
  const Loop across_, along_;
  StageWriter writer_;
  const int lanes_, tile_;
  std::string first_across_, first_along_;
};

}  // namespace

std::optional<std::string> transpose_nest_text(KernelContext& context, const LoopNest& nest) {
  const auto turned = find_turned(nest);
  if (!turned) return std::nullopt;
  Emitter emitter(context);
  TransposeNest(emitter, nest, *turned).write();
  return emitter.finish({.threads = kColumns * kRows});
}

}  // namespace kiln::cuda
