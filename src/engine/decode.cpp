#include <algorithm>

#include "engine/codec.h"
#include "engine/engine_generated.h"

namespace kiln::engine {
namespace {

using StringList = flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>;

// In a sound section every element of a list is stored once, at a multiple of its alignment. A
// forged one may let many tables share a long list, and so ask for far more memory than the file has
// bytes: the budget ends that. FlatBuffers' verifier looks at the alignment of a list's length
// only.
class Budget {
 public:
  explicit Budget(std::span<const std::byte> section)
      : begin_(reinterpret_cast<const uint8_t*>(section.data())), left_(section.size()) {}

  // A table that stands in a list, which is stored once as well: so many bytes of its own.
  void take_table(const void* table) {
    const auto* start = static_cast<const uint8_t*>(table);
    const auto* layout = start - flatbuffers::ReadScalar<flatbuffers::soffset_t>(start);
    const auto size = flatbuffers::ReadScalar<flatbuffers::voffset_t>(layout + sizeof(uint16_t));
    if (size > left_) exceeded_ = true;
    if (!exceeded_) left_ -= size;
  }
  template <typename T>
  bool take(const flatbuffers::Vector<T>& list) {
    constexpr size_t kAlignment = alignof(std::remove_pointer_t<T>);
    const uint64_t size = uint64_t{list.size()} * flatbuffers::IndirectHelper<T>::element_stride;
    const auto offset = static_cast<uint64_t>(list.Data() - begin_);
    if (size > left_ || (size > 0 && offset % kAlignment != 0)) exceeded_ = true;
    if (!exceeded_) left_ -= size;
    return !exceeded_;
  }
  bool exceeded() const { return exceeded_; }

 private:
  const uint8_t* begin_;
  uint64_t left_;
  bool exceeded_ = false;
};

std::string decode(const flatbuffers::String* text, Budget& budget) {
  return text != nullptr && budget.take(*text) ? text->str() : std::string();
}

template <typename T>
std::vector<T> decode_numbers(const flatbuffers::Vector<T>* numbers, Budget& budget) {
  if (numbers == nullptr || !budget.take(*numbers)) return {};
  return {numbers->begin(), numbers->end()};
}

std::vector<std::string> decode_strings(const StringList* list, Budget& budget) {
  std::vector<std::string> strings;
  if (list == nullptr || !budget.take(*list)) return strings;
  for (const flatbuffers::String* string : *list) strings.push_back(decode(string, budget));
  return strings;
}

SymbolSpec decode(const fbs::Symbol& symbol, Budget& budget) {
  return {decode(symbol.name(), budget),
          symbol.input(),
          symbol.dim(),
          symbol.min(),
          symbol.max(),
          symbol.opt(),
          symbol.factor(),
          symbol.offset()};
}

SizeInstruction decode(const fbs::SizeInstruction& size, Budget&) {
  return {static_cast<SizeOp>(size.op()), size.a(), size.b(), size.immediate()};
}

TensorSpec decode(const fbs::Tensor& tensor, Budget& budget) {
  return {decode(tensor.name(), budget), static_cast<DType>(tensor.dtype()),
          decode_numbers(tensor.shape(), budget), tensor.updates()};
}

BufferSpec decode(const fbs::Buffer& buffer, Budget& budget) {
  BufferSpec spec;
  spec.kind = static_cast<BufferKind>(buffer.kind());
  spec.index = buffer.index();
  spec.offset = buffer.offset();
  spec.constant_bytes = buffer.constant_bytes();
  spec.bytes = buffer.bytes();
  spec.first_step = buffer.first_step();
  spec.last_step = buffer.last_step();
  spec.alias_of = buffer.alias_of();
  spec.source = buffer.source();
  spec.transform = decode(buffer.transform(), budget);
  if (buffer.content_hash() != nullptr)
    std::copy_n(buffer.content_hash()->bytes()->begin(), spec.content_hash.size(),
                spec.content_hash.begin());
  if (const fbs::Winograd* made = buffer.winograd())
    spec.winograd = {made->filters(),      static_cast<DType>(made->dtype()),
                     made->results(),      made->channels(),
                     made->outputs(),      made->width(),
                     made->filter_width(), made->filter_step()};
  return spec;
}

KernelSpec decode(const fbs::Kernel& kernel, Budget& budget) {
  return {decode(kernel.name(), budget),
          decode(kernel.kind(), budget),
          decode_strings(kernel.sources(), budget),
          decode(kernel.key(), budget),
          kernel.entry(),
          decode(kernel.function(), budget),
          decode(kernel.precision(), budget)};
}

CheckSpec decode(const fbs::Check& check, Budget& budget) {
  return {decode(check.operation(), budget), static_cast<CheckKind>(check.kind()), check.size(),
          check.input(), decode(check.fault(), budget)};
}

RequirementSpec decode(const fbs::Requirement& requirement, Budget& budget) {
  return {requirement.condition(), static_cast<RequirementKind>(requirement.kind()),
          decode(requirement.operation(), budget), decode(requirement.expected(), budget)};
}

DataSizeSpec decode(const fbs::DataSize& size, Budget& budget) {
  return {decode(size.name(), budget), size.min(), size.max(), size.opt(), size.bound()};
}

DataSizeSource decode(const fbs::DataSizeSource& source, Budget&) {
  return {source.step(), source.buffer()};
}

RepeatSpec decode(const fbs::Repeat& repeat, Budget&) {
  return {repeat.first_step(), repeat.end_step(), repeat.buffer()};
}

template <typename Item, typename Encoded>
std::vector<Item> decode_list(const flatbuffers::Vector<Encoded>* list, Budget& budget) {
  std::vector<Item> items;
  if (list == nullptr || !budget.take(*list)) return items;
  items.reserve(list->size());
  for (const auto* item : *list) {
    if constexpr (std::is_base_of_v<flatbuffers::Table, std::decay_t<decltype(*item)>>)
      budget.take_table(item);
    if (budget.exceeded()) return items;
    items.push_back(decode(*item, budget));
  }
  return items;
}

TensorMapSpec decode(const fbs::TensorMap& map, Budget& budget) {
  TensorMapSpec spec;
  spec.buffer = map.buffer();
  spec.dtype = static_cast<DType>(map.dtype());
  spec.offset = map.offset();
  spec.sizes = decode_numbers(map.sizes(), budget);
  spec.strides = decode_numbers(map.strides(), budget);
  spec.box = decode_numbers(map.box(), budget);
  spec.element_strides = decode_numbers(map.element_strides(), budget);
  spec.swizzle = map.swizzle();
  spec.lower_corner = decode_numbers(map.lower_corner(), budget);
  spec.upper_corner = decode_numbers(map.upper_corner(), budget);
  spec.box_channels = map.box_channels();
  spec.box_pixels = map.box_pixels();
  return spec;
}

LaunchSpec decode(const fbs::Launch* launch, Budget& budget) {
  if (launch == nullptr) return {};
  budget.take_table(launch);
  return {decode_numbers(launch->grid(), budget), decode_numbers(launch->block(), budget),
          launch->shared_bytes(), decode_list<TensorMapSpec>(launch->tensor_maps(), budget),
          launch->programmatic()};
}

StepSpec decode(const fbs::Step& step, Budget& budget) {
  StepSpec spec;
  spec.kind = static_cast<StepKind>(step.kind());
  spec.kernel = step.kernel();
  spec.buffers = decode_numbers(step.buffers(), budget);
  spec.params = decode_numbers(step.params(), budget);
  spec.tasks = step.tasks();
  spec.min_tasks_per_thread = step.min_tasks_per_thread();
  spec.scratch_bytes = step.scratch_bytes();
  spec.writes = decode_numbers(step.writes(), budget);
  spec.checks = decode_list<CheckSpec>(step.checks(), budget);
  spec.launch = decode(step.launch(), budget);
  spec.operations = step.operations();
  spec.bytes = step.bytes();
  return spec;
}

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    if (end > begin) names.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

ProgramSpec decode(const fbs::ProgramHead& head, Budget& budget) {
  ProgramSpec program;
  program.target = decode(head.target(), budget);
  program.variant = decode(head.variant(), budget);
  program.features = split_names(decode(head.features(), budget));
  program.version = head.version();
  return program;
}

flatbuffers::Verifier make_verifier(std::span<const std::byte> bytes) {
  flatbuffers::Verifier::Options limits;
  limits.max_depth = 8;
  // A table takes four bytes at least.
  limits.max_tables = static_cast<flatbuffers::uoffset_t>(bytes.size() / 4 + 1);
  return flatbuffers::Verifier(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
                               limits);
}

template <typename Table>
const Table* root_of(std::span<const std::byte> bytes, const char* identifier) {
  if (bytes.size() >= FLATBUFFERS_MAX_BUFFER_SIZE) return nullptr;
  if (!make_verifier(bytes).VerifyBuffer<Table>(identifier)) return nullptr;
  return flatbuffers::GetRoot<Table>(bytes.data());
}

// Whether the lists of sources of all kernels together are no longer than the section.
bool sources_fit(std::span<const std::byte> bytes) {
  const auto* outline = root_of<fbs::ProgramOutline>(bytes, kProgramIdentifier);
  if (outline == nullptr) return false;
  const auto* kernels = outline->kernels();
  uint64_t sources = 0;
  for (size_t i = 0; kernels != nullptr && i < kernels->size(); ++i) {
    const auto* list = kernels->Get(static_cast<flatbuffers::uoffset_t>(i))->sources();
    sources += list == nullptr ? 0 : list->size();
  }
  return sources * sizeof(uint32_t) <= bytes.size();
}

Status malformed(const std::string& what) {
  return Status(StatusCode::InvalidEngine, "damaged engine: " + what + " is malformed");
}

}  // namespace

Result<Spec> decode_interface(std::span<const std::byte> bytes) {
  const auto* interface = root_of<fbs::Interface>(bytes, kInterfaceIdentifier);
  if (interface == nullptr) return malformed("the interface");
  Budget budget(bytes);
  Spec spec;
  spec.name = decode(interface->name(), budget);
  spec.producer = decode(interface->producer(), budget);
  spec.symbols = decode_list<SymbolSpec>(interface->symbols(), budget);
  spec.sizes = decode_list<SizeInstruction>(interface->sizes(), budget);
  spec.inputs = decode_list<TensorSpec>(interface->inputs(), budget);
  spec.outputs = decode_list<TensorSpec>(interface->outputs(), budget);
  spec.programs = decode_list<ProgramSpec>(interface->programs(), budget);
  spec.disabled_passes = decode_strings(interface->disabled_passes(), budget);
  spec.refittable = interface->refittable();
  spec.metadata = decode(interface->metadata(), budget);
  spec.emulate_precision_casts = interface->emulate_precision_casts();
  spec.unchecked = interface->unchecked();
  spec.tf32 = interface->tf32();
  spec.quantized = decode(interface->quantized(), budget);
  spec.requirements = decode_list<RequirementSpec>(interface->requirements(), budget);
  spec.data_sizes = decode_list<DataSizeSpec>(interface->data_sizes(), budget);
  if (budget.exceeded()) return malformed("the interface");
  return spec;
}

Status decode_program(std::span<const std::byte> bytes, ProgramSpec& program) {
  const auto* body =
      sources_fit(bytes) ? root_of<fbs::Program>(bytes, kProgramIdentifier) : nullptr;
  if (body == nullptr) return malformed("the program " + program.name());
  Budget budget(bytes);
  program.sizes = decode_list<SizeInstruction>(body->sizes(), budget);
  program.buffers = decode_list<BufferSpec>(body->buffers(), budget);
  program.kernels = decode_list<KernelSpec>(body->kernels(), budget);
  program.steps = decode_list<StepSpec>(body->steps(), budget);
  program.program_hash = decode(body->program_hash(), budget);
  program.data_sizes = decode_list<DataSizeSource>(body->data_sizes(), budget);
  program.repeats = decode_list<RepeatSpec>(body->repeats(), budget);
  return budget.exceeded() ? malformed("the program " + program.name()) : Status();
}

}  // namespace kiln::engine
