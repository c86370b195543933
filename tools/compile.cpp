// kiln compile: a torch.export archive or an ONNX model to an engine file.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "command_line.h"
#include "commands.h"
#include "failure.h"
#include "kiln/kiln.hpp"
#include "quantise_arguments.h"
#include "shape_argument.h"

namespace tools {
namespace {

using Clock = std::chrono::steady_clock;

struct CompileArguments {
  std::string model, output;
  std::vector<std::string> shapes, targets, disabled_passes;
  int threads = 0;
  bool verify = false;
  std::string dump_directory, cache_directory;
  int64_t cache_bytes = 0;
  bool strip_weights = false, refittable = false, emulate_precision_casts = false;
  bool no_bounds_checks = false, tf32 = false, tune = false;
  std::string timing_cache;
  QuantiseArguments quantise;
};

std::string join(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ",") + item;
  return text;
}

// One line on a terminal, rewritten in place; only once the compile has taken a while.
class Progress {
 public:
  static void report(void* self, const char* stage, double fraction) {
    static_cast<Progress*>(self)->show(stage, fraction);
  }
  ~Progress() {
    if (shown_) std::fputs("\r\x1b[K", stderr);
  }

 private:
  void show(const char* stage, double fraction) {
    const bool long_running = Clock::now() - start_ > std::chrono::seconds(2);
    if (!long_running || isatty(STDERR_FILENO) == 0) return;
    std::fprintf(stderr, "\r\x1b[K%3.0f %% %s", fraction * 100, stage);
    std::fflush(stderr);
    shown_ = true;
  }

  Clock::time_point start_ = Clock::now();
  bool shown_ = false;
};

// `shapes` owns the names that the ranges point to.
std::vector<kiln_dim_range> ranges_of(const std::vector<ShapeArgument>& shapes) {
  std::vector<kiln_dim_range> ranges;
  for (const ShapeArgument& shape : shapes)
    for (size_t i = 0; i < shape.dims.size(); ++i)
      ranges.push_back({shape.input.c_str(), static_cast<int32_t>(i), shape.dims[i].min,
                        shape.dims[i].opt, shape.dims[i].max});
  return ranges;
}

void compile(const CompileArguments& arguments) {
  if (!arguments.timing_cache.empty() && !arguments.tune)
    throw UsageError("--timing-cache is for --tune: nothing is timed without it");
  const Clock::time_point start = Clock::now();
  std::vector<ShapeArgument> shapes;
  for (const std::string& text : arguments.shapes) shapes.push_back(parse_shape(text));
  const std::vector<kiln_dim_range> ranges = ranges_of(shapes);
  const std::string targets = join(arguments.targets);
  const std::string disabled = join(arguments.disabled_passes);

  const kiln::Model model = kiln::Model::open_file(arguments.model);

  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.ranges = ranges.data();
  options.num_ranges = ranges.size();
  options.targets = targets.empty() ? nullptr : targets.c_str();
  options.num_threads = arguments.threads;
  options.disabled_passes = disabled.empty() ? nullptr : disabled.c_str();
  options.verify_passes = arguments.verify ? 1 : 0;
  if (!arguments.dump_directory.empty()) options.dump_directory = arguments.dump_directory.c_str();
  if (!arguments.cache_directory.empty())
    options.cache_directory = arguments.cache_directory.c_str();
  options.cache_bytes = static_cast<uint64_t>(arguments.cache_bytes);
  int32_t cache_result = KILN_CACHE_MISS;
  options.cache_result = &cache_result;
  std::string warnings;
  options.warning = [](void* user, const char* text) {
    *static_cast<std::string*>(user) += std::string("kiln: ") + text + "\n";
  };
  options.warning_user = &warnings;
  options.strip_weights = arguments.strip_weights ? 1 : 0;
  options.refittable = arguments.refittable ? 1 : 0;
  options.emulate_precision_casts = arguments.emulate_precision_casts ? 1 : 0;
  options.no_bounds_checks = arguments.no_bounds_checks ? 1 : 0;
  constexpr int kCandidates = 6;
  options.tuning_candidates = arguments.tune ? kCandidates : 0;
  if (!arguments.timing_cache.empty()) options.timing_cache = arguments.timing_cache.c_str();
  QuantiseOptions quantise(arguments.quantise);
  quantise.set(options);
  options.tf32 = arguments.tf32 ? KILN_TF32_MATMUL | KILN_TF32_CONVOLUTION : 0;
  {
    Progress progress;
    options.progress = Progress::report;
    options.progress_user = &progress;
    model.compile_to_file(arguments.output, &options);
  }
  const std::chrono::duration<double> seconds = Clock::now() - start;
  const double megabytes = static_cast<double>(std::filesystem::file_size(arguments.output)) / 1e6;
  std::fputs(warnings.c_str(), stderr);
  std::printf("%s: %.1f MB, %s in %.1f s\n", arguments.output.c_str(), megabytes,
              cache_result == KILN_CACHE_HIT ? "found in the cache" : "compiled", seconds.count());
}

void add_engine_kind_options(Command& command, CompileArguments& arguments) {
  command.option("--cache-dir", arguments.cache_directory,
                 "Take the engine from this folder if it is there, and put it there");
  command.option("--cache-bytes", arguments.cache_bytes,
                 "The largest size of that folder (default: 5 GiB)",
                 {.number = Number::NonNegative});
  command.flag("--strip-weights", arguments.strip_weights,
               "Leave the weights out: kiln refit fills them in");
  command.flag("--refittable", arguments.refittable,
               "Let no optimisation depend on the values of weights");
  command.flag("--emulate-precision-casts", arguments.emulate_precision_casts,
               "Round every operator's result in f16 or bf16, as eager PyTorch does");
  command.flag("--tune", arguments.tune,
               "Time the best ways of each product and convolution on a GPU of this machine");
  command.option("--timing-cache", arguments.timing_cache,
                 "With --tune: a file that keeps the times, so that they are measured once");
  command.flag("--tf32", arguments.tf32,
               "Let GPUs round operands of f32 products and convolutions to TF32");
  command.flag("--no-bounds-checks", arguments.no_bounds_checks,
               "Read the nearest element where an index is out of range, instead of failing");
}

}  // namespace

void add_compile(CommandLine& line) {
  auto arguments = std::make_shared<CompileArguments>();
  Command command = line.add("compile", "Compile a torch.export archive (.pt2) or an ONNX model");
  command.option("model", arguments->model, "The archive or model", {.required = true});
  command.option("-o,--output", arguments->output, "The engine file to write", {.required = true});
  command.option("--shape", arguments->shapes,
                 "Sizes of an input: x=1..32,128 or x=1..8..32,128 (min..opt..max)");
  command.option("--target", arguments->targets,
                 "Programs to make: cpu, cuda:sm_90, cpu,cuda, cpu:x86-64-v3 (default: cpu, all "
                 "variants)",
                 {.comma_separated = true});
  command.option("--threads", arguments->threads, "Threads to compile with (default: one per core)",
                 {.number = Number::NonNegative});
  command.option("--disable-pass", arguments->disabled_passes, "Leave out an optimisation, by name",
                 {.comma_separated = true});
  command.flag("--verify", arguments->verify, "Check the program after every pass");
  command.option("--dump-dir", arguments->dump_directory,
                 "Write the program after every pass into this folder");
  add_engine_kind_options(command, *arguments);
  add_quantise_options(command, arguments->quantise);
  command.kernels_option();
  command.action([arguments] { compile(*arguments); });
}

}  // namespace tools
