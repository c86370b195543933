// The tiles that contractions choose keep their accumulators in registers: nothing of them is on
// the stack.
#include <gtest/gtest.h>

#include <llvm/IR/LLVMContext.h>
#include <llvm/IR/Module.h>

#include "backends/cpu/compile/contract/contraction.h"
#include "backends/cpu/compile/contract/group_digits.h"
#include "backends/cpu/compile/contract/group_lookup.h"
#include "backends/cpu/compile/contract/micro_kernel.h"
#include "backends/cpu/compile/image/image.h"
#include "backends/cpu/compile/image/machine.h"

namespace kiln::cpu {
namespace {

// A frame of this size holds a vector; a few general registers take less.
constexpr uint64_t kVectorSpill = 64;

class NoConstants : public ConstantPool {
 public:
  plan::BufferId derived(plan::BufferId, const std::string&,
                         const std::function<ir::Literal(const ir::Literal&)>&) override {
    return -1;
  }
  plan::BufferId made_at_load(const engine::WinogradSpec&) override { return -1; }
};

plan::Program three_matrices() {
  plan::Program program;
  for (int i = 0; i < 3; ++i) {
    plan::Buffer buffer;
    buffer.type = {DType::F32, {1024, 1024}};
    program.add_buffer(std::move(buffer));
  }
  return program;
}

// Stack bytes of a function that does nothing but compute one tile, which fetches a share of the next panel or not.
uint64_t frame_bytes(const Target& target, Tile tile, bool constant_stride,
                     DType b_dtype = DType::F32, bool shares_panel = false) {
  const plan::Program program = three_matrices();
  const Machine machine(target);
  llvm::LLVMContext context;
  llvm::Module module("spill", context);
  machine.prepare(module);
  KernelInterface interface;
  NoConstants constants;
  Emitter emitter(program, target, interface, constants, module, "kernel");
  auto& ir = emitter.ir();
  const ir::Dim stride =
      constant_stride ? ir::Dim(3072) : ir::Dim(ir::make_size_symbol("stride", 1, 65536, 1024));
  TileOperands operands;
  operands.a = emitter.buffer(0);
  operands.b = emitter.buffer(1);
  for (int r = 0; r < tile.rows; ++r) {
    operands.rows.push_back(emitter.value_of(stride * int64_t{r}));
  }
  const int64_t sum_bytes = ElementFormat(tile.sum).bytes();
  operands.a_format = {tile.sum, tile.sum, tile.sum};
  operands.b_format = {b_dtype, tile.sum, tile.sum};  // pairs are read without it
  operands.a_step = ir.getInt64(sum_bytes);
  operands.b_step = ir.getInt64(tile.vectors * target.lanes() * ElementFormat(b_dtype).bytes());
  operands.prefetch_b = true;
  if (shares_panel) {
    operands.next_b = byte_offset(emitter, operands.b, ir.getInt64(1 << 20));
    operands.next_bytes = 12;
  }
  const Accumulators sums = multiply_run(emitter, tile, operands, emitter.task_end());
  for (size_t i = 0; i < sums.size(); ++i) {
    llvm::Value* offset = ir.getInt64(static_cast<int64_t>(i) * target.lanes() * sum_bytes);
    ElementFormat(tile.sum).store(ir, sums[i], byte_offset(emitter, emitter.buffer(2), offset));
  }
  emitter.finish();
  const FlatObject object = flatten(machine.compile(module));
  return object.functions.at(0).stack_bytes;
}

// Those of which a row fits.
std::vector<int> tile_vectors(const Target& target, DType sum = DType::F32,
                              Steps steps = Steps::Single) {
  if (target.registers >= 32) return {1, 2, 3, 4};
  std::vector<int> all{2, 3, 4, 6, 8};
  std::erase_if(all, [&](int vectors) {
    return Tile{1, vectors, sum, steps}.registers() > target.registers;
  });
  return all;
}

TEST(ContractionSpill, TilesStayInRegisters) {
  for (const Target& target : all_targets()) {
    for (int vectors : tile_vectors(target)) {
      for (int rows = 1; rows <= tile_rows(target, vectors, {100, 100}); ++rows) {
        const Tile tile{rows, vectors};
        EXPECT_LE(tile.registers(), target.registers);
        EXPECT_LT(frame_bytes(target, tile, true), kVectorSpill)
            << target.name << ": " << rows << " rows of " << vectors << " vectors";
        EXPECT_LT(frame_bytes(target, tile, true, DType::F32, true), kVectorSpill)
            << target.name << ": " << rows << " rows of " << vectors << " vectors, sharing";
      }
    }
  }
}

TEST(ContractionSpill, TilesOfOtherTypesStayInRegisters) {
  for (const Target& target : all_targets()) {
    for (DType b : {DType::BF16, DType::F16, DType::I8, DType::F64}) {
      const DType sum = b == DType::F64 ? b : DType::F32;
      for (int vectors : tile_vectors(target, sum)) {
        const int rows = tile_rows(target, vectors, {100, 100}, sum);
        const Tile tile{rows, vectors, sum};
        EXPECT_LE(tile.registers(), target.registers);
        EXPECT_LT(frame_bytes(target, tile, true, b), kVectorSpill)
            << target.name << ": " << rows << " rows of " << vectors << " vectors of "
            << dtype_name(b);
      }
    }
  }
}

TEST(ContractionSpill, TilesOfPairsStayInRegisters) {
  for (const Target& target : all_targets()) {
    const Steps steps = target.has(Feature::Avx512Bf16) ? Steps::Pairs : Steps::WidenedPairs;
    for (int vectors : tile_vectors(target, DType::F32, steps)) {
      const int most = tile_rows(target, vectors, {100, 100}, DType::F32, steps);
      for (int rows = 1; rows <= most; ++rows) {
        const Tile tile{rows, vectors, DType::F32, steps};
        EXPECT_LE(tile.registers(), target.registers);
        EXPECT_LT(frame_bytes(target, tile, true), kVectorSpill)
            << target.name << ": " << rows << " rows of " << vectors << " vectors";
        EXPECT_LT(frame_bytes(target, tile, true, DType::F32, steps == Steps::Pairs), kVectorSpill)
            << target.name << ": " << rows << " rows of " << vectors << " vectors, sharing";
      }
    }
  }
}

TEST(ContractionSpill, TilesOfBytesStayInRegisters) {
  for (const Target& target : all_targets()) {
    const Steps steps = byte_steps(target);
    for (int vectors : tile_vectors(target, DType::I32, steps)) {
      const int most = tile_rows(target, vectors, {100, 100}, DType::I32, steps);
      for (int rows = 1; rows <= most; ++rows) {
        const Tile tile{rows, vectors, DType::I32, steps};
        EXPECT_LE(tile.registers(), target.registers);
        EXPECT_LT(frame_bytes(target, tile, true), kVectorSpill)
            << target.name << ": " << rows << " rows of " << vectors << " vectors";
        EXPECT_LT(frame_bytes(target, tile, true, DType::F32, true), kVectorSpill)
            << target.name << ": " << rows << " rows of " << vectors << " vectors, sharing";
      }
    }
  }
}

// Of one that multiplies a weight with groups, in digits where there are some.
uint64_t group_frame_bytes(const Target& target, Tile tile, const GroupFormat& format,
                           int digits = 0) {
  const plan::Program program = three_matrices();
  const Machine machine(target);
  llvm::LLVMContext context;
  llvm::Module module("spill", context);
  machine.prepare(module);
  KernelInterface interface;
  NoConstants constants;
  Emitter emitter(program, target, interface, constants, module, "kernel");
  auto& ir = emitter.ir();
  GroupRows rows{emitter.buffer(0), {}, ir.getInt64(4)};
  for (int r = 0; r < tile.rows; ++r)
    rows.rows.push_back(emitter.value_of(ir::Dim(int64_t{r} * 4096)));
  const auto from = [&](int64_t offset) {
    return byte_offset(emitter, emitter.buffer(1), ir.getInt64(offset));
  };
  const GroupColumns columns{from(0), from(1 << 20), format.has_zeros ? from(2 << 20) : nullptr};
  const Accumulators sums = digits > 0 ? multiply_digits(emitter, format, digits, rows.a, columns)
                                       : multiply_groups(emitter, tile, format, rows, columns);
  for (size_t i = 0; i < sums.size(); ++i) {
    llvm::Value* offset = ir.getInt64(static_cast<int64_t>(i) * target.lanes() * 4);
    ElementFormat(DType::F32).store(ir, sums[i], byte_offset(emitter, emitter.buffer(2), offset));
  }
  emitter.finish();
  return flatten(machine.compile(module)).functions.at(0).stack_bytes;
}

// Where nibbles are looked up, sums of all groups may wait on the stack while those of one are computed.
TEST(ContractionSpill, TilesOfGroupsStayInRegisters) {
  for (const Target& target : all_targets()) {
    for (int bits : {4, 8}) {
      for (bool has_zeros : {false, true}) {
        const GroupFormat format{1024, 32, bits, DType::BF16, has_zeros};
        for (int rows = 1; rows <= direct_tile(target, format, 8).rows; ++rows) {
          const DirectTile most = direct_tile(target, format, rows);
          const uint64_t totals = static_cast<uint64_t>(rows * most.vectors) * 32;
          const uint64_t allowed = looks_up(target, format) ? totals : 0;
          EXPECT_LT(group_frame_bytes(target, {rows, most.vectors}, format), kVectorSpill + allowed)
              << target.name << ": " << rows << " rows, " << bits << " bits, zeros " << has_zeros;
        }
      }
    }
  }
}

// With 16 registers sums of all groups are in memory, and those of 32 bits and five more may be.
TEST(ContractionSpill, DigitsStayInRegisters) {
  for (const Target& target : all_targets()) {
    for (int digits : {2, 3}) {
      for (bool has_zeros : {false, true}) {
        for (int64_t size : {8, 32, 128}) {
          const GroupFormat format{1024, size, 4, DType::BF16, has_zeros};
          const uint64_t sums = (static_cast<uint64_t>(digits) * 2 + 5) * 32;
          const uint64_t allowed = target.registers >= 32 ? 0 : kGroupPanelWidth * 4 + sums;
          EXPECT_LT(group_frame_bytes(target, {}, format, digits), kVectorSpill + allowed)
              << target.name << ": " << digits << " digits, groups of " << size << ", zeros "
              << has_zeros;
        }
      }
    }
  }
}

TEST(ContractionSpill, RunTimeStridesStayInRegisters) {
  for (const Target& target : all_targets()) {
    for (int vectors : tile_vectors(target)) {
      const int rows = tile_rows(target, vectors, {1, 100});
      EXPECT_LT(frame_bytes(target, {rows, vectors}, false), kVectorSpill + 64)
          << target.name << ": " << rows << " rows of " << vectors << " vectors";
    }
  }
}

// What the rule forbids does spill: the check above can fail.
TEST(ContractionSpill, LargerTilesSpill) {
  for (const Target& target : all_targets()) {
    const Tile tile = target.registers >= 32 ? Tile{8, 4} : Tile{8, 2};
    EXPECT_GT(tile.registers(), target.registers);
    EXPECT_GE(frame_bytes(target, tile, true), kVectorSpill) << target.name;
  }
}

}  // namespace
}  // namespace kiln::cpu
