// Where the time of a run goes, kernel by kernel, beside what the machine could do.
#pragma once

#include <span>

#include "engine_arguments.h"
#include "peaks.h"

namespace tools {

// Prints a table: of each kernel its time, its rates, and the share of the time that the machine's peaks
// would take. Runs with profiling; the median of each kernel.
void print_roofline(RunnableEngine& engine, std::span<const kiln_tensor> inputs,
                    std::span<const kiln_tensor> outputs, const Peaks& peaks);

// One line that says what the peaks are.
void print_peaks(const Peaks& peaks, bool measured);

}  // namespace tools
