// Taking Dims apart.
#pragma once

#include "ir/dim.h"

namespace kiln::backend {

ir::Dim dim_of_atom(const ir::AtomPtr& atom);
ir::Dim dim_of_term(const ir::Term& term);
int64_t constant_term(const ir::Dim& dim);
bool depends_on_loops(const ir::Dim& dim);

}  // namespace kiln::backend
