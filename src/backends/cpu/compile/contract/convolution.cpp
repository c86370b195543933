// Channels-last convolutions as a batch-reduce of small matrix products: for every kernel position,
// pixels x channels of the input times channels x outputs of the weight, summed in one register
// tile. No im2col.
//
// A tile is a run of neighbouring pixels of one output row, or several whole rows where they are
// short. The input rows that a task needs are first copied to scratch with their borders filled
// with zeros, so that no tile knows about borders; the copy costs about one percent and reads the
// input in the order that memory likes. It has the type of the sums. An input of that type and
// without borders is read where it lies.
//
// A deep sum is cut in chunks of channels, because a tile reads all of a chunk's weights for a few
// pixels: they have to stay in the second-level cache until all pixels of the block have met them, and
// the block of pixels has to be large, or the weights are read from far away again and again. Sums in
// progress wait in scratch. The copy keeps the chunks apart, so that what a chunk reads is together.
#include <algorithm>
#include <optional>

#include "backends/cpu/compile/contract/amx.h"
#include "backends/cpu/compile/contract/contraction.h"
#include "backends/cpu/compile/contract/copy_bytes.h"
#include "backends/cpu/compile/contract/pack.h"
#include "ir/size_overflow.h"
#include "plan/form/winograd_costs.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// As for matrix products (matmul.cpp). Weights that do not fit are read again for every block of rows:
// then 16 tasks are enough, and fewer rows than 4 would not be worth it.
constexpr int64_t kInputBytes = 256 << 10;   // of input rows, per task
constexpr int64_t kWeightBytes = 512 << 10;  // of packed weights, per task
constexpr int64_t kTasksWanted = 128, kFewTasksWanted = 16;
constexpr int64_t kWorkPerTask = kMultiplyAddsPerThread;
constexpr int64_t kAmxWorkPerTask = 4'000'000;
constexpr int64_t kFewestRows = 4;

// The most steps of K of a chunk: with panels of 32 columns 288 KiB of weights. AVX2 walks them by 16
// columns, which is 144 KiB in every other line, so in half of the cache. 256 channels of 3x3 are one
// chunk; half as many were up to 5 percent slower there and 5 percent faster from 1024 channels on.
constexpr int64_t kChunkDepth = 2304;
// Neighbouring pixels whose addresses differ by a multiple of this compete for the same few sets of the
// first-level cache, one line for each of up to 14 rows of a tile.
constexpr int64_t kAliasBytes = 2048;
constexpr int64_t kLineBytes = 64;
// From so many tiles on they fetch the panel after theirs.
constexpr int64_t kTilesThatShare = 3;
// Copies of fewer bytes than this, for each pixel, cost more than they save.
constexpr int64_t kPlaneBytes = 256;

// Sizes that follow from the convolution.
struct Geometry {
  int64_t group_channels = 0, group_outputs = 0;  // of one group
  int64_t depth = 0;                              // of the sum
  int64_t span_h = 0, span_w = 0;                 // pixels that a dilated kernel covers
  ir::Dim width;                                  // of the input rows that tiles read
  bool copies = true;
  int64_t chunk = 0, chunks = 1;  // channels of a group at a time, at most
  // The copy has a plane for each chunk of each group, or one for all channels where groups are narrow.
  bool has_planes = false;
  int64_t pixel = 0;  // elements from one to the next, in what tiles read
  int64_t padding =
      0;  // elements of zero behind the channels of each, so that they are whole steps
  bool has_half = false;  // runs of pairs end with one element
  OperandFormat input;    // what is copied
  Steps steps = Steps::Single;
  bool has_tiles = false;   // AMX multiplies them
  bool is_joined = true;    // a kernel row is one run of K, otherwise each of its pixels
  int64_t run = 1;          // elements
  DType read = DType::F32;  // what tiles read
  int64_t read_bytes = 4, weight_bytes = 4;

  // Elements along k of a step, steps of a run, and elements of the packed sum.
  int64_t step() const { return elements_of(steps); }
  int64_t run_steps() const { return (run + step() - 1) / step(); }
  int64_t packed_depth() const {
    if (padding > 0) return depth / group_channels * (group_channels + padding);
    return run % step() == 0 ? depth : depth / run * run_steps() * step();
  }
  // Steps of a tile: as even as runs allow, if they leave no rest then.
  int64_t tile_steps() const {
    const int64_t tiles = (run_steps() + kAmxSteps - 1) / kAmxSteps;
    return run_steps() % tiles == 0 ? run_steps() / tiles : kAmxSteps;
  }
};

bool multiplies_bf16(const plan::Convolution& conv, const Geometry& geometry) {
  return geometry.input.memory == DType::BF16 && geometry.input.widens() &&
         conv.formats.weight == DType::BF16 && geometry.input.sum == DType::F32;
}

// An odd number of channels gets a zero, so that pixels are whole pairs, where pairs are worth more than that:
// tiles always are.
int64_t choose_padding(const Target& target, const plan::Convolution& conv,
                       const Geometry& geometry) {
  const bool gains =
      target.has(Feature::AmxBf16) || (target.has(Feature::Avx512Bf16) && conv.channels > 1);
  const bool is_odd = conv.groups == 1 && geometry.chunks == 1 && conv.channels % 2 != 0;
  return gains && is_odd && !geometry.has_half && multiplies_bf16(conv, geometry) ? 1 : 0;
}

// Whether a kernel row of an odd number of elements ends with half a pair instead: 7 pixels of 3 channels are 11 steps
// then, where pixels of 4 channels take 14. Tiles have no such steps.
bool ends_with_half(const Target& target, const plan::Convolution& conv, const Geometry& geometry) {
  if (!target.has(Feature::Avx512Bf16) || target.has(Feature::AmxBf16)) return false;
  const int64_t run = conv.kernel_w * conv.channels;
  const int64_t steps = (run + 1) / 2, padded = conv.kernel_w * ((conv.channels + 1) / 2);
  return conv.groups == 1 && geometry.chunks == 1 && conv.channels > 1 && conv.dilation_w == 1 &&
         run % 2 != 0 && 8 * steps <= 7 * padded && multiplies_bf16(conv, geometry);
}

// Pairs where input and weight are bf16, and every run of K is a whole number of them.
Steps choose_steps(const Target& target, const plan::Convolution& conv, const Geometry& geometry) {
  if (conv.formats.accumulator == DType::I32) return byte_steps(target);
  const bool is_whole = geometry.run % 2 == 0 || geometry.has_half;
  if (!multiplies_bf16(conv, geometry) || !is_whole) return Steps::Single;
  return target.has(Feature::Avx512Bf16) ? Steps::Pairs : Steps::WidenedPairs;
}

// Even chunks of whole vectors. Those of bytes leave no rest, or there is one: steps do not cross them.
void choose_chunks(const plan::Convolution& conv, Geometry& geometry) {
  constexpr int64_t kGranule = 16;
  const int64_t taps = conv.kernel_h * conv.kernel_w;
  const bool has_bytes = conv.formats.weight == DType::I8;
  const int64_t size = static_cast<int64_t>(dtype_size(conv.formats.weight));
  const int64_t depth = kChunkDepth * std::max<int64_t>(1, 4 / size);
  const int64_t most = std::max(kGranule, depth / taps / kGranule * kGranule);
  const int64_t channels = geometry.group_channels;
  const int64_t wanted = (channels + most - 1) / most;
  geometry.chunk = channels;
  if (wanted > 1) {
    const int64_t even = ((channels + wanted - 1) / wanted + kGranule - 1) / kGranule * kGranule;
    geometry.chunk = even;
    // One that leaves no rest, if there is one of much the same size.
    while (geometry.chunk > even / 2 && channels % geometry.chunk != 0) geometry.chunk -= kGranule;
    if (channels % geometry.chunk != 0) geometry.chunk = has_bytes ? channels : even;
  }
  geometry.chunks = (channels + geometry.chunk - 1) / geometry.chunk;
}

// Where the pixels of the copy lie. An input that could be read where it lies is copied too if its pixels
// compete for the cache.
void choose_pixel(const plan::Convolution& conv, Geometry& geometry) {
  auto aliases = [&](int64_t pixel) {
    return pixel * geometry.read_bytes * conv.stride_w % kAliasBytes == 0;
  };
  geometry.copies |= aliases(conv.channels) && positive_opt(conv.x.extent()) > 1;
  geometry.pixel = conv.channels + geometry.padding;
  if (!geometry.copies) return;
  geometry.has_planes = geometry.chunk * geometry.read_bytes >= kPlaneBytes;
  if (geometry.has_planes) geometry.pixel = geometry.chunk + geometry.padding;
  if (aliases(geometry.pixel)) geometry.pixel += kLineBytes / geometry.read_bytes;
}

// The pixels of a kernel row lie one after another when nothing is skipped between them, and so do their
// weights unless the last chunk is smaller.
void choose_run(const plan::Convolution& conv, Geometry& geometry) {
  const bool is_even = geometry.chunk * geometry.chunks == geometry.group_channels;
  const int64_t taken = geometry.chunk + geometry.padding;
  const bool is_dense = conv.dilation_w == 1 && geometry.pixel == taken && is_even;
  geometry.is_joined = conv.kernel_w == 1 || is_dense;
  geometry.run = taken * (is_dense ? conv.kernel_w : 1);
}

Geometry geometry_of(const plan::Program& program, const plan::Convolution& conv,
                     const Target& target) {
  Geometry geometry;
  KILN_CHECK(conv.o.extent().is_constant(), "the number of output channels is constant");
  geometry.group_channels = conv.channels / conv.groups;
  geometry.group_outputs = conv.o.extent().constant() / conv.groups;
  geometry.depth = conv.kernel_h * conv.kernel_w * geometry.group_channels;
  geometry.span_h = (conv.kernel_h - 1) * conv.dilation_h + 1;
  geometry.span_w = (conv.kernel_w - 1) * conv.dilation_w + 1;
  const ir::Dim rows = (conv.y.extent() - 1) * conv.stride_h + geometry.span_h;
  const ir::Dim columns = (conv.x.extent() - 1) * conv.stride_w + geometry.span_w;
  geometry.input = {program.buffers[conv.input].type.dtype, conv.formats.left,
                    conv.formats.accumulator};
  choose_chunks(conv, geometry);
  geometry.has_half = ends_with_half(target, conv, geometry);
  geometry.padding = choose_padding(target, conv, geometry);
  geometry.pixel = conv.channels + geometry.padding;
  choose_run(conv, geometry);
  geometry.steps = choose_steps(target, conv, geometry);
  const bool has_bytes = geometry.input.sum == DType::I32;
  geometry.read = has_bytes                        ? DType::U8
                  : geometry.steps == Steps::Pairs ? DType::BF16
                                                   : conv.formats.accumulator;
  geometry.read_bytes = ElementFormat(geometry.read).bytes();
  geometry.weight_bytes = ElementFormat(conv.formats.weight).bytes();
  geometry.input.sum = geometry.read;
  // The last step of a run of bytes may read beyond it.
  const bool is_whole = !has_bytes || geometry.run % geometry.step() == 0;
  const bool as_it_lies =
      geometry.steps == Steps::Pairs || (has_bytes && is_whole) || geometry.input.is_plain();
  geometry.copies = !as_it_lies || geometry.padding > 0 || !conv.pad_top.is_constant(0) ||
                    !conv.pad_left.is_constant(0) || !ir::provably_less_equal(rows, conv.height) ||
                    !ir::provably_less_equal(columns, conv.width);
  choose_pixel(conv, geometry);
  choose_run(conv, geometry);
  geometry.has_tiles =
      geometry.chunk * geometry.chunks == geometry.group_channels &&
      multiplies_tiles(target, geometry.steps, positive_opt(conv.x.extent()), geometry.run_steps());
  geometry.width = geometry.copies ? columns : conv.width;
  return geometry;
}

// How a convolution is cut in tasks. Task = (b, block of rows, group of
// panels).
struct Blocking {
  int64_t width = 16;        // of a panel
  int64_t panels = 1;        // of all groups
  int64_t group_panels = 1;  // at most, per task
  int64_t block_rows = 1;    // at most, per task
  ir::Dim row_blocks;
  int64_t panel_groups = 1;
};

Blocking choose_blocking(const plan::Convolution& conv, const Geometry& geometry) {
  Blocking blocking;
  blocking.width = panel_width(geometry.group_outputs, positive_opt(conv.x.extent()));
  blocking.panels = conv.groups * ((geometry.group_outputs + blocking.width - 1) / blocking.width);
  const int64_t rows = positive_opt(conv.y.extent());
  const int64_t row_bytes =
      ir::saturating_product({positive_opt(geometry.width), geometry.pixel, geometry.read_bytes});
  const int64_t fitting = (kInputBytes / row_bytes - geometry.span_h) / conv.stride_h + 1;
  blocking.block_rows = std::clamp<int64_t>(fitting, 1, rows);
  const int64_t panel_bytes = geometry.packed_depth() * blocking.width * geometry.weight_bytes;
  blocking.group_panels =
      std::clamp<int64_t>(kWeightBytes / std::max<int64_t>(1, panel_bytes), 1, blocking.panels);
  auto tasks = [&] {
    return ir::saturating_product(
        {positive_least(conv.b.extent()),
         (positive_least(conv.y.extent()) + blocking.block_rows - 1) / blocking.block_rows,
         (blocking.panels + blocking.group_panels - 1) / blocking.group_panels});
  };
  auto worth_splitting = [&](int64_t wanted) {
    const int64_t work =
        ir::saturating_product({blocking.block_rows, positive_opt(conv.x.extent()), geometry.depth,
                                blocking.group_panels, blocking.width});
    return tasks() < wanted && work >= 2 * (geometry.has_tiles ? kAmxWorkPerTask : kWorkPerTask);
  };
  while (blocking.group_panels > 1 && worth_splitting(kTasksWanted)) {
    blocking.group_panels = (blocking.group_panels + 1) / 2;
  }
  // Every block of rows reads all weights again.
  const bool small_weights = panel_bytes * blocking.panels <= kWeightBytes;
  const int64_t wanted = small_weights ? kTasksWanted : kFewTasksWanted;
  while (blocking.block_rows > kFewestRows && worth_splitting(wanted)) {
    blocking.block_rows = std::max(kFewestRows, blocking.block_rows / 2);
  }
  blocking.row_blocks = ir::ceildiv(conv.y.extent(), blocking.block_rows);
  blocking.panel_groups = (blocking.panels + blocking.group_panels - 1) / blocking.group_panels;
  return blocking;
}

class ConvolutionEmitter {
 public:
  ConvolutionEmitter(Emitter& emitter, const plan::Convolution& conv)
      : emitter_(emitter),
        ir_(emitter.ir()),
        conv_(conv),
        geometry_(geometry_of(emitter.program(), conv, emitter.target())),
        blocking_(choose_blocking(conv, geometry_)),
        tile_(tile_width(emitter.target(), blocking_.width)) {
    // A vector for narrow groups, where two would be half empty.
    const int lanes = emitter.target().lanes();
    if (geometry_.has_tiles) {
      tile_.vectors = amx_columns(blocking_.width, tile_rest());
      tile_.columns = tile_.vectors * kAmxColumns;
    }
    if (geometry_.group_outputs <= lanes && tile_.vectors > 1) tile_ = {1, lanes};
  }

  void run() {
    if (geometry_.steps == Steps::Pairs) take_denormals_as_zero(*emitter_.function());
    emitter_.reserve_keys();
    declare();
    hoist();
    if (geometry_.has_tiles) configure_tiles();
    for_tasks(emitter_, 1, [&](Value* task, const Emitter::Carried& keys) {
      return Emitter::Carried{emit_task(task, keys[0])};
    });
    if (geometry_.has_tiles) amx_->release();
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  Value* value_of(const ir::Dim& dim) { return emitter_.value_of(dim); }
  Value* at(Value* base, Value* index, Value* stride) {
    return byte_offset(emitter_, base, ir_.CreateMul(index, stride));
  }

  int64_t pixel_bytes() const { return geometry_.pixel * geometry_.read_bytes; }
  ir::Dim row_bytes() const { return geometry_.width * pixel_bytes(); }
  // Of a copy of the rows of a block.
  ir::Dim plane_bytes() const {
    return row_bytes() * ((blocking_.block_rows - 1) * conv_.stride_h + geometry_.span_h);
  }
  int64_t planes() const { return geometry_.has_planes ? conv_.groups * geometry_.chunks : 1; }
  int64_t sum_bytes() const { return ElementFormat(conv_.formats.accumulator).bytes(); }

  // Scratch: the staged tile, the padded input rows of a block, then its sums in progress.
  void declare() {
    KernelInterface& interface = emitter_.interface();
    interface.tasks = conv_.b.extent() * blocking_.row_blocks * blocking_.panel_groups;
    interface.task_writes[conv_.out] =
        conv_.x.extent() * (blocking_.block_rows * blocking_.group_panels * blocking_.width);
    const int64_t work =
        ir::saturating_product({positive_opt(conv_.b.extent()), positive_opt(conv_.y.extent()),
                                positive_opt(conv_.x.extent()), geometry_.depth,
                                conv_.o.extent().constant() / conv_.groups});
    const int64_t worth = kMultiplyAddsPerThread * (geometry_.has_tiles ? kAmxWorkFactor : 1);
    interface.min_tasks_per_thread = tasks_per_thread(worth, work / positive_opt(interface.tasks));
    staging_ = emitter_.scratch();
    int64_t staging = TileWriter::staging_bytes(emitter_.target(), conv_.formats.accumulator,
                                                emitter_.program().buffers[conv_.out].type.dtype);
    if (geometry_.has_tiles) staging = kAmxSumsPlace + 2 * kAmxRows * tile_.vectors * kAmxRowBytes;
    padded_ = byte_offset(emitter_, emitter_.scratch(), i64(staging));
    ir::Dim scratch = staging;
    if (geometry_.copies) scratch += plane_bytes() * planes();
    if (geometry_.read == DType::U8) scratch += kLineBytes;  // what is read beyond a run
    if (geometry_.chunks > 1) {
      scratch = ir::ceildiv(scratch, kLineBytes) * kLineBytes;
      partial_ = byte_offset(emitter_, emitter_.scratch(), value_of(scratch));
      const ir::Dim pixels = geometry_.has_tiles
                                 ? ir::ceildiv(conv_.x.extent(), kAmxRows) * kAmxRows
                                 : conv_.x.extent();
      scratch += pixels * (blocking_.block_rows * tile_.columns * sum_bytes());
    }
    interface.scratch_bytes = ir::max(interface.scratch_bytes, scratch);
  }

  void hoist() {
    ConstantMatrix matrix;
    matrix.k_stride = 1;
    matrix.n_stride = geometry_.depth;
    matrix.k = geometry_.depth;
    matrix.n = geometry_.group_outputs;
    matrix.batches = conv_.groups;
    matrix.batch_stride = geometry_.depth * geometry_.group_outputs;
    matrix.weight = conv_.formats.weight;
    matrix.step = geometry_.step();
    if (geometry_.run % matrix.step != 0) matrix.run = geometry_.run;
    if (geometry_.padding > 0) matrix.run = geometry_.group_channels;
    if (geometry_.chunks > 1) {
      matrix.taps = conv_.kernel_h * conv_.kernel_w;
      matrix.chunk = geometry_.chunk;
    }
    weight_ =
        emitter_.buffer(pack_constant(emitter_.constants(), conv_.weight, matrix, blocking_.width));
    input_ = emitter_.buffer(conv_.input);
    out_ = emitter_.buffer(conv_.out);
    row_bytes_ = value_of(row_bytes());
    row_blocks_ = value_of(blocking_.row_blocks);
  }

  Value* emit_task(Value* task, Value* padded_key) {
    Value* place = ir_.CreateUDiv(task, i64(blocking_.panel_groups));  // (b, block of rows)
    Value* group = ir_.CreateURem(task, i64(blocking_.panel_groups));
    Value* b = ir_.CreateUDiv(place, row_blocks_);
    Value* block = ir_.CreateSub(place, ir_.CreateMul(b, row_blocks_));
    emitter_.bind(conv_.b.index, b);
    Span rows = even_part(emitter_, block, row_blocks_, value_of(conv_.y.extent()));
    Value* first_panel = ir_.CreateMul(group, i64(blocking_.group_panels));
    Value* last_panel = smaller(emitter_, ir_.CreateAdd(first_panel, i64(blocking_.group_panels)),
                                i64(blocking_.panels));
    if (geometry_.copies) {
      when(emitter_, ir_.CreateICmpNE(place, padded_key), [&] { copy_rows(b, rows); });
    }
    emitter_.loop(first_panel, last_panel, 1, [&](Value* panel) { emit_panel(b, rows, panel); });
    return place;
  }

  // The input rows of a block of output rows, with zeros around them.
  void copy_rows(Value* b, Span rows) {
    const int64_t pixel = geometry_.pixel;
    Value* height = value_of(conv_.height);
    Value* needed =
        ir_.CreateAdd(ir_.CreateMul(ir_.CreateSub(rows.count, i64(1)), i64(conv_.stride_h)),
                      i64(geometry_.span_h));
    Value* first =
        ir_.CreateSub(ir_.CreateMul(rows.begin, i64(conv_.stride_h)), value_of(conv_.pad_top));
    const ir::Dim kept = ir::max(ir::min(conv_.width, geometry_.width - conv_.pad_left), 0);
    const Margins margins{value_of(conv_.pad_left * pixel), value_of(kept),
                          value_of((geometry_.width - conv_.pad_left - kept) * pixel),
                          value_of(geometry_.width * pixel)};
    const int64_t input_bytes = ElementFormat(geometry_.input.memory).bytes();
    Value* input_row_bytes = value_of(conv_.width * (conv_.channels * input_bytes));
    Value* plane = value_of(plane_bytes());
    emitter_.loop(i64(0), needed, 1, [&](Value* r) {
      Value* row = ir_.CreateAdd(first, r);
      Value* to = at(padded_, r, row_bytes_);
      Value* outside = ir_.CreateICmpUGE(row, height);  // negative rows too
      Value* from = at(input_, ir_.CreateAdd(ir_.CreateMul(b, height), row), input_row_bytes);
      emitter_.loop(i64(0), i64(planes()), 1, [&](Value* p) {
        Value* count = i64(conv_.channels);
        Value* channel = i64(0);
        if (geometry_.has_planes) {
          Value* group = ir_.CreateUDiv(p, i64(geometry_.chunks));
          Value* in_group =
              ir_.CreateMul(ir_.CreateURem(p, i64(geometry_.chunks)), i64(geometry_.chunk));
          Value* left = ir_.CreateSub(i64(geometry_.group_channels), in_group);
          count = smaller(emitter_, i64(geometry_.chunk), left);
          channel = ir_.CreateAdd(ir_.CreateMul(group, i64(geometry_.group_channels)), in_group);
        }
        copy_row(at(to, p, plane), {at(from, channel, i64(input_bytes)), count, outside}, margins);
      });
    });
  }

  // Of a row of the copy: elements of the borders and of all, and pixels between the borders.
  struct Margins {
    Value *left = nullptr, *pixels = nullptr, *right = nullptr, *whole = nullptr;
  };

  // What a plane takes of an input row: `count` channels of each pixel, or nothing.
  struct RowPart {
    Value *from = nullptr, *count = nullptr, *outside = nullptr;
  };

  void copy_row(Value* to, const RowPart& part, const Margins& margins) {
    Value* read_bytes = i64(geometry_.read_bytes);
    when(emitter_, part.outside, [&] { emit_padding(to, margins.whole); });
    when(emitter_, ir_.CreateNot(part.outside), [&] {
      emit_padding(to, margins.left);
      Value* inside = at(to, margins.left, read_bytes);
      if (geometry_.pixel == conv_.channels) {
        Value* count = ir_.CreateMul(margins.pixels, i64(conv_.channels));
        emit_copy(emitter_, inside, {part.from, nullptr, count, geometry_.input});
      } else if (geometry_.padding > 0 && pixel_bytes() <= kSpreadBytes) {
        const int channels = static_cast<int>(conv_.channels);
        emit_spread(emitter_, inside, part.from, margins.pixels,
                    {channels, static_cast<int>(geometry_.pixel)});
      } else {
        const int64_t input_pixel = conv_.channels * ElementFormat(geometry_.input.memory).bytes();
        emitter_.loop(i64(0), margins.pixels, 1, [&](Value* x) {
          Value* pixel = at(inside, x, i64(pixel_bytes()));
          emit_copy(emitter_, pixel,
                    {at(part.from, x, i64(input_pixel)), nullptr, part.count, geometry_.input});
          if (geometry_.padding == 0) return;
          Value* end = at(pixel, part.count, read_bytes);
          ir_.CreateAlignedStore(ir_.getInt16(0), end, llvm::Align(2));
        });
      }
      Value* pixels = ir_.CreateMul(margins.pixels, i64(pixel_bytes()));
      emit_padding(byte_offset(emitter_, inside, pixels), margins.right);
    });
  }

  void emit_padding(Value* to, Value* count) {
    if (geometry_.read == DType::U8)
      return emit_fill_bytes(emitter_, to, count, static_cast<uint8_t>(conv_.padding));
    emit_zeros(emitter_, to, count, geometry_.read);
  }

  // What the tiles of a block of rows and some columns of outputs share.
  struct Strip {
    Value* b = nullptr;
    Span rows;
    Value* group = nullptr;
    Value* weight = nullptr;
    Value *column = nullptr, *end = nullptr;
    // Of several chunks: the first channel of this one, how many there are, and whether it is the last.
    Value *channel = nullptr, *channels = nullptr, *is_last = nullptr;
  };

  // Output rows of a tile: more than one if they are short, and their width is known.
  int rows_at_once() const {
    if (!conv_.x.extent().is_constant()) return 1;
    return static_cast<int>(std::max<int64_t>(1, most_pixels() / positive_opt(conv_.x.extent())));
  }

  void emit_panel(Value* b, Span rows, Value* panel) {
    const int64_t group_panels = blocking_.panels / conv_.groups;
    Value* group = ir_.CreateUDiv(panel, i64(group_panels));
    Value* in_group = ir_.CreateMul(ir_.CreateURem(panel, i64(group_panels)), i64(blocking_.width));
    Value* first = ir_.CreateAdd(ir_.CreateMul(group, i64(geometry_.group_outputs)), in_group);
    Value* end = ir_.CreateMul(ir_.CreateAdd(group, i64(1)), i64(geometry_.group_outputs));
    const int64_t size = geometry_.weight_bytes;
    Value* weight = at(weight_, panel, i64(geometry_.packed_depth() * blocking_.width * size));
    Value* width = smaller(emitter_, i64(blocking_.width), ir_.CreateSub(end, first));
    emitter_.loop(i64(0), width, tile_.columns, [&](Value* strip) {
      Strip place{b,
                  rows,
                  group,
                  at(weight, strip, i64(size * geometry_.step())),
                  ir_.CreateAdd(first, strip),
                  end};
      if (geometry_.chunks == 1) return emit_strip(place);
      Value* pixels = ir_.CreateMul(rows.count, value_of(conv_.x.extent()));
      if (!geometry_.has_tiles) {
        emit_zeros(emitter_, partial_, ir_.CreateMul(pixels, i64(tile_.columns)),
                   conv_.formats.accumulator);
      }
      Value* channels = i64(geometry_.group_channels);
      emitter_.loop(i64(0), channels, geometry_.chunk, [&](Value* channel) {
        Value* next = ir_.CreateAdd(channel, i64(geometry_.chunk));
        place.channel = channel;
        place.channels = ir_.CreateSub(smaller(emitter_, next, channels), channel);
        place.is_last = ir_.CreateICmpSGE(next, channels);
        emit_strip(place);
      });
    });
  }

  // Steps of a run beyond whole tiles.
  int64_t tile_rest() const { return geometry_.run_steps() % geometry_.tile_steps(); }

  void configure_tiles() {
    const ir::Dim& width = conv_.x.extent();
    amx_rows_ = amx_rows(emitter_, range_of(width), value_of(width));
    const bool has_bytes = geometry_.read == DType::U8;
    amx_.emplace(emitter_, AmxShape{has_bytes, tile_.vectors, amx_rows_, tile_rest(),
                                    geometry_.tile_steps()});
    amx_->configure(staging_);
  }

  // By tiles of pixels, two at a time, none of which is in two output rows. Sums in progress are tiles.
  void emit_tiles(const Strip& strip) {
    Value* width = value_of(conv_.x.extent());
    Value* in_row = ir_.CreateAdd(width, ir_.CreateSub(amx_rows_, i64(1)));
    in_row = ir_.CreateUDiv(in_row, amx_rows_);
    const bool is_whole = strip.is_last == nullptr;
    Value* sums = is_whole ? byte_offset(emitter_, staging_, i64(kAmxSumsPlace)) : partial_;
    const auto place = [&](Value* tile) {
      Value* r = ir_.CreateUDiv(tile, in_row);
      Value* number = ir_.CreateSub(tile, ir_.CreateMul(r, in_row));
      return std::pair(r, amx_row_span(emitter_, number, amx_rows_, width));
    };
    const auto compute = [&](Value* first, int count) {
      AmxOperands operands;
      for (int i = 0; i < count; ++i) {
        const auto [r, pixels] = place(ir_.CreateAdd(first, i64(i)));
        operands.a.push_back(
            at(input_row(strip, r), pixels.first, i64(conv_.stride_w * pixel_bytes())));
      }
      operands.b = chunk_weight(strip);
      if (tile_.columns == blocking_.width) prefetch_weights(operands, first);
      Value* to = is_whole ? sums : at(sums, first, i64(amx_->tile_bytes()));
      if (is_whole) {
        amx_->clear(count);
      } else {
        Value* begins = ir_.CreateICmpEQ(strip.channel, i64(0));
        when(emitter_, begins, [&] { amx_->clear(count); });
        when(emitter_, ir_.CreateNot(begins), [&] { amx_->load(count, to); });
      }
      multiply_positions(std::move(operands));
      amx_->store(count, to);
    };
    const auto finish = [&](Value* tile, Value* in_block) {
      const auto [r, pixels] = place(tile);
      emitter_.bind(conv_.y.index, ir_.CreateAdd(strip.rows.begin, r));
      auto bind_row = [this](Value* x) { emitter_.bind(conv_.x.index, x); };
      Value* from = at(at(sums, is_whole ? in_block : tile, i64(amx_->tile_bytes())), pixels.done,
                       i64(amx_->row_bytes()));
      TileWriter writer(emitter_, output(strip, bind_row), from, TileWriter::kStaged);
      writer.finish(tile_.vectors, ir_.CreateSub(amx_rows_, pixels.done), output_row(strip, r),
                    ir_.CreateAdd(pixels.first, pixels.done), strip.column);
    };
    for_amx_blocks(
        emitter_, ir_.CreateMul(strip.rows.count, in_row), compute,
        [&](Value* tile, Value* in_block) { when_last(strip, [&] { finish(tile, in_block); }); });
  }

  void prefetch_weights(AmxOperands& operands, Value* first_tile) {
    operands.b_stride = blocking_.width * kAmxStepBytes;
    const int64_t in_row = (positive_opt(conv_.x.extent()) + kAmxRows - 1) / kAmxRows;
    // Every block reads all of a chunk of the panel: what they fetch is the next one.
    const int64_t panel =
        geometry_.packed_depth() / geometry_.chunks * blocking_.width * geometry_.weight_bytes;
    operands.prefetch_b(emitter_, (blocking_.block_rows * in_row + 1) / 2,
                        ir_.CreateUDiv(first_tile, i64(2)), panel);
  }

  // All kernel positions of a block of tiles, of which `operands` has the first.
  void multiply_positions(AmxOperands operands) {
    const int64_t runs = geometry_.is_joined ? 1 : conv_.kernel_w;
    operands.a_stride = i64(conv_.stride_w * pixel_bytes());
    operands.b_stride = blocking_.width * kAmxStepBytes;
    operands.tiles = i64(geometry_.run_steps() / geometry_.tile_steps());
    const std::vector<Value*> pixels = operands.a;
    emitter_.loop_carrying(
        i64(0), i64(conv_.kernel_h), 1, {operands.b}, [&](Value* ky, const auto& outer) {
          Value* down = ir_.CreateMul(ky, ir_.CreateMul(row_bytes_, i64(conv_.dilation_h)));
          return emitter_.loop_carrying(
              i64(0), i64(runs), 1, outer, [&](Value* kx, const auto& inner) {
                Value* right = ir_.CreateMul(kx, i64(conv_.dilation_w * pixel_bytes()));
                AmxOperands run = operands;
                for (size_t i = 0; i < pixels.size(); ++i)
                  run.a[i] = byte_offset(emitter_, pixels[i], ir_.CreateAdd(down, right));
                run.b = inner[0];
                return Emitter::Carried{amx_->multiply(run)};
              });
        });
  }

  void emit_strip(const Strip& strip) {
    if (geometry_.has_tiles) return emit_tiles(strip);
    if (rows_at_once() > 1) return emit_whole_rows(strip);
    if (crosses_rows()) return emit_pixels(strip);
    emitter_.loop(i64(0), strip.rows.count, 1, [&](Value* r) { emit_row(strip, r); });
  }

  // Where output row `r` of the block starts to read, for channel 0 of a group.
  Value* input_row(const Strip& strip, Value* r) {
    Value* base = padded_;
    Value* row = ir_.CreateMul(r, i64(conv_.stride_h));
    if (!geometry_.copies) {
      row = ir_.CreateAdd(row, ir_.CreateMul(strip.rows.begin, i64(conv_.stride_h)));
      row = ir_.CreateAdd(row, ir_.CreateMul(strip.b, value_of(conv_.height)));
      base = input_;
    }
    base = at(base, row, row_bytes_);
    Value* channel = strip.channel == nullptr ? i64(0) : strip.channel;
    if (geometry_.has_planes) {
      Value* plane = ir_.CreateAdd(ir_.CreateMul(strip.group, i64(geometry_.chunks)),
                                   ir_.CreateUDiv(channel, i64(geometry_.chunk)));
      return at(base, plane, value_of(plane_bytes()));
    }
    channel = ir_.CreateAdd(ir_.CreateMul(strip.group, i64(geometry_.group_channels)), channel);
    return at(base, channel, i64(geometry_.read_bytes));
  }

  // The address of the first pixel of output row `r` of the block.
  Value* output_row(const Strip& strip, Value* r) {
    Value* y = ir_.CreateAdd(strip.rows.begin, r);
    Value* row = ir_.CreateAdd(ir_.CreateMul(strip.b, value_of(conv_.y.extent())), y);
    const int64_t size = ElementFormat(emitter_.program().buffers[conv_.out].type.dtype).bytes();
    return at(out_, row, value_of(conv_.x.extent() * conv_.o.extent() * size));
  }

  // The tiles of one output row. The rows of the tile writer are x.
  void emit_row(const Strip& strip, Value* r) {
    emitter_.bind(conv_.y.index, ir_.CreateAdd(strip.rows.begin, r));
    Value* input = input_row(strip, r);
    Value* origin = output_row(strip, r);
    const CountRange columns = range_of(conv_.x.extent());
    const DType sum = conv_.formats.accumulator;
    const RowTiles tiles{
        value_of(conv_.x.extent()), columns,
        tile_rows(emitter_.target(), tile_.vectors, columns, sum, geometry_.steps)};
    auto bind_row = [this](Value* x) { emitter_.bind(conv_.x.index, x); };
    TileWriter writer(emitter_, output(strip, bind_row), staging_, count_sizes(tiles));
    for_row_tiles(
        emitter_, tiles,
        [&](Value* first, int count) {
          const Tile tile{count, tile_.vectors, sum, geometry_.steps};
          Value* pixel = at(input, first, i64(conv_.stride_w * pixel_bytes()));
          Value* index = ir_.CreateAdd(ir_.CreateMul(r, value_of(conv_.x.extent())), first);
          sum_tile(strip, tile, {pixel_offsets(1, count), pixel, index},
                   [&](const Accumulators& sums) {
                     writer.write(tile, sums, origin, first, strip.column);
                   });
        },
        [&](Value* first, Value* count) {
          when_last(strip,
                    [&] { writer.finish(tile_.vectors, count, origin, first, strip.column); });
        });
  }

  // Tiles of several whole rows. The rows of the tile writer are the pixels of the block.
  void emit_whole_rows(const Strip& strip) {
    const int64_t width = conv_.x.extent().constant();
    Value* origin = output_row(strip, i64(0));
    const CountRange counts = part_range(range_of(conv_.y.extent()), blocking_.block_rows);
    const RowTiles tiles{strip.rows.count, counts, rows_at_once()};
    TileWriter writer(emitter_, output(strip, pixel_binder(strip)), staging_, count_sizes(tiles));
    for_row_tiles(
        emitter_, tiles,
        [&](Value* first, int count) {
          const Tile tile{count * static_cast<int>(width), tile_.vectors, conv_.formats.accumulator,
                          geometry_.steps};
          Value* index = ir_.CreateMul(first, i64(width));
          sum_tile(strip, tile, {pixel_offsets(count, width), input_row(strip, first), index},
                   [&](const Accumulators& sums) {
                     writer.write(tile, sums, origin, index, strip.column);
                   });
        },
        [&](Value* first, Value* count) {
          when_last(strip, [&] {
            writer.finish(tile_.vectors, ir_.CreateMul(count, i64(width)), origin,
                          ir_.CreateMul(first, i64(width)), strip.column);
          });
        });
  }

  int most_pixels() const {
    return tile_rows(emitter_.target(), tile_.vectors, {1, 1}, conv_.formats.accumulator,
                     geometry_.steps);
  }

  // Whether tiles of pixels of two output rows save an eighth of them: 7 pixels are two tiles of 3 and 4, where 16
  // registers hold 6. With 32 registers, a tile of half as many rows as fit is no slower.
  bool crosses_rows() const {
    if (!conv_.x.extent().is_constant() || emitter_.target().registers >= 32) return false;
    const int64_t width = conv_.x.extent().constant(), most = most_pixels();
    const int64_t by_row = blocking_.block_rows * ((width + most - 1) / most);
    return 8 * ((blocking_.block_rows * width + most - 1) / most) <= 7 * by_row;
  }

  // Tiles of pixels, wherever their rows begin and end: each has its distance from the first of the block.
  void emit_pixels(const Strip& strip) {
    const int64_t width = conv_.x.extent().constant();
    const CountRange rows = part_range(range_of(conv_.y.extent()), blocking_.block_rows);
    const RowTiles tiles{ir_.CreateMul(strip.rows.count, i64(width)),
                         {rows.low * width, rows.high * width},
                         most_pixels()};
    Value* origin = output_row(strip, i64(0));
    Value* down = value_of(row_bytes() * conv_.stride_h);
    TileWriter writer(emitter_, output(strip, pixel_binder(strip)), staging_, count_sizes(tiles));
    for_row_tiles(
        emitter_, tiles,
        [&](Value* first, int count) {
          const Tile tile{count, tile_.vectors, conv_.formats.accumulator, geometry_.steps};
          TilePixels pixels{{}, input_row(strip, i64(0)), first};
          for (int i = 0; i < count; ++i) {
            Value* pixel = ir_.CreateAdd(first, i64(i));
            Value* y = ir_.CreateUDiv(pixel, i64(width));
            Value* x = ir_.CreateSub(pixel, ir_.CreateMul(y, i64(width)));
            Value* right = ir_.CreateMul(x, i64(conv_.stride_w * pixel_bytes()));
            Value* offset = ir_.CreateAdd(ir_.CreateMul(y, down), right);
            // LLVM would compute it in the loop.
            pixels.offsets.push_back(another_name(emitter_, offset));
          }
          sum_tile(strip, tile, std::move(pixels), [&](const Accumulators& sums) {
            writer.write(tile, sums, origin, first, strip.column);
          });
        },
        [&](Value* first, Value* count) {
          when_last(strip,
                    [&] { writer.finish(tile_.vectors, count, origin, first, strip.column); });
        });
  }

  // Binds y and x to those of a pixel of the block.
  std::function<void(Value*)> pixel_binder(const Strip& strip) {
    return [this, &strip, width = conv_.x.extent().constant()](Value* pixel) {
      Value* r = ir_.CreateUDiv(pixel, i64(width));
      emitter_.bind(conv_.y.index, ir_.CreateAdd(strip.rows.begin, r));
      emitter_.bind(conv_.x.index, ir_.CreateSub(pixel, ir_.CreateMul(r, i64(width))));
    };
  }

  // Where the pixels of `rows` output rows of `width` pixels read, relative to the first.
  std::vector<Value*> pixel_offsets(int64_t rows, int64_t width) {
    std::vector<Value*> offsets;
    for (int64_t y = 0; y < rows; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        offsets.push_back(
            value_of(row_bytes() * (y * conv_.stride_h) + x * conv_.stride_w * pixel_bytes()));
      }
    }
    return offsets;
  }

  // The weights of a chunk.
  Value* chunk_weight(const Strip& strip) {
    if (strip.channel == nullptr) return strip.weight;
    const int64_t taps = conv_.kernel_h * conv_.kernel_w;
    return at(strip.weight, strip.channel, i64(taps * blocking_.width * geometry_.weight_bytes));
  }

  void when_last(const Strip& strip, const std::function<void()>& body) {
    if (strip.is_last == nullptr) return body();
    when(emitter_, strip.is_last, body);
  }

  // The pixels of a tile.
  struct TilePixels {
    std::vector<Value*> offsets;  // of what they read, relative to the first
    Value* input = nullptr;       // what the first reads
    Value* index = nullptr;       // of the first in the block
  };

  // Whether the tiles of a panel fetch the next one in turns: a tile alone would wait for what it reads first. A tile
  // that widens pairs or bytes has no registers left for it.
  bool shares_panels(const Strip& strip) const {
    const bool is_plain =
        geometry_.steps != Steps::WidenedPairs && geometry_.steps != Steps::WidenedQuads;
    return is_plain && strip.is_last == nullptr && tile_.columns == blocking_.width &&
           emitter_.target().registers >= 32 && conv_.x.extent().is_constant() &&
           block_pixels() >= kTilesThatShare * most_pixels();
  }
  int64_t block_pixels() const { return blocking_.block_rows * conv_.x.extent().constant(); }
  // As large a share as the tile has of the pixels, from that of its first on.
  void share_next_panel(TileOperands& operands, const Strip& strip, Value* pixel) {
    const int64_t step = blocking_.width * geometry_.weight_bytes * geometry_.step();
    const int64_t steps = geometry_.packed_depth() / geometry_.step(), pixels = block_pixels();
    operands.next_bytes = (step * static_cast<int64_t>(operands.rows.size()) + pixels - 1) / pixels;
    Value* panel = byte_offset(emitter_, strip.weight, i64(steps * step));
    operands.next_b = at(panel, pixel, i64(steps * step / pixels));
  }

  // All kernel positions of a chunk; `finish` gets the sums after the last.
  void sum_tile(const Strip& strip, Tile tile, TilePixels pixels,
                const std::function<void(const Accumulators&)>& finish) {
    if (strip.is_last == nullptr)
      return finish(add_positions(strip, tile, std::move(pixels), zero_tile(emitter_, tile)));
    const ElementFormat format(tile.sum);
    const int64_t vector = int64_t{emitter_.target().lanes()} * format.bytes();
    Value* base = at(partial_, pixels.index, i64(tile_.columns * format.bytes()));
    auto place = [&](size_t i) {
      return byte_offset(emitter_, base, i64(static_cast<int64_t>(i) * vector));
    };
    Accumulators sums;
    for (size_t i = 0; i < static_cast<size_t>(tile.rows) * tile.vectors; ++i)
      sums.push_back(format.load(ir_, place(i), emitter_.target().lanes()));
    sums = add_positions(strip, tile, std::move(pixels), std::move(sums));
    when(emitter_, strip.is_last, [&] { finish(sums); });
    when(emitter_, ir_.CreateNot(strip.is_last), [&] {
      for (size_t i = 0; i < sums.size(); ++i) format.store(ir_, sums[i], place(i));
    });
  }

  Accumulators add_positions(const Strip& strip, Tile tile, TilePixels pixels, Accumulators sums) {
    const int64_t runs = geometry_.is_joined ? 1 : conv_.kernel_w;
    TileOperands operands;
    const DType sum = conv_.formats.accumulator;
    operands.a_format = {sum, sum, sum};
    operands.b_format = {conv_.formats.weight, conv_.formats.right, sum};
    operands.a_step = i64(geometry_.read_bytes * geometry_.step());
    const int64_t column_bytes = geometry_.weight_bytes * geometry_.step();
    operands.b_step = i64(blocking_.width * column_bytes);
    operands.b_alignment = std::min<int64_t>(32, emitter_.target().lanes() * column_bytes);
    operands.prefetch_b = true;
    operands.rows = std::move(pixels.offsets);
    if (shares_panels(strip)) share_next_panel(operands, strip, pixels.index);
    Value* next_panel = operands.next_b;
    Value *steps = i64(geometry_.run_steps() - (geometry_.has_half ? 1 : 0)),
          *weight = strip.weight;
    if (strip.is_last != nullptr) {
      if (!geometry_.is_joined || conv_.kernel_w == 1)
        steps = ir_.CreateUDiv(strip.channels, i64(geometry_.step()));
      weight = chunk_weight(strip);
    }
    sums.insert(sums.begin(), weight);
    auto advance = [&](Value* position, Value* a, const std::vector<Value*>& values) {
      if (next_panel != nullptr)
        operands.next_b =
            at(next_panel, position, i64(geometry_.run_steps() * operands.next_bytes));
      Run run{a, values[0], Accumulators(values.begin() + 1, values.end())};
      run = multiply_run(emitter_, tile, operands, steps, std::move(run));
      if (geometry_.has_half) run = multiply_half_pair(emitter_, tile, operands, std::move(run));
      run.sums.insert(run.sums.begin(), run.b);
      return run.sums;
    };
    auto kernel_row = [&](Value* ky, const std::vector<Value*>& values) {
      Value* row = at(pixels.input, ky, ir_.CreateMul(row_bytes_, i64(conv_.dilation_h)));
      Value* position = ir_.CreateMul(ky, i64(runs));
      if (runs == 1) return advance(position, row, values);
      return emitter_.loop_carrying(
          i64(0), i64(runs), 1, values, [&](Value* kx, const std::vector<Value*>& inner) {
            return advance(ir_.CreateAdd(position, kx),
                           at(row, kx, i64(conv_.dilation_w * pixel_bytes())), inner);
          });
    };
    sums = conv_.kernel_h == 1
               ? kernel_row(i64(0), sums)
               : emitter_.loop_carrying(i64(0), i64(conv_.kernel_h), 1, sums, kernel_row);
    sums.erase(sums.begin());
    return sums;
  }

  Output output(const Strip& strip, std::function<void(Value*)> bind_row) {
    Output output;
    output.bind_row = std::move(bind_row);
    output.column = conv_.o.index;
    output.sum = conv_.formats.accumulator;
    output.column_end = strip.end;
    output.columns = geometry_.group_outputs;
    output.buffer = conv_.out;
    output.row_stride = conv_.o.extent();
    output.column_stride = 1;
    output.epilogue = conv_.epilogue;
    if (geometry_.has_tiles) output.lane_slot = byte_offset(emitter_, staging_, i64(kAmxSlotPlace));
    return output;
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const plan::Convolution& conv_;
  Geometry geometry_;
  Blocking blocking_;
  TileWidth tile_;
  Value *staging_ = nullptr, *padded_ = nullptr, *partial_ = nullptr;
  Value *weight_ = nullptr, *input_ = nullptr, *out_ = nullptr;
  Value *row_bytes_ = nullptr, *row_blocks_ = nullptr;
  Value* amx_rows_ = nullptr;
  std::optional<AmxTiles> amx_;
};

// Winograd's products are in f32 throughout, so that what multiplies bf16 faster than that may take less time for
// the sum as it is written. All levels share a plan, which is made for those that do not.
bool takes_winograd(const plan::Program& program, const plan::Convolution& conv,
                    const Target& target, const Geometry& geometry) {
  if (conv.winograd == 0) return false;
  if (geometry.steps != Steps::Pairs) return true;
  if (geometry.has_tiles) return false;
  // On Intel's cores vdpbf16ps is no faster than what it stands for in f32, on AMD's it is twice as fast.
  const int64_t rate = target.has(Feature::AmxBf16) ? 1 : 2;
  const auto& costs = program.traits.winograd;
  return !costs || plan::is_worth_winograd(conv, *costs, rate);
}

}  // namespace

void emit_convolution(Emitter& emitter, const plan::Convolution& conv) {
  const plan::Program& program = emitter.program();
  const Target& target = emitter.target();
  if (takes_winograd(program, conv, target, geometry_of(program, conv, target)))
    return emit_winograd(emitter, conv);
  ConvolutionEmitter(emitter, conv).run();
}

bool multiplies_pairs(const plan::Program& program, const plan::Convolution& conv,
                      const Target& target) {
  return geometry_of(program, conv, target).steps == Steps::Pairs;
}

bool multiplies_tiles(const plan::Program& program, const plan::Convolution& conv,
                      const Target& target) {
  return geometry_of(program, conv, target).has_tiles;
}

}  // namespace kiln::cpu
