// Code that was compiled before, by a hash of what it was compiled from: compiler/kernel_cache.h keeps it.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "support/hash.h"

namespace kiln::backend {

// All functions may be called from any thread.
class CodeStore {
 public:
  virtual ~CodeStore() = default;
  // What add() got for that key, in this process or another.
  virtual std::optional<std::vector<std::byte>> find(const Hash128& key) = 0;
  // A key stands for one code: what is there already stays.
  virtual void add(const Hash128& key, std::span<const std::byte> code) = 0;
};

// What `store` has for the key, else what `compile` gives, which is kept. A null store has nothing.
std::vector<std::byte> compile_once(CodeStore* store, const Hash128& key,
                                    const std::function<std::vector<std::byte>()>& compile);

}  // namespace kiln::backend
