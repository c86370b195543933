#include "torch/aoti/model.h"

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "support/dtype.h"
#include "torch/cuda.h"

namespace kiln::aoti {
namespace {

using torch_op::EngineRunner;
using torch_op::OwnedTensor;

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error("the package has no " + path);
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

std::unique_ptr<EngineRunner> load_engine(const std::string& path, kiln_device device) {
  return std::make_unique<EngineRunner>(
      torch_op::load_for(static_cast<kiln_device_type>(device.type),
                         [&](const kiln_load_options* options, kiln_engine** engine) {
                           return kiln_engine_load_file(path.c_str(), options, engine);
                         }));
}

// What a loader asks for: "cpu", "cuda" or "cuda:1".
kiln_device device_of(const std::string& text, kiln_device_type compiled_for) {
  const bool is_cuda = text.starts_with("cuda");
  if (is_cuda != (compiled_for == KILN_CUDA)) {
    throw std::runtime_error(std::string("the package was compiled for ") +
                             (is_cuda ? "the CPU" : "a GPU") + ", not for " + text);
  }
  if (!is_cuda) return torch_op::kCpu;
  const size_t colon = text.find(':');
  return {KILN_CUDA, colon == std::string::npos ? torch_op::current_cuda_device()
                                                : std::stoi(text.substr(colon + 1))};
}

std::string name_of(kiln_device device) {
  return device.type == KILN_CPU ? "cpu" : "cuda:" + std::to_string(device.index);
}

std::string dtype_text(kiln_dtype dtype) {
  return std::string(dtype_name(static_cast<DType>(dtype)));
}

// Operators that PyTorch runs for us shall not record gradients.
class NoGrad {
 public:
  NoGrad() : before_(aoti_torch_grad_mode_is_enabled()) { aoti_torch_grad_mode_set_enabled(false); }
  ~NoGrad() { aoti_torch_grad_mode_set_enabled(before_); }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

// The bytes from a constant's first element to its last. Throws std::runtime_error if there can be
// no such constant.
uint64_t bytes_of(const ConstantSpec& constant) {
  if (constant.shape.size() > KILN_MAX_RANK) {
    throw std::runtime_error("the package has a constant of more than 16 dimensions");
  }
  bool fits = true;
  int64_t count = 1, last = 0, step = 0, bytes = 0;  // row-major so far; index of the last element
  for (size_t axis = constant.shape.size(); axis-- > 0;) {
    const int64_t size = constant.shape[axis];
    const int64_t stride = constant.strides.empty() ? count : constant.strides[axis];
    fits = fits && size >= 0 && stride >= 0 && !__builtin_mul_overflow(size - 1, stride, &step) &&
           !__builtin_add_overflow(last, step, &last) &&
           !__builtin_mul_overflow(count, size, &count);
  }
  const auto width = static_cast<int64_t>(dtype_size(static_cast<DType>(constant.dtype)));
  if (!fits || __builtin_add_overflow(last, 1, &last) ||
      __builtin_mul_overflow(last, width, &bytes)) {
    throw std::runtime_error("the package has a constant of an impossible size");
  }
  return count == 0 ? 0 : static_cast<uint64_t>(bytes);
}

const std::byte* address_of(AtenTensorHandle tensor) {
  void* data = nullptr;
  torch_op::check_torch(aoti_torch_get_data_ptr(tensor, &data), "tell where a tensor lies");
  return static_cast<const std::byte*>(data);
}

std::vector<OwnedTensor> run_aten(const Call& call, const SizeValues& sizes,
                                  std::vector<AtenTensorHandle> tensors,
                                  AOTIProxyExecutorHandle proxy) {
  if (proxy == nullptr) {
    throw std::runtime_error("the package lacks the list of PyTorch's operators that it calls");
  }
  std::vector<int64_t> ints;
  for (const SizeOperand& size : call.ints) {
    ints.push_back(sizes.get(size));
  }
  std::vector<OwnedTensor> results;
  for (size_t i = 0; i < call.num_results; ++i) {
    AtenTensorHandle handle = nullptr;
    torch_op::check_torch(aoti_torch_new_uninitialized_tensor(&handle), "make a tensor");
    results.emplace_back(handle);
    tensors.push_back(handle);
  }
  const NoGrad no_grad;
  const AOTITorchError error = aoti_torch_proxy_executor_call_function(
      proxy, static_cast<int>(call.target), static_cast<int>(ints.size()), ints.data(),
      static_cast<int>(tensors.size()), tensors.data());
  if (error != AOTI_TORCH_SUCCESS) {
    throw std::runtime_error("the operator " + call.name +
                             " failed; PyTorch wrote the reason to stderr");
  }
  return results;
}

// PyTorch's number of a version has its parts in bytes, from the highest.
void check_version(const TorchVersion& least) {
  if (aoti_torch_abi_version() < (least.major << 56U | least.minor << 48U)) {
    throw std::runtime_error(
        "the package calls operators in a way that this version of PyTorch gets wrong, expected " +
        std::to_string(least.major) + "." + std::to_string(least.minor) +
        " or newer: a package that is saved where a C++ compiler is runs here too");
  }
}

}  // namespace

// The values of one run. A value is borrowed from the inputs or constants, or owned.
struct Model::Values {
  std::vector<kiln_tensor> views;  // of the inputs as the caller gave them
  std::optional<SizeValues> sizes;
  std::vector<AtenTensorHandle> handles;
  std::vector<OwnedTensor> owned;
};

Model::Model(const std::string& directory, size_t num_runners, const std::string& device)
    : program_(parse_program(read_text(directory + "/program.kiln.txt"))),
      device_(device_of(device, program_.device)) {
  check_version(program_.needs_torch);
  for (const InputSpec& input : program_.inputs) {
    labels_.push_back("input \"" + input.name + "\"");
  }
  for (const std::string& file : program_.engine_files) {
    engine_numbers_.push_back(static_cast<int64_t>(engines_.size()));
    engines_.push_back(load_engine(directory + "/" + file, device_));
  }
  for (const Call& call : program_.calls) {
    if (call.kind == Call::Kind::Engine &&
        call.num_results + call.num_states != engines_[call.target]->num_outputs()) {
      throw std::runtime_error("the package's program does not fit its engines");
    }
  }
  map_constants(directory + "/constants.bin");
  if (!program_.model_file.empty()) {
    compiled_.emplace(directory + "/" + program_.model_file, num_runners, name_of(device_));
  }
}

void Model::map_constants(const std::string& path) {
  if (program_.constants.empty()) {
    return;
  }
  Result<FileMap> file = FileMap::open(path);
  if (!file.ok()) {
    throw std::runtime_error(file.status().message());
  }
  constant_file_ = std::move(*file);
  const uint64_t size = constant_file_.bytes().size();
  for (const ConstantSpec& constant : program_.constants) {
    const uint64_t bytes = bytes_of(constant);
    if (constant.offset > size || bytes > size - constant.offset) {
      throw std::runtime_error("the package's constants.bin is truncated");
    }
    constants_.push_back(load_constant(constant));
    constant_memory_.emplace_back(address_of(constants_.back().get()), bytes);
  }
}

// In the mapped file, or copied: to the GPU, or because it changes.
OwnedTensor Model::load_constant(const ConstantSpec& constant) const {
  OwnedTensor mapped = torch_op::borrow(constant_file_.bytes().data() + constant.offset,
                                        constant.dtype, constant.shape, constant.strides);
  const bool is_on_host = device_.type == KILN_CPU || constant.is_on_host;
  if (is_on_host && !constant.is_state) {
    return mapped;
  }
  OwnedTensor copy = torch_op::new_tensor(constant.dtype, constant.shape, constant.strides,
                                          is_on_host ? torch_op::kCpu : device_);
  torch_op::check_torch(aoti_torch_copy_(copy.get(), mapped.get(), 0), "copy a constant");
  return copy;
}

void Model::check_inputs(std::span<const OwnedTensor> inputs, Values& values) const {
  std::vector<kiln_tensor>& views = values.views;
  if (inputs.size() != program_.inputs.size()) {
    throw std::runtime_error("got " + std::to_string(inputs.size()) + " input tensors, expected " +
                             std::to_string(program_.inputs.size()));
  }
  views.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const InputSpec& spec = program_.inputs[i];
    views.push_back(torch_op::view(inputs[i].get(), {labels_[i]}));
    if (views[i].dtype != spec.dtype) {
      throw std::runtime_error(labels_[i] + ": got dtype " + dtype_text(views[i].dtype) +
                               ", expected " + dtype_text(spec.dtype));
    }
    if (static_cast<size_t>(views[i].rank) != spec.dims.size()) {
      throw std::runtime_error(labels_[i] + ": got rank " + std::to_string(views[i].rank) +
                               ", expected " + std::to_string(spec.dims.size()));
    }
  }
  values.sizes.emplace(program_.sizes, views);
  for (size_t i = 0; i < inputs.size(); ++i) {
    check_shape(i, values);
  }
  check_sizes(values);
}

void Model::check_sizes(const Values& values) const {
  for (const SizeCheck& check : program_.checks) {
    if (values.sizes->find(check.condition).value_or(0) != 0) {
      continue;
    }
    std::string got;
    for (const auto& [input, dim] : program_.sizes.sizes_of(check.condition)) {
      got += (got.empty() ? "" : ", ") + program_.inputs[input].name + ".size(" +
             std::to_string(dim) + ") = " + std::to_string(values.views[input].shape[dim]);
    }
    throw std::runtime_error("the sizes of the inputs do not fit together: got " + got +
                             ", expected " + check.text);
  }
}

void Model::check_shape(size_t index, const Values& values) const {
  const std::vector<InputDim>& dims = program_.inputs[index].dims;
  for (size_t dim = 0; dim < dims.size(); ++dim) {
    const int64_t size = values.views[index].shape[dim];
    int64_t min = dims[dim].min, max = dims[dim].max;
    if (dims[dim].equal) {
      min = max = values.sizes->get(*dims[dim].equal);
    }
    if (size < min || size > max) {
      std::string expected = std::to_string(min);
      if (min != max) {
        expected += max == INT64_MAX ? " or more" : ".." + std::to_string(max);
      }
      throw std::runtime_error(labels_[index] + " dim " + std::to_string(dim) + ": got " +
                               std::to_string(size) + ", expected " + expected);
    }
  }
}

// Compiled code relies on the strides that it was compiled for. Null: the input has them.
OwnedTensor Model::copy_with_strides(AtenTensorHandle input, size_t index,
                                     const Values& values) const {
  const InputSpec& spec = program_.inputs[index];
  const kiln_tensor& given = values.views[index];
  const auto rank = static_cast<size_t>(given.rank);
  torch_op::Shape strides;
  bool same = true;
  for (size_t dim = 0; dim < rank; ++dim) {
    strides[dim] = values.sizes->get(spec.strides[dim]);
    same = same && (given.shape[dim] == 1 || given.strides[dim] == strides[dim]);
  }
  if (same) {
    return nullptr;
  }
  OwnedTensor copy = torch_op::new_tensor(spec.dtype, {given.shape, rank}, {strides.data(), rank},
                                          torch_op::device_of(input, {labels_[index]}));
  torch_op::check_torch(aoti_torch_copy_(copy.get(), input, 0), "copy a strided input");
  return copy;
}

std::vector<OwnedTensor> Model::run_call(const Call& call, const Values& values,
                                         const CompiledModel::Context& context) {
  if (call.kind == Call::Kind::Model) {
    return run_model(call, values, context);
  }
  std::vector<AtenTensorHandle> inputs;
  inputs.reserve(call.inputs.size() + call.num_results);
  for (const size_t value : call.inputs) {
    inputs.push_back(values.handles[value]);
  }
  if (call.kind == Call::Kind::Engine) {
    return engines_[call.target]->run(inputs, call.layouts, device_, nullptr, call.num_states);
  }
  return run_aten(call, *values.sizes, std::move(inputs), context.proxy);
}

std::vector<OwnedTensor> Model::run_model(const Call& call, const Values& values,
                                          const CompiledModel::Context& context) {
  std::vector<OwnedTensor> inputs;
  std::vector<std::pair<AtenTensorHandle, OwnedTensor>> written_back;
  for (const size_t value : call.inputs) {
    const AtenTensorHandle given = values.handles[value];
    inputs.push_back(torch_op::share(given));
    if (value < program_.inputs.size() && !program_.inputs[value].strides.empty()) {
      if (OwnedTensor copy = copy_with_strides(given, value, values)) {
        if (program_.inputs[value].is_changed) {
          written_back.emplace_back(given, torch_op::share(copy.get()));
        }
        inputs.back() = std::move(copy);
      }
    }
  }
  static constexpr int64_t kOneElement = 1;
  for (const size_t engine : call.engines) {
    inputs.push_back(torch_op::borrow(&engine_numbers_[engine], KILN_I64, {&kOneElement, 1}));
  }
  const RunEngine run_engine = [this](size_t index, std::string_view spec,
                                      std::span<const AtenTensorHandle> given) {
    return engines_.at(index)->run(given, torch_op::parse_layouts(spec), device_);
  };
  std::vector<OwnedTensor> results =
      compiled_->run(std::move(inputs), call.num_results, context, run_engine);
  for (const auto& [original, copy] : written_back) {
    torch_op::check_torch(aoti_torch_copy_(original, copy.get(), 0), "write to a strided input");
  }
  return results;
}

bool Model::lies_in_constants(AtenTensorHandle tensor) const {
  const std::byte* data = address_of(tensor);
  return std::ranges::any_of(constant_memory_, [&](std::span<const std::byte> memory) {
    return data >= memory.data() && data < memory.data() + memory.size();
  });
}

// A tensor that lies in a constant is copied: the caller may write to it.
OwnedTensor Model::take_result(size_t value, Values& values) const {
  const AtenTensorHandle handle = values.handles[value];
  if (!constants_.empty() && lies_in_constants(handle)) {
    AtenTensorHandle copy = nullptr;
    torch_op::check_torch(aoti_torch_clone(handle, &copy), "copy a constant");
    return OwnedTensor(copy);
  }
  return values.owned[value] != nullptr ? std::move(values.owned[value]) : torch_op::share(handle);
}

std::vector<OwnedTensor> Model::run(std::vector<OwnedTensor> inputs, void* stream,
                                    AOTIProxyExecutorHandle proxy) {
  std::optional<torch_op::CudaStreamGuard> guard;
  if (device_.type == KILN_CUDA && stream != torch_op::current_cuda_stream(device_.index)) {
    guard.emplace(stream, device_.index);
  }
  Values values;
  check_inputs(inputs, values);
  values.handles.reserve(program_.num_values);
  values.owned.resize(program_.num_values);
  for (const OwnedTensor& input : inputs) {
    values.handles.push_back(input.get());
  }
  for (const OwnedTensor& constant : constants_) {
    values.handles.push_back(constant.get());
  }
  for (const Call& call : program_.calls) {
    for (OwnedTensor& result : run_call(call, values, {stream, proxy})) {
      values.handles.push_back(result.get());
      values.owned[values.handles.size() - 1] = std::move(result);
    }
    for (const size_t value : call.dead) {
      values.owned[value].reset();
    }
  }
  std::vector<OwnedTensor> results;
  for (const auto& value : program_.results) {
    results.push_back(value ? take_result(*value, values) : nullptr);
  }
  return results;
}

}  // namespace kiln::aoti
