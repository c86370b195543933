// kiln_plan_dump MODEL.pt2 [--lowered | --kernels] [--disable PASS]: the plan of a model, as text.
// Not installed.
#include <cstring>
#include <exception>
#include <iostream>

#include "backends/cpu/compile/cpu_backend.h"
#include "backends/reference/reference.h"
#include "import/import.h"
#include "ir/text.h"
#include "passes/pass.h"
#include "plan/form/text.h"
#include "plan/form/verify.h"
#include "plan/lower/lower.h"
#include "plan/passes/pass.h"
#include "support/error.h"

namespace kiln {
namespace {

struct Options {
  std::string model;
  bool lowered = false, kernels = false, graph = false;
  plan::PlanOptions plan{.disabled = {}, .verify = true, .dump_directory = {}};
};

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument == "--lowered") {
      options.lowered = true;
    } else if (argument == "--kernels") {
      options.kernels = true;
    } else if (argument == "--graph") {
      options.graph = true;
    } else if (argument == "--disable" && i + 1 < count) {
      options.plan.disabled.emplace_back(arguments[++i]);
    } else {
      options.model = argument;
    }
  }
  return options;
}

ir::Graph optimised_graph(const std::string& path) {
  ir::Graph graph = import::import_graph(*import::Model::open_file(path));
  passes::PassContext context;
  context.evaluate = [](const ir::Node& node, std::span<const ir::Literal* const> inputs) {
    return reference::evaluate(node, inputs, [](const ir::SymbolPtr& symbol) -> int64_t {
      throw InternalError("a constant depends on the size " + symbol->name);
    });
  };
  passes::run_pipeline(graph, context, {});
  return graph;
}

void run(const Options& options) {
  const ir::Graph graph = optimised_graph(options.model);
  if (options.graph) std::cout << ir::to_text(graph);
  plan::Program program = plan::lower(graph, cpu_backend().traits);
  plan::verify(program);
  const size_t before = program.kernels.size();
  if (!options.lowered) plan::run_pipeline(program, options.plan);
  if (options.kernels) {
    for (const plan::Kernel& kernel : program.kernels) std::cout << kernel.name << "\n";
  } else {
    std::cout << plan::to_text(program);
  }
  std::cerr << before << " kernels lowered, " << program.kernels.size() << " left\n";
}

}  // namespace
}  // namespace kiln

int main(int count, char** arguments) {
  try {
    kiln::run(kiln::parse(count, arguments));
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
