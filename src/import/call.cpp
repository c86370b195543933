#include "import/call.h"

#include <algorithm>

#include "import/size_condition.h"
#include "support/error.h"

namespace kiln::import {
namespace {

// An empty list says nothing about its elements: torch.export writes some as another kind.
bool is_empty_list(const Argument& argument) {
  return std::visit(
      [](const auto& value) {
        if constexpr (requires { value.empty() && value.begin() == value.end(); })
          return value.empty();
        return false;
      },
      argument);
}

// Arguments that say where numbers go, and are no numbers to compute with.
bool says_where(std::string_view argument) {
  return argument == "index" || argument == "indices" || argument == "condition" ||
         argument == "mask" || argument == "repeats";
}

// Arguments that are an element: of one that is real the imaginary part is 0.
bool is_element(std::string_view argument) {
  return argument == "value" || argument == "fill_value" || argument == "s";
}

}  // namespace

void Call::fail(const std::string& got, const std::string& expected) const {
  throw CompileError("got " + got + ", expected " + expected);
}

void Call::wrong_kind(std::string_view name, std::string_view expected) const {
  const auto* other = std::get_if<OtherArgument>(&get(name));
  const bool is_condition = std::holds_alternative<ConditionName>(get(name));
  fail((other          ? other->kind
        : is_condition ? "as_sym_bool"
                       : "another kind") +
           " for argument " + std::string(name),
       std::string(expected));
}

const Argument* Call::find(std::string_view name) const {
  for (const auto& [key, argument] : node_.inputs) {
    if (key == name) return std::holds_alternative<None>(argument) ? nullptr : &argument;
  }
  return nullptr;
}

std::string Call::operation() const {
  const std::string_view target = node_.target;
  const std::string_view name = target.substr(0, target.rfind('.'));
  return std::string(name.substr(name.rfind('.') + 1));
}

std::optional<ir::Dim> Call::condition(std::string_view name) const {
  const Argument* argument = find(name);
  const auto* found = argument != nullptr ? std::get_if<ConditionName>(argument) : nullptr;
  if (found == nullptr) return std::nullopt;
  try {
    return scope_.condition(found->name);
  } catch (const CompileError&) {
    return std::nullopt;
  }
}

ir::Dim Call::find_size(ir::Value* count, size_t output, size_t dim, std::optional<ir::Dim> bound) {
  const std::vector<std::string> names = node_.output_names();
  const std::string name = output < names.size() ? names[output] : "";
  const auto define = [&](const ir::Dim& size) {
    ir::Attrs attrs{{"size", size}};
    if (bound) attrs["bound"] = *bound;
    make(ir::Op::data_size, {count}, std::move(attrs));
    return size;
  };
  if (const auto fresh = scope_.define_symbol(name, dim, bound)) return define(*fresh);
  const size_t number = builder().graph().data_symbols().size();
  const ir::Dim found = define(scope_.new_symbol("found_" + std::to_string(number), bound));
  if (!scope_.is_recorded(name)) return found;
  const ir::Dim recorded = scope_.recorded_size(name, dim);
  builder().require({is_equal(found, recorded),
                     "the size " + recorded.str() + " for a result of " + operation(), "",
                     ir::Requirement::Kind::Sizes});
  return recorded;
}

const Argument& Call::get(std::string_view name) const {
  if (const Argument* argument = find(name)) return *argument;
  fail("no argument " + std::string(name), "a value");
}

bool Call::has(std::string_view name) const { return find(name) != nullptr; }

ir::Value* Call::tensor(std::string_view name) const {
  if (const auto* found = std::get_if<TensorName>(&get(name))) return tensor(*found, name);
  wrong_kind(name, "a tensor");
}

ir::Value* Call::part(const TensorName& name, std::string_view argument) const {
  size_t position = 0;
  const auto count = [&](const TensorName& other) {
    const bool is_it = &other == &name;
    position += !is_it;
    return is_it;
  };
  const auto find = [&] {
    for (const auto& [key, value] : node_.inputs) {
      if (const auto* one = std::get_if<TensorName>(&value); one && count(*one)) return;
      if (const auto* many = std::get_if<std::vector<TensorName>>(&value))
        if (std::ranges::any_of(*many, count)) return;
    }
  };
  find();
  expect(parts_.size() == 1 || position < parts_.size(), std::to_string(position + 1) + " operands",
         "at most " + std::to_string(parts_.size()) + " where some are complex");
  const Part part = parts_.size() == 1 ? parts_[0] : parts_[position];
  if (scope_.is_complex(name.name)) {
    const Complex value = scope_.complex(name.name);
    return part == Part::Real ? value.re : value.im;
  }
  ir::Value* value = scope_.tensor(name.name);
  if (part == Part::Real || says_where(argument)) return value;
  // Integers and bools may say which elements are meant, under a name that is not known here.
  expect(is_floating(value->type.dtype), "the real tensor " + name.name + " beside complex ones",
         "complex tensors, and others of floating-point numbers");
  return builder().expand(builder().scalar(value->type.dtype, 0), value->type.shape);
}

ir::Value* Call::tensor(const TensorName& name, std::string_view argument) const {
  if (!parts_.empty()) return part(name, argument);
  ir::Value* value = scope_.tensor(name.name);
  const bool widens = computes_in_f32_ && is_16_bit_float(value->type.dtype);
  return widens ? builder().cast(value, DType::F32) : value;
}

ir::Value* Call::optional_tensor(std::string_view name) const {
  return has(name) ? tensor(name) : nullptr;
}

std::vector<ir::Value*> Call::tensors(std::string_view name) const {
  const Argument& argument = get(name);
  std::vector<ir::Value*> result;
  if (is_empty_list(argument)) return result;
  const auto* list = std::get_if<std::vector<TensorName>>(&argument);
  if (list == nullptr) wrong_kind(name, "a list of tensors");
  for (const TensorName& tensor : *list) {
    result.push_back(tensor.name.empty() ? nullptr : this->tensor(tensor, name));
  }
  return result;
}

Number Call::number(std::string_view name) const {
  const Argument& argument = get(name);
  if (parts_.size() == 1) {
    const bool is_real = parts_[0] == Part::Real;
    if (const auto* value = std::get_if<ComplexNumber>(&argument))
      return is_real ? value->re : value->im;
    if (!is_real && is_element(name)) return int64_t{0};
  }
  if (const auto* value = std::get_if<bool>(&argument)) return *value;
  if (const auto* value = std::get_if<int64_t>(&argument)) return *value;
  if (const auto* value = std::get_if<double>(&argument)) return *value;
  if (const auto* value = std::get_if<SizeName>(&argument))
    return scope_.size(SizeArgument(*value));
  wrong_kind(name, "a number");
}

Number Call::number_or(std::string_view name, Number fallback) const {
  return has(name) ? number(name) : fallback;
}

bool Call::is_complex(std::string_view name) const {
  const auto* found = has(name) ? std::get_if<TensorName>(&get(name)) : nullptr;
  return found != nullptr && scope_.is_complex(found->name);
}

Complex Call::complex(std::string_view name) const {
  if (const auto* found = std::get_if<TensorName>(&get(name))) return scope_.complex(found->name);
  wrong_kind(name, "a complex tensor");
}

std::optional<ComplexNumber> Call::complex_number(std::string_view name) const {
  const auto* found = has(name) ? std::get_if<ComplexNumber>(&get(name)) : nullptr;
  return found == nullptr ? std::nullopt : std::optional(*found);
}

Operand Call::operand(std::string_view name) const {
  if (std::holds_alternative<TensorName>(get(name))) return tensor(name);
  return number(name);
}

Operand Call::operand_or(std::string_view name, Number fallback) const {
  return has(name) ? operand(name) : Operand(std::move(fallback));
}

int64_t Call::known(const ir::Dim& dim, std::string_view name) const {
  expect(dim.is_constant(), "the symbolic size " + dim.str() + " for argument " + std::string(name),
         "a constant");
  return dim.constant();
}

int64_t Call::integer(std::string_view name) const { return known(dim(name), name); }

int64_t Call::integer_or(std::string_view name, int64_t fallback) const {
  return has(name) ? integer(name) : fallback;
}

double Call::real_or(std::string_view name, double fallback) const {
  return has(name) ? number_as_double(number(name)) : fallback;
}

bool Call::boolean_or(std::string_view name, bool fallback) const {
  if (!has(name)) return fallback;
  if (const auto* value = std::get_if<bool>(&get(name))) return *value;
  wrong_kind(name, "true or false");
}

std::string Call::text_or(std::string_view name, std::string fallback) const {
  if (!has(name)) return fallback;
  if (const auto* value = std::get_if<std::string>(&get(name))) return *value;
  wrong_kind(name, "a string");
}

std::vector<int64_t> Call::integers(std::string_view name) const {
  std::vector<int64_t> result;
  for (const ir::Dim& dim : dims(name)) result.push_back(known(dim, name));
  return result;
}

std::vector<int64_t> Call::integers_or(std::string_view name, std::vector<int64_t> fallback) const {
  return has(name) ? integers(name) : fallback;
}

std::vector<double> Call::reals(std::string_view name) const {
  if (const auto* list = std::get_if<std::vector<double>>(&get(name))) return *list;
  std::vector<double> result;
  for (int64_t value : integers(name)) result.push_back(static_cast<double>(value));
  return result;
}

std::optional<DType> Call::dtype(std::string_view name) const {
  if (!has(name)) return std::nullopt;
  const auto* type = std::get_if<ScalarType>(&get(name));
  if (type == nullptr) wrong_kind(name, "a dtype");
  const auto result = parts_.empty() ? dtype_of(*type) : part_dtype_of(*type);
  expect(result.has_value(), "dtype " + scalar_type_name(*type), "a dtype that Kiln knows");
  return result;
}

ir::Dim Call::dim(std::string_view name) const {
  const Argument& argument = get(name);
  if (const auto* value = std::get_if<int64_t>(&argument)) return *value;
  if (const auto* value = std::get_if<SizeName>(&argument))
    return scope_.size(SizeArgument(*value));
  wrong_kind(name, "an integer");
}

ir::Dim Call::dim_or(std::string_view name, ir::Dim fallback) const {
  return has(name) ? dim(name) : fallback;
}

std::vector<ir::Dim> Call::dims(std::string_view name) const {
  const Argument& argument = get(name);
  std::vector<ir::Dim> result;
  if (is_empty_list(argument)) return result;
  const auto* list = std::get_if<std::vector<SizeArgument>>(&argument);
  if (list == nullptr) return {dim(name)};  // int[1] arguments may be given as one int
  for (const SizeArgument& size : *list) result.push_back(scope_.size(size));
  return result;
}

int64_t Call::normalise_axis(int64_t axis, size_t rank) const {
  const int64_t count = std::max<int64_t>(1, static_cast<int64_t>(rank));
  expect(axis >= -count && axis < count, "dim " + std::to_string(axis),
         std::to_string(-count) + " to " + std::to_string(count - 1));
  return axis < 0 ? axis + count : axis;
}

int64_t Call::axis(std::string_view name, size_t rank) const {
  return normalise_axis(integer(name), rank);
}

int64_t Call::axis_or(std::string_view name, size_t rank, int64_t fallback) const {
  return normalise_axis(integer_or(name, fallback), rank);
}

std::vector<int64_t> Call::axes_or_all(std::string_view name, size_t rank) const {
  std::vector<int64_t> axes = integers_or(name, {});
  if (axes.empty()) {
    for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  }
  for (int64_t& axis : axes) axis = normalise_axis(axis, rank);
  if (rank == 0) return {};
  std::ranges::sort(axes);
  expect(std::ranges::adjacent_find(axes) == axes.end(), "an axis twice", "different axes");
  return axes;
}

bool Call::output_used(size_t i) const {
  const std::vector<std::string> names = node_.output_names();
  return i < names.size() && scope_.is_used(names[i]);
}

}  // namespace kiln::import
