#include "support/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <thread>
#include <vector>

namespace kiln {
namespace {

// A folder of control groups, and the process's one in it: "/" or "/a/b".
struct Group {
  std::string mount, path;
  bool is_unified = false;  // version 2
};

std::optional<int> cpus(int64_t quota, int64_t period) {
  if (quota <= 0 || period <= 0) return std::nullopt;
  const int64_t count = quota / period + (quota % period != 0);
  return static_cast<int>(std::min<int64_t>(count, std::numeric_limits<int>::max()));
}

// What a file begins with; `none` where it does not exist or has no number there ("max").
int64_t number_in(const std::string& path, int64_t none) {
  int64_t number = none;
  std::ifstream file(path);
  return file >> number ? number : none;
}

std::optional<int> limit_of(const std::string& folder, bool is_unified) {
  if (!is_unified)
    return cpus(number_in(folder + "/cpu.cfs_quota_us", -1),
                number_in(folder + "/cpu.cfs_period_us", -1));
  int64_t quota = 0, period = 0;
  std::ifstream file(folder + "/cpu.max");
  return file >> quota >> period ? cpus(quota, period) : std::nullopt;
}

// Lines of /proc/self/cgroup: "4:cpu,cpuacct:/path" in version 1, "0::/path" in version 2.
std::vector<Group> groups(const std::string& root) {
  std::vector<Group> result;
  std::ifstream file(root + "/proc/self/cgroup");
  const std::string mounts = root + "/sys/fs/cgroup";
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      result.push_back({mounts, path, true});
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      result.push_back({mounts + "/" + controllers, path});
    }
  }
  return result;
}

}  // namespace

// From the group to the mount's root. A container often sees its own group as the root while the path is that of
// the host: folders that do not exist say nothing, and the root is always asked.
std::optional<int> cpu_quota(const std::string& root) {
  std::optional<int> least;
  for (Group& group : groups(root)) {
    if (group.path.find("/..") != std::string::npos)
      group.path.clear();  // outside of what is mounted
    while (true) {
      const std::optional<int> limit = limit_of(group.mount + group.path, group.is_unified);
      if (limit && (!least || *limit < *least)) least = limit;
      if (group.path.empty()) break;
      group.path.erase(group.path.rfind('/') == std::string::npos ? 0 : group.path.rfind('/'));
    }
  }
  return least;
}

int available_cpus() {
  cpu_set_t set;
  const int count = sched_getaffinity(0, sizeof(set), &set) == 0
                        ? CPU_COUNT(&set)
                        : static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(count, cpu_quota().value_or(count)));
}

}  // namespace kiln
