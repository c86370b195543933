// Choosing between ways to compute a kernel by running them: what is known already, and what is found.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "support/hash.h"

namespace kiln::backend {

// Which of several ways was the fastest, by a hash of all that they are and of the machine.
using Timings = std::map<Hash128, uint32_t>;

// One compile's. All functions may be called from any thread.
class Tuning {
 public:
  // `candidates`: how many ways of a kernel are tried at most; at least 1.
  explicit Tuning(int candidates, Timings known = {})
      : candidates_(candidates), known_(std::move(known)) {}

  int candidates() const { return candidates_; }
  std::optional<uint32_t> find(const Hash128& key) const;
  void add(const Hash128& key, uint32_t fastest);
  // Something did not work, and the code is chosen by the cost model instead. Each text is kept once.
  void warn(const std::string& text);

  Timings found() const;  // what add() got
  std::set<std::string> warnings() const;

 private:
  const int candidates_;
  mutable std::mutex mutex_;
  const Timings known_;
  Timings found_;
  std::set<std::string> warnings_;
};

}  // namespace kiln::backend
