// The running half of the C API: errors, bytes and engines.
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "capi/guarded.h"
#include "capi/handles.h"
#include "capi/options.h"
#include "engine/verify.h"
#include "runtime/describe.h"
#include "runtime/engine.h"
#include "support/json_writer.h"
#include "support/last_error.h"
#include "support/status.h"
#include "support/target_name.h"

using kiln::guarded;
using kiln::Result;
using kiln::Status;
using kiln::StatusCode;
using kiln::to_bytes;
using kiln::runtime::Engine;

static_assert(static_cast<int>(StatusCode::KernelFailed) == KILN_KERNEL_FAILED);

namespace {

Result<kiln::runtime::LoadOptions> to_load_options(const kiln_load_options* given) {
  const Result<kiln_load_options> options = kiln::current_options(given, "kiln_load_options");
  if (!options.ok()) return options.status();
  kiln::runtime::LoadOptions result;
  if (options->target != nullptr) {
    const auto name = kiln::parse_target(options->target);
    if (!name.ok()) return name.status();
    result.target = name->target;
    result.variant = name->variant;
  }
  result.verify_weights = options->verify_weights != 0;
  result.describe_only = options->describe_only != 0;
  return result;
}

std::vector<kiln_dim> to_dims(const std::vector<kiln::runtime::DimInfo>& dims) {
  std::vector<kiln_dim> result;
  for (const auto& [min, opt, max] : dims) result.push_back({min, opt, max});
  return result;
}

kiln_engine* to_handle(std::shared_ptr<const Engine> engine) {
  auto handle = std::make_unique<kiln_engine>();
  for (size_t i = 0; i < engine->spec().inputs.size(); ++i)
    handle->input_dims.push_back(to_dims(engine->input_dims(i)));
  for (size_t i = 0; i < engine->spec().outputs.size(); ++i)
    handle->output_dims.push_back(to_dims(engine->output_dims(i)));
  handle->engine = std::move(engine);
  return handle.release();
}

Status get_info(const std::vector<kiln::engine::TensorSpec>& tensors,
                const std::vector<std::vector<kiln_dim>>& dims, size_t index,
                kiln_tensor_info* info) {
  if (index >= tensors.size())
    return Status(StatusCode::NotFound, "got index " + std::to_string(index) + ", expected below " +
                                            std::to_string(tensors.size()));
  const kiln::engine::TensorSpec& tensor = tensors[index];
  const kiln_tensor_info full{sizeof(kiln_tensor_info), tensor.name.c_str(),
                              static_cast<kiln_dtype>(tensor.dtype),
                              static_cast<int32_t>(tensor.shape.size()), dims[index].data()};
  return kiln::give_struct("kiln_tensor_info", &full, info, sizeof(full));
}

}  // namespace

namespace kiln {

Status null_argument(const char* name) {
  return Status(StatusCode::InvalidArgument, std::string("the argument \"") + name + "\" is null");
}

kiln_status fail(const Status& status) {
  set_last_error(status.message().c_str());
  return static_cast<kiln_status>(status.code());
}

kiln_status out_of_memory() noexcept {
  set_lasting_error("out of memory: the process may have no more");
  return KILN_OUT_OF_MEMORY;
}

kiln_bytes* to_bytes(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return new kiln_bytes{{bytes.begin(), bytes.end()}};
}

}  // namespace kiln

extern "C" {

void kiln_private_set_last_error(const char* text) { kiln::set_last_error(text); }
void kiln_private_set_lasting_error(const char* text) { kiln::set_lasting_error(text); }

#define KILN_TEXT(x) #x
#define KILN_VERSION_TEXT(major, minor, patch) \
  KILN_TEXT(major) "." KILN_TEXT(minor) "." KILN_TEXT(patch)

const char* kiln_version(void) {
  return KILN_VERSION_TEXT(KILN_VERSION_MAJOR, KILN_VERSION_MINOR, KILN_VERSION_PATCH);
}

const char* kiln_last_error(void) { return kiln::last_error(); }

const char* kiln_status_name(kiln_status status) {
  switch (status) {
    case KILN_OK:
      return "ok";
    case KILN_INVALID_ARGUMENT:
      return "invalid argument";
    case KILN_OUT_OF_RANGE:
      return "out of range";
    case KILN_NOT_FOUND:
      return "not found";
    case KILN_INVALID_ENGINE:
      return "invalid engine";
    case KILN_UNSUPPORTED:
      return "unsupported";
    case KILN_IO_ERROR:
      return "input/output error";
    case KILN_OUT_OF_MEMORY:
      return "out of memory";
    case KILN_INTERNAL:
      return "internal error";
    case KILN_INDEX_ERROR:
      return "index error";
    case KILN_DIVISION_BY_ZERO:
      return "division by zero";
    case KILN_CANCELLED:
      return "cancelled";
    case KILN_KERNEL_FAILED:
      return "kernel failed";
  }
  return "unknown status";
}

kiln_status kiln_engine_load_file(const char* path, const kiln_load_options* options,
                                  kiln_engine** engine) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(path);
    KILN_REQUIRE(engine);
    const auto load_options = to_load_options(options);
    if (!load_options.ok()) return load_options.status();
    const auto loaded = Engine::load_file(path, *load_options);
    if (!loaded.ok()) return loaded.status();
    *engine = to_handle(*loaded);
    return Status();
  });
}

kiln_status kiln_engine_load_memory(const void* data, size_t size, const kiln_load_options* options,
                                    kiln_engine** engine) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(data);
    KILN_REQUIRE(engine);
    const auto load_options = to_load_options(options);
    if (!load_options.ok()) return load_options.status();
    const auto loaded =
        Engine::load_memory({static_cast<const std::byte*>(data), size}, *load_options);
    if (!loaded.ok()) return loaded.status();
    *engine = to_handle(*loaded);
    return Status();
  });
}

void kiln_engine_destroy(kiln_engine* engine) { delete engine; }

size_t kiln_engine_num_inputs(const kiln_engine* engine) {
  return engine == nullptr ? 0 : engine->engine->spec().inputs.size();
}

size_t kiln_engine_num_outputs(const kiln_engine* engine) {
  return engine == nullptr ? 0 : engine->engine->spec().outputs.size();
}

kiln_status kiln_engine_input(const kiln_engine* engine, size_t index, kiln_tensor_info* info) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(engine);
    KILN_REQUIRE(info);
    return get_info(engine->engine->spec().inputs, engine->input_dims, index, info);
  });
}

kiln_status kiln_engine_output(const kiln_engine* engine, size_t index, kiln_tensor_info* info) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(engine);
    KILN_REQUIRE(info);
    return get_info(engine->engine->spec().outputs, engine->output_dims, index, info);
  });
}

size_t kiln_engine_num_data_sizes(const kiln_engine* engine) {
  return engine == nullptr ? 0 : engine->engine->spec().data_sizes.size();
}

int64_t kiln_engine_updated_input(const kiln_engine* engine, size_t output) {
  if (engine == nullptr || output >= engine->engine->spec().outputs.size()) return -1;
  return engine->engine->spec().outputs[output].updates;
}

const char* kiln_engine_target(const kiln_engine* engine) {
  const auto* program = engine == nullptr ? nullptr : engine->engine->program();
  return program == nullptr ? "" : program->target.c_str();
}

const char* kiln_engine_variant(const kiln_engine* engine) {
  const auto* program = engine == nullptr ? nullptr : engine->engine->program();
  return program == nullptr ? "" : program->variant.c_str();
}

uint64_t kiln_engine_streamable_bytes(const kiln_engine* engine) {
  const auto* executable = engine == nullptr ? nullptr : engine->engine->executable();
  return executable == nullptr ? 0 : executable->streamable_bytes();
}

kiln_status kiln_engine_describe(const kiln_engine* engine, kiln_bytes** json) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(engine);
    KILN_REQUIRE(json);
    const Result<std::string> text = kiln::runtime::describe(*engine->engine);
    if (!text.ok()) return text.status();
    *json = to_bytes(*text);
    return Status();
  });
}

kiln_status kiln_engine_verify(const void* data, size_t size, kiln_bytes** json) {
  return guarded([&]() -> Status {
    if (size > 0) KILN_REQUIRE(data);
    KILN_REQUIRE(json);
    const auto damages = kiln::engine::verify({static_cast<const std::byte*>(data), size});
    kiln::JsonWriter text;
    text.begin_object().key("sound").value(damages.empty()).key("problems").begin_array();
    for (const kiln::engine::Damage& damage : damages) {
      text.begin_object().key("where").value(damage.where);
      text.key("offset").value(damage.offset).key("size").value(damage.size);
      text.key("what").value(damage.what).end_object();
    }
    *json = to_bytes(text.end_array().end_object().text());
    return Status();
  });
}

const void* kiln_bytes_data(const kiln_bytes* bytes) {
  return bytes == nullptr ? nullptr : bytes->data.data();
}

size_t kiln_bytes_size(const kiln_bytes* bytes) {
  return bytes == nullptr ? 0 : bytes->data.size();
}

void kiln_bytes_destroy(kiln_bytes* bytes) { delete bytes; }

}  // extern "C"
