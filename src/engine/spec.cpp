#include "engine/spec.h"

namespace kiln::engine {

std::string ProgramSpec::name() const { return variant.empty() ? target : target + ":" + variant; }

}  // namespace kiln::engine
