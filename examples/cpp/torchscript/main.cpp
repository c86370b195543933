// Runs a compiled model in TorchScript format without Python.
//
//   run_torchscript libkiln_torch.so model.ts sample.pt
//
// libkiln_torch.so registers the operator that runs engines; it finds libkiln_runtime.so, which
// lies beside it, by itself. sample.pt is what `torch.save((inputs, expected), "sample.pt")` wrote,
// both lists of tensors.

#include <dlfcn.h>
#include <torch/script.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

void load_operator(const char* path) {
  if (dlopen(path, RTLD_NOW) == nullptr) {
    throw std::runtime_error(dlerror());
  }
}

torch::IValue read_pickle(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error(std::string("cannot read ") + path);
  }
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  return torch::jit::pickle_load(bytes);
}

std::vector<torch::Tensor> tensors_of(const torch::IValue& results) {
  if (results.isTensor()) {
    return {results.toTensor()};
  }
  std::vector<torch::Tensor> tensors;
  const auto& elements =
      results.isTuple() ? results.toTupleRef().elements().vec() : results.toListRef().vec();
  for (const torch::IValue& element : elements) {
    tensors.push_back(element.toTensor());
  }
  return tensors;
}

bool run(const char* model_path, const char* sample_path) {
  torch::jit::Module model = torch::jit::load(model_path);
  const torch::IValue sample = read_pickle(sample_path);
  const auto& pair = sample.toTupleRef().elements();
  std::vector<torch::IValue> inputs;
  for (const torch::Tensor& input : tensors_of(pair[0])) {
    inputs.emplace_back(input);
  }

  const c10::InferenceMode no_gradients;
  const std::vector<torch::Tensor> results = tensors_of(model.forward(inputs));
  const std::vector<torch::Tensor> expected = tensors_of(pair[1]);
  bool same = results.size() == expected.size();
  for (size_t i = 0; same && i < results.size(); ++i) {
    same = results[i].sizes() == expected[i].sizes() &&
           torch::allclose(results[i], expected[i], 1e-4, 1e-5);
  }
  return same;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s libkiln_torch.so model.ts sample.pt\n", argv[0]);
    return 2;
  }
  try {
    load_operator(argv[1]);
    const bool same = run(argv[2], argv[3]);
    std::printf("%s\n", same ? "the results are those expected" : "the results differ");
    return same ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
