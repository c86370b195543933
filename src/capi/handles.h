// What the handles of libkiln_runtime point to. Not public.
#pragma once

#include <memory>
#include <vector>

#include "kiln/kiln.h"
#include "runtime/engine.h"
#include "runtime/session.h"

namespace kiln {

inline kiln_device to_c(DeviceId device) {
  return {static_cast<int32_t>(device.type), device.index};
}

}  // namespace kiln

struct kiln_engine {
  std::shared_ptr<const kiln::runtime::Engine> engine;
  std::vector<std::vector<kiln_dim>> input_dims, output_dims;
};

struct kiln_session {
  kiln_allocator allocator;  // outlives the session, which uses it; zero for none
  std::unique_ptr<kiln::runtime::Session> session;
};
