#include "roofline.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tools {
namespace {

constexpr int kRuns = 11;

// All steps of one kernel.
struct Row {
  std::string name, precision;
  int steps = 0;
  double us = 0, operations = 0, bytes = 0;
  double roof_us = 0;  // what the peaks would take
  bool by_memory = false;
};

struct Step {
  std::vector<double> us;
  nlohmann::json kernel;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

std::vector<Step> profile(RunnableEngine& engine, std::span<const kiln_tensor> inputs,
                          std::span<const kiln_tensor> outputs) {
  std::vector<Step> steps;
  const kiln::RunOptions options = run_options(engine);
  engine.session.enable_profiling(true);
  for (int run = 0; run < kRuns; ++run) {
    engine.session.run(inputs, outputs, options);
    const auto kernels = nlohmann::json::parse(engine.session.profile());
    steps.resize(kernels.size());
    for (size_t i = 0; i < kernels.size(); ++i) {
      steps[i].us.push_back(kernels[i].at("nanoseconds").get<double>() / 1e3);
      steps[i].kernel = kernels[i];
    }
  }
  engine.session.enable_profiling(false);
  return steps;
}

std::vector<Row> rows_of(const std::vector<Step>& steps, const Peaks& peaks) {
  std::map<std::string, Row> rows;
  for (const Step& step : steps) {
    const std::string name = step.kernel.at("kernel").get<std::string>();
    Row& row = rows[name];
    row.name = name;
    row.precision = step.kernel.value("precision", "");
    const double operations = step.kernel.value("operations", 0.0);
    const double bytes = step.kernel.value("bytes", 0.0);
    const double by_arithmetic = operations / peaks.operations_in(row.precision) * 1e6;
    const double by_memory = bytes / peaks.bytes * 1e6;
    ++row.steps;
    row.us += median(step.us);
    row.operations += operations;
    row.bytes += bytes;
    row.roof_us += std::max(by_arithmetic, by_memory);
    row.by_memory = by_memory > by_arithmetic;
  }
  std::vector<Row> sorted;
  for (auto& [name, row] : rows) sorted.push_back(std::move(row));
  std::ranges::stable_sort(sorted, [](const Row& a, const Row& b) { return a.us > b.us; });
  return sorted;
}

void print(const Row& row, double all_us, const char* bound) {
  const double us = std::max(row.us, 1e-3);
  std::printf("  %-32s %5d %10.1f %6.1f %% %9.1f %8.1f %7.0f %%  %s\n", row.name.c_str(), row.steps,
              row.us, 100 * row.us / all_us, row.operations / us / 1e3, row.bytes / us / 1e3,
              100 * row.roof_us / us, bound);
}

}  // namespace

void print_peaks(const Peaks& peaks, bool measured) {
  std::string text;
  char number[64];
  for (const auto& [precision, rate] : peaks.operations) {
    std::snprintf(number, sizeof(number), "%s%s %.0f GF/s", text.empty() ? "" : ", ",
                  precision.c_str(), rate / 1e9);
    text += number;
  }
  std::printf("peaks%s: %s; memory %.1f GB/s\n", measured ? ", measured" : "", text.c_str(),
              peaks.bytes / 1e9);
}

void print_roofline(RunnableEngine& engine, std::span<const kiln_tensor> inputs,
                    std::span<const kiln_tensor> outputs, const Peaks& peaks) {
  const std::vector<Row> rows = rows_of(profile(engine, inputs, outputs), peaks);
  Row all{.name = "all"};
  for (const Row& row : rows) {
    all.steps += row.steps;
    all.us += row.us;
    all.operations += row.operations;
    all.bytes += row.bytes;
    all.roof_us += row.roof_us;
  }
  std::printf("  %-32s %5s %10s %8s %9s %8s %9s  %s\n", "kernel", "steps", "us", "of all", "GF/s",
              "GB/s", "of roof", "bound by");
  for (const Row& row : rows)
    print(row, all.us, row.by_memory ? "memory" : (row.precision + " arithmetic").c_str());
  print(all, all.us, "");
}

}  // namespace tools
