/* A library with a kernel for mylib::scaled_sine: examples/05_custom_kernel.py builds and loads it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kiln/kiln.h"

/* sin(x) * scale, of floats. */
static int scaled_sine(void* user, const kiln_kernel_call* call) {
  const kiln_tensor* x = &call->inputs[0];
  const float* from = x->data;
  float* to = call->outputs[0].data;
  const char* scale = strstr(call->arguments, "\"scale\":");
  size_t count = 1;
  (void)user;
  if (x->dtype != KILN_F32 || scale == NULL) {
    call->set_error(call, "expected floats, and a scale");
    return 1;
  }
  for (int32_t i = 0; i < x->rank; ++i) count *= (size_t)x->shape[i];
  const float factor = strtof(scale + strlen("\"scale\":"), NULL);
  for (size_t i = 0; i < count; ++i) to[i] = sinf(from[i]) * factor;
  return 0;
}

static const kiln_kernel_entry kKernels[] = {
    {sizeof(kiln_kernel_entry), "mylib::scaled_sine", scaled_sine, NULL},
};

KILN_API const kiln_kernel_entry* kiln_kernels(size_t* count) {
  *count = sizeof(kKernels) / sizeof(kKernels[0]);
  return kKernels;
}
