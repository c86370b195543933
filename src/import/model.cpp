// Opens models: from a file, whose weights stay mapped, or from memory.
#include "import/model.h"
#include "import/functionalise.h"

#include <cstring>
#include <new>

#include "import/archive.h"
#include "import/functionalise.h"
#include "import/onnx/model.h"
#include "support/error.h"
#include "support/file_map.h"

namespace kiln::import {
namespace {

using Bytes = std::span<const std::byte>;

constexpr int64_t kMaxElements = int64_t{1} << 48;
// A view may repeat elements (stride 0): a small file must not ask for all memory.
constexpr int64_t kMaxRepeatedElements = int64_t{1} << 28;

std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A weight as torch.as_strided sees it: elements of a storage.
struct StridedView {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> sizes, strides;
  int64_t offset = 0;

  [[noreturn]] void fail(const std::string& got, const std::string& expected) const {
    throw CompileError("[weight " + name + "] got " + got + ", expected " + expected);
  }

  int64_t constant(const SizeExpression& size) const {
    if (!size.expression.empty()) fail("a symbolic size", "a number");
    if (size.constant < 0 || size.constant > kMaxElements) {
      fail("the size or stride " + std::to_string(size.constant), "0 to 2^48");
    }
    return size.constant;
  }

  int64_t elements() const {
    int64_t count = 1;
    for (int64_t size : sizes) {
      if (__builtin_mul_overflow(count, size, &count) || count > kMaxElements) {
        fail("more than 2^48 elements", "a tensor that fits into memory");
      }
    }
    return count;
  }

  // Elements of storage that must be there: one past the last that the view touches.
  int64_t extent() const {
    __int128 last = offset;
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] == 0) return 0;
      last += static_cast<__int128>(sizes[i] - 1) * strides[i];
    }
    if (last >= kMaxElements)
      fail("a view of more than 2^48 elements", "a tensor that fits into memory");
    return static_cast<int64_t>(last) + 1;
  }

  bool is_contiguous() const {
    int64_t expected = 1;
    for (size_t i = sizes.size(); i-- > 0;) {
      if (sizes[i] == 0) return true;
      if (sizes[i] != 1 && strides[i] != expected) return false;
      expected *= sizes[i];
    }
    return true;
  }
};

StridedView make_view(const WeightEntry& entry) {
  StridedView view;
  view.name = entry.name;
  if (entry.pickled || !entry.meta) {
    view.fail("a pickled tensor",
              "a plain tensor (tensor subclasses must be unwrapped before export)");
  }
  const auto part = part_dtype_of(entry.meta->dtype);
  const auto dtype = part ? part : dtype_of(entry.meta->dtype);
  if (!dtype) view.fail(scalar_type_name(entry.meta->dtype), "a dtype that Kiln knows");
  view.dtype = *dtype;
  for (const SizeExpression& size : entry.meta->sizes) view.sizes.push_back(view.constant(size));
  for (const SizeExpression& size : entry.meta->strides)
    view.strides.push_back(view.constant(size));
  view.offset = view.constant(entry.meta->storage_offset);
  if (part) {  // their parts lie side by side
    for (int64_t& stride : view.strides) stride *= 2;
    view.offset *= 2;
    view.sizes.push_back(2);
    view.strides.push_back(1);
  }
  if (view.sizes.size() != view.strides.size()) {
    view.fail(std::to_string(view.strides.size()) + " strides", std::to_string(view.sizes.size()));
  }
  return view;
}

// Copies the elements of a view that is not contiguous into row-major order.
ir::Literal materialise(const StridedView& view, Bytes storage) {
  const size_t item = dtype_size(view.dtype);
  const int64_t count = view.elements();
  if (count > kMaxRepeatedElements && count > static_cast<int64_t>(storage.size() / item)) {
    view.fail("an expanded tensor of " + std::to_string(count) + " elements", "at most 2^28");
  }
  std::byte* target = nullptr;
  ir::Literal literal = ir::Literal::allocate(view.dtype, view.sizes, &target);
  std::vector<int64_t> index(view.sizes.size(), 0);
  for (int64_t i = 0; i < count; ++i) {
    int64_t source = view.offset;
    for (size_t d = 0; d < index.size(); ++d) source += index[d] * view.strides[d];
    std::memcpy(target + i * item, storage.data() + source * item, item);
    for (size_t d = index.size(); d-- > 0 && ++index[d] == view.sizes[d];) index[d] = 0;
  }
  return literal;
}

ir::Literal make_literal(const StridedView& view, Bytes storage,
                         const std::shared_ptr<const FileMap>& file) {
  const size_t item = dtype_size(view.dtype);
  const int64_t count = view.elements();
  if (view.extent() > static_cast<int64_t>(storage.size() / item)) {
    view.fail(
        std::to_string(storage.size()) + " bytes",
        std::to_string(view.extent()) + " elements of " + std::string(dtype_name(view.dtype)));
  }
  if (!view.is_contiguous()) return materialise(view, storage);
  ir::Literal literal;
  literal.dtype = view.dtype;
  literal.shape = view.sizes;
  if (count > 0) literal.bytes = storage.subspan(view.offset * item, count * item);
  literal.owner = literal.file = file;
  return literal;
}

// Tensors listed in data/`folder`/model_`folder`_config.json.
void read_tensors(const Archive& archive, const std::string& folder,
                  const std::shared_ptr<const FileMap>& file, LoadedModel& model) {
  const std::string base = "data/" + folder + "/";
  const std::string config = base + "model_" + folder + "_config.json";
  const auto text = archive.find(config);
  if (!text) return;
  for (const WeightEntry& entry : parse_weights(as_text(*text), config)) {
    const StridedView view = make_view(entry);
    model.tensors.emplace(entry.name, make_literal(view, archive.get(base + entry.path), file));
  }
}

}  // namespace

std::shared_ptr<Model> Model::open_file(const std::string& path) {
  Result<FileMap> map = FileMap::open(path);
  if (map.status().code() == StatusCode::OutOfMemory) throw std::bad_alloc();
  if (!map.ok()) throw CompileError(map.status().message());
  const auto file = std::make_shared<const FileMap>(std::move(*map));
  if (onnx::looks_like_onnx(path, file->bytes())) return onnx::open_model(file, path);
  const Archive archive(file->bytes());
  if (!archive.find("models/model.json")) {
    throw CompileError("[archive] got no models/model.json in " + path +
                       ", expected a file written by torch.export.save");
  }
  if (const auto order = archive.find("byteorder"); order && as_text(*order) != "little") {
    throw CompileError("[archive] got byte order " + std::string(as_text(*order).substr(0, 16)) +
                       ", expected little");
  }
  auto model = std::make_shared<LoadedModel>();
  model->program = parse_program(as_text(archive.get("models/model.json")));
  functionalise(model->program);
  read_tensors(archive, "weights", file, *model);
  read_tensors(archive, "constants", file, *model);
  return model;
}

std::shared_ptr<Model> Model::open_memory(std::string_view json, std::vector<NamedTensor> tensors) {
  auto model = std::make_shared<LoadedModel>();
  model->program = parse_program(json);
  for (NamedTensor& tensor : tensors) {
    const size_t expected =
        static_cast<size_t>(tensor.literal.elements()) * dtype_size(tensor.literal.dtype);
    if (tensor.literal.bytes.size() != expected) {
      throw CompileError("[weight " + tensor.name + "] got " +
                         std::to_string(tensor.literal.bytes.size()) + " bytes, expected " +
                         std::to_string(expected));
    }
    model->tensors.insert_or_assign(std::move(tensor.name), std::move(tensor.literal));
  }
  return model;
}

}  // namespace kiln::import
