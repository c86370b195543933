// The running half of the C API: views of the caller's tensors go in, statuses come out.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "capi/shared.h"
#include "engine/spec.h"
#include "engine/verify.h"
#include "kiln/kiln.h"
#include "runtime/describe.h"
#include "runtime/engine.h"
#include "runtime/session.h"
#include "support/json_writer.h"
#include "support/status.h"

using kiln::Result;
using kiln::Status;
using kiln::StatusCode;
using kiln::runtime::Engine;
using kiln::runtime::Session;
using kiln::runtime::TensorView;

static_assert(KILN_MAX_RANK == kiln::engine::kMaxRank);
static_assert(static_cast<int>(kiln::DType::Bool) == KILN_BOOL &&
              kiln::kDTypeCount == KILN_BOOL + 1);
static_assert(static_cast<int>(StatusCode::Internal) == KILN_INTERNAL);

struct kiln_engine {
  std::shared_ptr<const Engine> engine;
  std::vector<std::vector<kiln_dim>> input_dims, output_dims;
};

struct kiln_session {
  std::unique_ptr<Session> session;
};

namespace {

thread_local std::string last_error;

Status null_argument(const char* name) {
  return Status(StatusCode::InvalidArgument, std::string("the argument \"") + name + "\" is null");
}

#define KILN_REQUIRE(pointer) \
  if ((pointer) == nullptr) return null_argument(#pointer)

// Short enough to need no memory where there is none for the whole text.
void set_last_error(const char* text) noexcept {
  try {
    last_error = text;
  } catch (const std::bad_alloc&) {
    last_error = "out of memory";
  }
}

kiln_status finish(const Status& status) {
  if (!status.ok()) set_last_error(status.message().c_str());
  return static_cast<kiln_status>(status.code());
}

kiln_status out_of_memory() noexcept {
  set_last_error("out of memory: the process may have no more");
  return KILN_OUT_OF_MEMORY;
}

// Runs the body of an API function. Nothing below throws but the standard library, when memory is
// short.
template <typename Body>
kiln_status guarded(const Body& body) {
  try {
    return finish(body());
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::length_error&) {  // a container that is larger than any memory
    return out_of_memory();
  }
}

// The caller's options at our size: fields of a newer header are ignored, those that an older one
// lacks are zero.
template <typename Options>
Result<Options> current_options(const Options* options) {
  Options current{};
  if (options == nullptr) return current;
  if (options->struct_size < sizeof(size_t))
    return Status(StatusCode::InvalidArgument, "struct_size of the options is not set");
  std::memcpy(&current, options, std::min(options->struct_size, sizeof(current)));
  return current;
}

Result<kiln::runtime::LoadOptions> to_load_options(const kiln_load_options* given) {
  const Result<kiln_load_options> options = current_options(given);
  if (!options.ok()) return options.status();
  kiln::runtime::LoadOptions result;
  if (options->cpu_variant != nullptr) {
    result.target = "cpu";
    result.variant = options->cpu_variant;
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
  *info = {tensor.name.c_str(), static_cast<kiln_dtype>(tensor.dtype),
           static_cast<int32_t>(tensor.shape.size()), dims[index].data()};
  return Status();
}

kiln_bytes* to_bytes(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return new kiln_bytes{{bytes.begin(), bytes.end()}};
}

Status bad_tensor(const char* role, size_t index, const std::string& what) {
  return Status(StatusCode::InvalidArgument,
                std::string(role) + " " + std::to_string(index) + ": " + what);
}

// The caller's tensors as views; without an allocation for as many as most models have.
class Views {
 public:
  Status assign(const char* role, const kiln_tensor* tensors, size_t count) {
    if (count > 0 && tensors == nullptr)
      return Status(StatusCode::InvalidArgument, std::string("the ") + role + "s are null");
    if (count > few_.size()) many_.resize(count);
    views_ = {count > few_.size() ? many_.data() : few_.data(), count};
    for (size_t i = 0; i < count; ++i) KILN_RETURN_IF_ERROR(view(role, i, tensors[i], views_[i]));
    return Status();
  }
  std::span<const TensorView> get() const { return views_; }

 private:
  static Status view(const char* role, size_t index, const kiln_tensor& tensor, TensorView& view) {
    if (tensor.dtype < KILN_F32 || tensor.dtype > KILN_BOOL)
      return bad_tensor(role, index,
                        "got dtype " + std::to_string(tensor.dtype) + ", expected 0..9");
    if (tensor.rank < 0 || tensor.rank > KILN_MAX_RANK)
      return bad_tensor(role, index,
                        "got rank " + std::to_string(tensor.rank) + ", expected 0..16");
    if (tensor.rank > 0 && tensor.shape == nullptr)
      return bad_tensor(role, index, "its shape is null");
    const auto rank = static_cast<size_t>(tensor.rank);
    view.data = tensor.data;
    view.dtype = static_cast<kiln::DType>(tensor.dtype);
    view.shape = {tensor.shape, rank};
    view.strides = {tensor.strides, tensor.strides == nullptr ? 0 : rank};
    return Status();
  }

  std::array<TensorView, 8> few_;
  std::vector<TensorView> many_;
  std::span<TensorView> views_;
};

}  // namespace

extern "C" {

void kiln_private_set_last_error(const char* text) { set_last_error(text); }

#define KILN_TEXT(x) #x
#define KILN_VERSION_TEXT(major, minor, patch) \
  KILN_TEXT(major) "." KILN_TEXT(minor) "." KILN_TEXT(patch)

const char* kiln_version(void) {
  return KILN_VERSION_TEXT(KILN_VERSION_MAJOR, KILN_VERSION_MINOR, KILN_VERSION_PATCH);
}

const char* kiln_last_error(void) { return last_error.c_str(); }

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

const char* kiln_engine_cpu_variant(const kiln_engine* engine) {
  const auto* program = engine == nullptr ? nullptr : engine->engine->program();
  return program == nullptr ? "" : program->variant.c_str();
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

kiln_status kiln_session_create(kiln_engine* engine, const kiln_session_options* options,
                                kiln_session** session) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(engine);
    KILN_REQUIRE(session);
    const Result<kiln_session_options> current = current_options(options);
    if (!current.ok()) return current.status();
    auto created = Session::create(engine->engine, {.num_threads = current->num_threads});
    if (!created.ok()) return created.status();
    *session = new kiln_session{std::move(*created)};
    return Status();
  });
}

void kiln_session_destroy(kiln_session* session) { delete session; }

kiln_status kiln_session_output_shapes(kiln_session* session, const kiln_tensor* inputs,
                                       size_t num_inputs, int64_t (*shapes)[KILN_MAX_RANK],
                                       size_t num_outputs) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(session);
    if (num_outputs > 0) KILN_REQUIRE(shapes);
    const size_t expected = session->session->engine().spec().outputs.size();
    if (num_outputs != expected)
      return Status(
          StatusCode::InvalidArgument,
          "got " + std::to_string(num_outputs) + " outputs, expected " + std::to_string(expected));
    Views views;
    KILN_RETURN_IF_ERROR(views.assign("input", inputs, num_inputs));
    const auto outputs = session->session->output_shapes(views.get());
    if (!outputs.ok()) return outputs.status();
    for (size_t i = 0; i < num_outputs; ++i) std::ranges::copy((*outputs)[i].shape, shapes[i]);
    return Status();
  });
}

kiln_status kiln_session_run(kiln_session* session, const kiln_tensor* inputs, size_t num_inputs,
                             kiln_tensor* outputs, size_t num_outputs) {
  return guarded([&]() -> Status {
    KILN_REQUIRE(session);
    Views input_views, output_views;
    KILN_RETURN_IF_ERROR(input_views.assign("input", inputs, num_inputs));
    KILN_RETURN_IF_ERROR(output_views.assign("output", outputs, num_outputs));
    return session->session->run(input_views.get(), output_views.get());
  });
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

const void* kiln_bytes_data(const kiln_bytes* bytes) {
  return bytes == nullptr ? nullptr : bytes->data.data();
}

size_t kiln_bytes_size(const kiln_bytes* bytes) {
  return bytes == nullptr ? 0 : bytes->data.size();
}

void kiln_bytes_destroy(kiln_bytes* bytes) { delete bytes; }

}  // extern "C"
