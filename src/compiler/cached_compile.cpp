#include "compiler/cached_compile.h"

#include <algorithm>
#include <map>

#include "backends/common/program_hash.h"
#include "compiler/backends.h"
#include "compiler/build_hash.h"
#include "compiler/engine_cache.h"
#include "compiler/stages.h"
#include "engine/format.h"
#include "engine/reader.h"
#include "import/fingerprint.h"
#include "support/log.h"

namespace kiln {
namespace {

using Bytes = std::vector<std::byte>;

// Text whose parts say how long they are.
class KeyText {
 public:
  KeyText& add(const std::string& text) {
    text_ += std::to_string(text.size()) + ":" + text;
    return *this;
  }
  KeyText& add(int64_t number) { return add(std::to_string(number)); }
  KeyText& add(const std::vector<std::string>& texts) {
    add(static_cast<int64_t>(texts.size()));
    for (const std::string& text : texts) add(text);
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::vector<std::string> sorted(std::vector<std::string> names) {
  std::ranges::sort(names);
  return names;
}

// What both kinds of entry depend on besides the model.
KeyText common_key(const char* kind, const CompileOptions& options) {
  KeyText key;
  key.add(kind)
      .add("kiln " KILN_VERSION)
      .add(build_hash())
      .add(engine::kFormatVersion)
      .add(static_cast<int64_t>(options.targets.size()));
  for (const TargetOptions& target : options.targets) {
    key.add(target.name).add(sorted(target.variants));
    const Backend& backend = find_backend(target.name);
    if (backend.toolchain != nullptr) key.add(backend.toolchain());
    if (options.tuning.candidates > 0 && backend.tuning_machine != nullptr)
      key.add(options.tuning.candidates).add(backend.tuning_machine());
  }
  key.add(options.disabled_passes)
      .add(options.check_bounds)
      .add(options.refittable)
      .add(options.emulate_precision_casts)
      .add(options.tf32)
      .add(options.metadata);
  const QuantisationOptions& quantisation = options.quantisation;
  key.add(std::string(passes::scheme_name(quantisation.scheme)))
      .add(quantisation.group_size)
      .add(quantisation.exclude)
      .add(static_cast<int64_t>(quantisation.method));
  return key;
}

// Names are in it, because they show in an engine's description and profile.
std::string code_key(const std::vector<TargetPlan>& plans, const CompileOptions& options) {
  KeyText key = common_key("code", options);
  for (const TargetPlan& plan : plans) {
    const std::vector<plan::Kernel>& kernels = plan.program.kernels;
    key.add(backend::program_hash(plan.program)).add(static_cast<int64_t>(kernels.size()));
    for (const plan::Kernel& kernel : kernels) key.add(kernel.name).add(kernel.sources);
  }
  return hash_str(hash128(std::as_bytes(std::span(key.text()))));
}

// Whether every program of an engine was made of the plan for its target.
bool is_made_of(const engine::Spec& spec, const std::vector<TargetPlan>& plans) {
  std::map<std::string, std::string> hashes;
  for (const TargetPlan& plan : plans)
    hashes[plan.target.name] = backend::program_hash(plan.program);
  return std::ranges::all_of(spec.programs, [&](const engine::ProgramSpec& program) {
    const auto found = hashes.find(program.target);
    return found != hashes.end() && found->second == program.program_hash;
  });
}

// One compile through one cache.
class CachedCompile {
 public:
  CachedCompile(const import::Model& model, const CompileOptions& options, const EngineCache* cache)
      : model_(model), options_(options), cache_(cache) {}

  Bytes run() {
    const std::string key = cache_ != nullptr ? compile_key(model_, options_) : "";
    if (auto engine = find(key)) {
      report_.outcome = CacheReport::Outcome::EngineFound;
      return std::move(*engine);
    }
    Bytes engine = make(plan_model(model_, options_));
    store(key, engine);
    return engine;
  }

  void note_problem(const Status& status) {
    log(LogLevel::Warn, status.message());
    if (report_.problem.empty()) report_.problem = status.message();
  }
  const CacheReport& report_of_cache() const { return report_; }

 private:
  // Dumps and the verifier need the passes to run.
  bool may_find() const {
    return cache_ != nullptr && options_.cache.read && options_.dump_directory.empty() &&
           !options_.verify_passes;
  }

  std::optional<Bytes> find(const std::string& key) {
    if (!may_find()) return std::nullopt;
    Result<Bytes> engine = cache_->find(key);
    if (engine.ok()) return std::move(*engine);
    if (engine.status().code() != StatusCode::NotFound) note_problem(engine.status());
    return std::nullopt;
  }

  void store(const std::string& key, const Bytes& engine) {
    if (cache_ == nullptr || !options_.cache.write) return;
    if (const Status status = cache_->store(key, engine); !status.ok()) note_problem(status);
  }

  Bytes make(const std::vector<TargetPlan>& plans) {
    const std::string key = cache_ != nullptr ? code_key(plans, options_) : "";
    if (const auto code = find(key)) {
      const Result<engine::View> view = engine::read(*code);
      if (view.ok() && is_made_of(view->spec, plans)) {
        report_.outcome = CacheReport::Outcome::CodeFound;
        return write_refilled(view->spec, plans, options_);
      }
    }
    const CompiledProgram compiled = compile_plans(plans, options_);
    report(options_, "write", 0.95);
    if (cache_ != nullptr && options_.cache.write)
      store(key, write_engine(compiled.spec, compiled.constants, engine::Weights::Stripped));
    return write_engine(compiled.spec, compiled.constants, weights_of(options_));
  }

  const import::Model& model_;
  const CompileOptions& options_;
  const EngineCache* cache_;
  CacheReport report_;
};

}  // namespace

std::string compile_key(const import::Model& model, const CompileOptions& options) {
  KeyText key = common_key("engine", options);
  key.add(options.strip_weights).add(static_cast<int64_t>(options.ranges.size()));
  for (const import::DimRange& range : options.ranges) {
    key.add(range.input).add(range.dim);
    for (const int64_t bound : {range.min, range.opt, range.max}) key.add(bound);
  }
  key.add(options.quantisation.calibration.names);
  for (const auto& sample : options.quantisation.calibration.sets) {
    key.add("sample");
    for (const ir::Literal& input : sample) {
      key.add(std::string(dtype_name(input.dtype))).add(hash_str(hash128(input.bytes)));
      for (const int64_t size : input.shape) key.add(size);
    }
  }
  Hasher hasher;
  hasher.update(std::as_bytes(std::span(key.text())));
  import::add_fingerprint(hasher, model);
  return hash_str(hasher.finish());
}

Bytes compile_cached(const import::Model& model, const CompileOptions& options) {
  const Result<EngineCache> cache =
      EngineCache::open(options.cache.directory, options.cache.max_bytes);
  CachedCompile compile(model, options, cache.ok() ? &*cache : nullptr);
  if (!cache.ok()) compile.note_problem(cache.status());
  Bytes engine = compile.run();
  if (options.cache_report != nullptr) *options.cache_report = compile.report_of_cache();
  return engine;
}

}  // namespace kiln
