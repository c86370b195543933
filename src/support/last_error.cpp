#include "support/last_error.h"

#include <new>
#include <string>

namespace kiln {
namespace {

thread_local const char* last = "";

}  // namespace

void set_last_error(const char* text) noexcept {
  try {
    thread_local std::string kept;
    kept = text;
    last = kept.c_str();
  } catch (const std::bad_alloc&) {
    last = "out of memory";
  }
}

void set_lasting_error(const char* text) noexcept { last = text; }

const char* last_error() noexcept { return last; }

}  // namespace kiln
