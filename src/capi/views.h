// The caller's tensors as views. Not public.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "kiln/kiln.h"
#include "runtime/tensor.h"
#include "support/status.h"

namespace kiln {

// Without an allocation for as many as most models have.
class Views {
 public:
  // `tensors` are as far apart as their struct_size says. `role` is "input" or "output".
  Status assign(const char* role, const kiln_tensor* tensors, size_t count);
  std::span<const runtime::TensorView> get() const { return views_; }

 private:
  std::array<runtime::TensorView, 8> few_;
  std::vector<runtime::TensorView> many_;
  std::span<runtime::TensorView> views_;
};

}  // namespace kiln
