// The CUDA C++ text of one kernel under construction.
//
// A generator writes lines and blocks, asks for the text of positions and values where it needs
// them, and gets the whole from finish():
//
//   Emitter emitter(context);
//   emitter.open("if (thread < " + emitter.position(points) + ")");
//   emitter.bind(nest.outer[0].index, "thread");
//   emitter.store(store.buffer, store.indices, emitter.value(store.value));
//   emitter.close();
//   return emitter.finish({.threads = 256});
//
// An epilogue of a contraction becomes a function of its own kernel in the same way:
//
//   emitter.open("const auto finish = [&](float sum, int row, int column)");
//   emitter.bind(matmul.m.index, "row");
//   emitter.bind(matmul.n.index, "column");
//   const std::string result = emitter.value(matmul.epilogue, {.accumulators = {"sum"}});
//   emitter.store(matmul.out.buffer, {offset}, result);
//   emitter.close(";");
//
// What the text may use is in kernels/types.cuh and kernels/math.cuh, which finish() puts in front.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/common/element_offset.h"
#include "backends/cuda/compile/kernel_context.h"
#include "ir/dim.h"
#include "plan/form/program.h"

namespace kiln::cuda {

// The C++ type of an element in memory ("half_t", "float", "unsigned char" for bool) and of one in a
// register: f16 and bf16 are float, bool is bool.
const char* memory_type(DType dtype);
const char* register_type(DType dtype);

// What stands for some leaves of an expression: names of values of register type.
struct Leaves {
  std::vector<std::string> accumulators = {};  // by slot
  std::vector<std::string> reduced = {};       // by slot
  // Loads whose value is in a register already.
  std::map<const plan::ExprNode*, std::string> loads = {};  // never iterated
};

// Where a load reads.
backend::ElementOffset element_offset(const plan::Program& program, const plan::ExprNode& load);

// A position is a C++ expression of type int where all of it, each step included, provably fits 31
// bits, and of type long long otherwise.
bool fits_int(const ir::Dim& dim);
// "int" or "long long".
const char* position_type(const ir::Dim& dim);

struct DimLess {
  bool operator()(const ir::Dim& a, const ir::Dim& b) const { return ir::Dim::compare(a, b) < 0; }
};

class Emitter {
 public:
  explicit Emitter(KernelContext& context);

  KernelContext& context() { return context_; }
  const plan::Program& program() const { return context_.program; }
  backend::KernelInterface& interface() { return context_.result.interface; }
  DType dtype_of(plan::BufferId buffer) const;

  // --- Text ---

  // One or more statements, without the final newline.
  void line(std::string_view text);
  // A block: "header {" ... "}suffix". Names made inside end with it. An empty header: a plain block.
  void open(std::string_view header);
  void close(std::string_view suffix = "");
  // A name that no other value has.
  std::string fresh(std::string_view prefix);
  // Declares "const type name = value;" and gives the name, which is fresh.
  std::string declare(std::string_view type, std::string_view prefix, std::string_view value);

  // --- Operands ---

  // The pointer to a buffer, an argument of the kernel from now on. Buffers that are stored to are
  // `T*`, others `const T* __restrict__`, so that loads of them take the read-only path.
  std::string buffer(plan::BufferId buffer);
  // The same for one that the generator's own text writes.
  std::string written_buffer(plan::BufferId buffer);

  // --- Positions ---

  // The variable that holds a loop index, until it is bound again: of position_type(Dim(index)).
  void bind(const ir::SymbolPtr& index, const std::string& name);
  // The value of a Dim, in parentheses where needed. Sizes are parameters of the kernel; a factor or
  // a sum that is known outside of all loops is one parameter. Divisions have names of their own, and
  // a divisor of zero counts as one.
  std::string position(const ir::Dim& dim);

  // --- Values ---

  // Writes the statements that compute an expression and gives the name of its value, of
  // register_type(expr->dtype). What the expression shares is computed once. Checks are noted.
  std::string value(const plan::Expr& expr, const Leaves& leaves = {});
  // Of several expressions, what they share among each other included.
  std::vector<std::string> values(const std::vector<plan::Expr>& exprs, const Leaves& leaves = {});
  // Where an element lies: "b0[...]". One index counts elements from the start of the buffer,
  // whatever its rank; so it is in loads.
  std::string element(plan::BufferId buffer, const std::vector<plan::Index>& indices);
  // The text of element_offset().
  std::string offset(const plan::ExprNode& load);
  // Stores a value of register type, rounded to the buffer's dtype.
  void store(plan::BufferId buffer, const std::vector<plan::Index>& indices,
             const std::string& value);
  // Notes that a check of the program failed where the text of a condition is true.
  void note_failure(int32_t check, const std::string& condition);

  // --- The whole ---

  struct Launch {
    int threads = 256;   // of a block: a bound, and the size that interface().block gets
    int min_blocks = 0;  // per multiprocessor; 0: whatever registers allow
    int cluster = 1;     // blocks that see each other's shared memory; sm_90
    std::vector<std::string> tensor_maps = {};  // names of interface().tensor_maps
    std::string before = {};  // text between the prelude and the kernel: functions, macros
    // The body waits for earlier kernels itself, see declare_wait().
    bool waits = false;
  };
  // Declares `wait`, after which a thread of the body may read and write what is not constant: all
  // buffers that have been named so far. For kernels that have work to do before; with launch.waits.
  void declare_wait();
  // The text of the kernel, whose body is what was written. Fills in interface().block, and
  // interface().programmatic where the generation has such launches.
  std::string finish(const Launch& launch);

 private:
  friend class ExprEmitter;
  // A block that is open, and the names that end with it.
  struct Scope {
    std::string text;
    std::map<ir::Dim, std::string, DimLess> names;
  };

  std::string parameter(const ir::Dim& dim);
  std::string sum(const ir::Dim& dim, bool narrow);
  std::string term(const ir::Term& term, bool narrow);
  std::string atom(const ir::AtomPtr& atom, bool narrow);
  std::string division(const ir::Atom& atom);
  struct Parameter {
    std::string type, name;
    bool changes = false;  // points to what earlier kernels may write
  };
  bool is_programmatic() const;
  bool is_constant(plan::BufferId buffer) const;
  std::vector<Parameter> parameters(const Launch& launch) const;
  std::string signature(const Launch& launch) const;
  std::string programmatic(const Launch& launch, const std::string& body) const;

  KernelContext& context_;
  std::vector<Scope> scopes_;                          // the first is the kernel's
  std::map<const ir::Symbol*, std::string> bindings_;  // never iterated
  std::set<plan::BufferId> written_;
  int names_ = 0;
};

}  // namespace kiln::cuda
