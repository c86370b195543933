// Shared by the tests of the runtime: owned tensors, and engines in memory.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <span>
#include <vector>

#include "engine/sample_engine.h"
#include "runtime/engine.h"
#include "runtime/session.h"
#include "runtime/tensor.h"

namespace kiln::testing {

// An f32 tensor with its memory.
struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
  std::vector<int64_t> strides;

  explicit Tensor(std::vector<int64_t> dims, float first = 0, float step = 0)
      : shape(std::move(dims)) {
    size_t count = 1;
    for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
    for (size_t i = 0; i < count; ++i) values.push_back(first + step * static_cast<float>(i));
  }
  runtime::TensorView view() { return {values.data(), DType::F32, shape, strides, {}}; }
};

// Keeps the bytes, 64-byte aligned, that the engine borrows.
class LoadedEngine {
 public:
  explicit LoadedEngine(const SampleEngine& sample, const runtime::LoadOptions& options = {}) {
    const std::vector<std::byte> bytes = sample.bytes();
    memory_ = std::move(*AlignedBuffer::allocate(bytes.size()));
    std::copy(bytes.begin(), bytes.end(), memory_.data());
    auto loaded = runtime::Engine::load_memory({memory_.data(), bytes.size()}, options);
    EXPECT_TRUE(loaded.ok()) << loaded.status().message();
    if (loaded.ok()) engine_ = *loaded;
  }
  const std::shared_ptr<const runtime::Engine>& get() const { return engine_; }
  std::unique_ptr<runtime::Session> session(int threads = 1) const {
    return std::move(*runtime::Session::create(engine_, {.num_threads = threads}));
  }

 private:
  AlignedBuffer memory_;
  std::shared_ptr<const runtime::Engine> engine_;
};

// Runs x and y of the sample engine.
inline Status run(runtime::Session& session, Tensor& x, Tensor& y, Tensor& out) {
  const std::vector<runtime::TensorView> inputs = {x.view(), y.view()}, outputs = {out.view()};
  return session.run(inputs, outputs);
}

inline void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

inline void expect_error(const Status& status, StatusCode code, const std::string& message) {
  EXPECT_EQ(status.code(), code);
  EXPECT_EQ(status.message(), message);
}

}  // namespace kiln::testing
