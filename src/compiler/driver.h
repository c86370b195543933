// The compile side from end to end: the only place that knows every stage.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "import/import.h"
#include "ir/graph.h"
#include "passes/quantisation.h"
#include "support/error.h"
#include "support/status.h"

namespace kiln {

// A CompileError that knows its status: an engine that could not be written, an operator that is
// not supported.
class StatusError : public CompileError {
 public:
  explicit StatusError(const Status& status)
      : CompileError(status.message()), code_(status.code()) {}
  StatusCode code() const { return code_; }

 private:
  StatusCode code_;
};

// Where finished engines are kept: see compiler/engine_cache.h.
struct CacheOptions {
  std::string directory;   // empty: no cache
  uint64_t max_bytes = 0;  // 0: kDefaultCacheBytes
  bool read = true, write = true;
};

// What the cache did for a compile. It never makes one fail.
struct CacheReport {
  enum class Outcome { Compiled, EngineFound, CodeFound };
  Outcome outcome = Outcome::Compiled;
  std::string problem;  // why an engine could not be read or kept; empty if nothing went wrong
};

// Programs for one kind of machine.
struct TargetOptions {
  std::string name = "cpu";           // the backend: compiler/backends.h
  std::vector<std::string> variants;  // empty: all that the backend knows
};

// Choosing kernels by running them on a GPU of this machine, for targets that can.
struct TuningOptions {
  int candidates =
      0;  // ways of each kernel that are timed at most; 0: a model of the machine chooses
  std::string cache_file;  // of earlier measurements: compiler/timing_cache.h; empty: none
};

// How the range of a tensor is chosen from what it was with calibration inputs: all of it, without the last 0.001 %
// at each end, or with the least mean squared error.
enum class CalibrationMethod { Extremes, Percentile, LeastError };

// Sets of inputs of a model.
struct Samples {
  std::vector<std::string> names;  // of the inputs of each set; empty: in the model's order
  std::vector<std::vector<ir::Literal>> sets;
};

// What is quantised when the model is compiled.
struct QuantisationOptions {
  passes::Quantisation::Scheme scheme = passes::Quantisation::Scheme::None;
  int64_t group_size = 0;
  std::string exclude;
  CalibrationMethod method = CalibrationMethod::Percentile;
  Samples calibration;
};

// Runs an engine on sets of inputs, one after another, and gives the outputs of each. Throws what the function
// throws, and CompileError where a run fails.
using RunEngine = std::function<void(
    std::span<const std::byte> engine, const std::vector<std::vector<ir::Literal>>& samples,
    const std::function<void(size_t sample, const std::vector<ir::Literal>& outputs)>& take)>;

struct CompileOptions {
  std::vector<import::DimRange> ranges;
  // What to make programs for, each target once. A machine that can run programs for several takes the
  // first, unless it is asked for another.
  std::vector<TargetOptions> targets = {TargetOptions()};
  int compile_threads = 0;  // 0: one per core
  std::vector<std::string> disabled_passes;
  bool check_bounds = true;  // runs fail where an index is out of range or integers divide by 0
  bool refittable = false;   // no pass may look at the values of weights
  // Every operator's 16-bit result is rounded, as eager PyTorch does; otherwise casts are, and what
  // is stored.
  bool emulate_precision_casts = false;
  // Where operands of f32 may be rounded to TF32, on targets that can: engine::kTf32Products,
  // engine::kTf32Convolutions, or both.
  uint8_t tf32 = 0;
  std::string metadata;        // kept in the engine as it is
  bool strip_weights = false;  // leave the contents of constants out of the engine
  bool verify_passes = false;
  std::string dump_directory;  // empty: no dumps
  std::function<void(std::string_view stage, double fraction)> progress;
  CacheOptions cache;
  CacheReport* cache_report = nullptr;  // filled in, unless null
  TuningOptions tuning;
  QuantisationOptions quantisation;
  RunEngine run_engine;  // from whoever has the runtime; calibration needs it
  // Called with what did not work although the compile does, beside what cache_report says: "tuning: ...".
  // From the calling thread; may be null.
  std::function<void(const std::string& text)> warning;
};

// Import -> passes -> plan -> backend -> engine bytes. Throws CompileError or InternalError.
std::vector<std::byte> compile(const import::Model& model, const CompileOptions& options);
// The same from a graph; consumes it, and leaves the cache alone.
std::vector<std::byte> compile(ir::Graph graph, const CompileOptions& options);
// Writes a file as a whole or not at all: see support/atomic_file.h. Throws StatusError.
void write_bytes(std::span<const std::byte> bytes, const std::string& path);
// Straight to a file: without a cache the engine is never whole in memory. Temporary file, then
// rename.
void compile_to_file(const import::Model& model, const CompileOptions& options,
                     const std::string& path);

}  // namespace kiln
