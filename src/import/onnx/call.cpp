#include "import/onnx/call.h"

#include <algorithm>

#include "import/onnx/fields.h"
#include "support/error.h"

namespace kiln::import::onnx {
namespace {

ScalarType scalar_type(DType dtype) {
  constexpr int kCodes = 64;
  for (int code = 0; code < kCodes; ++code)
    if (import::dtype_of(ScalarType{code}) == dtype) return ScalarType{code};
  throw InternalError("no scalar type for " + std::string(dtype_name(dtype)));
}

// One application of an operator of PyTorch: a program of one node, made up for its importer.
class AtenCall {
 public:
  AtenCall(std::string_view target, const std::vector<bool>& used, ir::Builder& builder)
      : builder_(builder) {
    node_.target = "torch.ops." + std::string(target);
    for (size_t i = 0; i < used.size(); ++i) {
      const TensorName output{"result" + std::to_string(i)};
      node_.outputs.emplace_back(output);
      if (used[i]) graph_.outputs.emplace_back(output);
    }
  }

  void add(const AtenArgument& argument) {
    node_.inputs.emplace_back(
        argument.name,
        std::visit([this](const auto& value) { return name(value); }, argument.value));
  }

  std::vector<Value*> run(const Row& row) {
    const SymbolRanges ranges;
    Scope scope(graph_, ranges, symbols_, builder_);
    for (const auto& [name, value] : values_) scope.bind(name, value);
    Call call(node_, scope);
    const auto* one = std::get_if<ImportOne>(&row.function);
    std::vector<Value*> results =
        one ? std::vector<Value*>{(*one)(call)} : std::get<ImportMany>(row.function)(call);
    // As the importer of PyTorch's programs does it: rounded once.
    if (call.computes_in_f32() && is_16_bit_float(first_dtype_))
      for (Value*& result : results)
        if (result != nullptr && result->type.dtype == DType::F32)
          result = builder_.cast(result, first_dtype_);
    return results;
  }

 private:
  using Name = Argument;

  TensorName tensor(Value* value) {
    if (value == nullptr) return {};
    if (values_.empty()) first_dtype_ = value->type.dtype;
    values_.emplace_back("value" + std::to_string(values_.size()), value);
    return {values_.back().first};
  }
  SizeArgument size(const Dim& dim) {
    if (dim.is_constant()) return dim.constant();
    const std::string name = "size" + std::to_string(symbols_.size());
    symbols_.emplace(name, dim);
    graph_.size_values[name].expression = "Symbol('" + name + "')";
    return SizeName{name};
  }

  Name name(Value* value) {
    if (value == nullptr) return None{};
    return tensor(value);
  }
  Name name(const std::vector<Value*>& values) {
    std::vector<TensorName> names;
    for (Value* value : values) names.push_back(tensor(value));
    return names;
  }
  Name name(const Dim& dim) {
    const SizeArgument argument = size(dim);
    if (const auto* constant = std::get_if<int64_t>(&argument)) return *constant;
    return std::get<SizeName>(argument);
  }
  Name name(const std::vector<Dim>& dims) {
    std::vector<SizeArgument> sizes;
    for (const Dim& dim : dims) sizes.push_back(size(dim));
    return sizes;
  }
  Name name(const std::vector<int64_t>& values) {
    return std::vector<SizeArgument>(values.begin(), values.end());
  }
  Name name(DType dtype) { return scalar_type(dtype); }
  template <typename Plain>
  Name name(const Plain& value) {
    return value;
  }

  ir::Builder& builder_;
  ProgramGraph graph_;
  Symbols symbols_;
  ProgramNode node_;
  std::vector<std::pair<std::string, Value*>> values_;
  DType first_dtype_ = DType::F32;
};

const char* type_name(int64_t type) {
  switch (type) {
    case field::attribute::Float:
      return "a number";
    case field::attribute::Int:
      return "an integer";
    case field::attribute::String:
      return "text";
    case field::attribute::TensorType:
      return "a tensor";
    case field::attribute::GraphType:
      return "a graph";
    case field::attribute::Floats:
      return "numbers";
    case field::attribute::Ints:
      return "integers";
    case field::attribute::Strings:
      return "texts";
    default:
      return "another type";
  }
}

}  // namespace

std::string operator_text(const Node& node, int64_t version) {
  return node.op_type + " of " + (node.domain.empty() ? "ai.onnx" : node.domain) + ", version " +
         std::to_string(version);
}

NodeCall::NodeCall(const Node& node, int64_t version, std::vector<Value*> inputs, Context& context)
    : node_(node),
      version_(version),
      inputs_(std::move(inputs)),
      context_(context),
      read_inputs_(inputs_.size()),
      scope_(program_, program_ranges_, symbols_, context.builder),
      call_(program_node_, scope_) {
  program_node_.target = "onnx." + node.op_type + ".default";
}

Value* NodeCall::input(size_t i) {
  if (Value* value = optional_input(i)) return value;
  fail("no input " + std::to_string(i), "a tensor");
}

Value* NodeCall::optional_input(size_t i) {
  if (i >= inputs_.size()) return nullptr;
  read_inputs_[i] = true;
  expect(!context_.packed.contains(inputs_[i]) || node_.op_type == "DequantizeLinear",
         "4-bit numbers as input " + std::to_string(i), "them in DequantizeLinear only");
  return inputs_[i];
}

std::vector<Value*> NodeCall::inputs() {
  std::vector<Value*> result;
  for (size_t i = 0; i < inputs_.size(); ++i) result.push_back(input(i));
  return result;
}

const Elements& NodeCall::known_input(size_t i) {
  Value* value = input(i);
  if (const Elements* elements = known(value)) return *elements;
  fail("input " + std::to_string(i) + " (" + value->name + ") whose elements depend on data",
       "constants or sizes of inputs, because the result's shape depends on them");
}

std::vector<Dim> NodeCall::dims(size_t i) {
  const Elements& elements = known_input(i);
  expect(!is_floating(elements.dtype),
         std::string(dtype_name(elements.dtype)) + " for input " + std::to_string(i), "integers");
  return elements.integers;
}

std::vector<int64_t> NodeCall::integers(size_t i) {
  std::vector<int64_t> result;
  for (const Dim& dim : dims(i)) {
    expect(dim.is_constant(), "the size " + dim.str() + " in input " + std::to_string(i),
           "a constant");
    result.push_back(dim.constant());
  }
  return result;
}

std::vector<double> NodeCall::reals(size_t i) {
  const Elements& elements = known_input(i);
  if (is_floating(elements.dtype)) return elements.reals;
  const std::vector<int64_t> values = integers(i);
  return {values.begin(), values.end()};
}

Dim NodeCall::dim(size_t i) {
  const std::vector<Dim> values = dims(i);
  expect(values.size() == 1,
         std::to_string(values.size()) + " elements in input " + std::to_string(i), "one");
  return values[0];
}

int64_t NodeCall::integer(size_t i) {
  const Dim value = dim(i);
  expect(value.is_constant(), "the size " + value.str() + " as input " + std::to_string(i),
         "a constant");
  return value.constant();
}

bool NodeCall::has(std::string_view name) {
  read_attributes_.emplace(name);
  return node_.find(name) != nullptr;
}

const Attribute* NodeCall::find(std::string_view name, int64_t type) {
  if (!has(name)) return nullptr;
  const Attribute* attribute = node_.find(name);
  // Files of the first versions leave the type out.
  if (attribute->type != field::attribute::Undefined && attribute->type != type)
    fail(std::string(type_name(attribute->type)) + " as attribute " + std::string(name),
         type_name(type));
  return attribute;
}

int64_t NodeCall::integer_or(std::string_view name, int64_t fallback) {
  const Attribute* attribute = find(name, field::attribute::Int);
  return attribute ? attribute->integer : fallback;
}

int64_t NodeCall::integer(std::string_view name) {
  expect(has(name), "no attribute " + std::string(name), "an integer");
  return integer_or(name, 0);
}

double NodeCall::real_or(std::string_view name, double fallback) {
  const Attribute* attribute = find(name, field::attribute::Float);
  return attribute ? attribute->real : fallback;
}

std::string NodeCall::text_or(std::string_view name, std::string fallback) {
  const Attribute* attribute = find(name, field::attribute::String);
  return attribute ? attribute->text : fallback;
}

std::vector<int64_t> NodeCall::integers_or(std::string_view name, std::vector<int64_t> fallback) {
  const Attribute* attribute = find(name, field::attribute::Ints);
  return attribute ? attribute->integers : fallback;
}

std::vector<double> NodeCall::reals_or(std::string_view name, std::vector<double> fallback) {
  const Attribute* attribute = find(name, field::attribute::Floats);
  return attribute ? attribute->reals : fallback;
}

std::vector<std::string> NodeCall::texts_or(std::string_view name,
                                            std::vector<std::string> fallback) {
  const Attribute* attribute = find(name, field::attribute::Strings);
  return attribute ? attribute->texts : fallback;
}

const Tensor& NodeCall::tensor(std::string_view name) {
  const Attribute* attribute = find(name, field::attribute::TensorType);
  expect(attribute != nullptr && attribute->tensor != nullptr, "no attribute " + std::string(name),
         "a tensor");
  return *attribute->tensor;
}

const Graph& NodeCall::graph(std::string_view name) {
  const Attribute* attribute = find(name, field::attribute::GraphType);
  expect(attribute != nullptr && attribute->graph != nullptr, "no attribute " + std::string(name),
         "a graph");
  return *attribute->graph;
}

std::optional<std::vector<int64_t>> NodeCall::list(size_t i, std::string_view name) {
  if (has_input(i)) return integers(i);
  if (has(name)) return integers_or(name, {});
  return std::nullopt;
}

int64_t NodeCall::axis(int64_t axis, size_t rank) const {
  const auto count = static_cast<int64_t>(rank);
  expect(axis >= -count && axis < count, "axis " + std::to_string(axis),
         "-" + std::to_string(count) + " to " + std::to_string(count - 1));
  return axis < 0 ? axis + count : axis;
}

std::vector<int64_t> NodeCall::axes(std::vector<int64_t> axes, size_t rank) const {
  for (int64_t& axis : axes) axis = this->axis(axis, rank);
  std::ranges::sort(axes);
  expect(std::ranges::adjacent_find(axes) == axes.end(), "an axis twice", "different axes");
  return axes;
}

Value* NodeCall::integer_constant(const std::vector<int64_t>& values, DType dtype) const {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, {static_cast<int64_t>(values.size())}, &data);
  for (size_t i = 0; i < values.size(); ++i)
    ir::Literal::set_int(data, dtype, static_cast<int64_t>(i), values[i]);
  return builder().constant(std::move(literal));
}

Value* NodeCall::real_constant(DType dtype, const std::vector<double>& values,
                               std::vector<int64_t> shape) const {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, std::move(shape), &data);
  for (size_t i = 0; i < values.size(); ++i)
    ir::Literal::set(data, dtype, static_cast<int64_t>(i), values[i]);
  return builder().constant(std::move(literal));
}

Value* NodeCall::dims_value(const std::vector<Dim>& dims) const {
  if (std::ranges::all_of(dims, [](const Dim& dim) { return dim.is_constant(); })) {
    std::vector<int64_t> values;
    for (const Dim& dim : dims) values.push_back(dim.constant());
    return integer_constant(values);
  }
  std::vector<Value*> parts;
  for (const Dim& dim : dims) {
    Value* part = make(Op::dim_value, {}, {{"value", dim}, {"dtype", DType::I64}});
    parts.push_back(builder().reshape(part, {Dim(1)}));
  }
  if (parts.size() == 1) return parts[0];
  return make(Op::concat, parts, {{"axis", int64_t{0}}});
}

Value* NodeCall::aten(std::string_view target, const AtenArguments& arguments) {
  return aten_many(target, arguments, {true}).at(0);
}

std::vector<Value*> NodeCall::aten_many(std::string_view target, const AtenArguments& arguments,
                                        const std::vector<bool>& used) {
  const Row* row = import::find_row(target);
  KILN_CHECK(row != nullptr, "no importer of " + std::string(target));
  AtenCall call(target, used, builder());
  for (const AtenArgument& argument : arguments) call.add(argument);
  return call.run(*row);
}

void NodeCall::expect_all_read() const {
  for (const Attribute& attribute : node_.attributes)
    expect(read_attributes_.contains(attribute.name), "the attribute " + attribute.name,
           "none that this version of the operator does not have");
  for (size_t i = 0; i < inputs_.size(); ++i)
    expect(inputs_[i] == nullptr || read_inputs_[i], "input " + std::to_string(i),
           "none that this version of the operator does not have");
}

}  // namespace kiln::import::onnx
