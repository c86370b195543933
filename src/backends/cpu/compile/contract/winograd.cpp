// Convolutions of 3x3 by Winograd's algorithm (Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks", 2015): F(m, 3) computes a tile of m x m results from n x n pixels, n = m + 2, with n * n
// products where the sum as it is written takes 9 * m * m: 16 instead of 36 for m = 2, 36 instead of 144
// for m = 4.
//
// A filter and a row of pixels are polynomials, and results are coefficients of their product (its
// transpose, to be exact). A product of polynomials follows from its values at n - 1 points and at infinity,
// which are products of the factors' values there. In two dimensions, with d the pixels, g the filter:
//
//   result = A^T [ (G g G^T) o (B^T d B) ] A          o: element by element
//
// The element-wise products of all channels are summed before A is applied, so that each of the n * n elements
// is a matrix product of its own: (tiles x channels) * (channels x outputs). A task does, for a block of tiles:
//
//   1. B^T d B of all channels, to scratch: n * n matrices. Kept for the thread's next tasks of the same block.
//   2. for each strip of outputs, n * n products with the filters, which were transformed and packed when
//      the model was compiled ([panels][n * n][channels][width]), to scratch
//   3. A^T m A of each tile, and the epilogue over its pixels.
//
// Where that would be few tasks, one is a part of the tiles of a block; a call that has neighbouring parts
// computes them as one, so that a thread alone reads the filters no more often than without parts.
//
// The points decide the rounding errors, since results come of differences of larger numbers. F(4, 3) uses 0,
// +-sqrt(2), +-sqrt(1/2) and infinity, of the best sets in Barabasz, Anderson, Soodhalter and Gregg, "Error
// Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020; the usual 0, +-1,
// +-2 double the error. What depends on the points is B^T and A^T here and G in device/made_constants.cpp; their rows
// may be scaled as long as that cancels.
//
// A pixel that is infinite or NaN, or an overflow on the way, makes a whole tile infinite or NaN, where a direct
// sum spreads it over 3x3 results. So a tile with such a result is summed again as the sum is written, with the
// filters as they were: rare, slow and right.
#include <algorithm>
#include <array>
#include <cmath>

#include "backends/cpu/compile/contract/contraction.h"
#include "backends/cpu/compile/contract/pack.h"
#include "ir/size_overflow.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

// Of the transformed pixels and the products of a task: most of a second-level cache of 1 MiB. Filters
// are read again for each block: fewer tiles would not be worth that, whatever they take.
constexpr int64_t kBlockBytes = 768 << 10;
constexpr int64_t kFewestTiles = 56, kMostTiles = 168;
constexpr int64_t kWorkPerTask = 2'000'000;  // multiply-adds
constexpr int64_t kTasksWanted = 128;
// With fewer tasks than this blocks have parts: the filters are read again for each.
constexpr int64_t kFewTasksWanted = 16;
constexpr int64_t kFewestPartTiles = 8;
constexpr int64_t kAlignment = 64;
constexpr int64_t kTaps = 9;

using Vectors = std::vector<Value*>;

// The one-dimensional transforms, in as few operations as the points allow.
class Transform {
 public:
  Transform(Emitter& emitter, int64_t results)
      : ir_(emitter.ir()), type_(vector_type(emitter, DType::F32)), results_(results) {}

  // B^T d: n values.
  Vectors input(const Vectors& d) {
    if (results_ == 2)  // 0, 1, -1 and infinity
      return {ir_.CreateFSub(d[0], d[2]), ir_.CreateFAdd(d[1], d[2]), ir_.CreateFSub(d[2], d[1]),
              ir_.CreateFSub(d[3], d[1])};
    Value* even = plus(d[4], -0.5, d[2]);
    Value* odd = plus(d[3], -0.5, d[1]);
    Value* even_small = plus(d[4], -2, d[2]);
    Value* odd_small = plus(d[3], -2, d[1]);
    return {ir_.CreateFAdd(plus(d[4], -2.5, d[2]), d[0]),
            plus(even, kLarge, odd),
            plus(even, -kLarge, odd),
            plus(even_small, kSmall, odd_small),
            plus(even_small, -kSmall, odd_small),
            ir_.CreateFAdd(plus(d[5], -2.5, d[3]), d[1])};
  }

  // A^T s: m values.
  Vectors output(const Vectors& s) {
    Value* sum = ir_.CreateFAdd(s[1], s[2]);
    Value* difference = ir_.CreateFSub(s[1], s[2]);
    if (results_ == 2) return {ir_.CreateFAdd(s[0], sum), ir_.CreateFAdd(difference, s[3])};
    Value* sum_small = ir_.CreateFAdd(s[3], s[4]);
    Value* difference_small = ir_.CreateFSub(s[3], s[4]);
    return {ir_.CreateFAdd(s[0], ir_.CreateFAdd(sum, sum_small)),
            plus(times(kLarge, difference), kSmall, difference_small),
            plus(times(2, sum), 0.5, sum_small),
            plus(plus(s[5], 2 * kLarge, difference), kSmall / 2, difference_small)};
  }

 private:
  static constexpr double kLarge = 1.41421356237309505, kSmall = kLarge / 2;

  Value* constant(double value) { return llvm::ConstantFP::get(type_, value); }
  Value* times(double factor, Value* a) { return ir_.CreateFMul(constant(factor), a); }
  // a + factor * b
  Value* plus(Value* a, double factor, Value* b) {
    return ir_.CreateIntrinsic(llvm::Intrinsic::fma, {type_}, {constant(factor), b, a});
  }

  llvm::IRBuilder<>& ir_;
  llvm::Type* type_;
  int64_t results_;
};

class WinogradEmitter {
 public:
  WinogradEmitter(Emitter& emitter, const plan::Convolution& conv)
      : emitter_(emitter),
        ir_(emitter.ir()),
        conv_(conv),
        results_(conv.winograd),
        side_(conv.winograd + 2),
        outputs_(conv.o.extent().constant()),
        lanes_(emitter.target().lanes()),
        pixel_(emitter.program().buffers[conv.input].type.dtype) {
    tiles_y_ = ir::ceildiv(conv.y.extent(), results_);
    tiles_x_ = ir::ceildiv(conv.x.extent(), results_);
    tiles_ = conv.b.extent() * tiles_y_ * tiles_x_;
    row_bytes_ = staged_row_bytes(conv.channels, DType::F32).constant();
    choose_blocking();
  }

  void run() {
    // As what multiplies bf16 otherwise rounds its results there.
    if (conv_.formats.weight == DType::BF16 && emitter_.target().has(Feature::Avx512Bf16))
      take_denormals_as_zero(*emitter_.function());
    emitter_.reserve_keys();
    declare();
    hoist();
    // Tasks by the block and the group that they are parts of.
    Value* begin = ir_.CreateUDiv(emitter_.task_begin(), i64(parts_));
    Value* end = ir_.CreateUDiv(ir_.CreateAdd(emitter_.task_end(), i64(parts_ - 1)), i64(parts_));
    for_tasks(emitter_, {begin, end}, 2,
              [&](Value* whole, const Emitter::Carried& keys) { return emit_parts(whole, keys); });
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  Value* value_of(const ir::Dim& dim) { return emitter_.value_of(dim); }
  Value* at(Value* base, Value* index, int64_t bytes) {
    return byte_offset(emitter_, base, ir_.CreateMul(index, i64(bytes)));
  }
  Value* at(Value* base, int64_t offset) { return byte_offset(emitter_, base, i64(offset)); }

  int64_t points() const { return side_ * side_; }
  int64_t vector_bytes() const { return int64_t{lanes_} * 4; }
  int64_t strip_bytes() const { return tile_.columns * 4; }
  int64_t pixel_bytes() const { return conv_.channels * pixel_.bytes(); }
  // Of a vector of channels of the patch, which is as the input is.
  int64_t patch_bytes() const { return lanes_ * pixel_.bytes(); }

  void choose_blocking() {
    const int64_t tiles = positive_opt(tiles_);
    width_ = panel_width(outputs_, std::min(tiles, kFewestTiles));
    tile_ = tile_width(emitter_.target(), width_);
    panels_ = (outputs_ + width_ - 1) / width_;
    const int64_t fitting = kBlockBytes / (points() * (row_bytes_ + width_ * 4));
    block_tiles_ = std::clamp(fitting, kFewestTiles, kMostTiles);
    block_tiles_ = std::clamp<int64_t>(tiles_.upper_bound(), 1, block_tiles_);
    blocks_ = ir::ceildiv(tiles_, block_tiles_);
    const int64_t work =
        ir::saturating_product({std::min(tiles, block_tiles_), points(), conv_.channels, width_});
    const int64_t least = positive_least(tiles_);
    const int64_t blocks = (least + block_tiles_ - 1) / block_tiles_;
    group_panels_ = std::clamp<int64_t>(kWorkPerTask / std::max<int64_t>(1, work), 1, panels_);
    while (group_panels_ > 1 &&
           blocks * ((panels_ + group_panels_ - 1) / group_panels_) < kTasksWanted &&
           group_panels_ * work >= 2 * kMultiplyAddsPerThread) {
      group_panels_ = (group_panels_ + 1) / 2;
    }
    groups_ = (panels_ + group_panels_ - 1) / group_panels_;
    while (blocks * groups_ * parts_ < kFewTasksWanted &&
           std::min(tiles, block_tiles_) >= 2 * parts_ * kFewestPartTiles &&
           group_panels_ * work >= 2 * parts_ * kMultiplyAddsPerThread) {
      parts_ *= 2;
    }
  }
  int64_t part_tiles() const { return (block_tiles_ + parts_ - 1) / parts_; }

  // Scratch: results of a tile, the pixels of a tile at a border, transformed pixels of a block, products.
  void declare() {
    KernelInterface& interface = emitter_.interface();
    interface.tasks = blocks_ * (groups_ * parts_);
    interface.task_writes[conv_.out] = part_tiles() * results_ * results_ * group_panels_ * width_;
    const int64_t work =
        ir::saturating_product({positive_opt(tiles_), points(), conv_.channels, outputs_});
    interface.min_tasks_per_thread =
        tasks_per_thread(kMultiplyAddsPerThread, work / positive_opt(interface.tasks));
    int64_t bytes = 0;
    auto take = [&](int64_t size) {
      Value* start = at(emitter_.scratch(), bytes);
      bytes += (size + kAlignment - 1) / kAlignment * kAlignment;
      return start;
    };
    staging_ = take(results_ * results_ * strip_bytes());
    patch_ = take(points() * patch_bytes());
    pixels_ = take(points() * block_tiles_ * row_bytes_);
    products_ = take(points() * block_tiles_ * strip_bytes());
    interface.scratch_bytes = ir::max(interface.scratch_bytes, ir::Dim(bytes));
  }

  void hoist() {
    ConstantMatrix matrix;
    matrix.k_stride = 1;
    matrix.n = outputs_;
    matrix.k = matrix.n_stride = kTaps * conv_.channels;
    matrix.batch_stride = matrix.k * matrix.n;
    // Packed as the sum as it is written reads them, where that is simple: another level may.
    matrix.weight = conv_.formats.weight;
    filter_step_ = matrix.step = matrix.weight == DType::BF16 && conv_.channels % 2 == 0 ? 2 : 1;
    filter_width_ =
        filter_step_ == 1 ? width_ : panel_width(outputs_, positive_opt(conv_.x.extent()));
    const plan::BufferId filters =
        pack_constant(emitter_.constants(), conv_.weight, matrix, filter_width_);
    weight_ = emitter_.buffer(emitter_.constants().made_at_load(
        {filters, matrix.weight, static_cast<int32_t>(results_), conv_.channels, outputs_,
         static_cast<int32_t>(width_), static_cast<int32_t>(filter_width_),
         static_cast<int32_t>(filter_step_)}));
    filters_ = emitter_.buffer(filters);
    input_ = emitter_.buffer(conv_.input);
    out_ = emitter_.buffer(conv_.out);
    blocks_value_ = value_of(blocks_);
    tiles_value_ = value_of(tiles_);
  }

  // Of a block of tiles and a group of panels those parts that the call has. The keys are the block, and a bit for
  // each part of it whose pixels are transformed.
  Emitter::Carried emit_parts(Value* whole, const Emitter::Carried& keys) {
    Value* block = ir_.CreateUDiv(whole, i64(groups_));
    Value* group = ir_.CreateURem(whole, i64(groups_));
    Value* first_task = ir_.CreateMul(whole, i64(parts_));
    Parts parts;
    parts.block = even_part(emitter_, block, blocks_value_, tiles_value_);
    parts.begin = ir_.CreateBinaryIntrinsic(
        llvm::Intrinsic::smax, ir_.CreateSub(emitter_.task_begin(), first_task), i64(0));
    parts.end = smaller(emitter_, ir_.CreateSub(emitter_.task_end(), first_task), i64(parts_));
    Value* known = ir_.CreateSelect(ir_.CreateICmpEQ(block, keys[0]), keys[1], i64(0));
    for_parts(parts, [&](Value* part, Value* begin, Value* end) {
      Value* bit = ir_.CreateAnd(ir_.CreateLShr(known, part), i64(1));
      when(emitter_, ir_.CreateICmpEQ(bit, i64(0)),
           [&] { transform_pixels(parts.block, begin, end); });
    });
    emit_panels(group, parts);
    Value* bits =
        ir_.CreateSub(ir_.CreateShl(i64(1), parts.end), ir_.CreateShl(i64(1), parts.begin));
    return {block, ir_.CreateOr(known, bits)};
  }

  // The parts of a block that a call has.
  struct Parts {
    Span block;
    Value *begin = nullptr, *end = nullptr;
  };
  // Of a block, the tiles that come before a part.
  Value* tiles_before(Value* part, const Span& block) {
    return ir_.CreateUDiv(ir_.CreateMul(block.count, part), i64(parts_));
  }
  // body(part, its first tile in the block, the end of its tiles)
  void for_parts(const Parts& parts, const std::function<void(Value*, Value*, Value*)>& body) {
    emitter_.loop(parts.begin, parts.end, 1, [&](Value* part) {
      Value* next = ir_.CreateAdd(part, i64(1));
      body(part, tiles_before(part, parts.block), tiles_before(next, parts.block));
    });
  }

  void emit_panels(Value* group, const Parts& parts) {
    Value* first_panel = ir_.CreateMul(group, i64(group_panels_));
    Value* last_panel =
        smaller(emitter_, ir_.CreateAdd(first_panel, i64(group_panels_)), i64(panels_));
    emitter_.loop(first_panel, last_panel, 1, [&](Value* panel) {
      Value* first = ir_.CreateMul(panel, i64(width_));
      Value* width = smaller(emitter_, i64(width_), ir_.CreateSub(i64(outputs_), first));
      Value* weight = at(weight_, panel, points() * conv_.channels * width_ * 4);
      emitter_.loop(i64(0), width, tile_.columns, [&](Value* strip) {
        multiply(parts, at(weight, strip, 4));
        transform_products(parts, ir_.CreateAdd(first, strip));
      });
    });
  }

  // The image of a tile, and its first result.
  struct Place {
    Value *b = nullptr, *y = nullptr, *x = nullptr;
  };
  Place place_of(Value* tile) {
    Value* image = value_of(tiles_y_ * tiles_x_);
    Value* b = ir_.CreateUDiv(tile, image);
    Value* in_image = ir_.CreateSub(tile, ir_.CreateMul(b, image));
    Value* columns = value_of(tiles_x_);
    Value* row = ir_.CreateUDiv(in_image, columns);
    Value* column = ir_.CreateSub(in_image, ir_.CreateMul(row, columns));
    return {b, ir_.CreateMul(row, i64(results_)), ir_.CreateMul(column, i64(results_))};
  }

  // What lies in the image of the pixels first ... first + side - 1.
  struct Range {
    Value *begin = nullptr, *end = nullptr;
  };
  Range inside(Value* first, Value* size) {
    auto clamped = [&](Value* value) {
      value = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, value, i64(0));
      return smaller(emitter_, value, i64(side_));
    };
    return {clamped(ir_.CreateNeg(first)), clamped(ir_.CreateSub(size, first))};
  }

  // Where a transform reads pixel (i, j) of a tile: base + i * row + j * pixel.
  struct Source {
    Value *base = nullptr, *row = nullptr, *pixel = nullptr;
  };

  void transform_pixels(const Span& block, Value* begin, Value* end) {
    Value* row_bytes = value_of(conv_.width * pixel_bytes());
    emitter_.loop(begin, end, 1, [&](Value* tile) {
      const Place place = place_of(ir_.CreateAdd(block.begin, tile));
      Value* y = ir_.CreateSub(place.y, value_of(conv_.pad_top));
      Value* x = ir_.CreateSub(place.x, value_of(conv_.pad_left));
      const Range rows = inside(y, value_of(conv_.height));
      const Range columns = inside(x, value_of(conv_.width));
      Value* seen = ir_.CreateMul(ir_.CreateSub(rows.end, rows.begin),
                                  ir_.CreateSub(columns.end, columns.begin));
      Value* is_whole = ir_.CreateICmpEQ(seen, i64(points()));
      Value* is_cut = ir_.CreateNot(is_whole);
      when(emitter_, is_cut,
           [&] { emit_zeros(emitter_, patch_, i64(points() * patch_bytes() / 4), DType::F32); });
      Value* row = ir_.CreateAdd(ir_.CreateMul(place.b, value_of(conv_.height)), y);
      Value* image =
          byte_offset(emitter_, at(input_, x, pixel_bytes()), ir_.CreateMul(row, row_bytes));
      Value* to = at(pixels_, tile, row_bytes_);
      Source source{nullptr, ir_.CreateSelect(is_whole, row_bytes, i64(side_ * patch_bytes())),
                    ir_.CreateSelect(is_whole, i64(pixel_bytes()), i64(patch_bytes()))};
      emitter_.loop(i64(0), i64(conv_.channels), lanes_, [&](Value* channel) {
        Value* from = at(image, channel, pixel_.bytes());
        Value* mask = conv_.channels % lanes_ == 0
                          ? nullptr
                          : mask_below(emitter_, channel, i64(conv_.channels));
        when(emitter_, is_cut, [&] { copy_patch({from, row_bytes}, rows, columns, mask); });
        source.base = ir_.CreateSelect(is_whole, from, patch_);
        transform_vector(source, mask, at(to, channel, 4));
      });
    });
  }

  Value* load(Value* address) { return ElementFormat(DType::F32).load(ir_, address, lanes_); }
  // A vector of channels of a pixel.
  Value* load_pixel(Value* address, Value* mask) {
    return mask == nullptr ? pixel_.load(ir_, address, lanes_)
                           : pixel_.load_masked(ir_, address, mask);
  }
  void store(Value* value, Value* address) { ElementFormat(DType::F32).store(ir_, value, address); }

  // The pixels that exist, among the zeros of the patch.
  void copy_patch(const Source& from, const Range& rows, const Range& columns, Value* mask) {
    emitter_.loop(rows.begin, rows.end, 1, [&](Value* i) {
      Value* read = byte_offset(emitter_, from.base, ir_.CreateMul(i, from.row));
      Value* written = at(patch_, i, side_ * patch_bytes());
      emitter_.loop(columns.begin, columns.end, 1, [&](Value* j) {
        pixel_.store(ir_, load_pixel(at(read, j, pixel_bytes()), mask),
                     at(written, j, patch_bytes()));
      });
    });
  }

  // B^T d B of a vector of channels.
  void transform_vector(const Source& from, Value* mask, Value* to) {
    Transform transform(emitter_, results_);
    const auto side = static_cast<size_t>(side_);
    std::vector<Value*> rows{from.base}, offsets{i64(0)};
    for (size_t i = 1; i < side; ++i) {
      rows.push_back(byte_offset(emitter_, rows.back(), from.row));
      offsets.push_back(ir_.CreateAdd(offsets.back(), from.pixel));
    }
    std::vector<Vectors> half(side);  // [row][column]
    for (size_t j = 0; j < side; ++j) {
      Vectors column;
      for (size_t i = 0; i < side; ++i)
        column.push_back(load_pixel(byte_offset(emitter_, rows[i], offsets[j]), mask));
      column = transform.input(column);
      for (size_t i = 0; i < side; ++i) half[i].push_back(column[i]);
    }
    int64_t point = 0;
    for (const Vectors& row : half) {
      for (Value* value : transform.input(row))
        store(value, at(to, point++ * block_tiles_ * row_bytes_));
    }
  }

  // The tiles of a point fetch the filters of the next one in turns, while they have products to compute. `tiles` is
  // how many there are at least.
  void share_next_point(TileOperands& operands, Value* tile, int64_t tiles) {
    operands.next_bytes = (width_ * 4 + tiles - 1) / tiles;
    Value* share = ir_.CreateMul(tile, i64(conv_.channels * operands.next_bytes));
    operands.next_b =
        byte_offset(emitter_, operands.b, ir_.CreateAdd(share, i64(conv_.channels * width_ * 4)));
  }

  // The products of all points, for a strip of outputs.
  void multiply(const Parts& parts, Value* weight) {
    CountRange counts = part_range(range_of(tiles_), block_tiles_);
    counts = {counts.low / parts_, (counts.high + parts_ - 1) / parts_};
    const int most_rows = tile_rows(emitter_.target(), tile_.vectors, counts);
    const int64_t tiles = tile_.columns == width_ ? (counts.low + most_rows - 1) / most_rows : 0;
    TileOperands operands;
    operands.a_step = i64(4);
    operands.b_step = i64(width_ * 4);
    operands.b_alignment = std::min<int64_t>(32, vector_bytes());
    operands.prefetch_b = true;
    emitter_.loop(i64(0), i64(points()), 1, [&](Value* point) {
      Value* pixels = at(pixels_, point, block_tiles_ * row_bytes_);
      Value* products = at(products_, point, block_tiles_ * strip_bytes());
      operands.b = at(weight, point, conv_.channels * width_ * 4);
      // Each part by itself: how its rows are split, and so how sums are rounded, does not depend on the call.
      for_parts(parts, [&](Value*, Value* begin, Value* end) {
        Value* count = ir_.CreateSub(end, begin);
        const auto body = [&](Value* first, int rows) {
          const Tile tile{rows, tile_.vectors};
          Value* tile_first = first;
          first = ir_.CreateAdd(begin, first);
          operands.a = at(pixels, first, row_bytes_);
          operands.rows.clear();
          for (int64_t r = 0; r < rows; ++r) operands.rows.push_back(i64(r * row_bytes_));
          if (tiles > 0) share_next_point(operands, ir_.CreateUDiv(tile_first, i64(rows)), tiles);
          const Accumulators sums = multiply_run(emitter_, tile, operands, i64(conv_.channels));
          Value* to = at(products, first, strip_bytes());
          for (size_t i = 0; i < sums.size(); ++i)
            store(sums[i], at(to, static_cast<int64_t>(i) * vector_bytes()));
        };
        const auto all = [&] {
          for_row_tiles(emitter_, {count, counts, most_rows}, body, nullptr);
        };
        if (counts.low > 0) return all();
        when(emitter_, ir_.CreateICmpNE(count, i64(0)), all);
      });
    });
  }

  // A^T s A of a vector of outputs, to staging. NaN where a result is not finite, otherwise 0.
  Value* transform_sums(Value* from, Value* to) {
    Transform transform(emitter_, results_);
    const auto side = static_cast<size_t>(side_);
    std::vector<Vectors> half(static_cast<size_t>(results_));  // [row][column]
    for (size_t j = 0; j < side; ++j) {
      Vectors column;
      for (size_t i = 0; i < side; ++i) {
        const auto point = static_cast<int64_t>(i * side + j);
        column.push_back(load(at(from, point * block_tiles_ * strip_bytes())));
      }
      column = transform.output(column);
      for (size_t i = 0; i < half.size(); ++i) half[i].push_back(column[i]);
    }
    int64_t pixel = 0;
    llvm::Constant* zero = llvm::ConstantFP::get(vector_type(emitter_, DType::F32), 0);
    Value* check = zero;
    for (const Vectors& row : half) {
      for (Value* value : transform.output(row)) {
        store(value, at(to, pixel++ * strip_bytes()));
        check = ir_.CreateIntrinsic(llvm::Intrinsic::fma, {zero->getType()}, {value, zero, check});
      }
    }
    return check;
  }

  // The filters of a channel and a vector of outputs from `column` on. Pairs hold both elements in a lane.
  Value* load_filter(Value* column, Value* tap, Value* channel) {
    Value* k = ir_.CreateAdd(ir_.CreateMul(tap, i64(conv_.channels)), channel);
    const ElementFormat format(conv_.formats.weight);
    const int64_t row = filter_width_ * filter_step_ * format.bytes();
    const int64_t rows = kTaps * conv_.channels / filter_step_;
    Value* panel = at(filters_, ir_.CreateUDiv(column, i64(filter_width_)), rows * row);
    Value* line = at(panel, ir_.CreateUDiv(k, i64(filter_step_)), row);
    Value* first =
        at(line, ir_.CreateURem(column, i64(filter_width_)), filter_step_ * format.bytes());
    if (filter_step_ == 1) return format.load(ir_, first, lanes_);
    auto* type = llvm::FixedVectorType::get(ir_.getInt32Ty(), static_cast<unsigned>(lanes_));
    Value* pairs = ir_.CreateAlignedLoad(type, first, llvm::Align(4));
    Value* low = ir_.CreateShl(pairs, 16);
    Value* high = ir_.CreateAnd(pairs, llvm::ConstantInt::get(type, 0xFFFF0000));
    Value* is_low = ir_.CreateICmpEQ(ir_.CreateAnd(k, i64(1)), i64(0));
    return ir_.CreateBitCast(ir_.CreateSelect(is_low, low, high),
                             vector_type(emitter_, DType::F32));
  }

  // Results of a tile as their sum is written, for a vector of outputs: sums in staging.
  void sum_directly(const Place& place, Value* column, Value* to) {
    Value* height = value_of(conv_.height);
    Value* width = value_of(conv_.width);
    const auto in_tile = [&](const std::function<void(Value*, Value*)>& body) {
      emitter_.loop(i64(0), i64(results_ * results_), 1,
                    [&](Value* pixel) { body(pixel, at(to, pixel, strip_bytes())); });
    };
    in_tile([&](Value*, Value* sum) {
      store(llvm::ConstantFP::get(vector_type(emitter_, DType::F32), 0), sum);
    });
    in_tile([&](Value* pixel, Value* sum) {
      emitter_.loop(i64(0), i64(kTaps), 1, [&](Value* tap) {
        const auto source = [&](Value* start, Value* in, Value* step, const ir::Dim& pad) {
          return ir_.CreateSub(ir_.CreateAdd(ir_.CreateAdd(start, in), step), value_of(pad));
        };
        Value* y = source(place.y, ir_.CreateUDiv(pixel, i64(results_)),
                          ir_.CreateUDiv(tap, i64(3)), conv_.pad_top);
        Value* x = source(place.x, ir_.CreateURem(pixel, i64(results_)),
                          ir_.CreateURem(tap, i64(3)), conv_.pad_left);
        Value* exists = ir_.CreateAnd(ir_.CreateICmpULT(y, height), ir_.CreateICmpULT(x, width));
        when(emitter_, exists, [&] {
          Value* row = ir_.CreateAdd(ir_.CreateMul(place.b, height), y);
          Value* from = at(input_, ir_.CreateAdd(ir_.CreateMul(row, width), x), pixel_bytes());
          emitter_.loop(i64(0), i64(conv_.channels), 1, [&](Value* channel) {
            Value* value = ir_.CreateVectorSplat(
                static_cast<unsigned>(lanes_), pixel_.load(ir_, at(from, channel, pixel_.bytes())));
            Value* weight = load_filter(column, tap, channel);
            store(ir_.CreateIntrinsic(llvm::Intrinsic::fma, {weight->getType()},
                                      {value, weight, load(sum)}),
                  sum);
          });
        });
      });
    });
  }

  void transform_products(const Parts& parts, Value* column) {
    Value* begin = tiles_before(parts.begin, parts.block);
    emitter_.loop(begin, tiles_before(parts.end, parts.block), 1, [&](Value* tile) {
      const Place place = place_of(ir_.CreateAdd(parts.block.begin, tile));
      Value* from = at(products_, tile, strip_bytes());
      emitter_.loop(i64(0), i64(strip_bytes()), vector_bytes(), [&](Value* offset) {
        Value* to = byte_offset(emitter_, staging_, offset);
        Value* check = transform_sums(byte_offset(emitter_, from, offset), to);
        when(emitter_, ir_.CreateOrReduce(ir_.CreateFCmpUNO(check, check)), [&] {
          sum_directly(place, ir_.CreateAdd(column, ir_.CreateUDiv(offset, i64(4))), to);
        });
      });
      emitter_.bind(conv_.b.index, place.b);
      Value* height = value_of(conv_.y.extent());
      Value* rows = smaller(emitter_, i64(results_), ir_.CreateSub(height, place.y));
      Value* columns =
          smaller(emitter_, i64(results_), ir_.CreateSub(value_of(conv_.x.extent()), place.x));
      const int64_t size = ElementFormat(emitter_.program().buffers[conv_.out].type.dtype).bytes();
      emitter_.loop(i64(0), rows, 1, [&](Value* row) {
        Value* y = ir_.CreateAdd(place.y, row);
        emitter_.bind(conv_.y.index, y);
        Value* staged = at(staging_, row, results_ * strip_bytes());
        Value* line = ir_.CreateAdd(ir_.CreateMul(place.b, height), y);
        Value* origin = byte_offset(
            emitter_, out_, ir_.CreateMul(line, value_of(conv_.x.extent() * (outputs_ * size))));
        TileWriter writer(emitter_, output(), staged, TileWriter::kStaged);
        writer.finish(tile_.vectors, columns, origin, place.x, column);
      });
    });
  }

  Output output() {
    Output output;
    output.bind_row = [this](Value* x) { emitter_.bind(conv_.x.index, x); };
    output.column = conv_.o.index;
    output.column_end = i64(outputs_);
    output.columns = outputs_;
    output.buffer = conv_.out;
    output.row_stride = outputs_;
    output.column_stride = 1;
    output.epilogue = conv_.epilogue;
    return output;
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  const plan::Convolution& conv_;
  int64_t results_, side_;  // of a tile: m and n
  int64_t outputs_;
  int lanes_;
  ElementFormat pixel_;  // of the input
  ir::Dim tiles_y_, tiles_x_, tiles_, blocks_;
  int64_t row_bytes_ = 0;    // of the transformed pixels of a tile, for one point
  int64_t block_tiles_ = 1;  // of a task, at most
  int64_t width_ = 16;       // of a panel
  int64_t filter_width_ = 16, filter_step_ = 1;  // of the panels of the filters as they were
  int64_t panels_ = 1, group_panels_ = 1, groups_ = 1;
  int64_t parts_ = 1;  // of a block of tiles
  TileWidth tile_;
  Value *staging_ = nullptr, *patch_ = nullptr, *pixels_ = nullptr, *products_ = nullptr;
  Value *weight_ = nullptr, *filters_ = nullptr, *input_ = nullptr, *out_ = nullptr;
  Value *blocks_value_ = nullptr, *tiles_value_ = nullptr;
};

}  // namespace

void emit_winograd(Emitter& emitter, const plan::Convolution& conv) {
  WinogradEmitter(emitter, conv).run();
}

}  // namespace kiln::cpu
