// The running half of the C API: sessions, but for their runs.
#include <memory>

#include "capi/guarded.h"
#include "capi/handles.h"
#include "capi/options.h"
#include "runtime/describe.h"
#include "runtime/session.h"
#include "support/status.h"

using kiln::guarded;
using kiln::Status;
using kiln::StatusCode;
using kiln::to_bytes;
using kiln::to_c;
using kiln::runtime::Session;

namespace {

// The runtime's form of the caller's functions, which stay in the handle of the session.
kiln::runtime::AllocatorHooks hooks_of(kiln_allocator* allocator) {
  if (allocator->allocate == nullptr) return {};
  kiln::runtime::AllocatorHooks hooks;
  hooks.user = allocator;
  hooks.allocate = [](void* user, uint64_t bytes, uint64_t alignment, kiln::DeviceId device,
                      void* stream) {
    const auto* hook = static_cast<const kiln_allocator*>(user);
    return hook->allocate(hook->user, bytes, alignment, to_c(device), stream);
  };
  hooks.release = [](void* user, void* data, uint64_t bytes, kiln::DeviceId device, void* stream) {
    const auto* hook = static_cast<const kiln_allocator*>(user);
    hook->release(hook->user, data, bytes, to_c(device), stream);
  };
  return hooks;
}

}  // namespace

extern "C" {

kiln_status kiln_session_create(kiln_engine* engine, const kiln_session_options* options,
                                kiln_session** session) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(engine);
    KILN_REQUIRE(session);
    const auto current = kiln::current_options(options, "kiln_session_options");
    if (!current.ok()) return current.status();
    const auto allocator = kiln::current_options(current->allocator, "kiln_allocator");
    if (!allocator.ok()) return allocator.status();
    if ((allocator->allocate == nullptr) != (allocator->release == nullptr))
      return Status(StatusCode::InvalidArgument,
                    "kiln_allocator has one function of two: set allocate and release");
    auto handle = std::make_unique<kiln_session>();
    handle->allocator = *allocator;
    auto created =
        Session::create(engine->engine, {.num_threads = current->num_threads,
                                         .device = current->device,
                                         .allocator = hooks_of(&handle->allocator),
                                         .weight_budget = current->weight_budget == nullptr
                                                              ? UINT64_MAX
                                                              : *current->weight_budget});
    if (!created.ok()) return created.status();
    handle->session = std::move(*created);
    *session = handle.release();
    return Status();
  });
}

void kiln_session_destroy(kiln_session* session) { delete session; }

kiln_status kiln_session_synchronize(kiln_session* session) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(session);
    return session->session->synchronize();
  });
}

kiln_device kiln_session_device(const kiln_session* session) {
  if (session == nullptr) return {KILN_CPU, 0};
  return to_c(session->session->device());
}

int32_t kiln_session_num_threads(const kiln_session* session) {
  return session == nullptr ? 0 : session->session->threads();
}

kiln_status kiln_session_enable_profiling(kiln_session* session, int enable) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(session);
    session->session->enable_profiling(enable != 0);
    return Status();
  });
}

kiln_status kiln_session_profile(kiln_session* session, kiln_bytes** json) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(session);
    KILN_REQUIRE(json);
    *json = to_bytes(kiln::runtime::describe_profile(*session->session));
    return Status();
  });
}

}  // extern "C"
