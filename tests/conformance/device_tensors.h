// Tensors of a test in the memory of a device, with a guard in front of and behind each.
#pragma once

#include <span>
#include <vector>

#include "ir/graph.h"
#include "runtime/tensor.h"

namespace kiln::conformance {

// Literals as a session takes them. In memory of the host they are used where they are; in that of a
// GPU they are copies, between guards whose bytes a kernel must leave alone. What goes wrong is a
// std::runtime_error.
class DeviceTensors {
 public:
  DeviceTensors(std::span<const ir::Literal> literals, DeviceId device);
  ~DeviceTensors();
  DeviceTensors(const DeviceTensors&) = delete;
  DeviceTensors& operator=(const DeviceTensors&) = delete;

  std::span<const runtime::TensorView> views() const { return views_; }
  // Copies what is there back into the literals, and looks at the guards.
  void fetch();

 private:
  std::span<const ir::Literal> literals_;
  DeviceId device_;
  std::vector<runtime::TensorView> views_;
  std::vector<std::byte*> blocks_;  // of a GPU: guard, tensor, guard
};

}  // namespace kiln::conformance
