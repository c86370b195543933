/* A library of kernels as users write them, in C99 on kiln.h alone. */
#include <stdlib.h>
#include <string.h>

#include "kiln/kiln.h"

static size_t element_size(kiln_dtype dtype) {
  static const size_t kSizes[] = {4, 8, 2, 2, 1, 1, 2, 4, 8, 1, 1};
  return kSizes[dtype];
}

static size_t element_count(const kiln_tensor* tensor) {
  size_t count = 1;
  for (int32_t i = 0; i < tensor->rank; ++i) count *= (size_t)tensor->shape[i];
  return count;
}

static const char* argument(const kiln_kernel_call* call, const char* name) {
  const char* found = strstr(call->arguments, name);
  return found == NULL ? NULL : strchr(found, ':') + 1;
}

/* (a + b) * scale and a - b. `user` is a number that has to be 7. */
static int sum_and_difference(void* user, const kiln_kernel_call* call) {
  const char* scale_text = argument(call, "\"scale\"");
  const double scale = scale_text == NULL ? 1 : strtod(scale_text, NULL);
  const float *a = call->inputs[0].data, *b = call->inputs[1].data;
  float *sum = call->outputs[0].data, *difference = call->outputs[1].data;
  if (*(const int*)user != 7 || call->num_inputs != 2 || call->num_outputs != 2) return 2;
  if (call->inputs[0].strides != NULL || call->outputs[1].rank != call->inputs[0].rank) return 4;
  for (size_t i = 0, count = element_count(&call->inputs[0]); i < count; ++i) {
    sum[i] = (float)((a[i] + b[i]) * scale);
    difference[i] = a[i] - b[i];
  }
  return 0;
}

/* Output i is input i, of any dtype. */
static int copy(void* user, const kiln_kernel_call* call) {
  (void)user;
  if (call->num_inputs != call->num_outputs) return 2;
  for (size_t i = 0; i < call->num_inputs; ++i) {
    const kiln_tensor *from = &call->inputs[i], *to = &call->outputs[i];
    const size_t bytes = element_count(from) * element_size(from->dtype);
    if (from->dtype != to->dtype || element_count(to) != element_count(from)) return 3;
    if (bytes > 0) memcpy(to->data, from->data, bytes);
  }
  return 0;
}

/* A copy of positive numbers: 3 for others, and a text for those below -1. */
static int positive(void* user, const kiln_kernel_call* call) {
  const float* x = call->inputs[0].data;
  for (size_t i = 0, count = element_count(&call->inputs[0]); i < count; ++i) {
    if (x[i] < -1) call->set_error(call, "got a number below -1");
    if (x[i] < 0) return 3;
  }
  return copy(user, call);
}

/* Breaks the rule that inputs are only read. */
static int bump(void* user, const kiln_kernel_call* call) {
  float* x = call->inputs[0].data;
  if (element_count(&call->inputs[0]) > 0) x[0] += 1;
  return copy(user, call);
}

static int seven = 7;
static const kiln_kernel_entry kKernels[] = {
    {sizeof(kiln_kernel_entry), "test::sum_and_difference", sum_and_difference, &seven},
    {sizeof(kiln_kernel_entry), "test::copy", copy, NULL},
    {sizeof(kiln_kernel_entry), "test::positive.checked", positive, NULL},
    {sizeof(kiln_kernel_entry), "test::bump", bump, NULL},
};

KILN_API const kiln_kernel_entry* kiln_kernels(size_t* count) {
  *count = sizeof(kKernels) / sizeof(kKernels[0]);
  return kKernels;
}
