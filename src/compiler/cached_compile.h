// Compiling with a cache: an engine that was made before is not made again.
#pragma once

#include <string>
#include <vector>

#include "compiler/driver.h"

namespace kiln {

// 32 hexadecimal digits that stand for the engine of a model: a hash of everything that decides its
// bytes, which are the model with its weights, the options and this version of the compiler.
std::string compile_key(const import::Model& model, const CompileOptions& options);

// As compile(), through the cache of the options. Two kinds of entry are kept: whole engines by
// compile_key, and engines without weights by what their code is made of. The second serve models
// whose weights changed: code is not generated again where it would come out the same.
std::vector<std::byte> compile_cached(const import::Model& model, const CompileOptions& options);

}  // namespace kiln
