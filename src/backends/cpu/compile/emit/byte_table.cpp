#include "backends/cpu/compile/emit/byte_table.h"

#include <algorithm>

#include <llvm/IR/IntrinsicsX86.h>

#include "backends/cpu/compile/emit/target.h"

namespace kiln::cpu {

using llvm::Value;

namespace {

constexpr int64_t kBytes = 256;
constexpr unsigned kLanes = 16;  // of a vector of words

bool is_byte(DType dtype) { return dtype == DType::U8 || dtype == DType::I8; }

// One of 16 words, each of 4 neighbouring bytes, out of two registers: vpermi2d looks at 5 bits of the place. Two of
// those are all 64 words, of which bit 7 of the byte chooses; a shift brings the byte of the word to the lowest bits.
Value* look_up_words(llvm::IRBuilder<>& ir, const ByteTable& table, Value* bytes) {
  llvm::Type* words = llvm::FixedVectorType::get(ir.getInt32Ty(), kLanes);
  const auto of = [&](uint64_t number) { return llvm::ConstantInt::get(words, number); };
  Value* place = ir.CreateZExt(bytes, words);
  Value* word = ir.CreateLShr(place, of(2));
  const auto choose = [&](size_t first) {
    return ir.CreateIntrinsic(llvm::Intrinsic::x86_avx512_vpermi2var_d_512, {},
                              {table.parts[first], word, table.parts[first + 1]});
  };
  Value* low = choose(0);
  Value* high = choose(2);
  Value* is_high = ir.CreateICmpNE(ir.CreateAnd(place, of(kBytes / 2)), of(0));
  Value* chosen = ir.CreateSelect(is_high, high, low);
  Value* bits = ir.CreateShl(ir.CreateAnd(place, of(3)), of(3));
  return ir.CreateTrunc(ir.CreateLShr(chosen, bits), bytes->getType());
}

// One after another, with places out of a general register.
Value* look_up_each(llvm::IRBuilder<>& ir, const ByteTable& table, Value* bytes) {
  auto* type = llvm::cast<llvm::FixedVectorType>(bytes->getType());
  constexpr unsigned kWhole = 8;  // bytes of a general register
  const unsigned lanes = type->getNumElements();
  llvm::Type* wholes = llvm::FixedVectorType::get(ir.getInt64Ty(), std::max(lanes / kWhole, 1U));
  const bool is_whole = lanes % kWhole == 0;
  Value* packed = is_whole ? ir.CreateBitCast(bytes, wholes) : nullptr;
  Value* result = llvm::PoisonValue::get(type);
  Value* rest = nullptr;
  for (unsigned i = 0; i < lanes; ++i) {
    Value* place = nullptr;
    if (is_whole) {
      rest = i % kWhole == 0 ? ir.CreateExtractElement(packed, i / kWhole)
                             : ir.CreateLShr(rest, ir.getInt64(8));
      place = ir.CreateAnd(rest, ir.getInt64(kBytes - 1));
    } else {
      place = ir.CreateZExt(ir.CreateExtractElement(bytes, i), ir.getInt64Ty());
    }
    Value* element = ir.CreateGEP(ir.getInt8Ty(), table.address, place);
    result = ir.CreateInsertElement(
        result, ir.CreateAlignedLoad(ir.getInt8Ty(), element, llvm::Align(1)), i);
  }
  return result;
}

}  // namespace

plan::Expr looked_up_byte(const plan::Program& program, const plan::ExprNode& load) {
  const plan::Buffer& table = program.buffers.at(static_cast<size_t>(load.buffer));
  if (table.kind != plan::BufferKind::Constant || !is_byte(table.type.dtype) || load.predicate ||
      load.args.size() != 1 || table.type.shape.size() != 1 ||
      !table.type.shape[0].is_constant(kBytes)) {
    return nullptr;
  }
  const plan::Expr& place = load.args[0];
  const bool is_place = place->kind == plan::ExprKind::Apply && place->op == ir::Op::cast &&
                        place->args[0]->dtype == DType::U8;
  return is_place ? place->args[0] : nullptr;
}

ByteTable load_table(llvm::IRBuilder<>& ir, Value* address) {
  ByteTable table{address, {}};
  if (!has_feature(ir, Feature::Avx512F)) return table;
  llvm::Type* words = llvm::FixedVectorType::get(ir.getInt32Ty(), kLanes);
  for (int64_t part = 0; part < kBytes; part += int64_t{kLanes} * 4) {
    Value* place = ir.CreateConstGEP1_64(ir.getInt8Ty(), address, static_cast<uint64_t>(part));
    table.parts.push_back(ir.CreateAlignedLoad(words, place, llvm::Align(1)));
  }
  return table;
}

Value* look_up(llvm::IRBuilder<>& ir, const ByteTable& table, Value* bytes) {
  const auto* type = llvm::cast<llvm::FixedVectorType>(bytes->getType());
  const bool is_vector = !table.parts.empty() && type->getNumElements() == kLanes;
  return is_vector ? look_up_words(ir, table, bytes) : look_up_each(ir, table, bytes);
}

}  // namespace kiln::cpu
