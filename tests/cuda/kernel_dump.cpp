// kiln_cuda_dump CASES FOLDER [ARCH [WAY]]: the kernels of graphs for GPUs, as text, with what a launch of
// them needs, for a script that runs them (scripts/cuda_kernels_check.py). Not installed.
//
// CASES: graphs, each below a line "// case NAME" and a line "// at SIZE=VALUE ..." for each set of
// sizes to run it at. Inputs whose name begins with "w" become constants. FOLDER gets cases.json and
// the files that it names. A NAME that begins with "tf32_" lets f32 be rounded. WAY counts the ways that there are
// of doing a contraction: 0 is the best by the model of the machine.
#include <algorithm>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <sstream>

#include "backends/cuda/compile/cuda_backend.h"
#include "backends/cuda/compile/generate.h"
#include "cuda/kernels.h"
#include "helpers/random_values.h"
#include "ir/builder.h"
#include "ir/text.h"
#include "plan/form/text.h"
#include "plan/form/verify.h"
#include "plan/lower/lower.h"
#include "plan/passes/pass.h"
#include "support/error.h"
#include "support/json_writer.h"

namespace kiln {
namespace {

using Sizes = std::map<std::string, int64_t>;

struct DumpCase {
  std::string name, graph;
  std::vector<Sizes> sizes;
};

Sizes read_sizes(std::istringstream words) {
  Sizes sizes;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    sizes[word.substr(0, equals)] = std::stoll(word.substr(equals + 1));
  }
  return sizes;
}

std::vector<DumpCase> read_cases(const std::string& path) {
  std::ifstream file(path);
  std::vector<DumpCase> cases;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("// case ")) {
      cases.push_back({line.substr(8), {}, {}});
    } else if (line.starts_with("// at ")) {
      cases.back().sizes.push_back(read_sizes(std::istringstream(line.substr(6))));
    } else if (!cases.empty()) {
      cases.back().graph += line + "\n";
    }
  }
  return cases;
}

class Dump {
 public:
  Dump(std::string folder, cuda::Target target, size_t way)
      : folder_(std::move(folder)), target_(target), way_(way) {
    json_.begin_array();
  }

  void add(const DumpCase& dump_case) {
    name_ = dump_case.name;
    set_sizes({});
    json_.begin_object().key("name").value(dump_case.name);
    ir::Graph graph = ir::parse_graph(dump_case.graph);
    make_constants(graph);
    const bool tf32 = name_.starts_with("tf32_");
    plan::Program program = plan::lower(graph, cuda_backend().traits_of({target_.name}),
                                        {.tf32_products = tf32, .tf32_convolutions = tf32});
    plan::verify(program);
    plan::run_pipeline(program, {.disabled = {}, .verify = true, .dump_directory = {}});
    if (getenv("KILN_PLAN")) std::cout << plan::to_text(program);
    json_.key("buffers").begin_array();
    for (const plan::Buffer& buffer : program.buffers) add_buffer(buffer);
    json_.end_array();
    json_.key("kernels").begin_array();
    std::vector<backend::KernelInterface> interfaces;
    for (const plan::Kernel& kernel : program.kernels)
      interfaces.push_back(add_kernel(program, kernel));
    json_.end_array().key("runs").begin_array();
    std::vector<Sizes> sizes = dump_case.sizes;
    if (sizes.empty()) sizes.emplace_back();
    for (const Sizes& at : sizes) add_run(program, interfaces, at);
    json_.end_array().end_object();
  }

  void finish() {
    json_.end_array();
    std::ofstream(folder_ + "/cases.json") << json_.text();
  }

 private:
  void set_sizes(const Sizes& sizes) {
    sizes_ = [sizes](const ir::SymbolPtr& symbol) {
      const auto it = sizes.find(symbol->name);
      return it == sizes.end() ? symbol->opt : it->second;
    };
  }

  void add_run(const plan::Program& program,
               const std::vector<backend::KernelInterface>& interfaces, const Sizes& sizes) {
    set_sizes(sizes);
    json_.begin_object().key("shapes").begin_array();
    for (const plan::Buffer& buffer : program.buffers) {
      json_.begin_array();
      for (const ir::Dim& dim : buffer.type.shape) json_.value(dim.evaluate(sizes_));
      json_.end_array();
    }
    json_.end_array().key("launches").begin_array();
    for (const backend::KernelInterface& interface : interfaces) {
      json_.begin_object();
      add_dims("params", interface.params);
      add_dims("grid", interface.grid);
      add_dims("block", interface.block);
      add_dims("shared", {interface.shared_bytes});
      json_.key("maps").begin_array();
      for (const backend::TensorMapSpec& map : interface.tensor_maps) add_map(interface, map);
      json_.end_array().key("writes").begin_object();
      for (const auto& [id, count] : interface.task_writes)
        json_.key(std::to_string(id)).value(count.evaluate(sizes_));
      json_.end_object().end_object();
    }
    json_.end_array().end_object();
  }

  void add_map(const backend::KernelInterface& interface, const backend::TensorMapSpec& map) {
    const auto at = std::ranges::find(interface.buffers, map.buffer);
    json_.begin_object().key("buffer").value(at - interface.buffers.begin());
    json_.key("dtype").value(dtype_name(map.dtype)).key("swizzle").value(map.swizzle);
    add_dims("offset", {map.offset});
    add_dims("sizes", map.sizes);
    add_dims("strides", map.strides);
    const auto add = [&](const char* key, const std::vector<int64_t>& numbers) {
      json_.key(key).begin_array();
      for (const int64_t number : numbers) json_.value(number);
      json_.end_array();
    };
    add("box", map.box);
    add("element_strides", map.element_strides);
    add("lower_corner", map.lower_corner);
    add("upper_corner", map.upper_corner);
    json_.key("box_channels").value(map.box_channels).key("box_pixels").value(map.box_pixels);
    json_.end_object();
  }

  void make_constants(ir::Graph& graph) {
    std::mt19937 random(7);
    ir::Node* first = graph.nodes().front().get();
    json_.key("constants").begin_object();
    for (ir::Value* input : graph.inputs()) {
      if (!input->name.starts_with("w")) continue;
      ir::Literal literal = test::random_literal(input->type, {}, sizes_, random);
      json_.key(input->name);
      write(literal);
      graph.replace_all_uses(input, ir::Builder(graph, first).constant(std::move(literal)));
    }
    json_.end_object();
  }

  // {"dtype": ..., "shape": ..., "file": ...}
  void write(const ir::Literal& literal) {
    const std::string file = "data" + std::to_string(files_++) + ".bin";
    std::ofstream(folder_ + "/" + file, std::ios::binary)
        .write(reinterpret_cast<const char*>(literal.bytes.data()),
               static_cast<std::streamsize>(literal.bytes.size()));
    json_.begin_object().key("dtype").value(dtype_name(literal.dtype)).key("shape").begin_array();
    for (int64_t size : literal.shape) json_.value(size);
    json_.end_array().key("file").value(file).end_object();
  }

  void add_buffer(const plan::Buffer& buffer) {
    json_.begin_object().key("name").value(buffer.name);
    json_.key("kind").value(static_cast<int>(buffer.kind));
    json_.key("alias_of").value(static_cast<int>(buffer.alias_of));
    json_.key("dtype").value(dtype_name(buffer.type.dtype));
    if (buffer.kind == plan::BufferKind::Constant) {
      json_.key("data");
      write(buffer.literal);
    }
    json_.end_object();
  }

  void add_dims(const char* key, const std::vector<ir::Dim>& dims) {
    json_.key(key).begin_array();
    for (const ir::Dim& dim : dims) json_.value(dim.evaluate(sizes_));
    json_.end_array();
  }

  backend::KernelInterface add_kernel(const plan::Program& program, const plan::Kernel& kernel) {
    cuda::KernelText made = cuda::generate_text(program, kernel, target_, way_);
    const backend::GeneratedKernel& result = made.kernel;
    const std::string& text = made.text;
    const std::string file = name_ + "_" + std::to_string(files_++) + "." + target_.name + ".cu";
    std::ofstream(folder_ + "/" + file) << text;
    const backend::KernelInterface& interface = result.interface;
    json_.begin_object().key("name").value(kernel.name).key("file").value(file);
    json_.key("nest").value(std::holds_alternative<plan::LoopNest>(kernel.body));
    json_.key("buffers").begin_array();
    for (plan::BufferId id : interface.buffers) {
      const auto* entry = result.constants.find(id);
      if (entry == nullptr) {
        json_.value(static_cast<int>(id));
      } else {
        write(entry->make(program.buffers[entry->original].literal));
      }
    }
    json_.end_array().end_object();
    return interface;
  }

  std::string folder_;
  cuda::Target target_;
  size_t way_;
  JsonWriter json_;
  std::string name_;
  test::SizeOf sizes_;
  int files_ = 0;
};

}  // namespace
}  // namespace kiln

int main(int count, char** arguments) {
  try {
    kiln::Dump dump(arguments[2], kiln::test::target_named(count > 3 ? arguments[3] : "sm_90"),
                    count > 4 ? std::stoul(arguments[4]) : 0);
    for (const auto& dump_case : kiln::read_cases(arguments[1])) {
      try {
        dump.add(dump_case);
      } catch (const std::exception& error) {
        std::cerr << dump_case.name << ": " << error.what() << "\n";
        return 1;
      }
    }
    dump.finish();
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
