#include "backends/cpu/compile/contract/pack.h"

#include <array>
#include <charconv>
#include <cstring>

#include "backends/cpu/compile/contract/contraction.h"
#include "support/error.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr int64_t kRowPadding = 16;  // f32 elements of the widest vector

float element_of(const ir::Literal& source, int64_t index) {
  return source.dtype == DType::F32 ? source.data<float>()[index]
                                    : static_cast<float>(source.as_double(index));
}

ir::Literal pack_literal(const ir::Literal& source, const ConstantMatrix& matrix, int64_t width) {
  const int64_t panels = (matrix.n + width - 1) / width;
  std::byte* bytes = nullptr;
  ir::Literal packed =
      ir::Literal::allocate(DType::F32, {matrix.batches, panels, matrix.k, width}, &bytes);
  auto* out = reinterpret_cast<float*>(bytes);
  for (int64_t batch = 0; batch < matrix.batches; ++batch) {
    const int64_t in = matrix.offset + batch * matrix.batch_stride;
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t first = panel * width;
      const int64_t columns = std::min(width, matrix.n - first);
      for (int64_t k = 0; k < matrix.k; ++k, out += width) {
        for (int64_t n = 0; n < columns; ++n) {
          out[n] = element_of(source, in + k * matrix.k_stride + (first + n) * matrix.n_stride);
        }
      }
    }
  }
  return packed;
}

// In: `lanes` vectors, rows of a square. Out: its columns.
std::vector<Value*> transpose_square(Emitter& emitter, std::vector<Value*> rows) {
  const int lanes = emitter.target().lanes;
  for (int half = lanes / 2; half >= 1; half /= 2) {
    std::vector<int> low, high;
    for (int i = 0; i < lanes; ++i) {
      bool second = (i & half) != 0;
      low.push_back(second ? lanes + i - half : i);
      high.push_back(second ? lanes + i : i + half);
    }
    std::vector<Value*> next(rows);
    for (int r = 0; r < lanes; ++r) {
      if (r & half) continue;
      next[r] = emitter.ir().CreateShuffleVector(rows[r], rows[r + half], low);
      next[r + half] = emitter.ir().CreateShuffleVector(rows[r], rows[r + half], high);
    }
    rows = std::move(next);
  }
  return rows;
}

// Emits packing; keeps what all its steps share.
class Packer {
 public:
  Packer(Emitter& emitter, const RuntimeMatrix& matrix, int64_t width)
      : emitter_(emitter),
        ir_(emitter.ir()),
        matrix_(matrix),
        width_(width),
        lanes_(emitter.target().lanes) {}

  // Vectors of columns, when columns are neighbours in memory.
  void copy_rows(Value* panel_start, Value* to) {
    emitter_.loop(i64(0), matrix_.k, 1, [&](Value* k) {
      for (int64_t n = 0; n < width_; n += lanes_) {
        Value* column = ir_.CreateAdd(panel_start, i64(n));
        Value* loaded =
            ir_.CreateMaskedLoad(vector_type(emitter_), element(k, column), llvm::Align(4),
                                 lanes_below(column, matrix_.n), zero());
        ir_.CreateAlignedStore(loaded, packed(to, k, n), llvm::Align(4));
      }
    });
  }

  // Squares, when steps of K are neighbours in memory. Columns beyond the matrix repeat its last
  // one: no result uses them.
  void transpose_columns(Value* panel_start, Value* to) {
    Value* last = ir_.CreateSub(matrix_.n, i64(1));
    emitter_.loop(i64(0), matrix_.k, lanes_, [&](Value* k) {
      Value* mask = lanes_below(k, matrix_.k);
      emitter_.loop(i64(0), i64(width_), lanes_, [&](Value* n) {
        std::vector<Value*> rows;
        for (int i = 0; i < lanes_; ++i) {
          Value* column = ir_.CreateAdd(ir_.CreateAdd(panel_start, n), i64(i));
          column = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, column, last);
          rows.push_back(ir_.CreateMaskedLoad(vector_type(emitter_), element(k, column),
                                              llvm::Align(4), mask, zero()));
        }
        std::vector<Value*> columns = transpose_square(emitter_, rows);
        for (int i = 0; i < lanes_; ++i) {
          Value* row = ir_.CreateAdd(k, i64(i));
          Value* address = byte_offset(emitter_, packed(to, row, 0), ir_.CreateMul(n, i64(4)));
          ir_.CreateAlignedStore(columns[i], address, llvm::Align(4));
        }
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
        Value* value = load_float(emitter_, element(k, column), matrix_.dtype);
        Value* address = byte_offset(emitter_, packed(to, k, 0), ir_.CreateMul(n, i64(4)));
        ir_.CreateAlignedStore(value, address, llvm::Align(4));
      });
    });
  }

 private:
  llvm::ConstantInt* i64(int64_t value) { return ir_.getInt64(value); }
  Value* zero() { return llvm::Constant::getNullValue(vector_type(emitter_)); }

  Value* element(Value* k, Value* n) {
    Value* index =
        ir_.CreateAdd(ir_.CreateMul(k, matrix_.k_stride), ir_.CreateMul(n, matrix_.n_stride));
    const auto size = static_cast<int64_t>(dtype_size(matrix_.dtype));
    return byte_offset(emitter_, matrix_.base, ir_.CreateMul(index, i64(size)));
  }
  Value* packed(Value* to, Value* k, int64_t n) {
    return byte_offset(emitter_, to, ir_.CreateAdd(ir_.CreateMul(k, i64(width_ * 4)), i64(n * 4)));
  }
  Value* lanes_below(Value* first, Value* limit) { return mask_below(emitter_, first, limit); }

  Emitter& emitter_;
  llvm::IRBuilder<>& ir_;
  RuntimeMatrix matrix_;
  int64_t width_;
  int lanes_;
};

// to[0, count) = value(byte offset, mask or null) by vectors.
void store_vectors(Emitter& emitter, Value* to, Value* count,
                   const std::function<Value*(Value*, Value*)>& value) {
  auto& ir = emitter.ir();
  const int lanes = emitter.target().lanes;
  Value* whole = ir.CreateAnd(count, ir.getInt64(-lanes));
  emitter.loop(ir.getInt64(0), whole, lanes, [&](Value* i) {
    Value* offset = ir.CreateMul(i, ir.getInt64(4));
    ir.CreateAlignedStore(value(offset, nullptr), byte_offset(emitter, to, offset), llvm::Align(4));
  });
  when(emitter, ir.CreateICmpSLT(whole, count), [&] {
    Value* offset = ir.CreateMul(whole, ir.getInt64(4));
    Value* mask = mask_below(emitter, whole, count);
    ir.CreateMaskedStore(value(offset, mask), byte_offset(emitter, to, offset), llvm::Align(4),
                         mask);
  });
}

bool is_one(Value* value) {
  auto* constant = llvm::dyn_cast<llvm::ConstantInt>(value);
  return constant != nullptr && constant->isOne();
}

constexpr std::string_view kPackKey = "pack";

// The numbers of a key, in the order of pack_key; nothing for a text that is no such key.
std::optional<std::array<int64_t, 8>> parse_pack_key(std::string_view key) {
  if (!key.starts_with(kPackKey)) return std::nullopt;
  const char *at = key.data() + kPackKey.size(), *end = key.data() + key.size();
  std::array<int64_t, 8> numbers{};
  for (int64_t& number : numbers) {
    if (at == end || *at != ':') return std::nullopt;
    const auto parsed = std::from_chars(at + 1, end, number);
    if (parsed.ec != std::errc() || number < 0) return std::nullopt;
    at = parsed.ptr;
  }
  if (at != end) return std::nullopt;
  return numbers;
}

// Whether every element that packing reads is there, and the result is no larger than padding
// makes it.
bool fits(const ConstantMatrix& matrix, int64_t width, const ir::Literal& literal) {
  constexpr int64_t kWidest = 1 << 12;
  const int64_t elements = literal.elements();
  if (width < 1 || width > kWidest || matrix.k < 1 || matrix.n < 1 || matrix.batches < 1)
    return false;
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
  for (int64_t part : {width, matrix.offset, matrix.k_stride, matrix.n_stride, matrix.k, matrix.n,
                       matrix.batches, matrix.batch_stride}) {
    key += ":" + std::to_string(part);
  }
  return key;
}

}  // namespace

ir::Literal derive_constant(const std::string& transform, const ir::Literal& literal) {
  const auto numbers = parse_pack_key(transform);
  if (!numbers)
    throw CompileError("[cpu] got the constant \"" + transform + "\", expected pack:...");
  const auto [width, offset, k_stride, n_stride, k, n, batches, batch_stride] = *numbers;
  const ConstantMatrix matrix{offset, k_stride, n_stride, k, n, batches, batch_stride};
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
    const bool plain = matrix.dtype == DType::F32;
    if (plain && is_one(matrix.n_stride)) {
      packer.copy_rows(start, to);
    } else if (plain && is_one(matrix.k_stride)) {
      packer.transpose_columns(start, to);
    } else {
      packer.gather_elements(start, to);
    }
  });
}

void emit_copy(Emitter& emitter, Value* to, Value* from, DType from_dtype, Value* count) {
  if (from_dtype != DType::F32) {
    auto& ir = emitter.ir();
    const auto size = static_cast<int64_t>(dtype_size(from_dtype));
    emitter.loop(ir.getInt64(0), count, 1, [&](Value* i) {
      Value* value = load_float(
          emitter, byte_offset(emitter, from, ir.CreateMul(i, ir.getInt64(size))), from_dtype);
      Value* address = byte_offset(emitter, to, ir.CreateMul(i, ir.getInt64(4)));
      ir.CreateAlignedStore(value, address, llvm::Align(4));
    });
    return;
  }
  store_vectors(emitter, to, count, [&](Value* offset, Value* mask) -> Value* {
    auto& ir = emitter.ir();
    Value* address = byte_offset(emitter, from, offset);
    if (mask == nullptr) return ir.CreateAlignedLoad(vector_type(emitter), address, llvm::Align(4));
    Value* zero = llvm::Constant::getNullValue(vector_type(emitter));
    return ir.CreateMaskedLoad(vector_type(emitter), address, llvm::Align(4), mask, zero);
  });
}

void emit_zeros(Emitter& emitter, Value* to, Value* count) {
  store_vectors(emitter, to, count,
                [&](Value*, Value*) { return llvm::Constant::getNullValue(vector_type(emitter)); });
}

ir::Dim packed_panel_bytes(const ir::Dim& k, int64_t width) {
  return ir::ceildiv(k, kRowPadding) * (kRowPadding * width * 4);
}

}  // namespace kiln::cpu
