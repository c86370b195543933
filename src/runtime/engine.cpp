#include "runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "engine/format.h"
#include "runtime/size_program.h"
#include "support/log.h"

namespace kiln::runtime {
namespace {

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
  const std::string program =
      engine.program() == nullptr ? "for a description" : engine.program()->name();
  log(LogLevel::Info, "loaded the engine \"" + engine.spec().name + "\" (" + program + ") in " +
                          std::to_string(microseconds) + " us");
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
  Result<engine::View> view =
      engine::read_interface(bytes, {.verify_weights = options.verify_weights});
  if (!view.ok()) return view.status();
  const auto engine = std::make_shared<Engine>();
  engine->file_ = std::move(file);
  engine->view_ = std::move(*view);
  engine->wanted_ = {options.target, options.variant};
  KILN_RETURN_IF_ERROR(options.describe_only ? check_name(engine->view_.spec, engine->wanted_)
                                             : engine->load_program(source));
  engine->find_dims();
  log_load(*engine, start);
  return std::shared_ptr<const Engine>(engine);
}

Status Engine::load_program(Source source) {
  KILN_RETURN_IF_ERROR(align_weights());
  Result<ChosenProgram> chosen = runtime::load_program(
      view_, wanted_, {.weights = view_.weights, .is_mapped = source == Source::File});
  if (!chosen.ok()) return chosen.status();
  chosen_ = std::move(*chosen);
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
  for (const engine::DataSizeSpec& size : spec().data_sizes) opts.push_back(size.opt);
  const std::vector<SizeRange> ranges = size_ranges(spec());
  const Result<std::vector<int64_t>> evaluated = evaluate_sizes(spec(), opts);
  const std::vector<int64_t> typical = evaluated.ok() ? *evaluated : std::vector<int64_t>();
  input_dims_ = dims_of(spec().inputs, ranges, typical);
  output_dims_ = dims_of(spec().outputs, ranges, typical);
}

const std::byte* Engine::constant(const engine::BufferSpec& buffer) const {
  return view_.weights.data() + buffer.offset;
}

}  // namespace kiln::runtime
