// The subcommands of `kiln`: each adds itself, with its options, to the program.
#pragma once

namespace tools {

class CommandLine;

void add_compile(CommandLine& line);
void add_accuracy(CommandLine& line);
void add_run(CommandLine& line);
void add_bench(CommandLine& line);
void add_inspect(CommandLine& line);
void add_ops(CommandLine& line);
void add_refit(CommandLine& line);
void add_verify(CommandLine& line);

}  // namespace tools
