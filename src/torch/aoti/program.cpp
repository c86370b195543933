#include "torch/aoti/program.h"

#include <charconv>
#include <limits>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include "support/dtype.h"

namespace kiln::aoti {
namespace {

template <typename Integer>
Integer to_integer(std::string_view word) {
  Integer value{};
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) {
    throw std::runtime_error("got \"" + std::string(word) + "\", expected a number");
  }
  return value;
}

kiln_dtype to_dtype(std::string_view word) {
  const auto dtype = dtype_from_name(word);
  if (!dtype) {
    throw std::runtime_error("got \"" + std::string(word) + "\", expected a dtype");
  }
  return static_cast<kiln_dtype>(*dtype);
}

class Parser {
 public:
  Program parse(const std::string& text) {
    program_.sizes = SizeProgram(read_ranks(text));
    std::istringstream lines(text);
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
      try {
        parse_line(line, number);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error("the package's program is damaged, line " +
                                 std::to_string(number) + ": " + error.what());
      }
    }
    program_.num_values = num_values_;
    find_dead_values();
    return std::move(program_);
  }

 private:
  using Words = std::istringstream;

  // A size may name an input that comes later.
  static std::vector<int32_t> read_ranks(const std::string& text) {
    std::vector<int32_t> ranks;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      Words words(line);
      std::string key, name, dtype;
      words >> key >> name >> dtype;
      if (key == "input") {
        ranks.push_back(static_cast<int32_t>(words_until(words, "strides").size()));
      }
    }
    return ranks;
  }

  void parse_line(const std::string& line, int number) {
    Words words(line);
    std::string key;
    words >> key;
    if (number == 1) {
      if (line != "kiln-program 1") {
        throw std::runtime_error("got \"" + line + "\", expected \"kiln-program 1\"");
      }
    } else if (key == "in_spec" || key == "out_spec") {
      (key == "in_spec" ? program_.in_spec : program_.out_spec) =
          line.substr(std::min(line.size(), key.size() + 1));
    } else if (const auto found = statements().find(key); found != statements().end()) {
      (this->*found->second)(words);
    } else {
      throw std::runtime_error("got \"" + key + "\", expected a statement");
    }
  }

  using Statement = void (Parser::*)(Words&);
  static const std::map<std::string, Statement>& statements() {
    static const std::map<std::string, Statement> kStatements{
        {"input", &Parser::input},
        {"check", &Parser::check},
        {"constant", &Parser::constant},
        {"host_constant", &Parser::host_constant},
        {"state", &Parser::state},
        {"device", &Parser::device},
        {"engine", &Parser::engine},
        {"model", &Parser::model},
        {"changes", &Parser::changes},
        {"run_engine", &Parser::run_engine},
        {"run_model", &Parser::run_model},
        {"run_aten", &Parser::run_aten},
        {"result", &Parser::result},
        {"needs_torch", &Parser::needs_torch},
        {"size", &Parser::size}};
    return kStatements;
  }

  static std::string word(Words& words) {
    std::string result;
    if (!(words >> result)) {
      throw std::runtime_error("the line ends early");
    }
    return result;
  }

  // The words up to `end`, which is consumed, or all that are left.
  static std::vector<std::string> words_until(Words& words, std::string_view end) {
    std::vector<std::string> result;
    for (std::string each; words >> each && each != end;) {
      result.push_back(each);
    }
    return result;
  }

  void size(Words& words) {
    const std::string function = word(words), left = word(words), right = word(words);
    program_.sizes.add(function, left, right);
  }

  SizeOperand operand(std::string_view text) const { return program_.sizes.operand(text); }

  void needs_torch(Words& words) {
    program_.needs_torch.major = to_integer<uint8_t>(word(words));
    program_.needs_torch.minor = to_integer<uint8_t>(word(words));
  }

  void input(Words& words) {
    InputSpec spec{.name = word(words), .dtype = to_dtype(word(words))};
    const std::vector<std::string> dims = words_until(words, "strides");
    if (dims.size() > KILN_MAX_RANK) {
      throw std::runtime_error("an input has more than 16 dimensions");
    }
    for (const std::string& dim : dims) {
      spec.dims.push_back(parse_dim(dim));
    }
    for (const std::string& stride : words_until(words, "")) {
      spec.strides.push_back(operand(stride));
    }
    if (!spec.strides.empty() && spec.strides.size() != spec.dims.size()) {
      throw std::runtime_error("an input has not as many strides as dimensions");
    }
    program_.inputs.push_back(std::move(spec));
    ++num_values_;
  }

  void check(Words& words) {
    SizeCheck check{operand(word(words)), ""};
    std::getline(words >> std::ws, check.text);
    program_.checks.push_back(std::move(check));
  }

  InputDim parse_dim(const std::string& text) const {
    if (text.starts_with('=')) {
      return {.equal = operand(std::string_view(text).substr(1))};
    }
    const size_t dots = text.find("..");
    if (dots == std::string::npos) {
      const auto size = to_integer<int64_t>(text);
      return {.min = size, .max = size};
    }
    const std::string_view low = std::string_view(text).substr(0, dots);
    const std::string_view high = std::string_view(text).substr(dots + 2);
    return {.min = to_integer<int64_t>(low),
            .max = high.empty() ? std::numeric_limits<int64_t>::max() : to_integer<int64_t>(high)};
  }

  void constant(Words& words) {
    ConstantSpec spec{.dtype = to_dtype(word(words)), .offset = to_integer<uint64_t>(word(words))};
    for (const std::string& size : words_until(words, "strides")) {
      spec.shape.push_back(to_integer<int64_t>(size));
    }
    for (const std::string& stride : words_until(words, "")) {
      spec.strides.push_back(to_integer<int64_t>(stride));
    }
    if (!spec.strides.empty() && spec.strides.size() != spec.shape.size()) {
      throw std::runtime_error("a constant has not as many strides as dimensions");
    }
    program_.constants.push_back(std::move(spec));
    ++num_values_;
  }

  void host_constant(Words& words) {
    constant(words);
    program_.constants.back().is_on_host = true;
  }

  void state(Words& words) {
    constant(words);
    program_.constants.back().is_state = true;
  }

  void device(Words& words) {
    if (const std::string name = word(words); name != "cuda") {
      throw std::runtime_error("got the device " + name + ", expected cuda");
    }
    program_.device = KILN_CUDA;
  }

  void changes(Words& words) {
    const auto index = to_integer<size_t>(word(words));
    if (index >= program_.inputs.size()) {
      throw std::runtime_error("there is no input " + std::to_string(index));
    }
    program_.inputs[index].is_changed = true;
  }

  void engine(Words& words) { program_.engine_files.push_back(word(words)); }
  void model(Words& words) { program_.model_file = word(words); }

  void run_engine(Words& words) {
    Call call{.kind = Call::Kind::Engine, .target = engine_index(word(words))};
    expect(words, "inputs");
    call.inputs = values(words_until(words, "results"));
    add(std::move(call), words);
    Call& added = program_.calls.back();
    std::string key;
    if (words >> key && key == "states") {
      added.num_states = to_integer<size_t>(word(words));
      check_states(added);
      key.clear();
      words >> key;
    }
    if (!key.empty()) {
      if (key != "layouts") {
        throw std::runtime_error("got \"" + key + "\", expected \"layouts\"");
      }
      added.layouts = torch_op::parse_layouts(word(words));
      if ((!added.layouts.results.empty() && added.layouts.results.size() != added.num_results) ||
          added.layouts.inputs.size() > added.inputs.size()) {
        throw std::runtime_error(
            "an engine has not as many layouts as results, or more than inputs");
      }
    }
  }

  // What is changed is the caller's or the model's own.
  void check_states(const Call& call) const {
    if (call.num_states > call.inputs.size()) {
      throw std::runtime_error("an engine has more states than inputs");
    }
    for (size_t i = call.inputs.size() - call.num_states; i < call.inputs.size(); ++i) {
      const size_t input = call.inputs[i], constant = input - program_.inputs.size();
      const bool fits = input < program_.inputs.size() ? program_.inputs[input].is_changed
                                                       : constant < program_.constants.size() &&
                                                             program_.constants[constant].is_state;
      if (!fits) {
        throw std::runtime_error("value " + std::to_string(input) + " is no state");
      }
    }
  }

  void run_model(Words& words) {
    Call call{.kind = Call::Kind::Model};
    if (program_.model_file.empty()) {
      throw std::runtime_error("there is no model to run");
    }
    expect(words, "inputs");
    call.inputs = values(words_until(words, "engines"));
    for (const std::string& index : words_until(words, "results")) {
      call.engines.push_back(engine_index(index));
    }
    add(std::move(call), words);
  }

  void run_aten(Words& words) {
    Call call{
        .kind = Call::Kind::Aten, .name = word(words), .target = to_integer<size_t>(word(words))};
    expect(words, "ints");
    for (const std::string& size : words_until(words, "inputs")) {
      call.ints.push_back(operand(size));
    }
    call.inputs = values(words_until(words, "results"));
    add(std::move(call), words);
  }

  void result(Words& words) {
    const std::string which = word(words);
    program_.results.push_back(which == "none" ? std::nullopt : std::optional(value(which)));
  }

  void add(Call call, Words& words) {
    call.num_results = to_integer<size_t>(word(words));
    if (call.num_results > kMaxResults) {
      throw std::runtime_error("a call has too many results");
    }
    num_values_ += call.num_results;
    program_.calls.push_back(std::move(call));
  }

  static void expect(Words& words, std::string_view keyword) {
    if (const std::string got = word(words); got != keyword) {
      throw std::runtime_error("got \"" + got + "\", expected \"" + std::string(keyword) + "\"");
    }
  }

  size_t engine_index(const std::string& text) const {
    const auto index = to_integer<size_t>(text);
    if (index >= program_.engine_files.size()) {
      throw std::runtime_error("there is no engine " + text);
    }
    return index;
  }

  size_t value(const std::string& text) const {
    const auto index = to_integer<size_t>(text);
    if (index >= num_values_) {
      throw std::runtime_error("there is no value " + text + " at this point");
    }
    return index;
  }

  std::vector<size_t> values(const std::vector<std::string>& texts) const {
    std::vector<size_t> result;
    for (const std::string& text : texts) {
      result.push_back(value(text));
    }
    return result;
  }

  // Results of calls are let go after their last use.
  void find_dead_values() {
    const size_t first = program_.inputs.size() + program_.constants.size();
    std::vector<bool> needed(num_values_, false);
    for (const auto& result : program_.results) {
      if (result) {
        needed[*result] = true;
      }
    }
    size_t end = num_values_;
    for (size_t i = program_.calls.size(); i-- > 0;) {
      Call& call = program_.calls[i];
      const auto see = [&](size_t value) {
        if (value >= first && !needed[value]) {
          call.dead.push_back(value);
          needed[value] = true;
        }
      };
      for (size_t value = end - call.num_results; value < end; ++value) {
        see(value);
      }
      end -= call.num_results;
      for (const size_t value : call.inputs) {
        see(value);
      }
    }
  }

  static constexpr size_t kMaxResults = 1 << 16;

  Program program_;
  size_t num_values_ = 0;
};

}  // namespace

Program parse_program(const std::string& text) { return Parser().parse(text); }

}  // namespace kiln::aoti
