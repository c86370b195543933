// The `kiln` command. Exit codes: 0 success, 1 failure, 2 wrong usage.
#include <malloc.h>
#include <sys/resource.h>

#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "command_line.h"
#include "commands.h"
#include "failure.h"
#include "kiln/kiln.h"

namespace {

constexpr const char* kOutOfMemory = "out of memory: the process may have no more";

int fail(int code, const char* text) {
  std::fprintf(stderr, "kiln: %s\n", text);
  return code;
}

// glibc takes 64 MiB of addresses for the allocations of each thread. Where it gets none, every small
// allocation becomes a mapping of its own, which is slow and soon exceeds what there may be.
void share_memory_where_it_is_limited() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) mallopt(M_ARENA_MAX, 1);
}

}  // namespace

int main(int argc, char** argv) {
  share_memory_where_it_is_limited();
  tools::CommandLine line(
      "Compiles PyTorch models ahead of time, and runs and inspects the engines.", "kiln",
      std::string("kiln ") + kiln_version());
  tools::add_compile(line);
  tools::add_refit(line);
  tools::add_accuracy(line);
  tools::add_run(line);
  tools::add_bench(line);
  tools::add_inspect(line);
  tools::add_verify(line);
  tools::add_ops(line);
  try {
    return line.run(argc, argv);
  } catch (const tools::UsageError& error) {
    return fail(2, error.what());
  } catch (const std::bad_alloc&) {
    return fail(1, kOutOfMemory);
  } catch (const std::length_error&) {
    return fail(1, kOutOfMemory);
  } catch (const std::exception& error) {
    return fail(1, error.what());
  }
}
