// The `kiln` command. Exit codes: 0 success, 1 failure, 2 wrong usage.
#include <malloc.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

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
  CLI::App app("Compiles PyTorch models ahead of time, and runs and inspects the engines.", "kiln");
  app.set_version_flag("--version", std::string("kiln ") + kiln_version());
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  tools::add_compile(app);
  tools::add_refit(app);
  tools::add_run(app);
  tools::add_bench(app);
  tools::add_inspect(app);
  tools::add_verify(app);
  tools::add_ops(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
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
