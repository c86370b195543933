#include "quantise_arguments.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "command_line.h"
#include "failure.h"
#include "npz.h"

namespace tools {
namespace {

namespace fs = std::filesystem;

// The files of a folder in the order of their names.
std::vector<std::string> files_of(const std::string& path) {
  if (!fs::is_directory(path)) return {path};
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".npz") files.push_back(entry.path().string());
  if (files.empty()) throw Failure(path + ": got a folder without .npz files");
  std::ranges::sort(files);
  return files;
}

}  // namespace

SampleSets::SampleSets(const std::vector<std::string>& paths) {
  for (const std::string& path : paths)
    for (const std::string& file : files_of(path)) add(file);
}

SampleSets::SampleSets(std::vector<std::string> names, std::vector<Array> arrays)
    : names_(std::move(names)), arrays_(std::move(arrays)) {}

void SampleSets::add(const std::string& path) {
  std::vector<std::pair<std::string, Array>> set = read_npz(path);
  if (set.empty()) throw Failure(path + ": got no arrays, expected one for each input");
  if (names_.empty())
    for (const auto& [name, array] : set) names_.push_back(name);
  for (const std::string& name : names_) {
    const auto found =
        std::ranges::find_if(set, [&](const auto& entry) { return entry.first == name; });
    if (found == set.end() || set.size() != names_.size())
      throw Failure(path + ": got other arrays than the first file has, expected " + name);
    if (!found->second.strides.empty())
      throw Failure(path + ", " + name + ": got an array in Fortran's order, expected C's");
    arrays_.push_back(std::move(found->second));
  }
}

kiln_samples SampleSets::view() {
  tensors_.clear();
  views_.clear();
  name_views_.clear();
  for (const Array& array : arrays_) tensors_.push_back(as_tensor(array));
  for (const kiln::Tensor& tensor : tensors_) views_.push_back(tensor.view());
  for (const std::string& name : names_) name_views_.push_back(name.c_str());
  const size_t inputs = names_.size();
  return {sizeof(kiln_samples), inputs == 0 ? 0 : views_.size() / inputs, inputs, views_.data(),
          name_views_.data()};
}

void add_quantise_options(Command& command, QuantiseArguments& arguments) {
  command.option("--quantize", arguments.scheme,
                 "int8 (needs --calibration), int8-weights or int4-weights");
  command.option(
      "--calibration", arguments.calibration,
      "Sets of inputs: .npz files with arrays by the names of the inputs, or folders of them",
      {.needs = "--quantize"});
  command.option("--calibration-method", arguments.method,
                 "Ranges of int8: percentile (default), minmax or mse", {.needs = "--quantize"});
  command.option(
      "--group-size", arguments.group_size,
      "Steps of a weight that share a scale, a multiple of 8; -1: all (default: all of 8 "
      "bits, 32 of 4)",
      {.needs = "--quantize"});
  command.option("--exclude", arguments.exclude,
                 "Layers that stay as they are: a regular expression for whole names",
                 {.needs = "--quantize"});
}

QuantiseOptions::QuantiseOptions(const QuantiseArguments& arguments)
    : arguments_(arguments), calibration_(arguments.calibration) {}

void QuantiseOptions::set(kiln_compile_options& options) {
  const auto text = [](const std::string& value) {
    return value.empty() ? nullptr : value.c_str();
  };
  options.quantize = text(arguments_.scheme);
  options.group_size = arguments_.group_size;
  options.quantize_exclude = text(arguments_.exclude);
  options.calibration_method = text(arguments_.method);
  if (calibration_.empty()) return;
  samples_ = calibration_.view();
  options.calibration = &samples_;
}

}  // namespace tools
