// How many CPUs a process may keep busy.
#pragma once

#include <optional>
#include <string>

namespace kiln {

// CPUs that this process may use: those of its affinity, and no more than its container's quota of CPU time
// amounts to. At least 1.
int available_cpus();

// The quota of this process's control group and of those around it, the smallest of them in CPUs: rounded up, at
// least 1; null where there is none. Reads `root`/proc/self/cgroup and files in `root`/sys/fs/cgroup, of versions 1 and 2.
std::optional<int> cpu_quota(const std::string& root = "");

}  // namespace kiln
