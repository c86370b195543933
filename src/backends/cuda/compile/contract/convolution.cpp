// Channels-last convolutions as products whose left operand is gathered from the input (pixels.cuh):
// a row of the product is a pixel of the result, a column a filter, and groups are its batch.
#include "backends/cuda/compile/contract/convolution.h"

#include <algorithm>
#include <optional>

#include "backends/cuda/compile/contract/contraction.h"
#include "backends/cuda/compile/contract/tiles.h"
#include "support/error.h"

namespace kiln::cuda {
namespace {

using ir::Dim;

class ConvolutionText {
 public:
  ConvolutionText(KernelContext& context, const plan::Convolution& convolution)
      : emitter_(context), context_(context), c_(convolution) {
    input_type_ = emitter_.dtype_of(c_.input);
    weight_type_ = emitter_.dtype_of(c_.weight);
    check_formats();
    group_channels_ = c_.channels / c_.groups;
    filters_ = c_.o.extent().constant();
    group_filters_ = filters_ / c_.groups;
    depth_ = c_.kernel_h * c_.kernel_w * group_channels_;
    pixels_ = c_.b.extent() * c_.y.extent() * c_.x.extent();
    pixel_ = plan::Loop{ir::make_loop_symbol("pixel", pixels_)};
    size_ = {c_.groups, positive_opt(pixels_), std::max<int64_t>(1, group_filters_),
             std::max<int64_t>(1, depth_)};
    units_ = units_of(context_.target, input_type_, weight_type_, c_.formats);
    tensor_cores_ = units_ == Units::TensorCores;
    has_16_bits_ = tensor_cores_ && is_16_bit_float(input_type_);
  }

  std::string run() {
    // What allows_second_sum lets through: tiles of few rows are right too.
    if (c_.second || suits_groups()) return hopper_text();
    if (suits_windows()) return window_text();
    KILN_CHECK(!c_.pool, "pooled convolutions are those of window_pool.cuh");
    if (units_ == Units::Ordinary) return simt_text(context_.pick(simt_tiles()));
    if (units_ == Units::ThreeProducts)
      return tensor_core_text(context_.pick(rank_exact_tiles(context_.target, size_, true)));
    return tensor_core_text(context_.pick(rank_tiles(context_.target, size_, element())));
  }

 private:
  void check_formats() const {
    const plan::Formats& formats = c_.formats;
    const bool exact =
        is_lossless(input_type_, formats.left) && is_lossless(weight_type_, formats.right) &&
        is_lossless(weight_type_, formats.weight) && is_lossless(formats.left, formats.accumulator);
    if (exact) return;
    throw CompileError(
        "[convolution] got operands of " + std::string(dtype_name(input_type_)) + " and " +
        std::string(dtype_name(weight_type_)) +
        " that are rounded before they are multiplied, expected formats that hold them");
  }

  void add_constants(Prelude& text) const {
    text.constant("kChannels", c_.channels);
    text.constant("kGroupChannels", group_channels_);
    add_taps(text);
  }

  void add_taps(Prelude& text) const {
    text.constant("kFilterWidth", c_.kernel_w);
    text.constant("kStrideH", c_.stride_h);
    text.constant("kStrideW", c_.stride_w);
    text.constant("kDilationH", c_.dilation_h);
    text.constant("kDilationW", c_.dilation_w);
  }

  std::string wide(const Dim& dim) { return "(long long)" + emitter_.position(dim); }

  void begin() {
    emitter_.line("const long long m = " + wide(pixels_) + ";");
    emitter_.line("const long long n = " + std::to_string(group_filters_) + ";");
    emitter_.line("const long long depth = " + std::to_string(depth_) + ";");
    emitter_.line("const TilePlace place(m, n, blockIdx.x / kCluster);");
    emitter_.line("const int group = (int)place.batch;");
    emitter_.line("const long long first_filter = group * " + std::to_string(group_filters_) +
                  "ll;");
    emitter_.line("const Image image{(int)" + wide(c_.height) + ", (int)" + wide(c_.width) + ", " +
                  wide(c_.y.extent()) + ", " + wide(c_.x.extent()) + ", " + wide(c_.pad_top) +
                  ", " + wide(c_.pad_left) + ", m, group * kGroupChannels};");
  }

  int element() const { return static_cast<int>(dtype_size(input_type_)); }

  // Filters as rows that begin at whole vectors.
  std::string weights(const std::string& type, int64_t& row_stride) {
    plan::BufferId buffer = c_.weight;
    row_stride = depth_;
    if (units_ != Units::Ordinary && depth_ % (16 / element()) != 0) {
      const ConstantRows rows{0, filters_, depth_, depth_, 1};
      buffer = derive_rows(context_.result.constants, c_.weight, rows);
      row_stride = rows.padded_depth(weight_type_);
    }
    return "(const " + type + "*)" + emitter_.buffer(buffer) + " + first_filter * " +
           std::to_string(row_stride) + "ll";
  }

  // Offsets that follow the pixels of the result one after another.
  Dim simplify(const Dim& offset) const {
    Dim rest = offset;
    std::vector<Dim> strides;
    const plan::Loop* const loops[] = {&c_.b, &c_.y, &c_.x};
    for (const plan::Loop* loop : loops) {
      const auto linear = rest.as_linear_in(loop->index);
      if (!linear || linear->first.mentions(c_.b.index) || linear->first.mentions(c_.y.index) ||
          linear->first.mentions(c_.x.index) || linear->first.mentions(c_.o.index))
        return offset;
      strides.push_back(linear->first);
      rest = linear->second;
    }
    // The stride of the last axis that has more than one element says what the others should be.
    std::optional<Dim> stride;
    Dim expected;
    for (int i = 2; i >= 0; --i) {
      if (loops[i]->extent().is_constant(1)) continue;
      if (!stride) {
        stride = strides[i];
        expected = *stride;
      }
      if (!ir::provably_equal(strides[i], expected)) return offset;
      expected *= loops[i]->extent();
    }
    return stride ? rest + *stride * Dim(pixel_.index) : offset;
  }

  void bind_row(const std::string& row) {
    const auto bind = [&](const plan::Loop& loop, const std::string& value) {
      const std::string type = position_type(Dim(loop.index));
      emitter_.bind(loop.index, emitter_.declare(type, "at", "(" + type + ")(" + value + ")"));
    };
    bind(pixel_, row);
    const std::string type = position_type(Dim(pixel_.index));
    const std::string pixel = emitter_.declare(type, "pixel", "(" + type + ")" + row);
    const std::string columns = emitter_.position(c_.x.extent()),
                      rows = emitter_.position(c_.y.extent());
    bind(c_.x, pixel + " % " + columns);
    const std::string line = emitter_.declare(type, "line", pixel + " / " + columns);
    bind(c_.y, line + " % " + rows);
    bind(c_.b, line + " / " + rows);
  }

  ResultText result_text() {
    ResultText result;
    result.out = c_.out;
    result.out_offset = Dim(pixel_.index) * filters_ + Dim(c_.o.index);
    result.epilogue = &c_.epilogue;
    result.column = c_.o;
    result.first_column = c_.groups == 1 ? "" : "first_filter";
    result.bind_row = [this](const std::string& row) { bind_row(row); };
    result.simplify = [this](const Dim& offset) { return simplify(offset); };
    result.keeps = c_.pool.has_value();
    result.sums = c_.second ? 2 : 1;
    return result;
  }

  std::string result(bool pairs = false) {
    ResultText text = result_text();
    text.pairs = pairs;
    return emit_result(emitter_, text, "m", "n");
  }

  void set_launch(const Tile& tile, int64_t operand_bytes) {
    backend::KernelInterface& interface = context_.result.interface;
    context_.result.kind = engine::StepKind::Launch;
    context_.result.function = "kernel";
    interface.grid = {ir::ceildiv(pixels_, tile.m) *
                      ((group_filters_ + tile.n - 1) / tile.n * c_.groups * tile.cluster)};
    const auto sum = static_cast<int64_t>(dtype_size(c_.formats.accumulator));
    interface.shared_bytes = std::max(operand_bytes, tile.m * int64_t{tile.n + 4} * sum);
    interface.task_writes[c_.out] = tile.m / tile.cluster * tile.n;
  }

  // --- Hopper ---

  // What a map of images knows, which is only known where the padding is, and the stride leaves as much of every
  // image.
  static std::optional<plan::Corner> corner(const Dim& pad, const Dim& pixels, int64_t stride,
                                            const Dim& size) {
    const auto corner = plan::corner_of(pad, pixels, stride, size);
    constexpr int64_t kMost = CopiedImages::kCorner;
    if (!corner || std::min(corner->lower, corner->upper) < -kMost || corner->upper >= kMost)
      return std::nullopt;
    return corner;
  }
  std::optional<plan::Corner> corner_x() const {
    return corner(c_.pad_left, c_.x.extent(), c_.stride_w, c_.width);
  }
  std::optional<plan::Corner> corner_y() const {
    return corner(c_.pad_top, c_.y.extent(), c_.stride_h, c_.height);
  }

  // Channels in steps of 128 or of 64 bytes, what fits them better; the last step may be partly zeros.
  // `step` is in 2 bytes, as GroupTile has it.
  int64_t step_channels(int64_t step) const { return step * 2 / element(); }
  int64_t padded_channels(int64_t step) const { return padded(c_.channels, step); }
  int64_t padded(int64_t channels, int64_t step) const {
    return (channels + step_channels(step) - 1) / step_channels(step) * step_channels(step);
  }
  int channel_step() const { return padded_channels(64) * 10 > padded_channels(32) * 11 ? 32 : 64; }

  // What the copy engine can bring: pixels of whole vectors, of memory that begins at multiples of 16
  // bytes, at most 8 elements from one to the next, and filters of which all taps are within 255.
  bool suits_groups() const {
    if (context_.target.sm != 90 || !tensor_cores_ || c_.groups != 1) return false;
    if (!is_placed(context_.program, c_.input) || !is_placed(context_.program, c_.weight) ||
        !fits_int(pixels_) || c_.channels % (16 / element()) != 0)
      return false;
    if (size_.n < CopiedImages::kFewestFilters || size_.m < CopiedImages::kFewestPixels ||
        padded_channels(channel_step()) > 2 * c_.channels)
      return false;
    return std::max(c_.stride_h, c_.stride_w) <= CopiedImages::kMostStride &&
           (c_.kernel_h - 1) * c_.dilation_h <= CopiedImages::kMostReach &&
           (c_.kernel_w - 1) * c_.dilation_w <= CopiedImages::kMostReach && corner_x() &&
           corner_y();
  }

  // Images and filters as the copy engine sees them.
  struct Images {
    plan::BufferId buffer;
    int64_t channels;
    Dim width, height;
    int64_t stride_w, stride_h;
    plan::Corner x, y;
  };
  backend::TensorMapSpec image_map(const GroupTile& tile, const Images& images) {
    emitter_.buffer(images.buffer);
    const int64_t pixel = images.channels * element();
    backend::TensorMapSpec map;
    map.buffer = images.buffer;
    map.dtype = input_type_;
    map.sizes = {images.channels, images.width, images.height, c_.b.extent()};
    map.strides = {pixel, images.width * pixel, images.width * images.height * pixel};
    map.element_strides = {1, images.stride_w, images.stride_h, 1};
    map.swizzle = int64_t{tile.k} * 2;
    map.lower_corner = {images.x.lower, images.y.lower};
    map.upper_corner = {images.x.upper, images.y.upper};
    map.box_channels = step_channels(tile.k);
    map.box_pixels = tile.m();
    return map;
  }

  backend::TensorMapSpec filter_map(const GroupTile& tile, plan::BufferId weight, int64_t channels,
                                    int64_t taps) {
    emitter_.buffer(weight);
    backend::TensorMapSpec map;
    map.buffer = weight;
    map.dtype = weight_type_;
    map.sizes = {channels, taps, filters_};
    map.strides = {channels * element(), taps * channels * element()};
    map.box = {step_channels(tile.k), 1, tile.step_columns()};
    map.swizzle = int64_t{tile.k} * 2;
    return map;
  }

  std::vector<backend::TensorMapSpec> maps(const GroupTile& tile) {
    std::vector<backend::TensorMapSpec> maps = {
        image_map(tile, {c_.input, c_.channels, c_.width, c_.height, c_.stride_w, c_.stride_h,
                         *corner_x(), *corner_y()}),
        filter_map(tile, c_.weight, c_.channels, c_.kernel_h * c_.kernel_w)};
    if (!c_.second) return maps;
    const plan::PixelSum& s = *c_.second;
    maps.push_back(image_map(tile, {s.input, s.channels, s.width, s.height, s.stride_w, s.stride_h,
                                    *corner(0, c_.x.extent(), s.stride_w, s.width),
                                    *corner(0, c_.y.extent(), s.stride_h, s.height)}));
    maps.push_back(filter_map(tile, s.weight, s.channels, 1));
    return maps;
  }

  // With the copy engine, or without it: as HopperWay has them.
  std::string hopper_text() {
    const std::vector<Tile> plain = rank_tiles(context_.target, size_, element());
    size_.step = channel_step();
    size_.wide = element() == 4;
    size_.k = c_.kernel_h * c_.kernel_w * padded_channels(size_.step) * element() / 2;
    size_.left_bytes = positive_opt(c_.b.extent()) * positive_opt(c_.height) *
                       positive_opt(c_.width) * c_.channels * element();
    if (c_.second) {
      size_.k += padded(c_.second->channels, size_.step) * element() / 2;
      size_.left_bytes += size_.m * c_.second->channels * element();
      size_.n *= 2;
      size_.sums = 2;
      size_.in_turns = true;
    }
    size_.row_loads = row_loads(context_.program, result_text()) * element() / 2;
    size_.epilogue_work = epilogue_work(c_.epilogue);
    size_.pairs = takes_pairs(context_.program, result_text(), filters_);
    const HopperWay way = context_.pick(
        hopper_ways(rank_group_tiles(size_), c_.second ? std::vector<Tile>() : plain));
    if (const auto* tile = std::get_if<Tile>(&way)) return tensor_core_text(*tile);
    return group_text(std::get<GroupTile>(way));
  }

  std::string group_text(const GroupTile& tile) {
    Prelude text;
    text.flag("kBf16", input_type_ == DType::BF16);
    text.alias("Acc", "float");
    const int64_t channel_steps = padded_channels(tile.k) / step_channels(tile.k);
    const int64_t steps = c_.kernel_h * c_.kernel_w * channel_steps;
    int64_t second_steps = 0;
    text.constant("kChannelSteps", channel_steps);
    add_taps(text);
    if (c_.second) {
      second_steps = padded(c_.second->channels, tile.k) / step_channels(tile.k);
      text.constant("kSecondStrideH", c_.second->stride_h);
      text.constant("kSecondStrideW", c_.second->stride_w);
    }
    text.flag("kEarlyB", context_.program.buffers[c_.weight].kind == plan::BufferKind::Constant);
    if (c_.second)
      add_group_tile(text, tile, input_type_, filters_, {"pixels_wgmma", "second_pixels_wgmma"},
                     steps);
    else
      add_group_tile(text, tile, input_type_, filters_, {"pixels_wgmma"});
    emitter_.line("const long long m = " + wide(pixels_) + ";");
    emitter_.line("const long long n = " + std::to_string(filters_) + ";");
    emitter_.line("const PixelBoxes boxes{images, filters, (int)" + wide(c_.y.extent()) +
                  ", (int)" + wide(c_.x.extent()) + ", " + emitter_.position(c_.pad_top) + ", " +
                  emitter_.position(c_.pad_left) + "};");
    if (c_.second) emitter_.line("const TwoPixelBoxes both{boxes, second_images, second_filters};");
    const std::string object = result(tile.pairs);
    emitter_.declare_wait();
    emitter_.line(std::string("multiply_tiles(") + (c_.second ? "both" : "boxes") + ", " +
                  std::to_string((steps + second_steps) * step_channels(tile.k)) + ", " + object +
                  ", wait);");
    context_.result.interface.tensor_maps = maps(tile);
    std::vector<std::string> names = {"images", "filters"};
    if (c_.second) names.insert(names.end(), {"second_images", "second_filters"});
    set_group_launch(context_, tile, c_.out, pixels_, filters_);
    return emitter_.finish({.threads = tile.threads(),
                            .min_blocks = 1,
                            .cluster = tile.cluster,
                            .tensor_maps = names,
                            .before = text.str(),
                            .waits = true});
  }

  // --- Few channels ---

  static constexpr int kVector = 8;

  // Channels of a pixel in shared memory: windows begin at multiples of whole vectors.
  int64_t pixel_channels() const {
    return c_.channels <= 4 && c_.stride_w * 4 % kVector == 0 ? 4 : kVector;
  }
  int64_t row_chunks() const { return (c_.kernel_w * pixel_channels() + kVector - 1) / kVector; }
  WindowTile window_tile() const {
    WindowTile tile{.warp_rows = 2, .n = filters_ > 32 ? 64 : 32};
    const int64_t tiles = window_tiles(tile).at_opt() * ((filters_ + tile.n - 1) / tile.n);
    if (tiles < int64_t{2} * multiprocessors(context_.target)) tile.warp_rows = 1;
    // Sums of two rows leave mma.sync no registers for the epilogue of results that are pooled.
    if (c_.pool && !by_groups()) tile.warp_rows = 1;
    return tile;
  }
  // What a tile of so many results stores: they, or as many windows as lie within them.
  static int64_t windows_within(int64_t results, int64_t size, int64_t stride) {
    return (results - size) / stride + 1;
  }
  int64_t stored_x(int64_t results) const {
    return c_.pool ? windows_within(results, c_.pool->kernel_w, c_.pool->stride_w) : results;
  }
  int64_t stored_y(int64_t results) const {
    return c_.pool ? windows_within(results, c_.pool->kernel_h, c_.pool->stride_h) : results;
  }
  Dim window_tiles(const WindowTile& tile) const {
    const plan::Loop &x = c_.pool ? c_.pool->x : c_.x, &y = c_.pool ? c_.pool->y : c_.y;
    return ir::ceildiv(x.extent(), stored_x(WindowTile::kX)) *
           ir::ceildiv(y.extent(), stored_y(tile.y())) * c_.b.extent();
  }
  // Pixels of a row of a patch.
  int64_t patch_width() const {
    return (WindowTile::kX - 1) * c_.stride_w + row_chunks() * kVector / pixel_channels();
  }
  // As window_block.cuh lays it out: filters, two patches of the input, results that are pooled.
  int64_t window_bytes(const WindowTile& tile) const {
    constexpr int64_t kAlignment = 128;
    const int64_t steps = (c_.kernel_h * row_chunks() + 1) / 2;
    const int64_t height = (tile.y() - 1) * c_.stride_h + (c_.kernel_h - 1) * c_.dilation_h + 1;
    const int64_t pitch = patch_width() * pixel_channels() * 2;
    const int64_t filters = tile.n * (2 * steps + (by_groups() ? 0 : 1)) * 16;
    const int64_t patches = (2 * height * pitch + kAlignment - 1) / kAlignment * kAlignment;
    const int64_t kept = c_.pool ? int64_t{WindowTile::kX} * tile.y() * tile.n * 2 : 0;
    return filters + patches + kept;
  }
  // Two groups of four warps multiply (window_wgmma.cuh).
  bool by_groups() const { return context_.target.sm == 90; }
  void add_pool(Prelude& text) const {
    text.constant("kPoolHeight", c_.pool->kernel_h);
    text.constant("kPoolWidth", c_.pool->kernel_w);
    text.constant("kPoolStrideH", c_.pool->stride_h);
    text.constant("kPoolStrideW", c_.pool->stride_w);
    text.constant("kPoolTop", c_.pool->pad_top);
    text.constant("kPoolLeft", c_.pool->pad_left);
  }

  // Steps along k are written out, a thread loads a column of a patch, and all generations have 99 KiB of
  // shared memory.
  bool suits_windows() const {
    constexpr int64_t kMostSteps = 32, kSharedBytes = 99 << 10;
    if (!has_16_bits_ || c_.groups != 1 || c_.channels >= kVector || c_.dilation_w != 1)
      return false;
    if (context_.program.buffers[c_.weight].kind != plan::BufferKind::Constant ||
        (!fits_int(pixels_) && !c_.pool))
      return false;
    return c_.kernel_h * row_chunks() <= 2 * kMostSteps &&
           patch_width() <= WindowTile::kWarps * 32 && window_bytes(window_tile()) <= kSharedBytes;
  }

  plan::BufferId window_filters() {
    const ConstantWindows windows{filters_,
                                  c_.kernel_h,
                                  c_.kernel_w,
                                  c_.channels,
                                  row_chunks() * kVector / pixel_channels(),
                                  pixel_channels()};
    return derive_windows(context_.result.constants, c_.weight, windows);
  }

  void emit_windows() {
    const std::string input = emitter_.buffer(c_.input);
    const std::string filters = emitter_.buffer(window_filters());
    emitter_.line("const long long m = " + wide(pixels_) + ";");
    emitter_.line("const long long n = " + std::to_string(filters_) + ";");
    emitter_.line("const Images images{(const bits16*)" + input + ", (const bits16*)" + filters +
                  ", (int)" + wide(c_.height) + ", (int)" + wide(c_.width) + ", (int)" +
                  wide(c_.y.extent()) + ", (int)" + wide(c_.x.extent()) + ", (int)" +
                  wide(c_.pad_top) + ", (int)" + wide(c_.pad_left) + ", {" + pooled() + "}};");
  }
  std::string pooled() {
    if (!c_.pool) return "";
    return "(bits16*)" + emitter_.written_buffer(c_.out) + ", (int)" + wide(c_.pool->y.extent()) +
           ", (int)" + wide(c_.pool->x.extent());
  }

  std::string window_text() {
    const WindowTile tile = window_tile();
    Prelude text;
    text.flag("kBf16", input_type_ == DType::BF16);
    text.alias("Acc", "float");
    text.constant("kWarps", WindowTile::kWarps);
    text.constant("kWarpRows", tile.warp_rows);
    text.constant("kTileM", WindowTile::kX * tile.y());
    add_columns(text, tile.n, 1, c_.pool ? 2 : 8);
    text.constant("kCluster", 1);
    text.constant("kChannels", c_.channels);
    text.constant("kPixel", pixel_channels());
    text.constant("kFilterHeight", c_.kernel_h);
    add_taps(text);
    if (c_.pool) add_pool(text);
    for (const char* file : {"cluster", "tile_result", "mma", "windows"}) text.include(file);
    if (by_groups()) {
      text.include("hopper");
      text.add(group_product("multiply_group", tile.n, input_type_, GroupOperands::Registers));
      text.include("window_wgmma");
    } else {
      text.include("window_mma");
    }
    if (!c_.pool) text.include("gather_vector");
    text.include(c_.pool ? "window_pool" : "window_store");
    text.include("window_block");
    emit_windows();
    const std::string object = result();
    const Dim tiles = window_tiles(tile);
    emitter_.line("convolve_windows(images, (unsigned)" + wide(tiles) + ", " + object + ");");
    const int64_t parts = (filters_ + tile.n - 1) / tile.n;
    const Dim blocks =
        ir::min(tiles, std::max<int64_t>(1, 2 * multiprocessors(context_.target) / parts));
    backend::KernelInterface& interface = context_.result.interface;
    interface.grid = {blocks * parts};
    interface.shared_bytes = window_bytes(tile);
    interface.task_writes[c_.out] = ir::ceildiv(tiles, ir::max(blocks, 1)) *
                                    (stored_x(WindowTile::kX) * stored_y(tile.y()) * tile.n);
    return emitter_.finish(
        {.threads = WindowTile::kWarps * 32, .min_blocks = 2, .before = text.str()});
  }

  std::string tensor_core_text(const Tile& tile) {
    Prelude text;
    text.flag("kBf16", input_type_ == DType::BF16);
    text.alias("Bits", bits_type(input_type_));
    text.alias("Acc", "float");
    add_tile(text, tile);
    add_constants(text);
    text.constant("kFormA", 0);
    text.constant("kFormB", 0);
    const std::string multiply(include_tile(text, tile));
    for (const char* file : {"pixels", "pixels_mma"}) text.include(file);
    begin();
    int64_t row_stride = 0;
    const std::string data = weights("Bits", row_stride);
    emitter_.line("const Operand b{" + data + ", n, depth, " + std::to_string(row_stride) +
                  "ll, 1};");
    const std::string object = result();
    emitter_.line("const Steps steps(depth);");
    emitter_.line("const PixelOperand a{(const Bits*)" + emitter_.buffer(c_.input) +
                  ", image, depth};");
    emitter_.line(multiply +
                  "(LoadPixels(a, place.row0, steps.k0()), LoadMatrix<kTileN, kFormB>(b, "
                  "place.column0, steps.k0()), a, b, steps, depth, place.row0, place.column0, " +
                  object + ");");
    set_launch(tile, tile.shared_bytes(element()));
    return emitter_.finish({.threads = tile.threads(),
                            .min_blocks = min_blocks(tile),
                            .cluster = tile.cluster,
                            .before = text.str()});
  }

  std::vector<Tile> simt_tiles() const {
    const size_t sum = dtype_size(c_.formats.accumulator);
    return rank_simt_tiles(context_.target, size_, static_cast<int>(sum));
  }

  std::string simt_text(const Tile& tile) {
    const DType sum = c_.formats.accumulator;
    Prelude text;
    text.alias("Acc", register_type(sum));
    add_simt_tile(text, tile);
    add_constants(text);
    for (const char* file : {"multiply_add", "cluster", "tile_order", "tile_result", "tile_simt",
                             "pixels", "pixels_simt"})
      text.include(file);
    begin();
    int64_t row_stride = 0;
    const std::string element = memory_type(weight_type_);
    const std::string data = weights(element, row_stride);
    emitter_.line("const Matrix<" + element + "> b{" + data + ", n, depth, " +
                  std::to_string(row_stride) + "ll, 1};");
    emitter_.line("const Pixels<" + std::string(memory_type(input_type_)) + "> a{" +
                  emitter_.buffer(c_.input) + ", image, (int)depth};");
    const std::string object = result();
    emitter_.line("multiply_tile<true, true>(a, b, depth, place.row0, place.column0, " + object +
                  ");");
    set_launch(tile,
               2 * int64_t{tile.k} * (tile.m + tile.n + 8) * static_cast<int64_t>(dtype_size(sum)));
    return emitter_.finish({.threads = 256,
                            .min_blocks = min_blocks(tile),
                            .cluster = tile.cluster,
                            .before = text.str()});
  }

  Emitter emitter_;
  KernelContext& context_;
  const plan::Convolution& c_;
  DType input_type_ = DType::F32, weight_type_ = DType::F32;
  Units units_ = Units::Ordinary;
  bool tensor_cores_ = false, has_16_bits_ = false;
  int64_t group_channels_ = 0, filters_ = 0, group_filters_ = 0, depth_ = 0;
  Dim pixels_;
  plan::Loop pixel_;
  ProductSize size_;
};

}  // namespace

std::string convolution_text(KernelContext& context, const plan::Convolution& convolution) {
  return ConvolutionText(context, convolution).run();
}

}  // namespace kiln::cuda
