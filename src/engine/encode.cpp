#include <algorithm>
#include <iterator>

#include "engine/codec.h"
#include "engine/engine_generated.h"

namespace kiln::engine {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

// Encodes each element of a list as a table.
template <typename Item, typename Encode>
auto encode_tables(FlatBufferBuilder& builder, const std::vector<Item>& items, Encode encode) {
  std::vector<decltype(encode(builder, items[0]))> tables;
  for (const Item& item : items) tables.push_back(encode(builder, item));
  return builder.CreateVector(tables);
}

Offset<fbs::Symbol> encode(FlatBufferBuilder& builder, const SymbolSpec& symbol) {
  return fbs::CreateSymbol(builder, builder.CreateString(symbol.name), symbol.input, symbol.dim,
                           symbol.min, symbol.max, symbol.opt, symbol.factor, symbol.offset);
}

Offset<fbs::Tensor> encode(FlatBufferBuilder& builder, const TensorSpec& tensor) {
  return fbs::CreateTensor(builder, builder.CreateString(tensor.name),
                           static_cast<uint8_t>(tensor.dtype), builder.CreateVector(tensor.shape),
                           tensor.updates);
}

// Absent when empty: most buffers have none.
Offset<flatbuffers::String> encode_optional(FlatBufferBuilder& builder, const std::string& text) {
  return text.empty() ? Offset<flatbuffers::String>() : builder.CreateString(text);
}

Offset<fbs::Buffer> encode(FlatBufferBuilder& builder, const BufferSpec& buffer) {
  const auto transform = encode_optional(builder, buffer.transform);
  const fbs::Hash hash(flatbuffers::span<const uint8_t, 16>(buffer.content_hash));
  const WinogradSpec& made = buffer.winograd;
  const fbs::Winograd winograd(made.channels, made.outputs, made.filters, made.results, made.width,
                               made.filter_width, made.filter_step,
                               static_cast<uint8_t>(made.dtype));
  return fbs::CreateBuffer(builder, static_cast<uint8_t>(buffer.kind), buffer.index, buffer.offset,
                           buffer.constant_bytes, buffer.bytes, buffer.first_step, buffer.last_step,
                           buffer.alias_of, buffer.source, transform,
                           buffer.content_hash == Hash128{} ? nullptr : &hash,
                           buffer.is_made_at_load() ? &winograd : nullptr);
}

Offset<fbs::Kernel> encode(FlatBufferBuilder& builder, const KernelSpec& kernel) {
  const auto name = builder.CreateString(kernel.name);
  const auto kind = builder.CreateString(kernel.kind);
  const auto sources = builder.CreateVectorOfStrings(kernel.sources);
  const auto key = encode_optional(builder, kernel.key);
  const auto function = encode_optional(builder, kernel.function);
  return fbs::CreateKernel(builder, name, kind, sources, key, kernel.entry, function,
                           encode_optional(builder, kernel.precision));
}

Offset<fbs::Check> encode(FlatBufferBuilder& builder, const CheckSpec& check) {
  const auto operation = builder.CreateString(check.operation);
  return fbs::CreateCheck(builder, operation, static_cast<uint8_t>(check.kind), check.size,
                          check.input, encode_optional(builder, check.fault));
}

Offset<fbs::Requirement> encode(FlatBufferBuilder& builder, const RequirementSpec& requirement) {
  const auto operation = encode_optional(builder, requirement.operation);
  return fbs::CreateRequirement(builder, requirement.condition,
                                static_cast<uint8_t>(requirement.kind), operation,
                                builder.CreateString(requirement.expected));
}

Offset<fbs::TensorMap> encode(FlatBufferBuilder& builder, const TensorMapSpec& map) {
  const auto sizes = builder.CreateVector(map.sizes), strides = builder.CreateVector(map.strides),
             box = builder.CreateVector(map.box),
             element_strides = builder.CreateVector(map.element_strides),
             lower = builder.CreateVector(map.lower_corner),
             upper = builder.CreateVector(map.upper_corner);
  return fbs::CreateTensorMap(builder, map.buffer, static_cast<uint8_t>(map.dtype), map.offset,
                              sizes, strides, box, element_strides, map.swizzle, lower, upper,
                              map.box_channels, map.box_pixels);
}

Offset<fbs::DataSize> encode(FlatBufferBuilder& builder, const DataSizeSpec& size) {
  return fbs::CreateDataSize(builder, builder.CreateString(size.name), size.min, size.max, size.opt,
                             size.bound);
}

// Absent when empty: most steps check nothing.
template <typename Item>
auto encode_some(FlatBufferBuilder& builder, const std::vector<Item>& items) {
  const auto encode_item = [](FlatBufferBuilder& to, const Item& item) { return encode(to, item); };
  using List = decltype(encode_tables(builder, items, encode_item));
  return items.empty() ? List() : encode_tables(builder, items, encode_item);
}

Offset<fbs::Launch> encode_launch(FlatBufferBuilder& builder, const StepSpec& step) {
  if (step.kind != StepKind::Launch) return {};
  const auto grid = builder.CreateVector(step.launch.grid);
  const auto block = builder.CreateVector(step.launch.block);
  const auto maps = encode_some(builder, step.launch.tensor_maps);
  return fbs::CreateLaunch(builder, grid, block, step.launch.shared_bytes, maps,
                           step.launch.programmatic);
}

Offset<fbs::Step> encode(FlatBufferBuilder& builder, const StepSpec& step) {
  const auto buffers = builder.CreateVector(step.buffers);
  const auto params = builder.CreateVector(step.params);
  const auto writes = builder.CreateVector(step.writes);
  const auto checks = encode_some(builder, step.checks);
  const auto launch = encode_launch(builder, step);
  return fbs::CreateStep(builder, static_cast<uint8_t>(step.kind), step.kernel, buffers, params,
                         step.tasks, step.min_tasks_per_thread, step.scratch_bytes, writes, checks,
                         launch, step.operations, step.bytes);
}

Offset<fbs::ProgramHead> encode(FlatBufferBuilder& builder, const ProgramSpec& program) {
  std::string features;
  for (const std::string& name : program.features) features += (features.empty() ? "" : " ") + name;
  const auto target = builder.CreateString(program.target);
  const auto variant = encode_optional(builder, program.variant);
  return fbs::CreateProgramHead(builder, target, variant, encode_optional(builder, features),
                                program.version);
}

template <typename Item>
auto encode_list(FlatBufferBuilder& builder, const std::vector<Item>& items) {
  return encode_tables(builder, items,
                       [](FlatBufferBuilder& to, const Item& item) { return encode(to, item); });
}

auto encode_sizes(FlatBufferBuilder& builder, const std::vector<SizeInstruction>& sizes) {
  std::vector<fbs::SizeInstruction> encoded;
  for (const SizeInstruction& size : sizes)
    encoded.emplace_back(size.immediate, size.a, size.b, static_cast<uint8_t>(size.op));
  return builder.CreateVectorOfStructs(encoded);
}

template <typename Table>
std::vector<std::byte> finish(FlatBufferBuilder& builder, Offset<Table> root,
                              const char* identifier) {
  builder.Finish(root, identifier);
  const auto* begin = reinterpret_cast<const std::byte*>(builder.GetBufferPointer());
  return {begin, begin + builder.GetSize()};
}

}  // namespace

std::vector<std::byte> encode_interface(const Spec& spec) {
  FlatBufferBuilder builder(1 << 12);
  const auto name = builder.CreateString(spec.name);
  const auto producer = builder.CreateString(spec.producer);
  const auto symbols = encode_list(builder, spec.symbols);
  const auto sizes = encode_sizes(builder, spec.sizes);
  const auto data_sizes = encode_some(builder, spec.data_sizes);
  const auto inputs = encode_list(builder, spec.inputs);
  const auto outputs = encode_list(builder, spec.outputs);
  const auto programs = encode_list(builder, spec.programs);
  const auto disabled_passes = builder.CreateVectorOfStrings(spec.disabled_passes);
  const auto metadata = encode_optional(builder, spec.metadata);
  const auto quantized = encode_optional(builder, spec.quantized);
  const auto requirements = encode_some(builder, spec.requirements);
  return finish(
      builder,
      fbs::CreateInterface(builder, name, producer, symbols, sizes, inputs, outputs, programs,
                           disabled_passes, spec.refittable, metadata, spec.emulate_precision_casts,
                           spec.unchecked, requirements, spec.tf32, data_sizes, quantized),
      kInterfaceIdentifier);
}

std::vector<std::byte> encode_program(const ProgramSpec& program) {
  FlatBufferBuilder builder(1 << 16);
  const auto sizes = encode_sizes(builder, program.sizes);
  const auto buffers = encode_list(builder, program.buffers);
  const auto kernels = encode_list(builder, program.kernels);
  const auto steps = encode_list(builder, program.steps);
  const auto program_hash = encode_optional(builder, program.program_hash);
  Offset<flatbuffers::Vector<const fbs::Repeat*>> repeats;
  if (!program.repeats.empty()) {
    std::vector<fbs::Repeat> ranges;
    for (const RepeatSpec& repeat : program.repeats)
      ranges.emplace_back(repeat.first_step, repeat.end_step, repeat.buffer);
    repeats = builder.CreateVectorOfStructs(ranges);
  }
  Offset<flatbuffers::Vector<const fbs::DataSizeSource*>> data_sizes;
  if (!program.data_sizes.empty()) {
    std::vector<fbs::DataSizeSource> sources;
    for (const DataSizeSource& size : program.data_sizes)
      sources.emplace_back(size.step, size.buffer);
    data_sizes = builder.CreateVectorOfStructs(sources);
  }
  return finish(builder,
                fbs::CreateProgram(builder, sizes, buffers, kernels, steps, program_hash,
                                   data_sizes, repeats),
                kProgramIdentifier);
}

}  // namespace kiln::engine
