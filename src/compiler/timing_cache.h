// A file of what was measured while kernels were chosen, so that it is not measured again.
#pragma once

#include <string>

#include "backends/common/tuning.h"
#include "support/status.h"

namespace kiln {

// Any number of processes may use a file at a time: it appears whole, and what each of them found is
// joined. What it says only decides between ways that all compute the same: nothing in it is trusted
// beyond that. Links are not followed.
class TimingCache {
 public:
  explicit TimingCache(std::string path) : path_(std::move(path)) {}

  // Empty where there is no file. An error for one that is damaged, no timing cache, or unreadable.
  Result<backend::Timings> read() const;
  // Joins `found` to what is in the file, which is made if it is not there, with its folders. A damaged
  // one is replaced; a file that is no timing cache is left as it is, and an error.
  Status add(const backend::Timings& found) const;

 private:
  std::string path_;
};

}  // namespace kiln
