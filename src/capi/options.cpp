#include "capi/options.h"

#include <algorithm>
#include <cstring>

namespace kiln {

bool is_zero_behind(const void* data, size_t known, size_t given) {
  const auto* bytes = static_cast<const std::byte*>(data);
  return std::all_of(bytes + std::min(known, given), bytes + given,
                     [](std::byte each) { return each == std::byte{0}; });
}

Status newer_fields(const std::string& what) {
  return Status(StatusCode::Unsupported, what + " has fields set that this version of Kiln, " +
                                             kiln_version() + ", does not know");
}

namespace {

Status wrong_size(const char* name, size_t given, size_t known) {
  const std::string expected = given < sizeof(size_t)
                                   ? "not set"
                                   : std::to_string(given) + ", expected " + std::to_string(known);
  return Status(StatusCode::InvalidArgument, name + std::string(".struct_size is ") + expected);
}

bool is_sane(size_t given) { return given >= sizeof(size_t) && given <= kMostStructBytes; }

size_t size_of(const void* data) {
  size_t given = 0;
  std::memcpy(&given, data, sizeof(given));
  return given;
}

}  // namespace

Status copy_options(const char* name, const void* options, void* current, size_t known) {
  const size_t given = size_of(options);
  if (!is_sane(given)) return wrong_size(name, given, known);
  if (!is_zero_behind(options, known, given)) return newer_fields(name);
  std::memcpy(current, options, std::min(given, known));
  return Status();
}

Status give_struct(const char* name, const void* full, void* to, size_t known) {
  const size_t given = size_of(to);
  if (!is_sane(given)) return wrong_size(name, given, known);
  auto* bytes = static_cast<std::byte*>(to);
  const size_t shared = std::min(given, known);
  std::memcpy(bytes + sizeof(size_t), static_cast<const std::byte*>(full) + sizeof(size_t),
              shared - sizeof(size_t));
  std::fill(bytes + shared, bytes + given, std::byte{0});
  return Status();
}

}  // namespace kiln
