// The subcommands of `kiln`: each adds itself, with its options, to the program.
#pragma once

namespace CLI {
class App;
}

namespace tools {

void add_compile(CLI::App& app);
void add_run(CLI::App& app);
void add_bench(CLI::App& app);
void add_inspect(CLI::App& app);
void add_ops(CLI::App& app);
void add_refit(CLI::App& app);
void add_verify(CLI::App& app);

}  // namespace tools
