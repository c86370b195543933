// One function per rule of docs/ir.md, called in the order of the rules.
#include "ir/verify.h"

#include <set>
#include <unordered_map>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

[[noreturn]] void broken(const char* rule, const std::string& where, const std::string& what) {
  throw InternalError(std::string("rule ") + rule + " broken at " + where + ": " + what);
}

std::string describe(const Node& node) {
  const std::string name = node.outputs.empty() ? "?" : node.outputs.front()->name;
  return "%" + name + " = " + std::string(op_name(node.op));
}

// R1: names of values and of symbols are not empty and unique.
void check_names(const Graph& graph) {
  std::set<std::string> names;
  auto check = [&](const Value* value) {
    if (value->name.empty()) broken("R1", "a value", "it has no name");
    if (!names.insert(value->name).second)
      broken("R1", "%" + value->name, "the name is not unique");
  };
  for (const Value* input : graph.inputs()) check(input);
  for (const auto& node : graph.nodes()) {
    for (const Value* output : node->outputs) check(output);
  }
  std::set<std::string> symbols;
  std::vector<SymbolPtr> all = graph.size_symbols();
  for (const SymbolPtr& symbol : graph.data_symbols()) all.push_back(symbol);
  for (const SymbolPtr& symbol : all) {
    if (symbol->name.empty() || !symbols.insert(symbol->name).second) {
      broken("R1", "symbol " + symbol->name, "the name is empty or not unique");
    }
  }
}

// R2: every value knows its producer, its place among the outputs or inputs and how often it is used;
// every node has an output.
void check_links(const Graph& graph) {
  for (size_t i = 0; i < graph.inputs().size(); ++i) {
    const Value* input = graph.inputs()[i];
    if (input->producer == nullptr && input->index == i) continue;
    broken("R2", "%" + input->name, "not linked as input " + std::to_string(i));
  }
  for (const auto& node : graph.nodes()) {
    if (node->outputs.empty()) broken("R2", describe(*node), "no outputs");
    for (size_t i = 0; i < node->outputs.size(); ++i) {
      const Value* output = node->outputs[i];
      if (output->producer == node.get() && output->index == i) continue;
      broken("R2", describe(*node), "output " + std::to_string(i) + " is not linked to it");
    }
  }
  std::unordered_map<const Value*, size_t> uses;
  for (const auto& node : graph.nodes())
    for (const Value* input : node->inputs) ++uses[input];
  for (const Value* output : graph.outputs()) ++uses[output];
  const auto check_uses = [&](const Value* value) {
    if (graph.use_count(value) != uses[value])
      broken("R2", "%" + value->name, "its uses were not counted");
  };
  for (const Value* input : graph.inputs()) check_uses(input);
  for (const auto& node : graph.nodes())
    for (const Value* output : node->outputs) check_uses(output);
}

// R3: operands and graph outputs are graph inputs or outputs of earlier nodes of the graph.
void check_order(const Graph& graph) {
  std::set<const Value*> defined(graph.inputs().begin(), graph.inputs().end());
  for (const auto& node : graph.nodes()) {
    for (size_t i = 0; i < node->inputs.size(); ++i) {
      if (node->inputs[i] == nullptr || defined.contains(node->inputs[i])) continue;
      broken("R3", describe(*node), "operand " + std::to_string(i) + " is not defined before it");
    }
    defined.insert(node->outputs.begin(), node->outputs.end());
  }
  for (size_t i = 0; i < graph.outputs().size(); ++i) {
    if (graph.outputs()[i] != nullptr && defined.contains(graph.outputs()[i])) continue;
    broken("R3", "output " + std::to_string(i), "it is not a value of the graph");
  }
}

// R4: the operand count fits the op table, and required operands are present.
void check_operands(const Node& node) {
  const OpInfo& info = op_info(node.op);
  const size_t count = node.inputs.size(), low = info.operands.min;
  const int most = info.operands.max;
  if (count < low || (most != kAnyNumber && count > static_cast<size_t>(most))) {
    broken("R4", describe(node), std::to_string(count) + " operands");
  }
  for (size_t i = 0; i < low; ++i) {
    if (node.inputs[i] == nullptr) broken("R4", describe(node), "a required operand is absent");
  }
}

// R5: every attribute is in the op table and has its type; required ones are there.
void check_attributes(const Node& node) {
  for (const auto& [name, value] : node.attrs) {
    const AttrInfo* attribute = find_attribute(node.op, name);
    if (attribute != nullptr && attribute->type == attr_type_name(value)) continue;
    broken("R5", describe(node), "attribute " + name + " is unknown or of another type");
  }
  for (const AttrInfo& attribute : attributes_of(node.op)) {
    if (attribute.optional || node.has_attr(attribute.name)) continue;
    broken("R5", describe(node), "attribute " + std::string(attribute.name) + " is missing");
  }
}

bool same_type(const Type& a, const Type& b) {
  if (a.dtype != b.dtype || a.rank() != b.rank()) return false;
  for (size_t i = 0; i < a.rank(); ++i) {
    if (!provably_equal(a.shape[i], b.shape[i])) return false;
  }
  return true;
}

// R6: the types of a node's outputs are those that shape inference gives.
void check_types(const Node& node) {
  std::vector<Type> expected;
  try {
    expected = infer_types(node.op, node.inputs, node.attrs);
  } catch (const CompileError& error) {
    broken("R6", describe(node), error.what());
  }
  if (expected.size() != node.outputs.size()) broken("R6", describe(node), "number of outputs");
  for (size_t i = 0; i < expected.size(); ++i) {
    const Type& got = node.outputs[i]->type;
    if (same_type(got, expected[i])) continue;
    broken("R6", describe(node), "got " + got.str() + ", expected " + expected[i].str());
  }
}

void check_dim(const std::set<SymbolPtr>& known, const Dim& dim, const std::string& where) {
  for (const SymbolPtr& symbol : dim.symbols()) {
    if (!known.contains(symbol))
      broken("R7", where, symbol->name + " is not a size of an input, nor found before");
  }
}

void check_range(const Symbol& symbol) {
  const bool ordered = 0 <= symbol.min && symbol.min <= symbol.opt && symbol.opt <= symbol.max;
  if (symbol.is_loop || !ordered) broken("R7", "symbol " + symbol.name, "0 <= min <= opt <= max");
}

// R10: a graph that a node runs mentions sizes that are known there, has no requirements, finds no sizes, updates no
// inputs, and keeps the rules.
void check_body(const std::set<SymbolPtr>& known, const Graph& body, const std::string& where) {
  for (const SymbolPtr& symbol : body.outer_symbols)
    if (!known.contains(symbol)) broken("R10", where, symbol->name + " is not known around it");
  for (const SymbolPtr& symbol : body.size_symbols())
    if (!known.contains(symbol))
      broken("R10", where, symbol->name + " is a size of an input alone");
  if (!body.requirements.empty() || !body.data_symbols().empty() || !body.updates.empty())
    broken("R10", where, "it requires, finds or updates something");
  verify(body);
}

void check_attributes(const std::set<SymbolPtr>& known, const Node& node) {
  for (const auto& [name, value] : node.attrs) {
    if (const Dim* dim = std::get_if<Dim>(&value)) check_dim(known, *dim, describe(node));
    if (const auto* dims = std::get_if<std::vector<Dim>>(&value)) {
      for (const Dim& dim : *dims) check_dim(known, dim, describe(node));
    }
    if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&value))
      check_body(known, **body, describe(node));
  }
}

// R7: sizes mention size symbols of the graph's inputs only, and those that an earlier data_size
// finds, and cannot all be negative; ranges are well formed.
void check_sizes(const Graph& graph) {
  const std::vector<SymbolPtr> symbols = graph.size_symbols();
  std::set<SymbolPtr> known(symbols.begin(), symbols.end());
  for (const SymbolPtr& symbol : symbols) check_range(*symbol);
  auto check = [&](const Value* value) {
    for (const Dim& dim : value->type.shape) {
      check_dim(known, dim, "%" + value->name);
      if (dim.upper_bound() < 0) broken("R7", "%" + value->name, "negative size " + dim.str());
    }
  };
  for (const Value* input : graph.inputs()) check(input);
  for (const auto& node : graph.nodes()) {
    for (const Value* output : node->outputs) check(output);
    if (node->op == Op::data_size) {
      const SymbolPtr found = node->attr<Dim>("size").as_symbol();
      check_range(*found);
      if (const auto bound = node->attrs.find("bound"); bound != node->attrs.end())
        check_dim(known, std::get<Dim>(bound->second), describe(*node));
      if (!known.insert(found).second)
        broken("R7", describe(*node), found->name + " is known before");
    }
    check_attributes(known, *node);
  }
  for (const Requirement& requirement : graph.requirements)
    check_dim(known, requirement.condition, "the requirement " + requirement.expected);
}

// R8: every graph output has a name of its own.
void check_outputs(const Graph& graph) {
  if (graph.output_names().size() != graph.outputs().size()) {
    broken("R8", "outputs", "one name each");
  }
  std::set<std::string> names;
  for (const std::string& name : graph.output_names()) {
    if (!names.insert(name).second) broken("R8", "output " + name, "the name is not unique");
  }
}

// R9: an output that updates an input has its type, and is the only one that does.
void check_updates(const Graph& graph) {
  std::set<size_t> updated;
  for (const auto& [output, input] : graph.updates) {
    const std::string where = "output " + std::to_string(output);
    if (output >= graph.outputs().size() || input >= graph.inputs().size())
      broken("R9", where, "it, or the input that it updates, does not exist");
    if (!(graph.outputs()[output]->type == graph.inputs()[input]->type))
      broken("R9", where, "it updates an input of another type");
    if (!updated.insert(input).second) broken("R9", where, "it updates an input twice");
  }
}

}  // namespace

void verify(const Graph& graph) {
  check_names(graph);
  check_links(graph);
  check_order(graph);
  for (const auto& node : graph.nodes()) check_operands(*node);
  for (const auto& node : graph.nodes()) check_attributes(*node);
  for (const auto& node : graph.nodes()) check_types(*node);
  check_sizes(graph);
  check_outputs(graph);
  check_updates(graph);
}

}  // namespace kiln::ir
