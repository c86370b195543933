/* Loads an engine and runs it, in C99: run_engine model.kiln [SIZE]
 *
 * Dimensions that are not fixed take SIZE, else the size that the engine was optimised for. The
 * inputs are made up: element i is sin(i).
 */
#include <kiln/kiln.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_TENSORS 16

/* A tensor with memory of its own. */
typedef struct owned_tensor {
  const char* name;
  int64_t shape[KILN_MAX_RANK];
  size_t count;
  kiln_tensor view; /* points at shape */
} owned_tensor;

static owned_tensor inputs[MAX_TENSORS], outputs[MAX_TENSORS];

static int failed(kiln_status status) {
  if (status != KILN_OK)
    fprintf(stderr, "run_engine: %s: %s\n", kiln_status_name(status), kiln_last_error());
  return status != KILN_OK;
}

/* Memory for a tensor whose shape is set; 0 if there is none, or if it is not f32. */
static int allocate(owned_tensor* tensor, const kiln_tensor_info* info) {
  tensor->name = info->name;
  tensor->count = 1;
  for (int32_t d = 0; d < info->rank; ++d) tensor->count *= (size_t)tensor->shape[d];
  tensor->view.struct_size = sizeof(kiln_tensor);
  tensor->view.dtype = info->dtype;
  tensor->view.rank = info->rank;
  tensor->view.shape = tensor->shape;
  tensor->view.strides = NULL;
  if (info->dtype != KILN_F32) {
    fprintf(stderr, "run_engine: %s: this example handles f32 only\n", info->name);
    return 0;
  }
  tensor->view.data = malloc(tensor->count * sizeof(float) + 1);
  return tensor->view.data != NULL;
}

static int make_input(kiln_engine* engine, size_t index, int64_t size) {
  kiln_tensor_info info = {sizeof(info), NULL, KILN_F32, 0, NULL};
  if (failed(kiln_engine_input(engine, index, &info))) return 0;
  owned_tensor* tensor = &inputs[index];
  for (int32_t d = 0; d < info.rank; ++d) {
    const kiln_dim dim = info.dims[d];
    tensor->shape[d] = dim.min == dim.max ? dim.min : size >= 0 ? size : dim.opt;
  }
  if (!allocate(tensor, &info)) return 0;
  float* values = tensor->view.data;
  for (size_t i = 0; i < tensor->count; ++i) values[i] = (float)sin((double)i);
  return 1;
}

static void print(const owned_tensor* tensor) {
  const float* values = tensor->view.data;
  printf("%s [", tensor->name);
  for (int32_t d = 0; d < tensor->view.rank; ++d)
    printf("%s%lld", d == 0 ? "" : ", ", (long long)tensor->shape[d]);
  printf("]\n");
  for (size_t i = 0; i < tensor->count; ++i) printf("%.9g\n", values[i]);
}

static int run(kiln_engine* engine, kiln_session* session, int64_t size) {
  kiln_tensor in[MAX_TENSORS], out[MAX_TENSORS];
  int64_t shapes[MAX_TENSORS][KILN_MAX_RANK];
  const size_t num_inputs = kiln_engine_num_inputs(engine);
  const size_t num_outputs = kiln_engine_num_outputs(engine);
  if (num_inputs > MAX_TENSORS || num_outputs > MAX_TENSORS) {
    fprintf(stderr, "run_engine: more than %d inputs or outputs\n", MAX_TENSORS);
    return 1;
  }
  for (size_t i = 0; i < num_inputs; ++i) {
    if (!make_input(engine, i, size)) return 1;
    in[i] = inputs[i].view;
  }
  if (failed(kiln_session_output_shapes(session, in, num_inputs, shapes, num_outputs))) return 1;
  for (size_t i = 0; i < num_outputs; ++i) {
    kiln_tensor_info info = {sizeof(info), NULL, KILN_F32, 0, NULL};
    if (failed(kiln_engine_output(engine, i, &info))) return 1;
    for (int32_t d = 0; d < info.rank; ++d) outputs[i].shape[d] = shapes[i][d];
    if (!allocate(&outputs[i], &info)) return 1;
    out[i] = outputs[i].view;
  }
  if (failed(kiln_session_run(session, in, num_inputs, out, num_outputs, NULL))) return 1;
  for (size_t i = 0; i < num_outputs; ++i) print(&outputs[i]);
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    fprintf(stderr, "usage: run_engine model.kiln [SIZE]\n");
    return 2;
  }
  kiln_engine* engine = NULL;
  kiln_session* session = NULL;
  int result = 1;
  if (!failed(kiln_engine_load_file(argv[1], NULL, &engine)) &&
      !failed(kiln_session_create(engine, NULL, &session)))
    result = run(engine, session, argc == 3 ? atoll(argv[2]) : -1);
  for (size_t i = 0; i < MAX_TENSORS; ++i) {
    free(inputs[i].view.data);
    free(outputs[i].view.data);
  }
  kiln_session_destroy(session);
  kiln_engine_destroy(engine);
  return result;
}
