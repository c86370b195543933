// Panels of a weight of integers with scales for groups along k: what multiplies them as they are, for few rows,
// and what unpacks them to f32, for more.
//
// A panel of 32 columns is one run of memory, and so are its scales and its zero points. Elements of 4 bits lie as
// pack_nibbles.h says: lanes are shifted so that a step is in their lowest bits, which choose one of 16 floats
// in a register (vpermps); where that takes more registers than there are, group_lookup.h tells what is done.
#pragma once

#include "backends/cpu/compile/contract/micro_kernel.h"

namespace kiln::cpu {

// Columns of a panel.
inline constexpr int64_t kGroupPanelWidth = 32;

struct GroupFormat {
  int64_t k = 0;     // steps
  int64_t size = 0;  // of a group
  int bits = 8;
  DType scale = DType::F32;
  bool has_zeros = false;

  int64_t groups() const { return (k + size - 1) / size; }
  // Elements of a column that one iteration of a kernel takes, and those of all groups.
  int64_t unit() const;
  int64_t padded() const { return groups() * ((size + unit() - 1) / unit() * unit()); }
  // Bytes of a panel.
  int64_t value_bytes() const { return padded() * kGroupPanelWidth * bits / 8; }
  int64_t scale_bytes() const;
  // Whether steps can be unpacked in pairs: none crosses groups.
  bool has_pairs() const { return size % 2 == 0 && unit() % 2 == 0; }
  int64_t zero_bytes() const { return has_zeros ? groups() * kGroupPanelWidth : 0; }
};

// Columns of a panel, from one on: addresses. `zeros` is null where there are none.
struct GroupColumns {
  llvm::Value *values = nullptr, *scales = nullptr, *zeros = nullptr;
};
// The columns from number `first` on.
GroupColumns columns_from(Emitter& emitter, const GroupFormat& format, const GroupColumns& columns,
                          llvm::Value* first);

// The vectors of a tile that multiplies a panel as it is, and its most rows, where there are so many.
struct DirectTile {
  int vectors = 2, rows = 4;
};
DirectTile direct_tile(const Target& target, const GroupFormat& format, int64_t rows);

// Rows of A, of f32: as in TileOperands. A has format.padded() steps.
struct GroupRows {
  llvm::Value* a = nullptr;
  std::vector<llvm::Value*> rows;
  llvm::Value* a_step = nullptr;
};

// The sums of a tile over all of k.
Accumulators multiply_groups(Emitter& emitter, Tile tile, const GroupFormat& format,
                             const GroupRows& rows, const GroupColumns& columns);

// The weight itself to scratch of format.padded() rows, as f32 [k][panel width], or as pairs of bf16
// [k / 2][panel width][2], for targets with Avx512Bf16. Columns of a whole panel.
enum class Unpacked : uint8_t { Floats, Pairs };
void unpack_groups(Emitter& emitter, const GroupFormat& format, const GroupColumns& columns,
                   llvm::Value* to, Unpacked form = Unpacked::Floats);
inline int64_t unpacked_row_bytes(Unpacked form) {
  return kGroupPanelWidth * (form == Unpacked::Pairs ? 2 : 4);
}

}  // namespace kiln::cpu
