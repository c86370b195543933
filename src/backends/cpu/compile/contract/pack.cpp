#include "backends/cpu/compile/contract/pack.h"

#include <array>
#include <charconv>
#include <cstring>

#include "backends/cpu/compile/contract/contraction.h"
#include "backends/cpu/compile/contract/copy_bytes.h"
#include "backends/cpu/compile/contract/pack_nibbles.h"
#include "backends/cpu/compile/contract/pack_pairs.h"
#include "ir/scalar.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr int64_t kRowPadding = 16;    // elements: the lanes of the widest vector
constexpr int64_t kAliasBytes = 1024;  // rows at multiples of this compete for cache lines

int64_t run_of(const ConstantMatrix& matrix) {
  return std::max<int64_t>(1, matrix.run == 0 ? matrix.k : matrix.run);
}

// Elements of a packed run, and of a column: whole steps.
int64_t packed_run(const ConstantMatrix& matrix) {
  return (run_of(matrix) + matrix.step - 1) / matrix.step * matrix.step;
}
int64_t packed_steps(const ConstantMatrix& matrix) {
  return matrix.k / run_of(matrix) * packed_run(matrix);
}

// For each step of a packed column the one of the literal.
std::vector<int64_t> packed_order(const ConstantMatrix& matrix) {
  std::vector<int64_t> order;
  order.reserve(static_cast<size_t>(matrix.k));
  const int64_t channels = matrix.k / matrix.taps;
  const int64_t chunk = matrix.chunk == 0 ? channels : matrix.chunk;
  for (int64_t first = 0; first < channels; first += chunk) {
    for (int64_t tap = 0; tap < matrix.taps; ++tap) {
      for (int64_t c = first; c < std::min(channels, first + chunk); ++c)
        order.push_back(tap * channels + c);
    }
  }
  return order;
}

// Calls copy(index in the literal, index in the packed one) for every element; padding stays.
template <typename Copy>
void for_each_packed(const ConstantMatrix& matrix, int64_t width, const Copy& copy) {
  const int64_t panels = (matrix.n + width - 1) / width;
  const int64_t step = matrix.step, run = run_of(matrix), padded = packed_run(matrix);
  const std::vector<int64_t> order = packed_order(matrix);
  int64_t out = 0;
  for (int64_t batch = 0; batch < matrix.batches; ++batch) {
    const int64_t in = matrix.offset + batch * matrix.batch_stride;
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t first = panel * width;
      const int64_t columns = std::min(width, matrix.n - first);
      for (int64_t k = 0; k < matrix.k; ++k) {
        const int64_t place = k / run * padded + k % run;
        const int64_t row = out + place / step * step * width + place % step;
        const int64_t start = in + order[static_cast<size_t>(k)] * matrix.k_stride;
        for (int64_t n = 0; n < columns; ++n)
          copy(start + (first + n) * matrix.n_stride, row + n * step);
      }
      out += packed_steps(matrix) * width;
    }
  }
}

template <typename Bits>
void pack_bits(const ir::Literal& source, const ConstantMatrix& matrix, int64_t width,
               std::byte* bytes) {
  const auto* from = reinterpret_cast<const Bits*>(source.bytes.data());
  auto* to = reinterpret_cast<Bits*>(bytes);
  for_each_packed(matrix, width, [&](int64_t in, int64_t out) { to[out] = from[in]; });
}

ir::Literal pack_literal(const ir::Literal& literal, const ConstantMatrix& matrix, int64_t width) {
  if (matrix.nibbles) return pack_nibbles(literal, matrix, width);
  const int64_t panels = (matrix.n + width - 1) / width;
  std::byte* bytes = nullptr;
  ir::Literal packed = ir::Literal::allocate(
      matrix.weight, {matrix.batches, panels, packed_steps(matrix), width}, &bytes);
  if (literal.dtype != matrix.weight) {
    for_each_packed(matrix, width, [&](int64_t in, int64_t out) {
      ir::set_element(bytes, out, ir::convert(ir::element(literal, in), matrix.weight));
    });
  } else if (dtype_size(matrix.weight) == 1) {
    pack_bits<uint8_t>(literal, matrix, width, bytes);
  } else if (dtype_size(matrix.weight) == 2) {
    pack_bits<uint16_t>(literal, matrix, width, bytes);
  } else if (dtype_size(matrix.weight) == 4) {
    pack_bits<uint32_t>(literal, matrix, width, bytes);
  } else {
    pack_bits<uint64_t>(literal, matrix, width, bytes);
  }
  return packed;
}

// Which lanes of a vector exist. AVX2 has masked loads of 4 bytes and more only: elsewhere they are
// a count, and no mask.
struct LanesLeft {
  Value* mask = nullptr;
  Value* count = nullptr;  // may be negative, or more than there are
};

// Neighbours number `first` ... are below `limit`.
LanesLeft lanes_below(Emitter& emitter, const OperandFormat& format, Value* first, Value* limit) {
  if (ElementFormat(format.memory).bytes() >= 4 || emitter.target().has(Feature::Avx512Bw))
    return {mask_below(emitter, first, limit), nullptr};
  return {nullptr, emitter.ir().CreateSub(limit, first)};
}

// The neighbours at an address that exist. Without masked loads, whole vectors are one load, and
// others are read one by one.
Value* load_left(Emitter& emitter, const OperandFormat& format, Value* address,
                 const LanesLeft& left) {
  auto& ir = emitter.ir();
  if (left.mask != nullptr) return format.load_masked(ir, address, left.mask);
  const int64_t size = ElementFormat(format.memory).bytes();
  const int lanes = emitter.target().lanes();
  llvm::Function* function = emitter.function();
  auto* whole = llvm::BasicBlock::Create(ir.getContext(), "whole", function);
  auto* part = llvm::BasicBlock::Create(ir.getContext(), "part", function);
  auto* join = llvm::BasicBlock::Create(ir.getContext(), "join", function);
  ir.CreateCondBr(ir.CreateICmpSGE(left.count, ir.getInt64(lanes)), whole, part);
  ir.SetInsertPoint(whole);
  Value* vector = format.load(ir, address, lanes);
  ir.CreateBr(join);
  ir.SetInsertPoint(part);
  Value* zero = llvm::Constant::getNullValue(vector->getType());
  const auto insert = [&](Value* lane, const Emitter::Carried& carried) {
    Value* at = byte_offset(emitter, address, ir.CreateMul(lane, ir.getInt64(size)));
    return Emitter::Carried{ir.CreateInsertElement(carried[0], format.load(ir, at), lane)};
  };
  Value* rest = emitter.loop_carrying(ir.getInt64(0), left.count, 1, {zero}, insert)[0];
  llvm::BasicBlock* part_end = ir.GetInsertBlock();
  ir.CreateBr(join);
  ir.SetInsertPoint(join);
  auto* result = ir.CreatePHI(vector->getType(), 2);
  result->addIncoming(vector, whole);
  result->addIncoming(rest, part_end);
  return result;
}

// Emits packing; keeps what all its steps share.
class Packer {
 public:
  Packer(Emitter& emitter, const RuntimeMatrix& matrix, int64_t width)
      : emitter_(emitter),
        ir_(emitter.ir()),
        matrix_(matrix),
        sum_(matrix.format.sum),
        width_(width),
        lanes_(emitter.target().lanes()) {}

  // Vectors of columns, when columns are neighbours in memory.
  void copy_rows(Value* panel_start, Value* to) {
    emitter_.loop(i64(0), matrix_.k, 1, [&](Value* k) {
      for (int64_t n = 0; n < width_; n += lanes_) {
        Value* column = ir_.CreateAdd(panel_start, i64(n));
        const LanesLeft left = lanes_below(emitter_, matrix_.format, column, matrix_.n);
        Value* loaded = load_left(emitter_, matrix_.format, element(k, column), left);
        sum_.store(ir_, loaded, packed(to, k, n));
      }
    });
  }

  // Squares, when steps of K are neighbours in memory. Columns beyond the matrix repeat its last
  // one: no result uses them.
  void transpose_columns(Value* panel_start, Value* to) {
    Value* last = ir_.CreateSub(matrix_.n, i64(1));
    emitter_.loop(i64(0), matrix_.k, lanes_, [&](Value* k) {
      const LanesLeft left = lanes_below(emitter_, matrix_.format, k, matrix_.k);
      emitter_.loop(i64(0), i64(width_), lanes_, [&](Value* n) {
        std::vector<Value*> rows;
        for (int i = 0; i < lanes_; ++i) {
          Value* column = ir_.CreateAdd(ir_.CreateAdd(panel_start, n), i64(i));
          column = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, column, last);
          rows.push_back(load_left(emitter_, matrix_.format, element(k, column), left));
        }
        std::vector<Value*> columns = transpose_square(emitter_, rows);
        for (int i = 0; i < lanes_; ++i) {
          Value* row = ir_.CreateAdd(k, i64(i));
          sum_.store(ir_, columns[i], packed(to, row, n));
        }
      });
    });
  }

  // Bytes of four rows side by side for each column: by vectors of columns, or column by column. Behind the
  // last row they are zero, whatever A has there.
  void pack_quads(Value* panel_start, Value* to) {
    if (is_one(matrix_.n_stride)) return join_rows(panel_start, to);
    Value* last = ir_.CreateSub(matrix_.n, i64(1));
    emitter_.loop(i64(0), i64(width_), 1, [&](Value* n) {
      Value* column = ir_.CreateAdd(panel_start, n);
      column = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, column, last);
      Value* whole = i64(0);
      if (is_one(matrix_.k_stride)) {
        whole = ir_.CreateAnd(matrix_.k, i64(-4));
        emitter_.loop(i64(0), whole, 4, [&](Value* k) {
          Value* quad = ir_.CreateAlignedLoad(ir_.getInt32Ty(), element(k, column), llvm::Align(1));
          ir_.CreateAlignedStore(quad, quad_place(to, k, n), llvm::Align(4));
        });
      }
      emitter_.loop(whole, matrix_.k, 4, [&](Value* k) {
        Value* quad = joined(k, ir_.getInt32Ty(), [&](Value* row) {
          return matrix_.format.load(ir_, element(row, column));
        });
        ir_.CreateAlignedStore(quad, quad_place(to, k, n), llvm::Align(4));
      });
    });
  }

  // Element by element, for any strides.
  void gather_elements(Value* panel_start, Value* to) {
    Value* last = ir_.CreateSub(matrix_.n, i64(1));
    emitter_.loop(i64(0), matrix_.k, 1, [&](Value* k) {
      emitter_.loop(i64(0), i64(width_), 1, [&](Value* n) {
        Value* column = ir_.CreateAdd(panel_start, n);
        column = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, column, last);
        Value* value = matrix_.format.load(ir_, element(k, column));
        sum_.store(ir_, value, packed(to, k, n));
      });
    });
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }

  // Vectors of columns of four rows.
  void join_rows(Value* panel_start, Value* to) {
    emitter_.loop(i64(0), matrix_.k, 4, [&](Value* k) {
      for (int64_t n = 0; n < width_; n += lanes_) {
        Value* column = ir_.CreateAdd(panel_start, i64(n));
        Value* quads = joined(k, vector_type(emitter_, DType::I32), [&](Value* row) {
          const LanesLeft left = lanes_below(emitter_, matrix_.format, column, matrix_.n);
          return load_left(emitter_, matrix_.format, element(row, column), left);
        });
        ir_.CreateAlignedStore(quads, quad_place(to, k, i64(n)), llvm::Align(4));
      }
    });
  }
  // The bytes of rows k to k + 3 in lanes of 32 bits.
  Value* joined(Value* k, llvm::Type* type, const std::function<Value*(Value* row)>& load) {
    Value* result = nullptr;
    for (int i = 0; i < 4; ++i) {
      Value* row = ir_.CreateAdd(k, i64(i));
      Value* there = ir_.CreateICmpSLT(row, matrix_.k);
      Value* byte = ir_.CreateZExt(load(ir_.CreateSelect(there, row, k)), type);
      byte = ir_.CreateSelect(there, byte, llvm::Constant::getNullValue(type));
      result = result == nullptr ? byte : ir_.CreateOr(result, ir_.CreateShl(byte, 8 * i));
    }
    return result;
  }
  // Where the quad of rows k to k + 3 (k is a multiple of 4) and column n of the panel goes.
  Value* quad_place(Value* to, Value* k, Value* n) {
    Value* row = ir_.CreateMul(k, i64(width_));
    return byte_offset(emitter_, to, ir_.CreateAdd(row, ir_.CreateMul(n, i64(4))));
  }

  Value* element(Value* k, Value* n) {
    Value* index =
        ir_.CreateAdd(ir_.CreateMul(k, matrix_.k_stride), ir_.CreateMul(n, matrix_.n_stride));
    const int64_t size = ElementFormat(matrix_.format.memory).bytes();
    return byte_offset(emitter_, matrix_.base, ir_.CreateMul(index, i64(size)));
  }
  Value* packed(Value* to, Value* k, int64_t n) {
    Value* row = ir_.CreateMul(k, i64(width_ * sum_.bytes()));
    return byte_offset(emitter_, to, ir_.CreateAdd(row, i64(n * sum_.bytes())));
  }
  Value* packed(Value* to, Value* k, Value* n) {
    return byte_offset(emitter_, packed(to, k, int64_t{0}), ir_.CreateMul(n, i64(sum_.bytes())));
  }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  RuntimeMatrix matrix_;
  ElementFormat sum_;
  int64_t width_;
  int lanes_;
};

// to[0, count) = value(index, whether a whole vector is left) by vectors.
void store_vectors(Emitter& emitter, ElementFormat format, Value* to, Value* count,
                   const std::function<Value*(Value*, bool)>& value) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes();
  auto place = [&](Value* i) {
    return byte_offset(emitter, to, ir.CreateMul(i, ir.getInt64(format.bytes())));
  };
  Value* whole = ir.CreateAnd(count, ir.getInt64(-lanes));
  emitter.loop(ir.getInt64(0), whole, lanes,
               [&](Value* i) { format.store(ir, value(i, true), place(i)); });
  when(emitter, ir.CreateICmpSLT(whole, count), [&] {
    Value* mask = mask_below(emitter, whole, count);
    format.store_masked(ir, value(whole, false), place(whole), mask);
  });
}

// "pack:" and numbers, two more where there are chunks and three with runs; with a dtype for what is not packed as
// f32 and the elements of a step: "pack_bf16:48:...", "pack_bf16x2:48:...", "pack_i8x4:48:...".
constexpr std::string_view kPackKey = "pack";
// Behind it for elements of four bits. "_i4" had them in another order: an engine that has it cannot be refitted.
constexpr std::string_view kNibbles = "_nibbles";

// The elements of a step that the key names at its end, which is taken away.
int64_t take_step(std::string_view& name) {
  if (name.size() < 2 || name[name.size() - 2] != 'x') return 1;
  const int64_t step = name.back() - '0';
  name.remove_suffix(2);
  return step;
}

// What stands before the numbers; nothing for a text that is no such key.
std::optional<DType> parse_pack_dtype(std::string_view name) {
  if (!name.starts_with(kPackKey)) return std::nullopt;
  name.remove_prefix(kPackKey.size());
  if (name.empty()) return DType::F32;
  const auto dtype = name[0] == '_' ? dtype_from_name(name.substr(1)) : std::nullopt;
  return dtype && (is_floating(*dtype) || *dtype == DType::I8) ? dtype : std::nullopt;
}

// The numbers of a key, in the order of pack_key; nothing for a text that is no such key.
constexpr size_t kPackNumbers = 11, kPackNumbersChunks = 10, kPackNumbersWhole = 8;
std::optional<std::array<int64_t, kPackNumbers>> parse_pack_numbers(std::string_view key) {
  const char *at = key.data(), *end = key.data() + key.size();
  std::array<int64_t, kPackNumbers> numbers{};
  numbers[kPackNumbersWhole] = 1;  // taps
  size_t count = 0;
  for (; count < kPackNumbers && at != end; ++count) {
    if (*at != ':') return std::nullopt;
    const auto parsed = std::from_chars(at + 1, end, numbers[count]);
    if (parsed.ec != std::errc() || numbers[count] < 0) return std::nullopt;
    at = parsed.ptr;
  }
  const bool is_known =
      count == kPackNumbersWhole || count == kPackNumbersChunks || count == kPackNumbers;
  if (at != end || !is_known) return std::nullopt;
  return numbers;
}

// Whether every element that packing reads is there, and the result is no larger than padding
// makes it.
bool fits(const ConstantMatrix& matrix, int64_t width, const ir::Literal& literal) {
  constexpr int64_t kWidest = 1 << 12;
  const int64_t elements = literal.elements();
  if (width < 1 || width > kWidest || matrix.k < 1 || matrix.n < 1 || matrix.batches < 1)
    return false;
  if (matrix.taps < 1 || matrix.k % matrix.taps != 0) return false;
  const bool is_plain =
      matrix.batches == 1 && matrix.step == 1 && matrix.chunk == 0 && matrix.run == 0;
  if (matrix.nibbles && (!is_plain || literal.dtype != DType::I8)) return false;
  if (matrix.step < 1 || matrix.step > 4 || matrix.k % run_of(matrix) != 0) return false;
  if (std::max({matrix.k, matrix.n, matrix.batches}) > elements) return false;
  __int128 last = matrix.offset;
  last += static_cast<__int128>(matrix.k - 1) * matrix.k_stride;
  last += static_cast<__int128>(matrix.n - 1) * matrix.n_stride;
  last += static_cast<__int128>(matrix.batches - 1) * matrix.batch_stride;
  const __int128 read = static_cast<__int128>(matrix.k) * matrix.n * matrix.batches;
  return last < elements && read <= elements;
}

std::string pack_key(const ConstantMatrix& matrix, int64_t width) {
  std::string key(kPackKey);
  if (matrix.nibbles) {
    key += kNibbles;
  } else if (matrix.weight != DType::F32) {
    key += "_" + std::string(dtype_name(matrix.weight));
  }
  if (matrix.step != 1) key += "x" + std::to_string(matrix.step);
  for (int64_t part : {width, matrix.offset, matrix.k_stride, matrix.n_stride, matrix.k, matrix.n,
                       matrix.batches, matrix.batch_stride}) {
    key += ":" + std::to_string(part);
  }
  if (matrix.chunk != 0 || matrix.run != 0)
    key += ":" + std::to_string(matrix.taps) + ":" + std::to_string(matrix.chunk);
  if (matrix.run != 0) key += ":" + std::to_string(matrix.run);
  return key;
}

}  // namespace

ir::Literal derive_constant(const std::string& transform, const ir::Literal& literal) {
  const size_t colon = std::min(transform.find(':'), transform.size());
  std::string_view name = std::string_view(transform).substr(0, colon);
  const int64_t step = take_step(name);
  const bool nibbles = name == std::string(kPackKey).append(kNibbles);
  const auto dtype = nibbles ? std::optional(DType::I8) : parse_pack_dtype(name);
  const auto numbers = parse_pack_numbers(std::string_view(transform).substr(colon));
  if (!dtype || !numbers)
    throw CompileError("[cpu] got the constant \"" + transform +
                       "\", expected pack:... as this version writes it (compile the model again)");
  const auto [width, offset, k_stride, n_stride, k, n, batches, batch_stride, taps, chunk, run] =
      *numbers;
  const ConstantMatrix matrix{offset, k_stride, n_stride, k,     n,   batches, batch_stride,
                              *dtype, step,     taps,     chunk, run, nibbles};
  if (!fits(matrix, width, literal))
    throw CompileError("[cpu] got the constant \"" + transform + "\", expected one that fits " +
                       literal.type().str());
  return pack_literal(literal, matrix, width);
}

plan::BufferId pack_constant(ConstantPool& constants, plan::BufferId buffer,
                             const ConstantMatrix& matrix, int64_t width) {
  return constants.derived(
      buffer, pack_key(matrix, width),
      [matrix, width](const ir::Literal& literal) { return pack_literal(literal, matrix, width); });
}

void emit_pack(Emitter& emitter, const RuntimeMatrix& matrix, Value* first, Value* last,
               const PackedPanels& packed) {
  auto& ir = emitter.ir();
  Packer packer(emitter, matrix, packed.width);
  emitter.loop(first, last, 1, [&](Value* panel) {
    Value* start = ir.CreateMul(panel, ir.getInt64(packed.width));
    Value* offset = ir.CreateMul(ir.CreateSub(panel, first), packed.bytes);
    Value* to = byte_offset(emitter, packed.to, offset);
    if (packed.step == 4) {
      packer.pack_quads(start, to);
    } else if (packed.step == 2) {
      emit_pack_pairs(emitter, matrix, packed.width, start, to);
    } else if (is_one(matrix.n_stride)) {
      packer.copy_rows(start, to);
    } else if (is_one(matrix.k_stride)) {
      packer.transpose_columns(start, to);
    } else {
      packer.gather_elements(start, to);
    }
  });
}

void emit_copy(Emitter& emitter, Value* to, const RuntimeRun& run) {
  auto& ir = emitter.ir();
  const ElementFormat sum(run.format.sum);
  const int lanes = emitter.target().lanes();
  auto element = [&](Value* i) {
    if (run.stride != nullptr) i = ir.CreateMul(i, run.stride);
    const int64_t size = ElementFormat(run.format.memory).bytes();
    return byte_offset(emitter, run.from, ir.CreateMul(i, ir.getInt64(size)));
  };
  if (run.stride != nullptr && !is_one(run.stride)) {
    emitter.loop(ir.getInt64(0), run.count, 1, [&](Value* i) {
      Value* value = run.format.load(ir, element(i));
      sum.store(ir, value, byte_offset(emitter, to, ir.CreateMul(i, ir.getInt64(sum.bytes()))));
    });
    return;
  }
  if (run.format.memory == DType::U8 && run.format.sum == DType::U8)
    return emit_copy_bytes(emitter, to, run.from, run.count);
  store_vectors(emitter, sum, to, run.count, [&](Value* i, bool whole) {
    return whole ? run.format.load(ir, element(i), lanes)
                 : load_left(emitter, run.format, element(i),
                             lanes_below(emitter, run.format, i, run.count));
  });
}

void emit_zeros(Emitter& emitter, Value* to, Value* count, DType sum) {
  store_vectors(emitter, sum, to, count, [&](Value*, bool) {
    return llvm::Constant::getNullValue(vector_type(emitter, sum));
  });
}

void emit_stage(Emitter& emitter, const RuntimeRun& row, Value* row_stride, Value* rows,
                const StagedRows& staged) {
  auto& ir = emitter.ir();
  const int64_t size = ElementFormat(row.format.memory).bytes();
  emitter.loop(ir.getInt64(0), rows, 1, [&](Value* r) {
    RuntimeRun run = row;
    Value* offset = ir.CreateMul(ir.CreateMul(r, row_stride), ir.getInt64(size));
    run.from = byte_offset(emitter, row.from, offset);
    Value* to = byte_offset(emitter, staged.to, ir.CreateMul(r, staged.bytes));
    emit_copy(emitter, to, run);
    if (!staged.to_even) return;
    const ElementFormat format(row.format.sum);
    Value* end = byte_offset(emitter, to, ir.CreateMul(row.count, ir.getInt64(format.bytes())));
    format.store(ir, llvm::Constant::getNullValue(format.register_type(ir)), end);
  });
}

ir::Dim packed_panel_bytes(const ir::Dim& k, int64_t width, DType sum) {
  return ir::ceildiv(k, kRowPadding) * (kRowPadding * width * ElementFormat(sum).bytes());
}

ir::Dim packed_pair_bytes(const ir::Dim& k, int64_t width) {
  return ir::ceildiv(k, 2 * kRowPadding) * (2 * kRowPadding * width * 2);
}

ir::Dim staged_row_bytes(const ir::Dim& k, DType sum) {
  const ir::Dim bytes = packed_panel_bytes(k, 1, sum);
  return ir::provably_divisible(bytes, kAliasBytes) ? bytes + 64 : bytes;
}

}  // namespace kiln::cpu
