// The compiling half of the C API: exceptions of the compiler become statuses here.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "capi/options.h"
#include "capi/run_engine.h"
#include "capi/running_calls.h"
#include "capi/shared.h"
#include "capi/tensor_check.h"
#include "compiler/accuracy.h"
#include "compiler/cached_compile.h"
#include "compiler/driver.h"
#include "compiler/engine_cache.h"
#include "compiler/refit.h"
#include "compiler/verify_file.h"
#include "engine/reader.h"
#include "import/import.h"
#include "kiln/kiln.h"
#include "support/error.h"
#include "support/json_writer.h"
#include "support/target_name.h"

struct kiln_model {
  std::shared_ptr<kiln::import::Model> model;
};

namespace {

using kiln::CompileError;
using nlohmann::ordered_json;

constexpr const char* kOutOfMemory =
    "out of memory: compiling this model takes more than the process may have";

constexpr const char* kEnding = "the process is ending: nothing is compiled any more";

kiln_status fail(kiln_status status, const char* text) {
  kiln_private_set_last_error(text);
  return status;
}
kiln_status fail(kiln_status status, const std::string& text) { return fail(status, text.c_str()); }

kiln_status out_of_memory() {
  kiln_private_set_lasting_error(kOutOfMemory);
  return KILN_OUT_OF_MEMORY;
}

// Runs the body of an API function. `user_error` is the status of a CompileError.
template <typename Body>
kiln_status guarded(kiln_status user_error, const Body& body) {
  const kiln::RunningCall call;
  if (!call.may_run()) return fail(KILN_UNSUPPORTED, kEnding);
  try {
    body();
    return KILN_OK;
  } catch (const kiln::StatusError& error) {
    return fail(static_cast<kiln_status>(error.code()), error.what());
  } catch (const CompileError& error) {
    return fail(user_error, error.what());
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::length_error&) {  // a container that is larger than any memory
    return out_of_memory();
  } catch (const std::exception& error) {
    return fail(KILN_INTERNAL, std::string("internal error: ") + error.what() +
                                   " (a bug in Kiln: please report it)");
  }
}

kiln_status null_argument(const char* function, const char* name) {
  return fail(KILN_INVALID_ARGUMENT, std::string(function) + ": " + name + " is null");
}

#define KILN_REQUIRE(pointer) \
  if ((pointer) == nullptr) return null_argument(__func__, #pointer)

kiln_bytes* text_bytes(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return new kiln_bytes{{begin, begin + text.size()}};
}

kiln_bytes* to_bytes(const ordered_json& json) { return text_bytes(json.dump()); }

std::vector<std::string> split(const char* list) {
  std::vector<std::string> items;
  std::string_view rest = list == nullptr ? "" : list;
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    if (comma > 0) items.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return items;
}

void require_ok(const kiln::Status& status) {
  if (!status.ok()) throw kiln::StatusError(status);
}

// A weight as a literal that borrows its bytes.
kiln::ir::Literal to_literal(const char* name, const kiln_tensor& tensor) {
  const std::string where = std::string("[") + name + "] ";
  if (tensor.device.type != KILN_CPU)
    throw CompileError(where + "got a tensor on another device, expected one on the CPU");
  kiln::ir::Literal literal;
  literal.dtype = static_cast<kiln::DType>(tensor.dtype);
  size_t bytes = kiln::dtype_size(literal.dtype);
  for (int32_t i = tensor.rank; i-- > 0;) {
    const int64_t size = tensor.shape[i];
    const auto expected = static_cast<int64_t>(bytes / kiln::dtype_size(literal.dtype));
    if (size < 0) throw CompileError(where + "got a negative size");
    if (tensor.strides != nullptr && size > 1 && bytes > 0 && tensor.strides[i] != expected)
      throw CompileError(where + "got a strided tensor, expected a contiguous one");
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes))
      throw CompileError(where + "its size overflows");
    literal.shape.insert(literal.shape.begin(), size);
  }
  if (bytes > 0 && tensor.data == nullptr) throw CompileError(where + "its data is null");
  literal.bytes = {static_cast<const std::byte*>(tensor.data), bytes};
  return literal;
}

// `tensors` are as far apart as their struct_size says.
std::vector<kiln::import::Model::NamedTensor> to_named(const char* const* names,
                                                       const kiln_tensor* tensors, size_t count) {
  std::vector<kiln::import::Model::NamedTensor> named;
  const auto* at = reinterpret_cast<const std::byte*>(tensors);
  const size_t stride = count > 0 ? tensors->struct_size : 0;
  for (size_t i = 0; i < count; ++i, at += stride) {
    const auto& tensor = *reinterpret_cast<const kiln_tensor*>(at);
    require_ok(kiln::check_tensor("tensor", i, tensor, stride));
    if (names[i] == nullptr) throw CompileError("name " + std::to_string(i) + " is null");
    named.push_back({names[i], to_literal(names[i], tensor)});
  }
  return named;
}

kiln_compile_options current_options(const kiln_compile_options* options) {
  const auto current = kiln::current_options(options, "kiln_compile_options");
  require_ok(current.status());
  return *current;
}

// Targets in the order in which they are first named, and those of their variants that are; all of them
// where one entry names none.
std::vector<kiln::TargetOptions> to_targets(const char* list) {
  const auto names = kiln::parse_targets(list);
  require_ok(names.status());
  std::vector<kiln::TargetOptions> targets;
  for (const kiln::TargetName& name : *names) {
    auto target = std::ranges::find(targets, name.target, &kiln::TargetOptions::name);
    if (target == targets.end()) target = targets.insert(target, {name.target, {}});
    target->variants.push_back(name.variant);
  }
  for (kiln::TargetOptions& target : targets)
    if (std::ranges::find(target.variants, "") != target.variants.end()) target.variants.clear();
  return targets;
}

kiln::CacheOptions to_cache_options(const kiln_compile_options& options) {
  kiln::CacheOptions result;
  if (options.cache_mode < KILN_CACHE_READ_WRITE || options.cache_mode > KILN_CACHE_WRITE)
    throw CompileError("got the cache mode " + std::to_string(options.cache_mode) +
                       ", expected 0 to 2");
  if (options.cache_directory != nullptr) result.directory = options.cache_directory;
  result.max_bytes = options.cache_bytes;
  result.read = options.cache_mode != KILN_CACHE_WRITE;
  result.write = options.cache_mode != KILN_CACHE_READ;
  return result;
}

template <typename Value, size_t count>
Value value_of(const char* option, const char* name,
               const std::pair<std::string_view, Value> (&values)[count]) {
  std::string expected;
  for (const auto& [known, value] : values) {
    if (name == known) return value;
    expected += (expected.empty() ? "" : ", ") + std::string(known);
  }
  throw CompileError(std::string("[") + option + "] got \"" + name + "\", expected one of " +
                     expected);
}

kiln::Samples to_samples(const char* what, const kiln_samples* given) {
  kiln::Samples result;
  if (given == nullptr) return result;
  const auto samples = kiln::current_options(given, "kiln_samples");
  require_ok(samples.status());
  if (samples->num_sets * samples->num_inputs > 0 && samples->tensors == nullptr)
    throw CompileError("kiln_samples.tensors is null");
  if (samples->names != nullptr)
    for (size_t i = 0; i < samples->num_inputs; ++i) {
      if (samples->names[i] == nullptr) throw CompileError("a name of kiln_samples is null");
      result.names.emplace_back(samples->names[i]);
    }
  const auto* at = reinterpret_cast<const std::byte*>(samples->tensors);
  for (size_t s = 0; s < samples->num_sets; ++s) {
    result.sets.emplace_back();
    for (size_t i = 0; i < samples->num_inputs; ++i) {
      const auto& tensor = *reinterpret_cast<const kiln_tensor*>(at);
      require_ok(kiln::check_tensor(what, i, tensor, samples->tensors->struct_size));
      const std::string name = std::string(what) + ", set " + std::to_string(s) + ", input " +
                               (result.names.empty() ? std::to_string(i) : result.names[i]);
      result.sets.back().push_back(to_literal(name.c_str(), tensor));
      at += samples->tensors->struct_size;
    }
  }
  return result;
}

kiln::QuantisationOptions to_quantisation(const kiln_compile_options& options) {
  using Scheme = kiln::passes::Quantisation::Scheme;
  using Method = kiln::CalibrationMethod;
  static constexpr std::pair<std::string_view, Scheme> kSchemes[] = {
      {"int8", Scheme::Int8},
      {"int8-weights", Scheme::Int8Weights},
      {"int4-weights", Scheme::Int4Weights}};
  static constexpr std::pair<std::string_view, Method> kMethods[] = {
      {"mse", Method::LeastError},
      {"minmax", Method::Extremes},
      {"percentile", Method::Percentile}};
  constexpr int64_t kUsualGroup = 32;
  kiln::QuantisationOptions result;
  const bool has_details = options.group_size != 0 || options.quantize_exclude != nullptr ||
                           options.calibration_method != nullptr || options.calibration != nullptr;
  if (options.quantize == nullptr) {
    if (has_details)
      throw CompileError(
          "[quantize] got options of quantisation without it, expected int8, "
          "int8-weights or int4-weights");
    return result;
  }
  result.scheme = value_of("quantize", options.quantize, kSchemes);
  const bool is_usual = options.group_size == 0 && result.scheme == Scheme::Int4Weights;
  result.group_size = is_usual ? kUsualGroup : options.group_size;
  if (options.group_size == -1 && result.scheme != Scheme::Int8) result.group_size = 0;
  if (options.quantize_exclude != nullptr) result.exclude = options.quantize_exclude;
  if (options.calibration_method != nullptr)
    result.method = value_of("calibration", options.calibration_method, kMethods);
  result.calibration = to_samples("calibration", options.calibration);
  return result;
}

// Numbers that JSON has not are null.
ordered_json to_json(const std::vector<kiln::AccuracyReport::Row>& rows) {
  ordered_json list = ordered_json::array();
  for (const kiln::AccuracyReport::Row& row : rows)
    list.push_back({{"name", row.name},
                    {"location", row.location},
                    {"relative_error", row.difference.relative()},
                    {"worst", row.difference.worst()},
                    {"cosine", row.difference.cosine()},
                    {"not_finite", row.difference.has_not_finite()}});
  return list;
}

kiln::CompileOptions to_options(const kiln_compile_options* given) {
  const kiln_compile_options options = current_options(given);
  kiln::CompileOptions result;
  if (options.num_ranges > 0 && options.ranges == nullptr)
    throw CompileError("kiln_compile_options.ranges is null");
  for (size_t i = 0; i < options.num_ranges; ++i) {
    const kiln_dim_range& range = options.ranges[i];
    if (range.input == nullptr) throw CompileError("kiln_dim_range.input is null");
    result.ranges.push_back({range.input, range.dim, range.min, range.opt, range.max});
  }
  if (options.targets != nullptr) result.targets = to_targets(options.targets);
  result.compile_threads = options.num_threads;
  result.disabled_passes = split(options.disabled_passes);
  result.verify_passes = options.verify_passes != 0;
  result.refittable = options.refittable != 0;
  result.emulate_precision_casts = options.emulate_precision_casts != 0;
  result.check_bounds = options.no_bounds_checks == 0;
  constexpr int32_t kTf32 = KILN_TF32_MATMUL | KILN_TF32_CONVOLUTION;
  if ((options.tf32 & ~kTf32) != 0)
    throw CompileError("got tf32 = " + std::to_string(options.tf32) + ", expected 0 to " +
                       std::to_string(kTf32) + ", a sum of kiln_tf32");
  result.tf32 = static_cast<uint8_t>(options.tf32);
  if (options.tuning_candidates < 0)
    throw CompileError("got tuning_candidates = " + std::to_string(options.tuning_candidates) +
                       ", expected 0 or more");
  result.tuning.candidates = options.tuning_candidates;
  if (options.timing_cache != nullptr) result.tuning.cache_file = options.timing_cache;
  if (options.warning != nullptr)
    result.warning = [warning = options.warning, user = options.warning_user](
                         const std::string& text) { warning(user, text.c_str()); };
  result.strip_weights = options.strip_weights != 0;
  result.quantisation = to_quantisation(options);
  result.run_engine = kiln::engine_runner(options.num_threads);
  if (options.metadata != nullptr) result.metadata = options.metadata;
  result.cache = to_cache_options(options);
  if (options.dump_directory != nullptr) result.dump_directory = options.dump_directory;
  result.progress = [callback = options.progress, user = options.progress_user](
                        std::string_view stage, double fraction) {
    if (kiln::calls_must_end()) throw kiln::StatusError({kiln::StatusCode::Unsupported, kEnding});
    if (callback != nullptr) callback(user, std::string(stage).c_str(), fraction);
  };
  return result;
}

// Tells the caller what the cache did.
void give_cache_result(const kiln_compile_options* given, const kiln::CacheReport& report) {
  const kiln_compile_options options = current_options(given);
  constexpr int32_t kResults[] = {KILN_CACHE_MISS, KILN_CACHE_HIT, KILN_CACHE_CODE_HIT};
  int32_t result = kResults[static_cast<int>(report.outcome)];
  if (!report.problem.empty()) {
    if (options.warning != nullptr) options.warning(options.warning_user, report.problem.c_str());
    if (result == KILN_CACHE_MISS) result = KILN_CACHE_PROBLEM;
  }
  if (options.cache_result != nullptr) *options.cache_result = result;
}

// Operators that the process has kernels for are part of engines.
kiln_model* new_model(std::shared_ptr<kiln::import::Model> model) {
  model->has_kernel = [](const char* name) { return kiln_has_kernel(name) != 0; };
  return new kiln_model{std::move(model)};
}

bool fully_supported(const kiln::import::Model& model) {
  return std::ranges::all_of(kiln::import::check_support(model),
                             &kiln::import::NodeSupport::supported);
}

// Runs a compile. What the user got wrong is either an operator that Kiln lacks or an argument.
template <typename Body>
kiln_status guarded_compile(const kiln_model* model, const Body& body) {
  return guarded(KILN_INVALID_ARGUMENT, [&] {
    try {
      body();
    } catch (const kiln::StatusError&) {
      throw;
    } catch (const CompileError& error) {
      if (fully_supported(*model->model)) throw;
      throw kiln::StatusError({kiln::StatusCode::Unsupported, error.what()});
    }
  });
}

}  // namespace

extern "C" {

void kiln_private_end_compiles(void) { kiln::end_all_calls(); }

kiln_status kiln_model_open_file(const char* path, kiln_model** model) {
  KILN_REQUIRE(path);
  KILN_REQUIRE(model);
  if (access(path, R_OK) != 0)
    return fail(errno == ENOENT ? KILN_NOT_FOUND : KILN_IO_ERROR,
                std::string("cannot open ") + path + ": " + std::strerror(errno));
  return guarded(KILN_INVALID_ARGUMENT,
                 [&] { *model = new_model(kiln::import::Model::open_file(path)); });
}

kiln_status kiln_model_open_memory(const char* json, size_t json_size, const char* const* names,
                                   const kiln_tensor* tensors, size_t num_tensors,
                                   kiln_model** model) {
  KILN_REQUIRE(json);
  KILN_REQUIRE(model);
  if (num_tensors > 0) {
    KILN_REQUIRE(names);
    KILN_REQUIRE(tensors);
  }
  return guarded(KILN_INVALID_ARGUMENT, [&] {
    *model = new_model(
        kiln::import::Model::open_memory({json, json_size}, to_named(names, tensors, num_tensors)));
  });
}

void kiln_model_destroy(kiln_model* model) { delete model; }

kiln_status kiln_model_check(kiln_model* model, kiln_bytes** json) {
  KILN_REQUIRE(model);
  KILN_REQUIRE(json);
  return guarded(KILN_INVALID_ARGUMENT, [&] {
    ordered_json nodes = ordered_json::array();
    for (const kiln::import::NodeSupport& node : kiln::import::check_support(*model->model))
      nodes.push_back({{"name", node.name},
                       {"target", node.target},
                       {"supported", node.supported},
                       {"reason", node.reason},
                       {"repeats", node.repeats},
                       {"kernels", node.kernels}});
    *json = to_bytes({{"nodes", std::move(nodes)}});
  });
}

kiln_status kiln_compile(kiln_model* model, const kiln_compile_options* options,
                         kiln_bytes** engine) {
  KILN_REQUIRE(model);
  KILN_REQUIRE(engine);
  return guarded_compile(model, [&] {
    kiln::CompileOptions compile_options = to_options(options);
    kiln::CacheReport report;
    compile_options.cache_report = &report;
    *engine = new kiln_bytes{kiln::compile(*model->model, compile_options)};
    give_cache_result(options, report);
  });
}

kiln_status kiln_compile_to_file(kiln_model* model, const kiln_compile_options* options,
                                 const char* path) {
  KILN_REQUIRE(model);
  KILN_REQUIRE(path);
  return guarded_compile(model, [&] {
    kiln::CompileOptions compile_options = to_options(options);
    kiln::CacheReport report;
    compile_options.cache_report = &report;
    kiln::compile_to_file(*model->model, compile_options, path);
    give_cache_result(options, report);
  });
}

kiln_status kiln_compile_key(kiln_model* model, const kiln_compile_options* options,
                             kiln_bytes** key) {
  KILN_REQUIRE(model);
  KILN_REQUIRE(key);
  return guarded(KILN_INVALID_ARGUMENT,
                 [&] { *key = text_bytes(kiln::compile_key(*model->model, to_options(options))); });
}

kiln_status kiln_cache_load(const char* directory, const char* key, kiln_bytes** engine) {
  KILN_REQUIRE(directory);
  KILN_REQUIRE(key);
  KILN_REQUIRE(engine);
  return guarded(KILN_INVALID_ARGUMENT, [&] {
    const auto cache = kiln::EngineCache::open(directory, 0);
    require_ok(cache.status());
    auto found = cache->find(key);
    require_ok(found.status());
    *engine = new kiln_bytes{std::move(*found)};
  });
}

kiln_status kiln_cache_store(const char* directory, uint64_t max_bytes, const char* key,
                             const void* engine, size_t size) {
  KILN_REQUIRE(directory);
  KILN_REQUIRE(key);
  KILN_REQUIRE(engine);
  return guarded(KILN_INVALID_ARGUMENT, [&] {
    const std::span bytes(static_cast<const std::byte*>(engine), size);
    require_ok(kiln::engine::read(bytes).status());
    const auto cache = kiln::EngineCache::open(directory, max_bytes);
    require_ok(cache.status());
    require_ok(cache->store(key, bytes));
  });
}

kiln_status kiln_accuracy(kiln_model* model, const kiln_compile_options* options,
                          const void* engine, size_t size, const kiln_samples* samples, int layers,
                          kiln_bytes** json) {
  KILN_REQUIRE(model);
  KILN_REQUIRE(samples);
  KILN_REQUIRE(json);
  return guarded_compile(model, [&] {
    const kiln::AccuracyReport report = kiln::accuracy(
        *model->model, to_options(options), {static_cast<const std::byte*>(engine), size},
        to_samples("inputs", samples), layers != 0);
    *json = to_bytes({{"sets", report.sets},
                      {"outputs", to_json(report.outputs)},
                      {"layers", to_json(report.layers)}});
  });
}

kiln_status kiln_refit(const void* engine, size_t size, kiln_model* model,
                       const kiln_compile_options* options, kiln_bytes** result) {
  KILN_REQUIRE(engine);
  KILN_REQUIRE(model);
  KILN_REQUIRE(result);
  return guarded_compile(model, [&] {
    const std::span bytes(static_cast<const std::byte*>(engine), size);
    *result = new kiln_bytes{kiln::refit(bytes, *model->model, to_options(options))};
  });
}

kiln_status kiln_refit_to_file(const void* engine, size_t size, kiln_model* model,
                               const kiln_compile_options* options, const char* path) {
  KILN_REQUIRE(engine);
  KILN_REQUIRE(model);
  KILN_REQUIRE(path);
  return guarded_compile(model, [&] {
    const std::span bytes(static_cast<const std::byte*>(engine), size);
    kiln::write_bytes(kiln::refit(bytes, *model->model, to_options(options)), path);
  });
}

kiln_status kiln_verify_file(const char* path, kiln_bytes** json) {
  KILN_REQUIRE(path);
  KILN_REQUIRE(json);
  return guarded(KILN_INVALID_ARGUMENT, [&] {
    const kiln::FileReport report = kiln::verify_file(path);
    kiln::JsonWriter text;
    text.begin_object().key("sound").value(report.damages.empty());
    text.key("engines").begin_array();
    for (const kiln::FoundEngine& engine : report.engines) {
      text.begin_object().key("name").value(engine.name);
      text.key("offset").value(engine.offset).key("size").value(engine.size).end_object();
    }
    text.end_array().key("problems").begin_array();
    for (const kiln::engine::Damage& damage : report.damages) {
      text.begin_object().key("where").value(damage.where);
      text.key("offset").value(damage.offset).key("size").value(damage.size);
      text.key("what").value(damage.what).end_object();
    }
    text.end_array().key("unchecked").begin_array();
    for (const std::string& name : report.unchecked) text.value(name);
    *json = text_bytes(text.end_array().end_object().text());
  });
}

kiln_status kiln_supported_ops(kiln_bytes** json) {
  KILN_REQUIRE(json);
  return guarded(KILN_INTERNAL, [&] {
    ordered_json ops = ordered_json::array();
#define KILN_OP(name, kind, summary, ...) ops.push_back({{"name", #name}, {"summary", summary}});
#include "ir/ops.def"
#undef KILN_OP
    *json = to_bytes({{"aten", kiln::import::supported_targets()},
                      {"onnx", kiln::import::supported_onnx_operators()},
                      {"ops", std::move(ops)}});
  });
}

kiln_status kiln_passes(kiln_bytes** json) {
  KILN_REQUIRE(json);
  return guarded(KILN_INTERNAL, [&] {
    ordered_json graph = ordered_json::array(), plan = ordered_json::array();
#define KILN_PASS(name, summary) graph.push_back({{"name", #name}, {"summary", summary}});
#include "passes/passes.def"
#undef KILN_PASS
#define KILN_PLAN_PASS(name, summary) plan.push_back({{"name", #name}, {"summary", summary}});
#include "plan/passes/passes.def"
#undef KILN_PLAN_PASS
    *json = to_bytes({{"graph", std::move(graph)}, {"plan", std::move(plan)}});
  });
}

}  // extern "C"
