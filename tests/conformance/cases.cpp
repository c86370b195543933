#include "conformance/cases.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "helpers/random_values.h"

namespace kiln::conformance {
namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string replace_all(std::string text, const std::string& from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// One "// case" line and the graph below it: a Case for each of its dtypes.
void add_cases(const std::string& header, const std::string& text, std::vector<Case>& cases) {
  std::istringstream words(header);
  std::string name, word;
  Case test;
  std::vector<DType> dtypes;
  words >> name >> word;
  if (word != "for")
    throw std::runtime_error("case " + name + ": got \"" + word + "\", expected \"for\"");
  while (words >> word) {
    if (word == "values") {
      words >> test.low >> test.high;
    } else if (word == "integers") {
      words >> test.limit;
      if (test.limit < 1)
        throw std::runtime_error("case " + name + ": got integers below " +
                                 std::to_string(test.limit) + ", expected 1 or more");
    } else if (auto dtype = dtype_from_name(word)) {
      dtypes.push_back(*dtype);
    } else {
      throw std::runtime_error("case " + name + ": unknown word \"" + word + "\"");
    }
  }
  for (DType dtype : dtypes) {
    test.name = name + "_" + std::string(dtype_name(dtype));
    test.dtype = dtype;
    test.text = replace_all(text, "$T", dtype_name(dtype));
    cases.push_back(test);
  }
}

void read_cases(const std::string& text, std::vector<Case>& cases) {
  const std::string mark = "// case ";
  for (size_t at = text.find(mark); at != std::string::npos;) {
    const size_t line_end = text.find('\n', at), next = text.find(mark, line_end);
    const std::string header = text.substr(at + mark.size(), line_end - at - mark.size());
    add_cases(header, text.substr(line_end, next == std::string::npos ? next : next - line_end),
              cases);
    at = next;
  }
}

test::Values values_of(const Case& test) {
  return {.low = test.low, .high = test.high, .integers = test.limit};
}

test::SizeOf size_of(Sizes sizes) {
  return [sizes](const ir::SymbolPtr& symbol) {
    return sizes == Sizes::Min ? symbol->min : symbol->opt;
  };
}

}  // namespace

std::vector<Case> all_cases() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(KILN_CONFORMANCE_CASES)) {
    if (entry.path().extension() == ".ir") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<Case> cases;
  for (const auto& file : files) read_cases(read_file(file), cases);
  return cases;
}

std::vector<Case> cases_for_gpus() {
  std::vector<Case> cases = all_cases();
  std::erase_if(cases, [](const Case& test) {
    return test.text.find("data_size(") != std::string::npos ||
           test.text.find("repeat(") != std::string::npos;
  });
  return cases;
}

ir::Graph make_graph(const Case& test) {
  return test::graph_with_constants(test.text, values_of(test), size_of(Sizes::Opt));
}

std::vector<ir::Literal> make_inputs(const Case& test, const ir::Graph& graph, Sizes sizes) {
  return test::random_inputs(graph, values_of(test), size_of(sizes));
}

}  // namespace kiln::conformance
