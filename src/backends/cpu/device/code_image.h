// Machine code in executable memory. Never writable and executable at once.
#pragma once

#include <cstddef>
#include <span>

#include "support/status.h"

namespace kiln::cpu {

class CodeImage {
 public:
  // Makes pages of a private file mapping executable where they are; the mapping must outlive the
  // image. `code` begins on a page, and the rest of its last page belongs to it. Fails on a file
  // system mounted noexec: then copy.
  static Result<CodeImage> in_place(std::span<const std::byte> code);
  // Copies into memory of its own.
  static Result<CodeImage> copy(std::span<const std::byte> code);

  CodeImage() = default;
  CodeImage(CodeImage&& other) noexcept;
  CodeImage& operator=(CodeImage&& other) noexcept;
  ~CodeImage();

  const std::byte* data() const { return code_; }

 private:
  CodeImage(const std::byte* code, size_t owned) : code_(code), owned_(owned) {}

  const std::byte* code_ = nullptr;
  size_t owned_ = 0;  // bytes to unmap
};

}  // namespace kiln::cpu
