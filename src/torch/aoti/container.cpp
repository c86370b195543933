// The C functions by which PyTorch's AOTIModelPackageLoader runs the library of a package
// (torch/csrc/inductor/aoti_runtime/interface.h). This library is the same in every package: what
// it runs lies beside it.

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_runtime/interface.h>

#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/last_error.h"
#include "support/thread_pool.h"
#include "torch/aoti/model.h"

namespace {

using kiln::aoti::Model;
using kiln::torch_op::OwnedTensor;

// The first version of LibTorch whose loader asks for the text of an error.
constexpr uint64_t kAsksForErrors = uint64_t{0x020d} << 48;

// Older loaders do not ask.
void tell(const char* text) {
  if (aoti_torch_abi_version() < kAsksForErrors) {
    std::fprintf(stderr, "Error: %s\n", text);
  }
}

template <typename Body>
AOTIRuntimeError guarded(const Body& body) {
  try {
    body();
    return AOTI_RUNTIME_SUCCESS;
  } catch (const std::bad_alloc&) {
    kiln::set_lasting_error("out of memory: the process may have no more");
  } catch (const std::exception& error) {
    kiln::set_last_error(error.what());
  } catch (...) {
    kiln::set_lasting_error("an unknown error");
  }
  tell(kiln::last_error());
  return AOTI_RUNTIME_FAILURE;
}

Model& model_of(AOTInductorModelContainerHandle container) {
  return *reinterpret_cast<Model*>(container);
}

// Takes handles over. Each slot is null from then on, because loaders since LibTorch 2.14 free what
// a run has left in them. All that may throw comes first.
std::vector<OwnedTensor> take(AtenTensorHandle* handles, size_t count) {
  std::vector<OwnedTensor> taken;
  taken.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    taken.emplace_back(std::exchange(handles[i], nullptr));
  }
  return taken;
}

// Where this library lies.
std::string own_directory() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_directory), &info) == 0 ||
      info.dli_fname == nullptr) {
    throw std::runtime_error("the system does not say where the package's library lies");
  }
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

// The system unloads this library when the last package that uses it goes away: no thread of ours
// may be left in it.
struct StopThreads {
  ~StopThreads() { kiln::stop_idle_thread_pools(); }
} stop_threads;

AOTIRuntimeError refuse_constants() {
  return guarded([] {
    throw std::runtime_error(
        "the weights of a compiled package cannot be changed: compile the model again");
  });
}

}  // namespace

extern "C" {

AOTIRuntimeError AOTInductorModelContainerCreateWithDevice(
    AOTInductorModelContainerHandle* container_handle, size_t num_models, const char* device_str,
    const char* /*cubin_dir*/) {
  const AOTIRuntimeError error = guarded([&] {
    *container_handle = reinterpret_cast<AOTInductorModelContainerHandle>(
        new Model(own_directory(), num_models, device_str));
  });
  if (error != AOTI_RUNTIME_SUCCESS && aoti_torch_abi_version() >= kAsksForErrors) {
    std::fprintf(stderr, "Error: %s\n", kiln::last_error());  // no loader asks at this point
  }
  return error;
}

AOTIRuntimeError AOTInductorModelContainerCreate(AOTInductorModelContainerHandle* container_handle,
                                                 size_t num_models, bool is_cpu,
                                                 const char* cubin_dir) {
  return AOTInductorModelContainerCreateWithDevice(container_handle, num_models,
                                                   is_cpu ? "cpu" : "cuda", cubin_dir);
}

AOTIRuntimeError AOTInductorModelContainerDelete(AOTInductorModelContainerHandle container_handle) {
  return guarded([&] { delete &model_of(container_handle); });
}

AOTIRuntimeError AOTInductorModelContainerRun(AOTInductorModelContainerHandle container_handle,
                                              AtenTensorHandle* input_handles, size_t num_inputs,
                                              AtenTensorHandle* output_handles, size_t num_outputs,
                                              AOTInductorStreamHandle stream_handle,
                                              AOTIProxyExecutorHandle proxy_executor_handle) {
  return guarded([&] {
    std::vector<OwnedTensor> inputs = take(input_handles, num_inputs);
    Model& model = model_of(container_handle);
    if (num_outputs != model.program().results.size()) {
      throw std::runtime_error("got " + std::to_string(num_outputs) + " outputs, expected " +
                               std::to_string(model.program().results.size()));
    }
    std::vector<OwnedTensor> outputs =
        model.run(std::move(inputs), stream_handle, proxy_executor_handle);
    for (OwnedTensor& output : outputs) {
      if (output == nullptr) {  // None is an undefined tensor
        AtenTensorHandle undefined = nullptr;
        kiln::torch_op::check_torch(aoti_torch_new_uninitialized_tensor(&undefined),
                                    "make a tensor");
        output.reset(undefined);
      }
    }
    for (size_t i = 0; i < num_outputs; ++i) {
      output_handles[i] = outputs[i].release();
    }
  });
}

AOTIRuntimeError AOTInductorModelContainerRunSingleThreaded(
    AOTInductorModelContainerHandle container_handle, AtenTensorHandle* input_handles,
    size_t num_inputs, AtenTensorHandle* output_handles, size_t num_outputs,
    AOTInductorStreamHandle stream_handle, AOTIProxyExecutorHandle proxy_executor_handle) {
  return AOTInductorModelContainerRun(container_handle, input_handles, num_inputs, output_handles,
                                      num_outputs, stream_handle, proxy_executor_handle);
}

AOTIRuntimeError AOTInductorModelContainerGetNumInputs(
    AOTInductorModelContainerHandle container_handle, size_t* ret_num_inputs) {
  *ret_num_inputs = model_of(container_handle).program().inputs.size();
  return AOTI_RUNTIME_SUCCESS;
}

AOTIRuntimeError AOTInductorModelContainerGetInputName(
    AOTInductorModelContainerHandle container_handle, size_t input_idx,
    const char** ret_input_names) {
  return guarded([&] {
    *ret_input_names = model_of(container_handle).program().inputs.at(input_idx).name.c_str();
  });
}

AOTIRuntimeError AOTInductorModelContainerGetNumOutputs(
    AOTInductorModelContainerHandle container_handle, size_t* ret_num_outputs) {
  *ret_num_outputs = model_of(container_handle).program().results.size();
  return AOTI_RUNTIME_SUCCESS;
}

AOTIRuntimeError AOTInductorModelContainerGetCallSpec(
    AOTInductorModelContainerHandle container_handle, const char** in_spec, const char** out_spec) {
  *in_spec = model_of(container_handle).program().in_spec.c_str();
  *out_spec = model_of(container_handle).program().out_spec.c_str();
  return AOTI_RUNTIME_SUCCESS;
}

AOTIRuntimeError AOTInductorGetLastError(const char** error_msg) {
  *error_msg = kiln::last_error();
  return AOTI_RUNTIME_SUCCESS;
}

// Sessions belong to streams by themselves, and threads never wait for each other here.

// NOLINTBEGIN(readability-identifier-naming): newer versions of PyTorch give these names
AOTI_API AOTIRuntimeError AOTInductorModelContainerSetUseStreamAffinity(
    AOTInductorModelContainerHandle /*container_handle*/, bool /*use_stream_affinity*/) {
  return AOTI_RUNTIME_SUCCESS;
}

AOTI_API AOTIRuntimeError AOTInductorModelContainerGetStreamAffinityModelIndexForTesting(
    AOTInductorModelContainerHandle /*container_handle*/, AOTInductorStreamHandle /*stream_handle*/,
    int64_t* model_index) {
  *model_index = -2;  // AOTI_STREAM_AFFINITY_DISABLED
  return AOTI_RUNTIME_SUCCESS;
}

// Weights lie in engines, where nothing can look for them or change them.

AOTI_API AOTIRuntimeError AOTInductorModelContainerCreateWithExternalConstants(
    AOTInductorModelContainerHandle* container_handle, size_t num_models, const char* device_str,
    const char* cubin_dir, const AOTInductorConstantMapEntry* /*constant_entries*/,
    size_t num_constant_entries) {
  if (num_constant_entries != 0) {
    return refuse_constants();
  }
  return AOTInductorModelContainerCreateWithDevice(container_handle, num_models, device_str,
                                                   cubin_dir);
}

AOTI_API AOTIRuntimeError AOTInductorModelContainerDidCallLoadConstants(
    AOTInductorModelContainerHandle /*container_handle*/, bool* did_call_load_constants) {
  *did_call_load_constants = false;
  return AOTI_RUNTIME_SUCCESS;
}
// NOLINTEND(readability-identifier-naming)

AOTIRuntimeError AOTInductorModelContainerGetNumConstants(
    AOTInductorModelContainerHandle /*container_handle*/, size_t* num_constants) {
  *num_constants = 0;
  return AOTI_RUNTIME_SUCCESS;
}

AOTIRuntimeError AOTInductorModelContainerGetConstantsBlobSize(
    AOTInductorModelContainerHandle /*container_handle*/, uint64_t* ret_size) {
  *ret_size = 0;
  return AOTI_RUNTIME_SUCCESS;
}

AOTIRuntimeError AOTInductorModelContainerGetConstantName(
    AOTInductorModelContainerHandle /*container_handle*/, size_t /*idx*/, const char** /*name*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerGetConstantOriginalFQN(
    AOTInductorModelContainerHandle /*container_handle*/, size_t /*idx*/,
    const char** /*original_fqn*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerGetConstantDtype(
    AOTInductorModelContainerHandle /*container_handle*/, size_t /*idx*/, int32_t* /*dtype*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerGetConstantFromFolded(
    AOTInductorModelContainerHandle /*container_handle*/, size_t /*idx*/, bool* /*from_folded*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerGetConstantType(
    AOTInductorModelContainerHandle /*container_handle*/, size_t /*idx*/, int32_t* /*type*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerGetConstantDataSize(
    AOTInductorModelContainerHandle /*container_handle*/, size_t /*idx*/, size_t* /*data_size*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerExtractConstantsMap(
    AOTInductorModelContainerHandle /*container_handle*/,
    AOTInductorConstantMapHandle /*constant_map_handle*/, bool /*use_inactive*/) {
  return AOTI_RUNTIME_SUCCESS;  // there are none to add to the map
}

AOTI_API AOTIRuntimeError AOTInductorModelContainerExtractConstantsMapEntries(
    AOTInductorModelContainerHandle /*container_handle*/,
    const AOTInductorConstantMapEntry** entries, size_t* num_entries, bool /*use_inactive*/) {
  *entries = nullptr;
  *num_entries = 0;
  return AOTI_RUNTIME_SUCCESS;
}

AOTIRuntimeError AOTInductorModelContainerUpdateUserManagedConstantBuffer(
    AOTInductorModelContainerHandle /*container_handle*/,
    AOTInductorConstantMapHandle /*constant_map_handle*/, bool /*use_inactive*/,
    bool /*validate_full_update*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerUpdateConstantBuffer(
    AOTInductorModelContainerHandle /*container_handle*/,
    AOTInductorConstantMapHandle /*constant_map_handle*/, bool /*use_inactive*/,
    bool /*validate_full_update*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferFromCpu(
    AOTInductorModelContainerHandle /*container_handle*/,
    AOTInductorConstantMapHandle /*constant_map_handle*/, bool /*use_inactive*/,
    bool /*validate_full_update*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerUpdateInactiveConstantBuffer(
    AOTInductorModelContainerHandle /*container_handle*/,
    AOTInductorConstantMapHandle /*constant_map_handle*/) {
  return refuse_constants();
}

AOTI_API AOTIRuntimeError AOTInductorModelContainerUpdateUserManagedConstantBufferPairs(
    AOTInductorModelContainerHandle /*container_handle*/,
    const AOTInductorConstantMapEntry* /*pairs*/, size_t /*num_pairs*/, bool /*use_inactive*/,
    bool /*validate_full_update*/) {
  return refuse_constants();
}

AOTI_API AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferPairs(
    AOTInductorModelContainerHandle /*container_handle*/,
    const AOTInductorConstantMapEntry* /*pairs*/, size_t /*num_pairs*/, bool /*use_inactive*/,
    bool /*validate_full_update*/) {
  return refuse_constants();
}

AOTI_API AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferFromCpuPairs(
    AOTInductorModelContainerHandle /*container_handle*/,
    const AOTInductorConstantMapEntry* /*pairs*/, size_t /*num_pairs*/, bool /*use_inactive*/,
    bool /*validate_full_update*/) {
  return refuse_constants();
}

AOTI_API AOTIRuntimeError AOTInductorModelContainerUpdateInactiveConstantBufferPairs(
    AOTInductorModelContainerHandle /*container_handle*/,
    const AOTInductorConstantMapEntry* /*pairs*/, size_t /*num_pairs*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerFreeInactiveConstantBuffer(
    AOTInductorModelContainerHandle /*container_handle*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerRunConstantFolding(
    AOTInductorModelContainerHandle /*container_handle*/, bool /*use_inactive*/,
    AOTInductorStreamHandle /*stream_handle*/, AOTIProxyExecutorHandle /*proxy_executor_handle*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelContainerSwapConstantBuffer(
    AOTInductorModelContainerHandle /*container_handle*/) {
  return refuse_constants();
}

AOTIRuntimeError AOTInductorModelUpdateConstantsFromBlob(
    AOTInductorModelContainerHandle /*container_handle*/, const uint8_t* /*weight_blob_ptr*/) {
  return refuse_constants();
}

}  // extern "C"
