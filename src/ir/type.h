// Types of tensor values, and tensors known at compile time.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ir/dim.h"
#include "support/dtype.h"
#include "support/file_map.h"

namespace kiln::ir {

using Shape = std::vector<Dim>;

// A dense row-major tensor type; rank 0 is a scalar. Layouts other than row-major are explicit
// permutes (docs/ir.md).
struct Type {
  DType dtype = DType::F32;
  Shape shape;

  size_t rank() const { return shape.size(); }
  Dim elements() const { return product(shape); }
  // "f32[s0, 384]"
  std::string str() const;
  friend bool operator==(const Type&, const Type&) = default;
};

// A tensor known at compile time: contiguous, row-major, little-endian. The bytes are borrowed from
// `owner`, which keeps them alive: a mapped file, the caller's memory (then null: the caller keeps
// it alive for the whole compile) or a buffer.
struct Literal {
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
  // A weight that a refit may replace, or made of one: what its elements are must decide nothing.
  bool replaceable = false;
  // The file that has the bytes, or null: their memory can be given back, and read again.
  std::shared_ptr<const FileMap> file;

  int64_t elements() const;
  Type type() const;
  // A zeroed literal that owns its bytes; `data` points at them.
  static Literal allocate(DType dtype, std::vector<int64_t> shape, std::byte** data);
  static Literal scalar(DType dtype, double value);
  static Literal scalar_int(DType dtype, int64_t value);
  // Element `index` (row-major), converted.
  double as_double(int64_t index) const;
  int64_t as_int(int64_t index) const;
  // Stores one element, converted, into the buffer of `allocate`.
  static void set(std::byte* data, DType dtype, int64_t index, double value);
  // The same for an integer or bool dtype.
  static void set_int(std::byte* data, DType dtype, int64_t index, int64_t value);
  // Equal dtype, shape and bits.
  bool same_content(const Literal& other) const;
  uint64_t content_hash() const;
  // Gives the memory of bytes that are a file's back.
  void forget() const;
  template <typename T>
  const T* data() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
};

}  // namespace kiln::ir
