#include "torch/engine_runner.h"

#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

#include "torch/cuda.h"

namespace kiln::torch_op {

void check(kiln_status status) {
  if (status == KILN_INDEX_ERROR) {
    throw std::out_of_range(kiln_last_error());  // an IndexError in Python
  }
  if (status != KILN_OK) {
    throw std::runtime_error(kiln_last_error());
  }
}

EnginePtr load_for(
    kiln_device_type type,
    const std::function<kiln_status(const kiln_load_options*, kiln_engine**)>& load) {
  const kiln_load_options options{.struct_size = sizeof(kiln_load_options),
                                  .target = type == KILN_CUDA ? "cuda" : "cpu",
                                  .verify_weights = 0,
                                  .describe_only = 0};
  kiln_engine* engine = nullptr;
  kiln_status status = load(&options, &engine);
  if (status == KILN_INVALID_ARGUMENT) status = load(nullptr, &engine);
  check(status);
  return EnginePtr(engine);
}

EngineRunner::EngineRunner(EnginePtr engine) : engine_(std::move(engine)) {
  for (size_t i = 0; i < kiln_engine_num_outputs(engine_.get()); ++i) {
    kiln_tensor_info info{};
    info.struct_size = sizeof(info);
    check(kiln_engine_output(engine_.get(), i, &info));
    outputs_.push_back({info.dtype, info.rank, kiln_engine_updated_input(engine_.get(), i)});
  }
}

namespace {

// Whether a state of a call can be an output of the engine where it is: dense, and in nobody's memory, which is
// `ranges` of the states.
bool is_writable(std::span<const kiln_tensor> states, std::span<const MemoryRange> ranges,
                 size_t index) {
  const kiln_tensor& state = states[index];
  const Shape dense = row_major_strides({state.shape, static_cast<size_t>(state.rank)});
  for (int32_t axis = 0; axis < state.rank; ++axis) {
    if (state.shape[axis] == 0) return false;
    if (state.shape[axis] > 1 && state.strides[axis] != dense[static_cast<size_t>(axis)])
      return false;
  }
  for (size_t i = 0; i < states.size(); ++i)
    if (i != index && overlap(ranges[index], ranges[i])) return false;
  return true;
}

// Takes inputs in the order in which they lie; what they point to then is in the result.
std::vector<Placement> take_in_order(std::vector<kiln_tensor>& inputs,
                                     std::span<const Layout> layouts) {
  std::vector<Placement> places(layouts.size());
  if (layouts.size() > inputs.size()) {
    throw std::runtime_error("[execute_engine] got layouts of " + std::to_string(layouts.size()) +
                             " inputs, but there are " + std::to_string(inputs.size()));
  }
  for (size_t i = 0; i < layouts.size(); ++i) {
    if (layouts[i].is_row_major()) continue;
    const auto rank = static_cast<size_t>(inputs[i].rank);
    places[i] = in_order({inputs[i].shape, rank}, {inputs[i].strides, rank}, layouts[i]);
    inputs[i].shape = places[i].shape.data();
    inputs[i].strides = places[i].strides.data();
  }
  return places;
}

// "input 0 enters with its dimensions in the order 0, 2, 3, 1"
std::string order_text(std::span<const Layout> layouts) {
  std::string text;
  for (size_t i = 0; i < layouts.size(); ++i) {
    if (layouts[i].is_row_major()) continue;
    text += (text.empty() ? "" : "; ") + TensorName{"input", i}.str() +
            " enters with its dimensions in the order ";
    for (int32_t axis = 0; axis < layouts[i].rank; ++axis)
      text += (axis == 0 ? "" : ", ") + std::to_string(layouts[i].order[static_cast<size_t>(axis)]);
  }
  return text;
}

// The text of an error has dimensions as the engine sees them.
void check_taken(kiln_status status, std::span<const Layout> orders) {
  if (status != KILN_OK && !orders.empty())
    throw std::runtime_error(std::string(kiln_last_error()) + " (" + order_text(orders) + ")");
  check(status);
}

}  // namespace

// What the parts of one call share.
struct EngineRunner::Call {
  std::span<const Layout> layouts, orders;  // of results, of inputs
  std::span<const kiln_tensor> inputs;
  kiln_device device;
  const void* stream;
  RunHooks* hooks;  // which may have memory for outputs
  size_t num_results;
  // By output: the tensor that it is given to; null for a state that is changed where it is.
  std::vector<OwnedTensor> tensors;
  std::vector<MemoryRange> ranges;  // of the states

  std::span<const kiln_tensor> states() const { return inputs.last(tensors.size() - num_results); }
};

// A session for the length of one call.
class EngineRunner::Lease {
 public:
  Lease(EngineRunner& runner, const Place& place)
      : runner_(runner), place_(place), session_(runner.take_session(place)) {}
  ~Lease() { runner_.give_back(std::move(session_), place_); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  kiln_session* get() const { return session_.get(); }

 private:
  EngineRunner& runner_;
  const Place place_;
  SessionPtr session_;
};

EngineRunner::Place EngineRunner::place_of(kiln_device device, const RunHooks* hooks) {
  if (device.type == KILN_CUDA) {
    void* stream = current_cuda_stream(device.index);
    return {1, device, stream, is_capturing(stream),
            hooks == nullptr ? std::nullopt : hooks->weight_budget()};
  }
  uint32_t num_threads = 0;
  check_torch(torch_get_num_threads(&num_threads), "tell its number of threads");
  return {static_cast<int32_t>(num_threads), device, nullptr, false, std::nullopt};
}

SessionPtr EngineRunner::take_session(const Place& place) {
  {
    std::vector<IdleSession> dropped;  // destroyed after the lock is given up
    std::lock_guard lock(mutex_);
    // The most recently used: its memory is warm.
    for (size_t i = idle_.size(); i-- > 0 && !place.is_captured;) {
      if (idle_[i].place != place) continue;
      SessionPtr session = std::move(idle_[i].session);
      idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
      return session;
    }
    // Those of another budget go first: the GPU may not have room for the weights of both.
    const auto others = std::ranges::partition(idle_, [&](const IdleSession& idle) {
      return idle.place.device.index != place.device.index ||
             idle.place.weight_budget == place.weight_budget;
    });
    std::ranges::move(others, std::back_inserter(dropped));
    idle_.erase(others.begin(), others.end());
  }
  const bool is_cuda = place.device.type == KILN_CUDA;
  const kiln_session_options options{sizeof(kiln_session_options), place.num_threads,
                                     place.device.index, is_cuda ? cuda_allocator() : nullptr,
                                     place.weight_budget ? &*place.weight_budget : nullptr};
  kiln_session* session = nullptr;
  check(kiln_session_create(engine_.get(), &options, &session));
  return SessionPtr(session);
}

void EngineRunner::give_back(SessionPtr session, const Place& place) {
  std::vector<IdleSession> dropped;  // destroyed after the lock is given up
  std::lock_guard lock(mutex_);
  if (place.is_captured) {
    captured_.push_back(std::move(session));
    return;
  }
  const auto is_of_place = [&](const IdleSession& idle) { return idle.place == place; };
  // Callers stay with a number of threads: sessions of another one are not wanted any more. Of
  // streams, a few are used in turn.
  constexpr std::ptrdiff_t kMostStreams = 16;
  if (place.device.type == KILN_CPU
          ? !std::ranges::all_of(idle_, is_of_place)
          : std::ranges::count_if(idle_, std::not_fn(is_of_place)) >= kMostStreams)
    dropped.swap(idle_);
  idle_.push_back({place, std::move(session)});
}

// The tensor for an output that the engine gives in the shape `stored`.
OwnedTensor EngineRunner::make_output(size_t index, const Shape& stored, const Call& call) const {
  const auto [dtype, rank, updates] = outputs_[index];
  const std::span<const int64_t> shape(stored.data(), static_cast<size_t>(rank));
  const bool is_row_major = call.layouts.empty() || call.layouts[index].is_row_major();
  if (is_row_major && call.hooks == nullptr) {
    return new_tensor(dtype, shape, {}, call.device);
  }
  const Placement placed = is_row_major ? Placement{stored, row_major_strides(shape)}
                                        : place(shape, call.layouts[index]);
  if (call.hooks != nullptr) {
    const kiln_tensor output{.struct_size = sizeof(kiln_tensor),
                             .data = nullptr,
                             .dtype = dtype,
                             .rank = rank,
                             .shape = placed.shape.data(),
                             .strides = placed.strides.data(),
                             .device = call.device};
    if (OwnedTensor tensor = call.hooks->take_output(index, output, call.stream)) return tensor;
  }
  return new_tensor(dtype, {placed.shape.data(), shape.size()},
                    {placed.strides.data(), shape.size()}, call.device);
}

void EngineRunner::check_states(size_t num_inputs, size_t num_states) const {
  bool fits = num_states <= num_inputs && num_states <= outputs_.size();
  for (size_t i = 1; fits && i <= num_states; ++i)
    fits = updated_input(outputs_.size() - i) == static_cast<int64_t>(num_inputs - i);
  if (!fits)
    throw std::runtime_error("[execute_engine_in_place] got " + std::to_string(num_states) +
                             " states that the engine does not update in this order");
}

std::vector<OwnedTensor> EngineRunner::run(std::span<const AtenTensorHandle> inputs,
                                           const Layouts& layouts, kiln_device device,
                                           RunHooks* hooks, size_t num_states) {
  check_states(inputs.size(), num_states);
  const size_t num_results = outputs_.size() - num_states;
  if (!layouts.results.empty() && layouts.results.size() != num_results) {
    throw std::runtime_error("[execute_engine] got layouts of " +
                             std::to_string(layouts.results.size()) +
                             " results, but the engine has " + std::to_string(num_results));
  }
  std::vector<kiln_tensor> views;
  views.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    views.push_back(view(inputs[i], {"input", i}));
  }
  const std::vector<Placement> places = take_in_order(views, layouts.inputs);
  const Place place = place_of(device, hooks);
  const Lease session(*this, place);

  Call call{layouts.results,
            layouts.inputs,
            views,
            device,
            place.stream,
            place.is_captured ? nullptr : hooks,
            num_results,
            {},
            {}};
  call.tensors.resize(outputs_.size());
  for (const kiln_tensor& state : call.states()) call.ranges.push_back(range_of(state));
  if (hooks != nullptr) hooks->before_run(session.get());
  if (kiln_engine_num_data_sizes(engine_.get()) == 0)
    run_into(session.get(), place, call);
  else
    run_and_allocate(session.get(), place, call);
  for (size_t i = 0; i < num_states; ++i) {
    AtenTensorHandle state = inputs[inputs.size() - num_states + i];
    const OwnedTensor& update = call.tensors[num_results + i];
    if (update != nullptr) check_torch(aoti_torch_copy_(state, update.get(), 0), "copy");
  }
  call.tensors.resize(num_results);
  if (hooks != nullptr) {
    std::span<const OwnedTensor> outputs = call.tensors;
    hooks->after_run(session.get(), place.is_captured ? outputs.first(0) : outputs, place.stream);
  }
  return std::move(call.tensors);
}

// Where an output of a shape is to be written.
void* EngineRunner::place_output(size_t index, const Shape& shape, Call& call) const {
  OwnedTensor& tensor = call.tensors[index];
  if (index < call.num_results) {
    tensor = make_output(index, shape, call);
  } else {
    const size_t state = index - call.num_results;
    if (is_writable(call.states(), call.ranges, state)) return call.states()[state].data;
    tensor = new_tensor(outputs_[index].dtype,
                        {shape.data(), static_cast<size_t>(outputs_[index].rank)}, {}, call.device);
  }
  void* data = nullptr;
  check_torch(aoti_torch_get_data_ptr(tensor.get(), &data), "tell where a tensor lies");
  return data;
}

// Shapes are known before the run.
void EngineRunner::run_into(kiln_session* session, const Place& place, Call& call) const {
  std::vector<Shape> shapes(outputs_.size());
  auto* shape_data = reinterpret_cast<int64_t(*)[KILN_MAX_RANK]>(shapes.data());
  check_taken(kiln_session_output_shapes(session, call.inputs.data(), call.inputs.size(),
                                         shape_data, outputs_.size()),
              call.orders);
  std::vector<kiln_tensor> views;
  views.reserve(outputs_.size());
  for (size_t i = 0; i < outputs_.size(); ++i)
    views.push_back({.struct_size = sizeof(kiln_tensor),
                     .data = place_output(i, shapes[i], call),
                     .dtype = outputs_[i].dtype,
                     .rank = outputs_[i].rank,
                     .shape = shapes[i].data(),
                     .strides = nullptr,
                     .device = call.device});
  const kiln_run_options options{sizeof(kiln_run_options), place.stream, nullptr};
  check(kiln_session_run(session, call.inputs.data(), call.inputs.size(), views.data(),
                         views.size(), &options));
}

// Some shapes depend on the data: tensors are made when the run knows them.
void EngineRunner::run_and_allocate(kiln_session* session, const Place& place, Call& call) const {
  struct Request {
    const EngineRunner& runner;
    Call& call;
    std::exception_ptr error;
  } request{*this, call, nullptr};
  kiln_run_options options{sizeof(kiln_run_options), place.stream, nullptr};
  options.output_user = &request;
  options.allocate_output = [](void* user, const kiln_output* output) -> void* {
    auto& self = *static_cast<Request*>(user);
    try {
      Shape shape{};
      std::copy_n(output->shape, output->rank, shape.begin());
      return self.runner.place_output(output->index, shape, self.call);
    } catch (...) {
      self.error = std::current_exception();
      return nullptr;
    }
  };
  const kiln_status status =
      kiln_session_run(session, call.inputs.data(), call.inputs.size(), nullptr, 0, &options);
  if (request.error != nullptr) std::rethrow_exception(request.error);
  check_taken(status, call.orders);
}

}  // namespace kiln::torch_op
