// Kiln's C++ API: the functions of kiln.h as classes. Header only; needs C++20 and libkiln_runtime,
// and libkiln for kiln::Model.
//
//   kiln::Engine engine = kiln::Engine::load_file("model.kiln");
//   kiln::Session session(engine);
//   std::vector<float> x(8 * 128), y(8 * 384);
//   session.run({kiln::Tensor(x, {8, 128})}, {kiln::Tensor(y, {8, 384})});
//
// Failures are thrown as kiln::Error. Objects are movable and release what they own. Nothing here
// is part of the ABI.
#pragma once

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kiln/kiln.h"

namespace kiln {

// A failed call: what() is kiln_last_error's text.
class Error : public std::runtime_error {
 public:
  Error(kiln_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  kiln_status status() const { return status_; }

 private:
  kiln_status status_;
};

// Throws unless the status is KILN_OK.
inline void check(kiln_status status) {
  if (status != KILN_OK) throw Error(status, kiln_last_error());
}

// Kernels of the user's own (kiln_register_kernel, kiln_load_kernels).
inline void register_kernel(const std::string& name, kiln_kernel_function function,
                            void* user = nullptr) {
  check(kiln_register_kernel(name.c_str(), function, user));
}
inline bool has_kernel(const std::string& name) { return kiln_has_kernel(name.c_str()) != 0; }
inline void load_kernels(const std::string& path) { check(kiln_load_kernels(path.c_str())); }

// The dtype of a C++ type. f16, bf16 and f8e4m3 have none: give the dtype with the pointer.
template <typename Element>
constexpr kiln_dtype dtype_of() {
  using T = std::remove_cv_t<Element>;
  if constexpr (std::same_as<T, float>)
    return KILN_F32;
  else if constexpr (std::same_as<T, double>)
    return KILN_F64;
  else if constexpr (std::same_as<T, int8_t>)
    return KILN_I8;
  else if constexpr (std::same_as<T, uint8_t>)
    return KILN_U8;
  else if constexpr (std::same_as<T, int16_t>)
    return KILN_I16;
  else if constexpr (std::same_as<T, int32_t>)
    return KILN_I32;
  else if constexpr (std::same_as<T, int64_t>)
    return KILN_I64;
  else {
    static_assert(std::same_as<T, bool>, "no dtype has this type");
    return KILN_BOOL;
  }
}

// A view of the caller's memory with its own copy of the shape. The memory must outlive the call it
// is given to.
class Tensor {
 public:
  // Contiguous, row-major.
  template <typename Element>
  Tensor(Element* data, std::vector<int64_t> shape)
      : Tensor(data, dtype_of<Element>(), std::move(shape)) {}
  // The same, with the number of elements checked.
  template <typename Element, typename Allocator>
  Tensor(std::vector<Element, Allocator>& values, std::vector<int64_t> shape)
      : Tensor(values.data(), std::move(shape)) {
    check_count(values.size());
  }
  template <typename Element, typename Allocator>
  Tensor(const std::vector<Element, Allocator>& values, std::vector<int64_t> shape)
      : Tensor(values.data(), std::move(shape)) {
    check_count(values.size());
  }
  // Any dtype; strides in elements, none for contiguous; memory of any device.
  Tensor(const void* data, kiln_dtype dtype, std::vector<int64_t> shape,
         std::vector<int64_t> strides = {}, kiln_device device = {KILN_CPU, 0})
      : data_(const_cast<void*>(data)),
        dtype_(dtype),
        shape_(std::move(shape)),
        strides_(std::move(strides)),
        device_(device) {
    if (!strides_.empty() && strides_.size() != shape_.size())
      throw Error(KILN_INVALID_ARGUMENT, "kiln::Tensor: got " + std::to_string(strides_.size()) +
                                             " strides, expected " + std::to_string(shape_.size()));
  }

  const std::vector<int64_t>& shape() const { return shape_; }
  kiln_dtype dtype() const { return dtype_; }
  // Valid while this tensor is.
  kiln_tensor view() const {
    return {sizeof(kiln_tensor),
            data_,
            dtype_,
            static_cast<int32_t>(shape_.size()),
            shape_.data(),
            strides_.empty() ? nullptr : strides_.data(),
            device_};
  }

 private:
  void check_count(size_t got) const {
    int64_t expected = 1;
    bool overflows = false;
    for (const int64_t extent : shape_)
      overflows |= __builtin_mul_overflow(expected, extent, &expected);
    if (overflows || expected < 0 || static_cast<size_t>(expected) != got)
      throw Error(KILN_INVALID_ARGUMENT, "kiln::Tensor: got " + std::to_string(got) +
                                             " elements, expected " + std::to_string(expected));
  }

  void* data_ = nullptr;
  kiln_dtype dtype_ = KILN_F32;
  std::vector<int64_t> shape_, strides_;
  kiln_device device_{KILN_CPU, 0};
};

// Bytes owned by the library.
class Bytes {
 public:
  explicit Bytes(kiln_bytes* bytes) : bytes_(bytes) {}

  std::span<const std::byte> span() const {
    return {static_cast<const std::byte*>(kiln_bytes_data(bytes_.get())),
            kiln_bytes_size(bytes_.get())};
  }
  std::string text() const {
    return {static_cast<const char*>(kiln_bytes_data(bytes_.get())), kiln_bytes_size(bytes_.get())};
  }

 private:
  struct Destroy {
    void operator()(kiln_bytes* bytes) const { kiln_bytes_destroy(bytes); }
  };
  std::unique_ptr<kiln_bytes, Destroy> bytes_;
};

struct LoadOptions {
  std::string target;           // "cpu", "cpu:x86-64-v3"; empty: the first that this machine runs
  bool verify_weights = false;  // check the hash of the weights too, which reads all of them
  bool describe_only = false;   // load no code: the engine can be described, on any machine
};

// An immutable engine. Share it by reference between threads; sessions keep what they need of it
// alive.
class Engine {
 public:
  static Engine load_file(const std::string& path, const LoadOptions& options = {}) {
    const kiln_load_options c_options = to_c(options);
    kiln_engine* engine = nullptr;
    check(kiln_engine_load_file(path.c_str(), &c_options, &engine));
    return Engine(engine);
  }
  // Borrows the bytes until the engine and its sessions are gone; copies the weights unless 64-byte
  // aligned.
  static Engine load_memory(std::span<const std::byte> bytes, const LoadOptions& options = {}) {
    const kiln_load_options c_options = to_c(options);
    kiln_engine* engine = nullptr;
    check(kiln_engine_load_memory(bytes.data(), bytes.size(), &c_options, &engine));
    return Engine(engine);
  }

  size_t num_inputs() const { return kiln_engine_num_inputs(get()); }
  size_t num_outputs() const { return kiln_engine_num_outputs(get()); }
  // Name, dtype and dimensions; the pointers in it belong to the engine.
  kiln_tensor_info input(size_t index) const {
    kiln_tensor_info info{};
    info.struct_size = sizeof(info);
    check(kiln_engine_input(get(), index, &info));
    return info;
  }
  kiln_tensor_info output(size_t index) const {
    kiln_tensor_info info{};
    info.struct_size = sizeof(info);
    check(kiln_engine_output(get(), index, &info));
    return info;
  }
  // Of the loaded program; empty if none is.
  std::string_view target() const { return kiln_engine_target(get()); }
  std::string_view variant() const { return kiln_engine_variant(get()); }
  // Bytes of weights that SessionOptions::weight_budget is about; 0 on a CPU.
  // The input that an output updates; none: -1.
  // Sizes that a run finds in its data: outputs have shapes that depend on it.
  size_t num_data_sizes() const { return kiln_engine_num_data_sizes(get()); }
  int64_t updated_input(size_t output) const { return kiln_engine_updated_input(get(), output); }
  uint64_t streamable_bytes() const { return kiln_engine_streamable_bytes(get()); }
  // JSON: inputs, ranges, kernels, memory, programs, hashes.
  std::string describe() const {
    kiln_bytes* json = nullptr;
    check(kiln_engine_describe(get(), &json));
    return Bytes(json).text();
  }
  kiln_engine* get() const { return engine_.get(); }

 private:
  struct Destroy {
    void operator()(kiln_engine* engine) const { kiln_engine_destroy(engine); }
  };

  explicit Engine(kiln_engine* engine) : engine_(engine) {}
  static kiln_load_options to_c(const LoadOptions& options) {
    const char* target = options.target.empty() ? nullptr : options.target.c_str();
    return {sizeof(kiln_load_options), target, options.verify_weights ? 1 : 0,
            options.describe_only ? 1 : 0};
  }

  std::unique_ptr<kiln_engine, Destroy> engine_;
};

struct SessionOptions {
  int num_threads =
      0;           // those a run may use, the calling one included; 0: one per CPU of the process
  int device = 0;  // of those that the engine's program can run on
  // Memory for temporaries; both functions null: the device's own.
  kiln_allocator allocator{sizeof(kiln_allocator), nullptr, nullptr, nullptr};
  // Bytes of a GPU's memory for weights that can be streamed to it (kiln_session_options); none: all.
  std::optional<uint64_t> weight_budget;
};

struct RunOptions {
  void* stream = nullptr;                        // see kiln_run_options
  const std::atomic<int32_t>* cancel = nullptr;  // ends the run once it is no longer 0
};

// One caller's workspace: one thread at a time.
class Session {
 public:
  explicit Session(const Engine& engine, int num_threads = 0)
      : Session(engine, SessionOptions{.num_threads = num_threads}) {}
  Session(const Engine& engine, const SessionOptions& options) {
    const kiln_session_options c_options{sizeof(kiln_session_options), options.num_threads,
                                         options.device, &options.allocator,
                                         options.weight_budget ? &*options.weight_budget : nullptr};
    kiln_session* session = nullptr;
    check(kiln_session_create(engine.get(), &c_options, &session));
    session_.reset(session);
    num_outputs_ = engine.num_outputs();
    for (size_t i = 0; i < num_outputs_; ++i)
      ranks_.push_back(static_cast<size_t>(engine.output(i).rank));
  }

  // Where inputs and outputs lie.
  kiln_device device() const { return kiln_session_device(get()); }
  // Those a run may use.
  int num_threads() const { return kiln_session_num_threads(get()); }

  // Checks the inputs' shapes; their data is not read.
  // Of an output whose shape depends on the data: the largest.
  std::vector<std::vector<int64_t>> output_shapes(std::span<const Tensor> inputs) {
    const std::vector<kiln_tensor> views = views_of(inputs);
    return shapes_of([&](auto* shapes) {
      return kiln_session_output_shapes(get(), views.data(), views.size(), shapes, num_outputs_);
    });
  }
  // Of the last run, which succeeded.
  std::vector<std::vector<int64_t>> result_shapes() {
    return shapes_of(
        [&](auto* shapes) { return kiln_session_result_shapes(get(), shapes, num_outputs_); });
  }
  std::vector<std::vector<int64_t>> output_shapes(std::initializer_list<Tensor> inputs) {
    return output_shapes(std::span(inputs.begin(), inputs.size()));
  }

  // Inputs may be strided; outputs are contiguous, of the engine's dtypes and shapes, and overlap
  // nothing.
  void run(std::span<const Tensor> inputs, std::span<const Tensor> outputs,
           const RunOptions& options = {}) {
    const std::vector<kiln_tensor> in = views_of(inputs), out = views_of(outputs);
    run(std::span(in), std::span(out), options);
  }
  void run(std::initializer_list<Tensor> inputs, std::initializer_list<Tensor> outputs,
           const RunOptions& options = {}) {
    run(std::span(inputs.begin(), inputs.size()), std::span(outputs.begin(), outputs.size()),
        options);
  }
  // Without an allocation, for callers who keep their views.
  void run(std::span<const kiln_tensor> inputs, std::span<const kiln_tensor> outputs,
           const RunOptions& options = {}) {
    const kiln_run_options c_options = to_c(options);
    const bool is_plain = options.stream == nullptr && options.cancel == nullptr;
    check(kiln_session_run(get(), inputs.data(), inputs.size(), outputs.data(), outputs.size(),
                           is_plain ? nullptr : &c_options));
  }
  // Asks for the memory of each output when its shape is known; null for an output with elements
  // fails the run. What `allocate` throws ends the run and is thrown from here.
  using AllocateOutput = std::function<void*(const kiln_output& output)>;
  void run(std::span<const kiln_tensor> inputs, const AllocateOutput& allocate,
           const RunOptions& options = {}) {
    struct Call {
      const AllocateOutput& allocate;
      std::exception_ptr error;
    } call{allocate, nullptr};
    kiln_run_options c_options = to_c(options);
    c_options.output_user = &call;
    c_options.allocate_output = [](void* user, const kiln_output* output) -> void* {
      auto& self = *static_cast<Call*>(user);
      try {
        return self.allocate(*output);
      } catch (...) {
        self.error = std::current_exception();
        return nullptr;
      }
    };
    const kiln_status status =
        kiln_session_run(get(), inputs.data(), inputs.size(), nullptr, 0, &c_options);
    if (call.error != nullptr) std::rethrow_exception(call.error);
    check(status);
  }
  void run(std::span<const Tensor> inputs, const AllocateOutput& allocate,
           const RunOptions& options = {}) {
    run(std::span<const kiln_tensor>(views_of(inputs)), allocate, options);
  }
  void run(std::initializer_list<Tensor> inputs, const AllocateOutput& allocate,
           const RunOptions& options = {}) {
    run(std::span(inputs.begin(), inputs.size()), allocate, options);
  }
  // Waits for queued runs; throws what failed in them and was not thrown.
  void synchronize() { check(kiln_session_synchronize(get())); }

  void enable_profiling(bool enable = true) {
    check(kiln_session_enable_profiling(get(), enable ? 1 : 0));
  }
  // JSON: the kernels of the last run and their times.
  std::string profile() const {
    kiln_bytes* json = nullptr;
    check(kiln_session_profile(get(), &json));
    return Bytes(json).text();
  }
  kiln_session* get() const { return session_.get(); }

 private:
  struct Destroy {
    void operator()(kiln_session* session) const { kiln_session_destroy(session); }
  };

  static kiln_run_options to_c(const RunOptions& options) {
    static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t));
    kiln_run_options result{};
    result.struct_size = sizeof(result);
    result.stream = options.stream;
    result.cancel = reinterpret_cast<const volatile int32_t*>(options.cancel);
    return result;
  }
  template <typename Get>
  std::vector<std::vector<int64_t>> shapes_of(const Get& get_shapes) {
    std::vector<std::array<int64_t, KILN_MAX_RANK>> shapes(num_outputs_);
    check(get_shapes(reinterpret_cast<int64_t(*)[KILN_MAX_RANK]>(shapes.data())));
    std::vector<std::vector<int64_t>> result;
    for (size_t i = 0; i < num_outputs_; ++i)
      result.emplace_back(shapes[i].begin(), shapes[i].begin() + static_cast<ptrdiff_t>(ranks_[i]));
    return result;
  }
  static std::vector<kiln_tensor> views_of(std::span<const Tensor> tensors) {
    std::vector<kiln_tensor> views;
    for (const Tensor& tensor : tensors) views.push_back(tensor.view());
    return views;
  }

  std::unique_ptr<kiln_session, Destroy> session_;
  size_t num_outputs_ = 0;
  std::vector<size_t> ranks_;
};

// A model to compile: needs libkiln.
class Model {
 public:
  // A torch.export archive (.pt2).
  static Model open_file(const std::string& path) {
    kiln_model* model = nullptr;
    check(kiln_model_open_file(path.c_str(), &model));
    return Model(model);
  }
  // torch.export's JSON (copied) and the weights by name (borrowed until the model is gone).
  static Model open_memory(std::string_view json,
                           const std::vector<std::pair<std::string, Tensor>>& weights) {
    std::vector<const char*> names;
    std::vector<kiln_tensor> tensors;
    for (const auto& [name, tensor] : weights) {
      names.push_back(name.c_str());
      tensors.push_back(tensor.view());
    }
    kiln_model* model = nullptr;
    check(kiln_model_open_memory(json.data(), json.size(), names.data(), tensors.data(),
                                 tensors.size(), &model));
    return Model(model);
  }

  // JSON: for every node, whether it can be compiled.
  std::string check_support() const {
    kiln_bytes* json = nullptr;
    check(kiln_model_check(get(), &json));
    return Bytes(json).text();
  }
  // The bytes of an engine file. Set struct_size in the options.
  Bytes compile(const kiln_compile_options* options = nullptr) const {
    kiln_bytes* engine = nullptr;
    check(kiln_compile(get(), options, &engine));
    return Bytes(engine);
  }
  void compile_to_file(const std::string& path,
                       const kiln_compile_options* options = nullptr) const {
    check(kiln_compile_to_file(get(), options, path.c_str()));
  }
  // JSON: how far an engine's results are from the model's in floats; see kiln_accuracy.
  std::string accuracy(const kiln_samples& samples, const kiln_compile_options* options = nullptr,
                       std::span<const std::byte> engine = {}, bool layers = false) const {
    kiln_bytes* json = nullptr;
    check(kiln_accuracy(get(), options, engine.data(), engine.size(), &samples, layers ? 1 : 0,
                        &json));
    return Bytes(json).text();
  }
  // 32 hexadecimal digits that stand for the engine of this model and these options.
  std::string compile_key(const kiln_compile_options* options = nullptr) const {
    kiln_bytes* key = nullptr;
    check(kiln_compile_key(get(), options, &key));
    return Bytes(key).text();
  }
  // The bytes of an engine with the code of `engine` and the weights of this model: see kiln_refit.
  Bytes refit(std::span<const std::byte> engine,
              const kiln_compile_options* options = nullptr) const {
    kiln_bytes* result = nullptr;
    check(kiln_refit(engine.data(), engine.size(), get(), options, &result));
    return Bytes(result);
  }
  // The same into a file, which is replaced as a whole and may be that of the engine itself.
  void refit_to_file(std::span<const std::byte> engine, const std::string& path,
                     const kiln_compile_options* options = nullptr) const {
    check(kiln_refit_to_file(engine.data(), engine.size(), get(), options, path.c_str()));
  }
  kiln_model* get() const { return model_.get(); }

 private:
  struct Destroy {
    void operator()(kiln_model* model) const { kiln_model_destroy(model); }
  };
  explicit Model(kiln_model* model) : model_(model) {}

  std::unique_ptr<kiln_model, Destroy> model_;
};

}  // namespace kiln
