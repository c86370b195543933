/* What code that AOTInductor compiles calls instead of the operator kiln::execute_engine. It is
 * linked into the compiled library, and passes the call on to the package's container, which runs
 * the engine. The result of the operator is a list: for each of its tensors, one pointer to where
 * it is to be stored follows the fixed arguments. */
#include <stdarg.h>
#include <stdint.h>

typedef struct AtenTensorOpaque* AtenTensorHandle;
typedef int32_t (*kiln_execute_function)(const AtenTensorHandle* inputs, int64_t num_inputs,
                                         AtenTensorHandle engine, const char* spec,
                                         va_list* outputs);

static kiln_execute_function execute;

__attribute__((visibility("default"))) void kiln_aoti_set_execute(kiln_execute_function function) {
  execute = function;
}

/* AOTInductor calls an operator by the device of its results; which one that is matters not here. */
#define KILN_AOTI_EXECUTE_ENGINE(name)                                                            \
  __attribute__((visibility("hidden"))) int32_t name(const AtenTensorHandle* inputs,              \
                                                     int64_t num_inputs, AtenTensorHandle engine, \
                                                     const char* spec, ...) {                     \
    va_list outputs;                                                                              \
    if (execute == 0) {                                                                           \
      return 1;                                                                                   \
    }                                                                                             \
    va_start(outputs, spec);                                                                      \
    const int32_t error = execute(inputs, num_inputs, engine, spec, &outputs);                    \
    va_end(outputs);                                                                              \
    return error;                                                                                 \
  }

KILN_AOTI_EXECUTE_ENGINE(aoti_torch_cpu_execute_engine)
KILN_AOTI_EXECUTE_ENGINE(aoti_torch_cuda_execute_engine)
