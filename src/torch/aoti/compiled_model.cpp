#include "torch/aoti/compiled_model.h"

#include <dlfcn.h>

#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

namespace kiln::aoti {
namespace {

using torch_op::OwnedTensor;

// What a call of an engine needs to know about the run that it is part of, and its failure, because
// exceptions cannot cross into a library with a C++ runtime of its own.
struct Run {
  const RunEngine* run_engine = nullptr;
  std::string error;
};
thread_local Run* current_run = nullptr;

class CurrentRun {
 public:
  explicit CurrentRun(const RunEngine& run_engine) : run_{&run_engine, {}}, outer_(current_run) {
    current_run = &run_;
  }
  ~CurrentRun() { current_run = outer_; }
  CurrentRun(const CurrentRun&) = delete;
  CurrentRun& operator=(const CurrentRun&) = delete;
  const std::string& error() const { return run_.error; }

 private:
  Run run_;
  Run* outer_;
};

// The engine is a tensor of one element, its number.
size_t engine_number(AtenTensorHandle engine) {
  void* data = nullptr;
  torch_op::check_torch(aoti_torch_get_data_ptr(engine, &data), "tell where a tensor lies");
  int64_t number = 0;
  std::memcpy(&number, data, sizeof(number));
  return static_cast<size_t>(number);
}

int32_t execute(const AtenTensorHandle* inputs, int64_t num_inputs, AtenTensorHandle engine,
                const char* spec, va_list* outputs) {
  Run* run = current_run;
  if (run == nullptr) {
    return AOTI_TORCH_FAILURE;
  }
  try {
    std::vector<OwnedTensor> results =
        (*run->run_engine)(engine_number(engine), spec, {inputs, static_cast<size_t>(num_inputs)});
    for (OwnedTensor& result : results) {
      *va_arg(*outputs, AtenTensorHandle*) = result.release();
    }
    return AOTI_TORCH_SUCCESS;
  } catch (const std::exception& error) {
    run->error = error.what();
    return AOTI_TORCH_FAILURE;
  }
}

}  // namespace

struct CompiledModel::Functions {
  void (*set_execute)(decltype(&execute)) = nullptr;
  int32_t (*create)(void** container, size_t num_models, const char* device,
                    const char* cubin_directory) = nullptr;
  int32_t (*destroy)(void* container) = nullptr;
  int32_t (*run)(void* container, AtenTensorHandle* inputs, size_t num_inputs,
                 AtenTensorHandle* outputs, size_t num_outputs, void* stream,
                 AOTIProxyExecutorHandle proxy) = nullptr;
  int32_t (*get_last_error)(const char** text) = nullptr;
};

template <typename Function>
void CompiledModel::find(Function*& function, const char* name, bool required) {
  function = reinterpret_cast<Function*>(dlsym(library_, name));
  if (function == nullptr && required) {
    throw std::runtime_error(std::string("the package's compiled library lacks ") + name);
  }
}

CompiledModel::CompiledModel(const std::string& path, size_t num_runners, const std::string& device)
    : library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)),
      functions_(std::make_unique<Functions>()) {
  if (library_ == nullptr) {
    throw std::runtime_error(std::string("the package's compiled library cannot be loaded: ") +
                             dlerror());
  }
  find(functions_->set_execute, "kiln_aoti_set_execute", false);
  find(functions_->create, "AOTInductorModelContainerCreateWithDevice");
  find(functions_->destroy, "AOTInductorModelContainerDelete");
  find(functions_->run, "AOTInductorModelContainerRun");
  find(functions_->get_last_error, "AOTInductorGetLastError", false);
  if (functions_->set_execute != nullptr) {  // a library that calls no engine lacks it
    functions_->set_execute(&execute);
  }
  if (functions_->create(&container_, num_runners, device.c_str(), nullptr) != 0) {
    throw std::runtime_error("the package's compiled library cannot be started: " + last_error());
  }
}

CompiledModel::~CompiledModel() {
  if (container_ != nullptr) {
    functions_->destroy(container_);
  }
  if (library_ != nullptr) {
    dlclose(library_);
  }
}

std::string CompiledModel::last_error() const {
  const char* text = nullptr;
  if (functions_->get_last_error != nullptr) {
    functions_->get_last_error(&text);
  }
  return text != nullptr ? text : "the reason was written to stderr";
}

std::vector<OwnedTensor> CompiledModel::run(std::vector<OwnedTensor> inputs, size_t num_outputs,
                                            const Context& context,
                                            const RunEngine& run_engine) const {
  std::vector<AtenTensorHandle> given, made(num_outputs);
  given.reserve(inputs.size());
  for (OwnedTensor& input : inputs) {
    given.push_back(input.release());  // the library takes them over
  }
  const CurrentRun run(run_engine);
  const int32_t error = functions_->run(container_, given.data(), given.size(), made.data(),
                                        made.size(), context.stream, context.proxy);
  for (const AtenTensorHandle left : given) {
    const OwnedTensor not_taken(left);  // null where the library took it: it may fail before that
  }
  if (error != 0) {
    throw std::runtime_error(run.error().empty() ? last_error() : run.error());
  }
  std::vector<OwnedTensor> outputs;
  for (const AtenTensorHandle output : made) {
    outputs.emplace_back(output);
  }
  return outputs;
}

}  // namespace kiln::aoti
