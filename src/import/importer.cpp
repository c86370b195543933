#include "import/importer.h"

#include <algorithm>
#include <set>

#include "import/control_flow.h"
#include "import/custom.h"
#include "import/guards.h"
#include "support/error.h"
#include "support/limits.h"

namespace kiln::import {
namespace {

std::string describe(const ProgramNode& node) {
  std::string result = node.name() + " = " + std::string(short_target(node.target));
  if (!node.location.empty()) result += " (" + node.location + ")";
  return result;
}

// Symbolic integers, floats and bools are not values: they are computed from the recorded
// expressions where they are used.
bool gives_only_sizes(const ProgramNode& node) {
  return !node.outputs.empty() && std::ranges::all_of(node.outputs, [](const Argument& output) {
    return std::holds_alternative<SizeName>(output) ||
           std::holds_alternative<ConditionName>(output) ||
           std::holds_alternative<OtherArgument>(output);
  });
}

void check_sizes(const Scope& scope, const ProgramNode& node) {
  for (const Argument& output : node.outputs) {
    if (const auto* size = std::get_if<SizeName>(&output)) scope.size(SizeArgument(*size));
  }
}

bool is_item(std::string_view target) {
  return target == "aten._local_scalar_dense.default" || target == "aten.item.default";
}

// The value of a scalar tensor as a size.
void import_item(Call& call) {
  ir::Value* x = call.tensor("self");
  const auto* name = std::get_if<SizeName>(&call.node().outputs.at(0));
  call.expect(name != nullptr && is_integer(x->type.dtype) && x->type.elements().is_constant(1),
              "an item of " + x->type.str(), "one integer, used as a size");
  const auto size = call.scope().define_size(name->name);
  if (!size) return check_sizes(call.scope(), call.node());
  x = call.builder().cast(call.builder().reshape(x, {}), DType::I64);
  call.make(ir::Op::data_size, {x}, {{"size", *size}});
}

void check_rank(const ProgramGraph& graph, const std::string& tensor) {
  const auto meta = graph.tensor_values.find(tensor);
  if (meta == graph.tensor_values.end()) return;
  const size_t most = kMaxRank - (part_dtype_of(meta->second.dtype) ? 1 : 0);
  if (meta->second.sizes.size() <= most) return;
  throw CompileError("got " + std::to_string(meta->second.sizes.size()) + " dimensions for " +
                     tensor + ", expected at most " + std::to_string(most) +
                     ": engines take and give no more (join some with reshape, or leave the "
                     "operator in PyTorch)");
}

// Any tensor may become an input or output of an engine: how a graph is cut must not decide what
// can be compiled.
void check_ranks(const ProgramGraph& graph, const ProgramNode& node) {
  for (const auto& [parameter, argument] : node.inputs) {
    if (const auto* one = std::get_if<TensorName>(&argument)) check_rank(graph, one->name);
    if (const auto* many = std::get_if<std::vector<TensorName>>(&argument))
      for (const TensorName& tensor : *many) check_rank(graph, tensor.name);
  }
  for (const std::string& name : node.output_names()) check_rank(graph, name);
}

bool is_update(const OutputSpec& spec) {
  return spec.kind == "user_input_mutation" || spec.kind == "buffer_mutation" ||
         spec.kind == "parameter_mutation";
}

// What an output changes in place: an input of the user's by its name, or a weight by that of the state.
const InputSpec& updated_input(const Program& program, const OutputSpec& output) {
  const bool is_user = output.kind == "user_input_mutation";
  for (const InputSpec& input : program.inputs) {
    if (is_user ? input.kind == InputKind::User && input.name == output.source
                : input.kind == InputKind::Weight && input.source == output.source)
      return input;
  }
  throw CompileError("[model] got a " + output.kind + " of " + output.source +
                     ", expected one of the model's inputs or buffers");
}

// "buf_layers_0_cache" of a buffer, as the front end has it.
std::string state_name(const InputSpec& input) {
  if (input.kind == InputKind::User) return input.name;
  std::string name = "buf_" + input.source;
  std::ranges::replace(name, '.', '_');
  return name;
}

bool is_updated(const Program& program, const InputSpec& input) {
  return std::ranges::any_of(program.outputs, [&](const OutputSpec& output) {
    return is_update(output) && &updated_input(program, output) == &input;
  });
}

// Whether a node takes or gives complex tensors.
bool is_complex(const Scope& scope, const ProgramNode& node) {
  const auto is_one = [&](const TensorName& tensor) { return scope.is_complex(tensor.name); };
  for (const auto& [name, argument] : node.inputs) {
    if (const auto* one = std::get_if<TensorName>(&argument); one && is_one(*one)) return true;
    if (const auto* many = std::get_if<std::vector<TensorName>>(&argument))
      if (std::ranges::any_of(*many, is_one)) return true;
  }
  return std::ranges::any_of(node.output_names(),
                             [&](const std::string& name) { return scope.is_complex(name); });
}

// What the nodes from an id on need of a target.
void add_needs(const ir::Graph& graph, uint32_t first_id, NodeSupport& support) {
  const auto& nodes = graph.nodes();
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    if ((*node)->outputs[0]->id < first_id) return;
    if ((*node)->op == ir::Op::custom) {
      const auto& kernel = (*node)->attr<std::string>("kernel");
      if (std::ranges::find(support.kernels, kernel) == support.kernels.end())
        support.kernels.push_back(kernel);
    }
    if ((*node)->op != ir::Op::repeat) continue;
    support.repeats = true;
    add_needs(*(*node)->attr<std::shared_ptr<ir::Graph>>("body"), 0, support);
  }
}

// An engine gives the same results for the same inputs, and has no generator to draw from.
[[noreturn]] void refuse(std::string_view target) {
  constexpr std::string_view kRandom[] = {
      "rand",         "rand_like", "randn",       "randn_like",       "randint",
      "randint_like", "randperm",  "bernoulli",   "normal",           "uniform",
      "multinomial",  "poisson",   "exponential", "geometric",        "log_normal",
      "cauchy",       "binomial",  "random",      "normal_functional"};
  std::string_view name = target.substr(std::min(target.find('.'), target.size() - 1) + 1);
  name = name.substr(0, name.find('.'));
  if (target.starts_with("aten.") && std::ranges::find(kRandom, name) != std::end(kRandom))
    throw CompileError(
        "the operator is not supported: it draws random numbers, which engines do "
        "not (leave it to PyTorch, or give them to the model as an input)");
  throw CompileError("the operator is not supported");
}

// PyTorch recorded the type of every tensor while tracing: an importer that gives another is wrong.
void check_type(const Scope& scope, const std::string& name, const ir::Type& type) {
  ir::Type recorded = scope.recorded_type(name);
  if (scope.is_complex(name)) recorded.shape.pop_back();
  bool same = type.dtype == recorded.dtype && type.rank() == recorded.rank();
  for (size_t i = 0; same && i < type.rank(); ++i) {
    const ir::Dim difference = type.shape[i] - recorded.shape[i];
    same = !difference.is_constant() || difference.constant() == 0;
  }
  if (!same)
    throw CompileError("got type " + type.str() + ", expected " + recorded.str() +
                       " as recorded in the model");
}

// Takes the model's name if this call made the value.
void name_value(ir::Graph& graph, ir::Value* value, const std::string& name, uint32_t first_id) {
  const bool fresh = value->producer != nullptr && value->id >= first_id && value->index == 0;
  if (fresh) graph.rename(value, name);
}

void bind_outputs(Scope& scope, ir::Graph& graph, const ProgramNode& node,
                  const std::vector<ir::Value*>& values, uint32_t first_id) {
  const std::vector<std::string> names = node.output_names();
  if (values.empty()) return;
  if (values.size() != names.size()) {
    throw CompileError("got " + std::to_string(names.size()) + " outputs, expected " +
                       std::to_string(values.size()));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    if (values[i] == nullptr || names[i].empty()) continue;
    check_type(scope, names[i], values[i]->type);
    name_value(graph, values[i], names[i], first_id);
    scope.bind(names[i], values[i]);
  }
}

void bind_complex_outputs(Scope& scope, const ProgramNode& node,
                          const std::vector<Complex>& values) {
  const std::vector<std::string> names = node.output_names();
  if (values.size() != names.size())
    throw CompileError("got " + std::to_string(names.size()) + " outputs, expected " +
                       std::to_string(values.size()));
  for (size_t i = 0; i < names.size(); ++i) {
    if (values[i].re == nullptr || names[i].empty()) continue;
    if (scope.is_complex(names[i]) != (values[i].im != nullptr))
      throw CompileError("got " + std::string(values[i].im ? "complex" : "real") +
                         " numbers, expected others as recorded in the model");
    check_type(scope, names[i], values[i].re->type);
    if (values[i].im == nullptr) {
      scope.bind(names[i], values[i].re);
      continue;
    }
    check_type(scope, names[i], values[i].im->type);
    scope.bind(names[i], values[i]);
  }
}

}  // namespace

Importer::Importer(const LoadedModel& model, std::span<const DimRange> ranges,
                   bool replaceable_weights, EqualSizes equal)
    : model_(model),
      replaceable_weights_(replaceable_weights),
      equal_(std::move(equal)),
      symbols_(make_symbols(model.program, ranges)),
      builder_(graph_) {
  equal_.apply(symbols_);
}

void Importer::bind_weight(Scope& scope, const InputSpec& spec) {
  scope.bind_lazily(spec.name, [this, &scope, &spec]() -> ir::Value* {
    const auto found = model_.tensors.find(spec.source);
    if (found == model_.tensors.end()) {
      throw CompileError("got no weight " + spec.source + ", expected it beside the model");
    }
    const ir::Type recorded = scope.recorded_type(spec.name);
    if (!(found->second.type() == recorded)) {
      throw CompileError("got " + found->second.type().str() + " for weight " + spec.source +
                         ", expected " + recorded.str());
    }
    ir::Literal literal = found->second;
    literal.replaceable = replaceable_weights_ && spec.in_state && is_floating(literal.dtype);
    ir::Value* value = builder_.constant(std::move(literal));
    graph_.rename(value, spec.name);
    return value;
  });
}

void Importer::bind_inputs(Scope& scope) {
  for (const InputSpec& spec : model_.program.inputs) {
    switch (spec.kind) {
      case InputKind::Weight:
        if (!is_updated(model_.program, spec)) bind_weight(scope, spec);
        break;
      case InputKind::User:
        if (!std::holds_alternative<TensorName>(spec.argument))
          break;  // a number or None: part of the program
        scope.bind(spec.name, graph_.add_input(spec.name, scope.recorded_type(spec.name)));
        break;
      case InputKind::Constant:
      case InputKind::Other:
        break;
    }
  }
}

// Buffers that the model changes are inputs too, behind the user's. What inputs are to be after a run are
// outputs behind the user's.
void Importer::bind_updated(Scope& scope) {
  const std::vector<OutputSpec>& outputs = model_.program.outputs;
  size_t output = outputs.size() - static_cast<size_t>(std::ranges::count_if(outputs, is_update));
  for (const OutputSpec& spec : outputs) {
    if (!is_update(spec)) continue;
    const InputSpec& updated = updated_input(model_.program, spec);
    if (updated.kind == InputKind::Weight)
      scope.bind(updated.name,
                 graph_.add_input(state_name(updated), scope.recorded_type(updated.name)));
    const auto& inputs = graph_.inputs();
    const auto found = std::ranges::find(inputs, scope.stored(updated.name));
    graph_.updates[output++] = static_cast<size_t>(found - inputs.begin());
  }
}

// Guards of other things than sizes are PyTorch's to check.
void Importer::add_guards(const Scope& scope) {
  for (const std::string& text : model_.program.guards) {
    const std::optional<Guard> guard = read_guard(text, model_.program);
    if (!guard) continue;
    ir::Dim condition;
    try {
      condition = scope.condition_of(guard->condition);
    } catch (const CompileError&) {
      continue;
    }
    builder_.require({condition, guard->text, {}, ir::Requirement::Kind::Sizes});
  }
}

void Importer::import_in_place(Call& call, const Row& row, const std::string& changed) {
  ir::Graph& graph = call.builder().graph();
  const uint32_t first_id = next_id(graph);
  const std::vector<ir::Value*> values = call_row(row, call);
  const ir::Value* old = call.scope().tensor(changed);
  ir::Value* value = call.builder().cast(values.at(0), old->type.dtype);
  if (!(value->type == old->type)) {
    throw CompileError("got type " + value->type.str() + " for a change in place of " +
                       old->type.str() + ", expected equal types");
  }
  bind_outputs(call.scope(), graph, call.node(), {value}, first_id);
}

std::vector<ir::Value*> Importer::import_body(const Scope& outer, const ProgramGraph& body,
                                              const std::vector<ir::Value*>& operands,
                                              ir::Builder& builder) {
  if (operands.size() != body.inputs.size()) {
    throw CompileError("got " + std::to_string(operands.size()) +
                       " operands for a graph, expected " + std::to_string(body.inputs.size()));
  }
  Scope scope(body, outer.ranges(), outer.symbols(), builder);
  for (size_t i = 0; i < operands.size(); ++i) {
    const auto* name = std::get_if<TensorName>(&body.inputs[i]);
    if (name != nullptr && operands[i] != nullptr) scope.bind(name->name, operands[i]);
  }
  import_nodes(scope, Aliases(body));
  std::vector<ir::Value*> results;
  for (const Argument& output : body.outputs) {
    const auto* tensor = std::get_if<TensorName>(&output);
    results.push_back(tensor ? scope.tensor(tensor->name) : nullptr);
  }
  return results;
}

void Importer::import_control(Call& call, std::string_view target) {
  ir::Graph& graph = call.builder().graph();
  const uint32_t first_id = next_id(graph);
  const auto body = [&](const ProgramGraph& inner, const std::vector<ir::Value*>& operands,
                        ir::Builder& builder) {
    return import_body(call.scope(), inner, operands, builder);
  };
  const std::vector<ir::Value*> results = import_control_flow(call, target, body);
  bind_outputs(call.scope(), graph, call.node(), results, first_id);
}

void Importer::import_node(Scope& scope, const Aliases& aliases, size_t index) {
  const ProgramNode& node = scope.graph().nodes[index];
  ir::Graph& graph = scope.builder().graph();
  scope.builder().set_location(node.location);
  if (!node.refusal.empty()) throw CompileError(node.refusal);
  if (is_item(short_target(node.target))) {
    Call item(node, scope);
    return import_item(item);
  }
  if (gives_only_sizes(node)) return check_sizes(scope, node);
  check_ranks(scope.graph(), node);
  Call call(node, scope);
  const std::string_view target = short_target(node.target);
  if (is_control_flow(target)) return import_control(call, target);
  const bool has_complex = is_complex(scope, node);
  const Row* real = has_complex ? nullptr : find_row(target);
  if (const ComplexRow* row = real == nullptr ? find_complex_row(target) : nullptr)
    return bind_complex_outputs(scope, node, row->function(call));
  if (has_complex) throw CompileError("the operator is not supported for complex tensors");
  if (const Row* row = real) {
    if (!node.changes.empty()) return import_in_place(call, *row, node.changes);
    const uint32_t first_id = next_id(graph);
    return bind_outputs(scope, graph, node, call_row(*row, call), first_id);
  }
  if (const auto kernel = kernel_name(target);
      kernel && model_.has_kernel != nullptr && model_.has_kernel(kernel->c_str())) {
    const uint32_t first_id = next_id(graph);
    return bind_outputs(scope, graph, node, import_custom(call, *kernel), first_id);
  }
  const auto functional = functional_target(target);
  const Row* row = functional ? find_row(*functional) : nullptr;
  if (row == nullptr) refuse(target);
  if (const auto hazard = aliases.hazard(index)) throw CompileError(*hazard);
  for (const auto& [name, argument] : node.inputs) {
    const auto* tensor = std::get_if<TensorName>(&argument);
    if (tensor == nullptr) continue;
    import_in_place(call, *row, tensor->name);
    return scope.bind(tensor->name, scope.tensor(node.name()));
  }
}

void Importer::import_nodes(Scope& scope, const Aliases& aliases) {
  for (size_t i = 0; i < scope.graph().nodes.size(); ++i) {
    const auto told = [&](const CompileError& error) {
      return "cannot import " + describe(scope.graph().nodes[i]) + ": " + error.what();
    };
    try {
      import_node(scope, aliases, i);
    } catch (const ir::UnmetRequirement& error) {
      throw ir::UnmetRequirement(told(error));
    } catch (const ir::UnequalSizes& error) {
      // What a branch or a loop needs is not what every run needs.
      if (&scope.graph() != &model_.program.graph) throw CompileError(told(error));
      throw ir::UnequalSizes(told(error), error.a, error.b);
    } catch (const CompileError& error) {
      throw CompileError(told(error));
    }
  }
}

ir::Value* Importer::output_value(Scope& scope, const OutputSpec& spec, size_t index) {
  if (spec.kind != "user_output" && !is_update(spec))
    throw CompileError("[model] got a " + spec.kind +
                       (spec.source.empty() ? "" : " of " + spec.source) +
                       ", expected a model that returns values and changes inputs and buffers");
  const auto* tensor = std::get_if<TensorName>(&spec.argument);
  if (tensor == nullptr)
    throw CompileError("[model] got output " + std::to_string(index) +
                       " that is not a tensor, expected tensors only");
  return scope.stored(tensor->name);
}

void Importer::set_outputs(Scope& scope) {
  std::vector<ir::Value*> values;
  std::vector<std::string> names;
  std::set<std::string> used;
  const auto add = [&](const OutputSpec& spec, const std::string& stem) {
    std::string name = stem;
    for (int i = 1; !used.insert(name).second; ++i) name = stem + "_" + std::to_string(i);
    names.push_back(name);
    values.push_back(output_value(scope, spec, values.size()));
  };
  for (const OutputSpec& spec : model_.program.outputs) {
    if (is_update(spec)) continue;
    const auto* tensor = std::get_if<TensorName>(&spec.argument);
    add(spec, tensor == nullptr ? std::string() : tensor->name);
  }
  for (const OutputSpec& spec : model_.program.outputs)
    if (is_update(spec)) add(spec, state_name(updated_input(model_.program, spec)) + "_updated");
  graph_.set_outputs(std::move(values), std::move(names));
  for (const auto& [output, input] : graph_.updates) {
    const ir::Type &type = graph_.outputs()[output]->type, &old = graph_.inputs()[input]->type;
    if (!(type == old))
      throw CompileError("[model] got type " + type.str() + " for what " +
                         graph_.inputs()[input]->name + " is to be, expected " + old.str());
  }
}

void Importer::check_inputs() const {
  for (const InputSpec& spec : model_.program.inputs) {
    if (spec.kind == InputKind::User && std::holds_alternative<TensorName>(spec.argument))
      check_rank(model_.program.graph, spec.name);
    if (spec.kind != InputKind::Other) continue;
    throw CompileError("[model] got an input of kind " + spec.source +
                       ", expected tensors and numbers");
  }
}

ir::Graph Importer::import_graph() {
  check_inputs();
  Scope scope(model_.program.graph, model_.program.ranges, symbols_, builder_);
  bind_inputs(scope);
  bind_updated(scope);
  add_guards(scope);
  import_nodes(scope, Aliases(model_.program.graph));
  set_outputs(scope);
  return std::move(graph_);
}

void Importer::substitute_outputs(Scope& scope, const ProgramNode& node) {
  for (const Argument& output : node.outputs) {
    if (std::holds_alternative<SizeName>(output)) return;
  }
  for (const std::string& name : node.output_names()) {
    try {
      // A size that the failed node finds is one of an input then.
      for (size_t dim = 0; dim < kMaxRank; ++dim) scope.define_symbol(name, dim, std::nullopt);
      if (!name.empty()) scope.bind(name, graph_.add_input(name, scope.recorded_type(name)));
    } catch (const CompileError&) {
      // Of a type that Kiln does not know: its users cannot be imported either, and will say so.
    }
  }
}

std::vector<NodeSupport> Importer::check_support() {
  Scope scope(model_.program.graph, model_.program.ranges, symbols_, builder_);
  bind_inputs(scope);
  bind_updated(scope);
  const Aliases aliases(model_.program.graph);
  std::vector<NodeSupport> result;
  for (size_t i = 0; i < scope.graph().nodes.size(); ++i) {
    const ProgramNode& node = scope.graph().nodes[i];
    NodeSupport support{node.name(), node.target, true, {}};
    const uint32_t first_id = next_id(graph_);
    try {
      import_node(scope, aliases, i);
      add_needs(graph_, first_id, support);
    } catch (const CompileError& error) {
      if (equal_.can_add(error)) throw;
      support.supported = false;
      support.reason = error.what();
      substitute_outputs(scope, node);
    }
    if (!node.made || !support.supported) result.push_back(std::move(support));
  }
  return result;
}

ir::Graph LoadedModel::import_graph(std::span<const DimRange> ranges,
                                    bool replaceable_weights) const {
  return with_equal_sizes([&](const EqualSizes& equal) {
    return Importer(*this, ranges, replaceable_weights, equal).import_graph();
  });
}

std::vector<NodeSupport> LoadedModel::check_support() const {
  return with_equal_sizes(
      [&](const EqualSizes& equal) { return Importer(*this, {}, false, equal).check_support(); });
}

}  // namespace kiln::import
