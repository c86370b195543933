#include "conformance/backend.h"

#include <cctype>

namespace kiln::conformance {

std::vector<Backend> all_backends() {
  std::vector<Backend> all = cpu_backends();
  for (Backend& backend : cuda_backends()) all.push_back(std::move(backend));
  for (Backend& backend : stub_backends()) all.push_back(std::move(backend));
  return all;
}

std::string test_name(std::string name) {
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

}  // namespace kiln::conformance
