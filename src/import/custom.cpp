#include "import/custom.h"

#include <algorithm>
#include <cmath>

#include "support/error.h"
#include "support/json_writer.h"
#include "support/limits.h"

namespace kiln::import {
namespace {

// Writes an argument, and takes the tensors in it.
class ArgumentWriter {
 public:
  explicit ArgumentWriter(Call& call) : call_(call) {}

  std::string write() {
    json_.begin_object();
    for (const auto& [name, argument] : call_.node().inputs) {
      name_ = name;
      std::visit([&](const auto& value) { write(value); }, argument);
    }
    return json_.end_object().text();
  }

  std::vector<ir::Value*> inputs;

 private:
  JsonWriter& key() { return json_.key(name_); }

  void write(const None&) { key().null(); }
  void write(const TensorName& tensor) {
    if (tensor.name.empty())
      key().null();
    else
      inputs.push_back(call_.scope().tensor(tensor.name));
  }
  // Where they are among the inputs.
  void write(const std::vector<TensorName>& tensors) {
    key().begin_array();
    for (const TensorName& tensor : tensors) {
      if (tensor.name.empty()) {
        json_.null();
        continue;
      }
      json_.value(inputs.size());
      inputs.push_back(call_.scope().tensor(tensor.name));
    }
    json_.end_array();
  }
  void write(int64_t value) { key().value(value); }
  void write(double value) {
    key();
    number(value);
  }
  void write(bool value) { key().value(value); }
  void write(const std::string& value) { key().value(value); }
  void write(const SizeName& size) { write(known(call_.scope().size(SizeArgument(size)))); }
  void write(const std::vector<SizeArgument>& sizes) {
    key().begin_array();
    for (const SizeArgument& size : sizes) json_.value(known(call_.scope().size(size)));
    json_.end_array();
  }
  void write(const std::vector<double>& values) {
    key().begin_array();
    for (const double value : values) number(value);
    json_.end_array();
  }
  void write(const std::vector<bool>& values) {
    key().begin_array();
    for (const bool value : values) json_.value(value);
    json_.end_array();
  }
  void write(const ScalarType& type) { key().value(scalar_type_name(type)); }
  void write(const ComplexNumber& value) {
    key().begin_array();
    number(value.re);
    number(value.im);
    json_.end_array();
  }
  void write(const ConditionName&) { refuse("a condition on sizes"); }
  void write(const std::shared_ptr<Subgraph>&) { refuse("a graph"); }
  // Where tensors lie is a matter of the process that runs.
  void write(const OtherArgument& other) {
    const bool says_where =
        other.kind == "as_device" || other.kind == "as_layout" || other.kind == "as_memory_format";
    if (!says_where) refuse(other.kind);
  }

  void number(double value) {
    if (std::isnan(value))
      json_.value("nan");
    else if (std::isinf(value))
      json_.value(value < 0 ? "-inf" : "inf");
    else
      json_.value(value);
  }

  int64_t known(const ir::Dim& size) const {
    if (!size.is_constant()) refuse("the size " + size.str() + ", which differs from run to run,");
    return size.constant();
  }

  [[noreturn]] void refuse(const std::string& what) const {
    call_.fail(what + " as argument " + name_ + " of an operator with a kernel of the user's own",
               "tensors, and numbers, texts and lists of them that are known now");
  }

  Call& call_;
  JsonWriter json_;
  std::string name_;
};

ir::Type result_type(Call& call, const std::string& name) {
  ir::Type type;
  try {
    type = call.scope().recorded_type(name);
  } catch (const CompileError& error) {
    throw CompileError(std::string(error.what()) +
                       " (the types of what a kernel of the user's own gives are known before it "
                       "runs)");
  }
  return type;
}

}  // namespace

std::optional<std::string> kernel_name(std::string_view target) {
  const size_t space = target.find('.');
  const size_t overload = target.rfind('.');
  if (space == std::string_view::npos || overload == space || target.starts_with("higher_order."))
    return std::nullopt;
  const std::string_view operation = target.substr(space + 1, overload - space - 1);
  if (operation.empty() || operation.ends_with('_')) return std::nullopt;
  std::string name = std::string(target.substr(0, space)) + "::" + std::string(operation);
  if (target.substr(overload) != ".default") name += target.substr(overload);
  return name;
}

std::vector<ir::Value*> import_custom(Call& call, const std::string& kernel) {
  ArgumentWriter arguments(call);
  std::string text = arguments.write();
  for (const Argument& output : call.node().outputs)
    call.expect(std::holds_alternative<TensorName>(output) ||
                    std::holds_alternative<std::vector<TensorName>>(output),
                "a result that is no tensor", "tensors, of an operator with a kernel");
  std::vector<int64_t> dtypes, ranks;
  ir::Shape shapes;
  for (const std::string& name : call.node().output_names()) {
    call.expect(!name.empty(), "None as a result", "tensors, of an operator with a kernel");
    const ir::Type type = result_type(call, name);
    dtypes.push_back(static_cast<int64_t>(type.dtype));
    ranks.push_back(static_cast<int64_t>(type.rank()));
    shapes.insert(shapes.end(), type.shape.begin(), type.shape.end());
  }
  call.expect(!dtypes.empty(), "no results", "some, of an operator with a kernel");
  return call.builder()
      .node(ir::Op::custom, std::move(arguments.inputs),
            {{"kernel", kernel},
             {"arguments", std::move(text)},
             {"dtypes", std::move(dtypes)},
             {"ranks", std::move(ranks)},
             {"shapes", std::move(shapes)}})
      ->outputs;
}

}  // namespace kiln::import
