#include "import/onnx/importer.h"

#include <algorithm>

#include "import/control_flow.h"
#include "support/error.h"
#include "support/limits.h"

namespace kiln::import::onnx {
namespace {

// Functions and branches in each other.
constexpr int kMaxDepth = 64;
// Functions that call functions may grow without bound.
constexpr size_t kMaxNodes = 1'000'000;

std::string describe(const Node& node, const Opsets& opsets) {
  const auto output = std::ranges::find_if(node.outputs, [](const auto& o) { return !o.empty(); });
  const auto version = opsets.find(node.domain);
  std::string text = output == node.outputs.end() ? "" : *output + " = ";
  text += operator_text(node, version == opsets.end() ? 0 : version->second);
  return node.name.empty() ? text : text + " (" + node.name + ")";
}

const ValueInfo* find_input(const ModelProto& model, std::string_view name) {
  const auto found = std::ranges::find(model.graph.inputs, name, &ValueInfo::name);
  return found == model.graph.inputs.end() ? nullptr : &*found;
}

bool is_initializer(const Graph& graph, const std::string& name) {
  return std::ranges::any_of(graph.initializers,
                             [&](const Tensor& tensor) { return tensor.name == name; });
}

std::string range_text(const DimRange& range) {
  return std::to_string(range.min) + ".." + std::to_string(range.opt) + ".." +
         std::to_string(range.max);
}

// The attributes of a node in a function, with those of the call in the place of references.
Node resolve_references(const Node& node, const Node& call, const Function& function);

std::shared_ptr<const Graph> resolve_references(const std::shared_ptr<const Graph>& graph,
                                                const Node& call, const Function& function) {
  if (graph == nullptr) return graph;
  auto result = std::make_shared<Graph>(*graph);
  for (Node& node : result->nodes) node = resolve_references(node, call, function);
  return result;
}

Node resolve_references(const Node& node, const Node& call, const Function& function) {
  Node result = node;
  result.attributes.clear();
  for (Attribute attribute : node.attributes) {
    if (!attribute.reference.empty()) {
      const Attribute* given = call.find(attribute.reference);
      const auto fallback =
          std::ranges::find(function.defaults, attribute.reference, &Attribute::name);
      if (given == nullptr && fallback != function.defaults.end()) given = &*fallback;
      if (given == nullptr) continue;  // left out by the call: the operator's own default
      const std::string name = attribute.name;
      attribute = *given;
      attribute.name = name;
    }
    attribute.graph = resolve_references(attribute.graph, call, function);
    result.attributes.push_back(std::move(attribute));
  }
  return result;
}

}  // namespace

bool size_is_open(const ModelProto& model, const std::string& input, int32_t dim) {
  const ValueInfo* info = find_input(model, input);
  if (info == nullptr || is_initializer(model.graph, input)) return false;
  if (!info->shape) return true;
  const auto index = static_cast<size_t>(dim);
  return dim >= 0 && index < info->shape->size() && !(*info->shape)[index].value;
}

Importer::Importer(const ModelProto& model, TensorFiles files, std::span<const DimRange> ranges,
                   bool replaceable_weights, EqualSizes equal)
    : model_(model),
      files_(std::move(files)),
      ranges_(ranges.begin(), ranges.end()),
      replaceable_weights_(replaceable_weights),
      equal_(std::move(equal)),
      builder_(graph_),
      context_{graph_, builder_, known_, files_, {}} {
  for (const ValueInfo& info : model.graph.value_infos) declared_[info.name] = &info;
  for (const ValueInfo& info : model.graph.outputs) declared_[info.name] = &info;
}

void Importer::check_versions() const {
  const auto check = [](const Opsets& opsets, const std::string& where) {
    const auto found = opsets.find("");
    if (found == opsets.end()) return;
    if (found->second >= kOldestOpset && found->second <= kNewestOpset) return;
    throw CompileError("[onnx] got version " + std::to_string(found->second) +
                       " of the operators of ai.onnx in " + where + ", expected " +
                       std::to_string(kOldestOpset) + " to " + std::to_string(kNewestOpset));
  };
  check(model_.opsets, "the model");
  for (const Function& function : model_.functions)
    check(function.opsets, "function " + function.name);
  for (const DimRange& range : ranges_) {
    const ValueInfo* input = find_input(model_, range.input);
    const bool known = input != nullptr && range.dim >= 0 &&
                       !is_initializer(model_.graph, range.input) &&
                       (!input->shape || static_cast<size_t>(range.dim) < input->shape->size());
    if (!known)
      throw CompileError("[range] got input " + range.input + " dimension " +
                         std::to_string(range.dim) +
                         ", expected an input of the model and one of its dimensions");
    if (range.min < 0 || range.min > range.opt || range.opt > range.max)
      throw CompileError("[range] got " + range_text(range) + " for input " + range.input +
                         " dimension " + std::to_string(range.dim) +
                         ", expected 0 <= min <= opt <= max");
  }
}

ir::Dim Importer::input_size(const ValueInfo& input, size_t dim, const Dimension& size) {
  const DimRange* range = nullptr;
  for (const DimRange& candidate : ranges_)
    if (candidate.input == input.name && static_cast<size_t>(candidate.dim) == dim)
      range = &candidate;
  const std::string where = "input " + input.name + " dimension " + std::to_string(dim);
  if (size.value) {
    if (*size.value < 0)
      throw CompileError("[onnx] got the size " + std::to_string(*size.value) + " for " + where +
                         ", expected 0 or more, or a name");
    if (range != nullptr && (range->min != *size.value || range->max != *size.value))
      throw CompileError("[range] got " + range_text(*range) + " for " + where + ", expected " +
                         std::to_string(*size.value) + ": the model says that size");
    return *size.value;
  }
  if (!size.param.empty())
    if (const auto found = symbols_.find(size.param); found != symbols_.end()) {
      const ir::Dim& known = found->second;
      if (range != nullptr &&
          (range->min != known.lower_bound() || range->max != known.upper_bound()))
        throw CompileError("[range] got " + range_text(*range) + " for " + where + ", expected " +
                           std::to_string(known.lower_bound()) + ".." +
                           std::to_string(known.upper_bound()) +
                           " as for another input: both are " + size.param + " in the model");
      return known;
    }
  // The range may be given for another input of the same name.
  if (range == nullptr && !size.param.empty())
    for (const ValueInfo& other : model_.graph.inputs)
      for (const DimRange& candidate : ranges_)
        if (candidate.input == other.name && other.shape &&
            static_cast<size_t>(candidate.dim) < other.shape->size() &&
            (*other.shape)[static_cast<size_t>(candidate.dim)].param == size.param &&
            !(*other.shape)[static_cast<size_t>(candidate.dim)].value)
          range = &candidate;
  const int64_t min = range ? range->min : 1, max = range ? range->max : ir::kDimInfinity;
  std::string name = size.param.empty() ? input.name + "_" + std::to_string(dim) : size.param;
  for (int i = 1; size.param.empty() && symbols_.contains(name); ++i)
    name = input.name + "_" + std::to_string(dim) + "_" + std::to_string(i);
  const ir::Dim result =
      min == max ? ir::Dim(min)
                 : ir::Dim(ir::make_size_symbol(name, min, std::min(max, ir::kDimInfinity),
                                                range ? range->opt : min));
  symbols_.emplace(name, result);
  return result;
}

ir::Type Importer::input_type(const ValueInfo& input) {
  if (!input.is_tensor())
    throw CompileError("[onnx] got " + input.kind + " as input " + input.name +
                       ", expected tensors only");
  ir::Type type{known_dtype(input.data_type, "input " + input.name), {}};
  std::vector<Dimension> shape;
  if (input.shape) {
    shape = *input.shape;
  } else {  // the caller's ranges may say it
    int32_t rank = -1;
    for (const DimRange& range : ranges_)
      if (range.input == input.name) rank = std::max(rank, range.dim + 1);
    if (rank < 0)
      throw CompileError("[onnx] got input " + input.name +
                         " without a shape, expected ranges for each of its dimensions");
    if (static_cast<size_t>(rank) <= kMaxRank) shape.resize(static_cast<size_t>(rank));
  }
  if (shape.size() > kMaxRank)
    throw CompileError("[onnx] got " + std::to_string(shape.size()) + " dimensions for input " +
                       input.name + ", expected at most " + std::to_string(kMaxRank));
  for (size_t i = 0; i < shape.size(); ++i) type.shape.push_back(input_size(input, i, shape[i]));
  return type;
}

// Inputs with an initializer are constants, as in the first versions of ONNX, where each had one.
void Importer::bind_inputs(Names& names) {
  for (const ValueInfo& input : model_.graph.inputs) {
    if (is_initializer(model_.graph, input.name)) continue;
    if (input.name.empty() || names.values.contains(input.name))
      throw CompileError("[onnx] got the input name \"" + input.name +
                         "\", expected different names that are not empty");
    names.values[input.name] = graph_.add_input(input.name, input_type(input));
  }
  // After all inputs: ranges are given for the sizes as the model names them.
  Symbols equal = symbols_;
  equal_.apply(equal);
  const auto replacement = [&](const ir::SymbolPtr& symbol) -> std::optional<ir::Dim> {
    return equal.at(symbol->name);
  };
  for (ir::Value* input : graph_.inputs())
    for (ir::Dim& size : input->type.shape) size = size.substitute(replacement);
}

void Importer::bind_initializers(Names& names, const Graph& graph) {
  if (graph.has_sparse_initializers)
    throw CompileError("[onnx] got sparse initializers, expected dense ones");
  for (const Tensor& tensor : graph.initializers)
    if (!names.initializers.emplace(tensor.name, &tensor).second)
      throw CompileError("[onnx] got two initializers " + tensor.name +
                         ", expected different names");
}

Value* Importer::find(Names& names, const std::string& name) {
  if (const auto found = names.values.find(name); found != names.values.end()) return found->second;
  if (const auto found = names.initializers.find(name); found != names.initializers.end()) {
    ir::Literal literal = files_.literal(*found->second);
    literal.replaceable = replaceable_weights_ && is_floating(literal.dtype);
    Value* value = builder_.constant(std::move(literal));
    graph_.rename(value, name);
    if (is_packed(found->second->data_type)) context_.packed.insert(value);
    return names.values[name] = value;
  }
  if (const auto found = names.failed.find(name); found != names.failed.end())
    throw CompileError(found->second);
  // Constants of an outer graph are made where they are used: the names there stay as they are.
  for (const Names* outer = names.outer; outer != nullptr; outer = outer->outer) {
    Names copy;
    if (const auto found = outer->values.find(name); found != outer->values.end())
      return found->second;
    if (const auto found = outer->initializers.find(name); found != outer->initializers.end()) {
      copy.initializers.insert(*found);
      return names.values[name] = find(copy, name);
    }
  }
  throw CompileError("got the unknown tensor " + name +
                     ", expected an input, an initializer or a result of an earlier node");
}

const Function* Importer::find_function(const Node& node) const {
  for (const Function& function : model_.functions)
    if (function.name == node.op_type && function.domain == node.domain &&
        function.overload == node.overload)
      return &function;
  return nullptr;
}

std::vector<Value*> Importer::import_operator(const Node& node, int64_t version,
                                              std::vector<Value*> inputs) {
  const std::string prefix = node.domain.empty() ? "" : node.domain + ".";
  const OperatorRow* row = find_operator(prefix + node.op_type);
  if (row == nullptr) throw CompileError("the operator is not supported");
  NodeCall call(node, version, std::move(inputs), context_);
  const auto* one = std::get_if<OnnxOne>(&row->function);
  std::vector<Value*> results =
      one ? std::vector<Value*>{(*one)(call)} : std::get<OnnxMany>(row->function)(call);
  call.expect_all_read();
  return results;
}

std::vector<Value*> Importer::import_function(const Function& function, const Node& node,
                                              const std::vector<Value*>& inputs, int depth) {
  if (inputs.size() > function.inputs.size())
    throw CompileError("got " + std::to_string(inputs.size()) + " inputs, expected at most " +
                       std::to_string(function.inputs.size()));
  Names names;
  names.opsets = &function.opsets;
  for (size_t i = 0; i < function.inputs.size(); ++i)
    names.values[function.inputs[i]] = i < inputs.size() ? inputs[i] : nullptr;
  std::vector<Node> nodes;
  for (const Node& inner : function.nodes)
    nodes.push_back(resolve_references(inner, node, function));
  import_nodes(names, nodes, depth + 1);
  std::vector<Value*> results;
  for (const std::string& output : function.outputs) results.push_back(find(names, output));
  return results;
}

std::vector<Value*> Importer::import_branch(const Names& names, const Graph& branch, int depth) {
  Names inner;
  inner.outer = &names;
  inner.opsets = names.opsets;
  bind_initializers(inner, branch);
  import_nodes(inner, branch.nodes, depth + 1);
  std::vector<Value*> results;
  for (const ValueInfo& output : branch.outputs) results.push_back(find(inner, output.name));
  return results;
}

// One branch where the condition is known; else both, and a choice between their results.
std::vector<Value*> Importer::import_if(Names& names, const Node& node, int64_t version,
                                        Value* condition, int depth) {
  NodeCall call(node, version, {condition}, context_);
  const Graph &then_branch = call.graph("then_branch"), &else_branch = call.graph("else_branch");
  Value* input = call.input(0);
  call.expect_all_read();
  call.expect(input->type.dtype == DType::Bool && input->type.elements().is_constant(1),
              input->type.str() + " as condition", "one bool");
  const Elements* known = call.known(input);
  if (known != nullptr && known->integers[0].is_constant())
    return import_branch(names, known->integers[0].is_constant(0) ? else_branch : then_branch,
                         depth);
  const uint32_t first_id = next_id(graph_);
  const std::vector<Value*> yes = import_branch(names, then_branch, depth);
  const std::vector<Value*> no = import_branch(names, else_branch, depth);
  call.expect(!adds_checks(graph_, first_id),
              "a condition that depends on data, and branches with indices or divisors that do",
              "a condition that is known, because both branches are computed");
  call.expect(yes.size() == no.size(), "branches with different numbers of results", "equal ones");
  Value* scalar = builder_.reshape(input, {});
  std::vector<Value*> results;
  for (size_t i = 0; i < yes.size(); ++i) {
    call.expect(!context_.packed.contains(yes[i]) && !context_.packed.contains(no[i]),
                "branches with 4-bit numbers", "them in DequantizeLinear only");
    call.expect(yes[i]->type == no[i]->type,
                "branches of types " + yes[i]->type.str() + " and " + no[i]->type.str(),
                "equal types, or a condition that is known");
    results.push_back(builder_.value(Op::where, {scalar, yes[i], no[i]}));
  }
  return results;
}

void Importer::check_declared(const Value* value, const std::string& name) const {
  const auto found = declared_.find(name);
  if (found == declared_.end() || !found->second->is_tensor()) return;
  const ValueInfo& info = *found->second;
  const auto dtype = dtype_of(info.data_type);
  if (info.data_type != 0 && dtype != value->type.dtype)
    throw CompileError("got type " + value->type.str() + " for " + name + ", expected " +
                       data_type_name(info.data_type) + " as the model says");
}

void Importer::bind_outputs(Names& names, const Node& node, const std::vector<Value*>& values,
                            uint32_t first_id) {
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const std::string& name = node.outputs[i];
    if (name.empty()) continue;
    if (i >= values.size() || values[i] == nullptr)
      throw CompileError("got a use of output " + std::to_string(i) +
                         ", expected none: it is not supported");
    Value* value = values[i];
    if (value->type.rank() > kMaxRank)
      throw CompileError("got " + std::to_string(value->type.rank()) +
                         " dimensions, expected at most " + std::to_string(kMaxRank));
    if (names.are_the_models) check_declared(value, name);
    if (names.initializers.contains(name) || !names.values.emplace(name, value).second)
      throw CompileError("got the name " + name + " twice, expected different names of results");
    if (value->producer != nullptr && value->id >= first_id && value->index == 0)
      graph_.rename(value, name);
    (void)known_.find(value);  // now: no chain of nodes is followed to its end later
  }
}

void Importer::import_node(Names& names, const Node& node, int depth) {
  if (depth > kMaxDepth || ++imported_nodes_ > kMaxNodes)
    throw CompileError(
        "got functions or branches that are too deep or too many, expected at most " +
        std::to_string(kMaxNodes) + " nodes, " + std::to_string(kMaxDepth) + " deep");
  builder_.set_location(node.name);
  std::vector<Value*> inputs;
  for (const std::string& input : node.inputs)
    inputs.push_back(input.empty() ? nullptr : find(names, input));
  const uint32_t first_id = next_id(graph_);
  if (const Function* function = find_function(node))
    return bind_outputs(names, node, import_function(*function, node, inputs, depth), first_id);
  const auto opset = names.opsets->find(node.domain);
  if (opset == names.opsets->end())
    throw CompileError("got no opset_import of the domain " +
                       (node.domain.empty() ? std::string("ai.onnx") : node.domain) +
                       ", expected a version");
  if (node.domain.empty() && node.op_type == "If") {
    if (inputs.size() != 1)
      throw CompileError("got " + std::to_string(inputs.size()) + " inputs, expected a condition");
    return bind_outputs(names, node, import_if(names, node, opset->second, inputs[0], depth),
                        first_id);
  }
  if (node.domain.empty() && node.op_type == "Loop")
    return bind_outputs(names, node, import_loop(names, node, opset->second, inputs, depth),
                        first_id);
  if (node.domain.empty() && node.op_type == "Scan")
    return bind_outputs(names, node, import_scan(names, node, opset->second, inputs, depth),
                        first_id);
  bind_outputs(names, node, import_operator(node, opset->second, std::move(inputs)), first_id);
}

void Importer::import_nodes(Names& names, const std::vector<Node>& nodes, int depth) {
  for (const Node& node : nodes) {
    const auto told = [&](const CompileError& error) {
      return "cannot import " + describe(node, *names.opsets) + ": " + error.what();
    };
    try {
      import_node(names, node, depth);
    } catch (const ir::UnmetRequirement& error) {
      throw ir::UnmetRequirement(told(error));
    } catch (const ir::UnequalSizes& error) {
      // What a branch or a loop needs is not what every run needs.
      if (names.outer != nullptr) throw CompileError(told(error));
      throw ir::UnequalSizes(told(error), error.a, error.b);
    } catch (const CompileError& error) {
      throw CompileError(told(error));
    }
  }
}

void Importer::set_outputs(Names& names) {
  std::vector<Value*> values;
  std::vector<std::string> output_names;
  for (const ValueInfo& output : model_.graph.outputs) {
    if (!output.is_tensor() && output.kind != "an unknown type")
      throw CompileError("[onnx] got " + output.kind + " as output " + output.name +
                         ", expected tensors only");
    values.push_back(find(names, output.name));
    if (context_.packed.contains(values.back()))
      throw CompileError("[onnx] got 4-bit numbers as output " + output.name +
                         ", expected them in DequantizeLinear only");
    check_declared(values.back(), output.name);
    if (output.name.empty() || std::ranges::find(output_names, output.name) != output_names.end())
      throw CompileError("[onnx] got the output name \"" + output.name +
                         "\", expected different names that are not empty");
    output_names.push_back(output.name);
  }
  graph_.set_outputs(std::move(values), std::move(output_names));
}

ir::Graph Importer::import_graph() {
  check_versions();
  Names names;
  names.opsets = &model_.opsets;
  names.are_the_models = true;
  bind_initializers(names, model_.graph);
  bind_inputs(names);
  import_nodes(names, model_.graph.nodes, 0);
  set_outputs(names);
  return std::move(graph_);
}

std::vector<NodeSupport> Importer::check_support() {
  check_versions();
  Names names;
  names.opsets = &model_.opsets;
  names.are_the_models = true;
  bind_initializers(names, model_.graph);
  bind_inputs(names);
  std::vector<NodeSupport> result;
  for (const Node& node : model_.graph.nodes) {
    const std::string domain = node.domain.empty() ? "ai.onnx" : node.domain;
    NodeSupport support{
        node.outputs.empty() ? node.name : node.outputs[0], domain + "." + node.op_type, true, {}};
    try {
      import_node(names, node, 0);
    } catch (const CompileError& error) {
      if (equal_.can_add(error)) throw;
      support.supported = false;
      support.reason = error.what();
      for (const std::string& output : node.outputs)
        names.failed[output] = "got input " + output + ", expected one whose own node is supported";
    }
    result.push_back(std::move(support));
  }
  return result;
}

}  // namespace kiln::import::onnx
