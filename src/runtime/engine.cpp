#include "runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "engine/format.h"
#include "runtime/size_program.h"
#include "support/cpu_features.h"
#include "support/log.h"

namespace kiln::runtime {
namespace {

using engine::CodeVariant;
using engine::Spec;

bool can_run(uint64_t available, const CodeVariant& variant) {
  return (variant.cpu_features & ~available) == 0;
}

std::string variant_list(const Spec& spec) {
  std::string text;
  for (const CodeVariant& variant : spec.variants)
    text.append(text.empty() ? "" : ", ")
        .append(variant.name)
        .append(" (" + cpu_features_str(variant.cpu_features) + ")");
  return text;
}

Status cannot_run(uint64_t available, const std::string& needed) {
  return Status(StatusCode::Unsupported, "this CPU cannot run the engine: it has " +
                                             cpu_features_str(available) + ", the engine needs " +
                                             needed);
}

Result<size_t> choose_variant(const Spec& spec, const std::string& wanted) {
  const uint64_t available = detect_cpu_features();
  for (size_t i = 0; i < spec.variants.size(); ++i) {
    const CodeVariant& variant = spec.variants[i];
    if (!wanted.empty() && variant.name != wanted) continue;
    if (can_run(available, variant)) return i;
    if (!wanted.empty()) return cannot_run(available, cpu_features_str(variant.cpu_features));
  }
  if (wanted.empty()) return cannot_run(available, "one of " + variant_list(spec));
  return Status(StatusCode::InvalidArgument,
                "got the CPU variant \"" + wanted + "\", expected one of " + variant_list(spec));
}

std::vector<std::vector<DimInfo>> dims_of(const std::vector<engine::TensorSpec>& tensors,
                                          const std::vector<SizeRange>& ranges,
                                          const std::vector<int64_t>& typical) {
  std::vector<std::vector<DimInfo>> dims(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i)
    for (const engine::Slot slot : tensors[i].shape) {
      const SizeRange& range = ranges[static_cast<size_t>(slot)];
      const int64_t opt = typical.empty() ? range.min : typical[static_cast<size_t>(slot)];
      dims[i].push_back({std::max<int64_t>(range.min, 0), opt, range.max});
    }
  return dims;
}

void log_load(const Engine& engine, std::chrono::steady_clock::time_point start) {
  if (!log_enabled(LogLevel::Info)) return;
  const auto time = std::chrono::steady_clock::now() - start;
  const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(time).count();
  log(LogLevel::Info, "loaded the engine \"" + engine.spec().name + "\" (" + engine.variant().name +
                          ") in " + std::to_string(microseconds) + " us");
}

}  // namespace

Engine::Loaded Engine::load_file(const std::string& path, const LoadOptions& options) {
  Result<FileMap> file = FileMap::open(path);
  if (!file.ok()) return file.status();
  const std::span<const std::byte> bytes = file->bytes();
  Loaded engine = load(bytes, Source::File, options, std::move(*file));
  if (!engine.ok()) return Status(engine.status().code(), path + ": " + engine.status().message());
  return engine;
}

Engine::Loaded Engine::load_memory(std::span<const std::byte> bytes, const LoadOptions& options) {
  return load(bytes, Source::Memory, options, FileMap());
}

Engine::Loaded Engine::load(std::span<const std::byte> bytes, Source source,
                            const LoadOptions& options, FileMap file) {
  const auto start = std::chrono::steady_clock::now();
  Result<engine::View> view = engine::read(bytes, {.verify_weights = options.verify_weights});
  if (!view.ok()) return view.status();
  if (view->spec.target != "cpu")
    return Status(StatusCode::Unsupported,
                  "the engine is for \"" + view->spec.target + "\", expected \"cpu\"");
  Result<size_t> variant = choose_variant(view->spec, options.cpu_variant);
  if (!variant.ok()) return variant.status();

  const auto engine = std::make_shared<Engine>();
  engine->file_ = std::move(file);
  engine->view_ = std::move(*view);
  engine->variant_ = *variant;
  KILN_RETURN_IF_ERROR(engine->map_code(source));
  KILN_RETURN_IF_ERROR(engine->align_weights());
  engine->find_dims();
  log_load(*engine, start);
  return std::shared_ptr<const Engine>(engine);
}

Status Engine::map_code(Source source) {
  const std::span<const std::byte> code = variant().code;
  Result<cpu::CodeImage> image =
      source == Source::File ? cpu::CodeImage::in_place(code) : cpu::CodeImage::copy(code);
  if (!image.ok() && source == Source::File) image = cpu::CodeImage::copy(code);
  if (!image.ok()) return image.status();
  code_ = std::move(*image);
  return Status();
}

Status Engine::align_weights() {
  std::span<const std::byte>& weights = view_.weights;
  if (reinterpret_cast<uintptr_t>(weights.data()) % engine::kConstantAlignment == 0)
    return Status();
  Result<AlignedBuffer> copy = AlignedBuffer::allocate(weights.size());
  if (!copy.ok()) return copy.status();
  weights_copy_ = std::move(*copy);
  if (!weights.empty()) std::memcpy(weights_copy_.data(), weights.data(), weights.size());
  weights = {weights_copy_.data(), weights.size()};
  return Status();
}

void Engine::find_dims() {
  std::vector<int64_t> opts;
  for (const engine::SymbolSpec& symbol : spec().symbols) opts.push_back(symbol.opt);
  const std::vector<SizeRange> ranges = size_ranges(spec());
  const Result<std::vector<int64_t>> evaluated = evaluate_sizes(spec(), opts);
  const std::vector<int64_t> typical = evaluated.ok() ? *evaluated : std::vector<int64_t>();
  input_dims_ = dims_of(spec().inputs, ranges, typical);
  output_dims_ = dims_of(spec().outputs, ranges, typical);
}

engine::CpuKernel Engine::kernel(size_t index) const {
  return reinterpret_cast<engine::CpuKernel>(
      reinterpret_cast<uintptr_t>(code_.data() + variant().entry[index]));
}

const std::byte* Engine::constant(const engine::BufferSpec& buffer) const {
  return view_.weights.data() + buffer.offset;
}

}  // namespace kiln::runtime
