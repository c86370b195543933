#include "backends/cpu/device/code_image.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "support/errno_status.h"

namespace kiln::cpu {
namespace {

Status refused() { return errno_status("make executable", "the engine's code", errno); }

}  // namespace

Result<CodeImage> CodeImage::in_place(std::span<const std::byte> code) {
  auto* pages = const_cast<std::byte*>(code.data());
  if (mprotect(pages, code.size(), PROT_READ | PROT_EXEC) != 0) return refused();
  return CodeImage(code.data(), 0);
}

Result<CodeImage> CodeImage::copy(std::span<const std::byte> code) {
  if (code.empty()) return CodeImage();
  void* pages =
      mmap(nullptr, code.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return refused();
  CodeImage image(static_cast<const std::byte*>(pages), code.size());
  std::memcpy(pages, code.data(), code.size());
  if (mprotect(pages, code.size(), PROT_READ | PROT_EXEC) != 0) return refused();
  return image;
}

CodeImage::CodeImage(CodeImage&& other) noexcept
    : code_(std::exchange(other.code_, nullptr)), owned_(std::exchange(other.owned_, 0)) {}

CodeImage& CodeImage::operator=(CodeImage&& other) noexcept {
  std::swap(code_, other.code_);
  std::swap(owned_, other.owned_);
  return *this;
}

CodeImage::~CodeImage() {
  if (owned_ > 0) munmap(const_cast<std::byte*>(code_), owned_);
}

}  // namespace kiln::cpu
