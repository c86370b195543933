#include "torch/engine_runner.h"

#include <torch/csrc/stable/c/shim.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace kiln::torch_op {

void check(kiln_status status) {
  if (status == KILN_INDEX_ERROR) {
    throw std::out_of_range(kiln_last_error());  // an IndexError in Python
  }
  if (status != KILN_OK) {
    throw std::runtime_error(kiln_last_error());
  }
}

EngineRunner::EngineRunner(EnginePtr engine) : engine_(std::move(engine)) {
  for (size_t i = 0; i < kiln_engine_num_outputs(engine_.get()); ++i) {
    kiln_tensor_info info{};
    info.struct_size = sizeof(info);
    check(kiln_engine_output(engine_.get(), i, &info));
    outputs_.push_back({info.dtype, info.rank});
  }
}

// A session for the length of one call.
class EngineRunner::Lease {
 public:
  Lease(EngineRunner& runner, int num_threads)
      : runner_(runner), num_threads_(num_threads), session_(runner.take_session(num_threads)) {}
  ~Lease() { runner_.give_back(std::move(session_), num_threads_); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  kiln_session* get() const { return session_.get(); }

 private:
  EngineRunner& runner_;
  int num_threads_;
  SessionPtr session_;
};

SessionPtr EngineRunner::take_session(int num_threads) {
  {
    std::lock_guard lock(mutex_);
    if (idle_threads_ != num_threads) {
      idle_.clear();
      idle_threads_ = num_threads;
    }
    if (!idle_.empty()) {
      SessionPtr session = std::move(idle_.back());
      idle_.pop_back();
      return session;
    }
  }
  const kiln_session_options options{sizeof(kiln_session_options), num_threads, 0, nullptr};
  kiln_session* session = nullptr;
  check(kiln_session_create(engine_.get(), &options, &session));
  return SessionPtr(session);
}

void EngineRunner::give_back(SessionPtr session, int num_threads) {
  std::lock_guard lock(mutex_);
  if (num_threads == idle_threads_) {
    idle_.push_back(std::move(session));
  }
}

// The tensor for an output that the engine gives in the shape `stored`.
OwnedTensor EngineRunner::make_output(size_t index, const Shape& stored,
                                      std::span<const Layout> layouts,
                                      std::span<const kiln_tensor> inputs, RunHooks* hooks) const {
  const auto [dtype, rank] = outputs_[index];
  const std::span<const int64_t> shape(stored.data(), static_cast<size_t>(rank));
  const bool is_row_major = layouts.empty() || layouts[index].is_row_major();
  if (is_row_major && hooks == nullptr) {
    return new_tensor(dtype, shape);
  }
  const Placement placed =
      is_row_major ? Placement{stored, row_major_strides(shape)} : place(shape, layouts[index]);
  if (hooks != nullptr) {
    const kiln_tensor output{.struct_size = sizeof(kiln_tensor),
                             .data = nullptr,
                             .dtype = dtype,
                             .rank = rank,
                             .shape = placed.shape.data(),
                             .strides = placed.strides.data(),
                             .device = {KILN_CPU, 0}};
    if (OwnedTensor tensor = hooks->reuse(index, output, inputs)) return tensor;
  }
  return new_tensor(dtype, {placed.shape.data(), shape.size()},
                    {placed.strides.data(), shape.size()});
}

std::vector<OwnedTensor> EngineRunner::run(std::span<const AtenTensorHandle> inputs,
                                           std::span<const Layout> layouts, RunHooks* hooks) {
  if (!layouts.empty() && layouts.size() != outputs_.size()) {
    throw std::runtime_error("[execute_engine] got layouts of " + std::to_string(layouts.size()) +
                             " results, but the engine has " + std::to_string(outputs_.size()));
  }
  std::vector<kiln_tensor> views;
  views.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    views.push_back(view(inputs[i], {"input", i}));
  }
  uint32_t num_threads = 0;
  check_torch(torch_get_num_threads(&num_threads), "tell its number of threads");
  const Lease session(*this, static_cast<int>(num_threads));

  std::vector<Shape> shapes(outputs_.size());
  auto* shape_data = reinterpret_cast<int64_t(*)[KILN_MAX_RANK]>(shapes.data());
  check(kiln_session_output_shapes(session.get(), views.data(), views.size(), shape_data,
                                   outputs_.size()));
  if (hooks != nullptr) hooks->before_run(session.get());
  std::vector<OwnedTensor> outputs;
  std::vector<kiln_tensor> output_views;
  outputs.reserve(outputs_.size());
  output_views.reserve(outputs_.size());
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const auto [dtype, rank] = outputs_[i];
    kiln_tensor output{.struct_size = sizeof(kiln_tensor),
                       .data = nullptr,
                       .dtype = dtype,
                       .rank = rank,
                       .shape = shapes[i].data(),
                       .strides = nullptr,
                       .device = {KILN_CPU, 0}};
    OwnedTensor tensor = make_output(i, shapes[i], layouts, views, hooks);
    check_torch(aoti_torch_get_data_ptr(tensor.get(), &output.data), "tell where a tensor lies");
    outputs.push_back(std::move(tensor));
    output_views.push_back(output);
  }
  check(kiln_session_run(session.get(), views.data(), views.size(), output_views.data(),
                         output_views.size(), nullptr));
  if (hooks != nullptr) hooks->after_run(session.get(), outputs);
  return outputs;
}

}  // namespace kiln::torch_op
