/* Kiln's C API: the only ABI promised. C99. docs/c_api.md says why it is as it is.
 *
 * Two libraries implement it. libkiln_runtime loads and runs engines: the kiln_engine_*,
 * kiln_session_* and kiln_bytes_* functions. libkiln compiles: the others; it needs libkiln_runtime.
 *
 * Errors: functions return a kiln_status. On anything but KILN_OK, kiln_last_error() gives the text
 * for the calling thread, until its next failing call; a call that succeeds leaves it as it was.
 * Out-parameters are untouched on failure. Any function may give KILN_INVALID_ARGUMENT for a null
 * pointer and KILN_OUT_OF_MEMORY; comments name the others.
 *
 * Threads: any function may be called from any thread at any time. Two things are the caller's to
 * see to: a session serves one thread at a time (a second one gets KILN_INVALID_ARGUMENT), and nothing
 * is destroyed while a call uses it.
 *
 * Ownership: what a function makes belongs to the caller, who gives it to the _destroy function of
 * its type; these take NULL. What is passed in is borrowed for the call, unless a comment says for how
 * long. Callbacks leave by returning: no exceptions, no longjmp.
 *
 * Structs that begin with struct_size grow in later versions: set it to the sizeof of the struct and
 * what you do not use to zero, as an initialiser does. A field that is set and that the library does
 * not know, being older, is KILN_UNSUPPORTED.
 *
 * Strings are UTF-8, NUL-terminated. Sizes are bytes unless named otherwise. Dimensions are counted
 * in elements. All of it is there since 0.1.
 *
 * An engine is native code, whatever the container: whoever made the file runs code as you when you
 * load it. Load only what you would run as a program; the checks of the format find damage and no
 * ill will.
 */
#ifndef KILN_KILN_H_
#define KILN_KILN_H_

#include <stddef.h>
#include <stdint.h>

/* Of enumerations: every int is a value of theirs in C++ as it is in C, those of later versions too. */
#ifdef __cplusplus
#define KILN_INT : int
extern "C" {
#else
#define KILN_INT
#endif

#define KILN_API __attribute__((visibility("default")))
#define KILN_VERSION_MAJOR 0
#define KILN_VERSION_MINOR 1
#define KILN_VERSION_PATCH 0

typedef enum kiln_status KILN_INT {
  KILN_OK = 0,
  KILN_INVALID_ARGUMENT = 1, /* wrong count, dtype, rank, a null pointer */
  KILN_OUT_OF_RANGE = 2,     /* a dimension outside the engine's range */
  KILN_NOT_FOUND = 3,        /* no such file, name or index */
  KILN_INVALID_ENGINE = 4,   /* a truncated, corrupted, foreign or newer file */
  KILN_UNSUPPORTED = 5,      /* a CPU too old, a missing GPU, an unsupported operator */
  KILN_IO_ERROR = 6,
  KILN_OUT_OF_MEMORY = 7,
  KILN_INTERNAL = 8, /* a bug in Kiln: please report it */
  /* What a run finds wrong with the data; the outputs are then unspecified, the session serves the
   * next run. */
  KILN_INDEX_ERROR = 9,       /* an index that is out of range */
  KILN_DIVISION_BY_ZERO = 10, /* a division of integers by zero */
  KILN_CANCELLED = 11, /* kiln_run_options.cancel was set; the outputs are unspecified, the session
                          serves the next run */
  KILN_KERNEL_FAILED =
      12 /* a kernel of the user's own (kiln_register_kernel) returned other than 0; the
                             outputs are unspecified, the session serves the next run */
} kiln_status;

typedef enum kiln_dtype KILN_INT {
  KILN_F32 = 0,
  KILN_F64 = 1,
  KILN_F16 = 2,
  KILN_BF16 = 3,
  KILN_I8 = 4,
  KILN_U8 = 5,
  KILN_I16 = 6,
  KILN_I32 = 7,
  KILN_I64 = 8,
  KILN_BOOL = 9,   /* one byte, 0 or 1 */
  KILN_F8E4M3 = 10 /* one byte: PyTorch's float8_e4m3fn */
} kiln_dtype;

#define KILN_MAX_RANK 16

/* Kinds of devices whose memory tensors lie in. The values are those of PyTorch, so that a struct of
 * zeros means memory of this process; DLPack counts from one. */
typedef enum kiln_device_type KILN_INT {
  KILN_CPU = 0, /* memory that this process reads and writes, pinned or not */
  KILN_CUDA = 1 /* memory of an NVIDIA GPU */
} kiln_device_type;

/* Where a tensor lies. */
typedef struct kiln_device {
  int32_t type;  /* a kiln_device_type */
  int32_t index; /* which GPU, as the driver counts those that the process sees; not read for
                    KILN_CPU */
} kiln_device;

/* A borrowed view of memory. An array of them is walked in steps of `struct_size`, which is the same
 * in all of its elements. */
typedef struct kiln_tensor {
  size_t struct_size; /* sizeof(kiln_tensor) */
  void* data;         /* of the first element; may be NULL where there is none */
  kiln_dtype dtype;
  int32_t rank;
  const int64_t* shape;   /* `rank` sizes */
  const int64_t* strides; /* `rank` steps in elements, any sign; NULL: contiguous, row-major */
  kiln_device device;
} kiln_tensor;

typedef struct kiln_engine kiln_engine;
typedef struct kiln_session kiln_session;
typedef struct kiln_bytes kiln_bytes;

/* "0.1.0": of the library, which may be another than KILN_VERSION_*. Static. */
KILN_API const char* kiln_version(void);
/* Text of the calling thread's last failure, "" if none. Valid until its next failing call. */
KILN_API const char* kiln_last_error(void);
/* Name of a status: "out of range"; static. "unknown status" for one that there is not. */
KILN_API const char* kiln_status_name(kiln_status status);

/* ---- Engines: immutable, shared by any number of sessions and threads ----
 *
 * An engine holds programs for one or more targets, such as "cpu", in variants, such as "x86-64-v3".
 * Loading takes the first that this machine can run. Users name programs as "cpu:x86-64-v3", or as
 * "cpu" for all variants. */

typedef struct kiln_load_options {
  size_t struct_size;
  const char* target; /* NULL: the first program that this machine runs; or "cpu", "cuda",
                         "cpu:x86-64-v3": the first of these. Sessions run on its kind of device */
  int verify_weights; /* nonzero: check the hash of the weights too, which reads all of them */
  int describe_only;  /* nonzero: load no program. The engine can be described, on any machine,
                         whatever it is for, and not run: a session of it is KILN_UNSUPPORTED. `target`
                         says which program is described in full */
} kiln_load_options;

/* Maps an engine file, validates it and loads a program of it. Weights are mapped, not copied: the
 * file is not changed in place while the engine lives (replacing it by a rename is fine). options may
 * be NULL.
 * KILN_NOT_FOUND and KILN_IO_ERROR for the file; KILN_INVALID_ENGINE for what is in it;
 * KILN_UNSUPPORTED where this machine runs none of its programs, and the text says what stands
 * against each; KILN_INVALID_ARGUMENT for a target that it has no program for. */
KILN_API kiln_status kiln_engine_load_file(const char* path, const kiln_load_options* options,
                                           kiln_engine** engine);
/* The same from memory. `data` is borrowed (not copied) and stays valid and unchanged until the engine
 * and its sessions are destroyed; 64-byte alignment is required for zero-copy weights, any other
 * alignment copies them. */
KILN_API kiln_status kiln_engine_load_memory(const void* data, size_t size,
                                             const kiln_load_options* options,
                                             kiln_engine** engine);
/* Releases the caller's reference; sessions keep what they need of the engine alive. NULL is
 * allowed. Strings and dimensions that the engine gave are gone. */
KILN_API void kiln_engine_destroy(kiln_engine* engine);

/* One dimension of an input or output. Static: min == opt == max. */
typedef struct kiln_dim {
  int64_t min, opt, max;
} kiln_dim;

typedef struct kiln_tensor_info {
  size_t
      struct_size;  /* set by the caller before the call, as in options; the rest by the library */
  const char* name; /* owned by the engine */
  kiln_dtype dtype;
  int32_t rank;
  const kiln_dim* dims; /* owned by the engine; `rank` of them */
} kiln_tensor_info;

/* Numbers of inputs and outputs; 0 for NULL. */
KILN_API size_t kiln_engine_num_inputs(const kiln_engine* engine);
KILN_API size_t kiln_engine_num_outputs(const kiln_engine* engine);
/* Describes an input or output; KILN_NOT_FOUND past the end. */
KILN_API kiln_status kiln_engine_input(const kiln_engine* engine, size_t index,
                                       kiln_tensor_info* info);
KILN_API kiln_status kiln_engine_output(const kiln_engine* engine, size_t index,
                                        kiln_tensor_info* info);
/* The input that an output updates: what that input is to be after the run. -1 if it updates none, past the
 * end and for NULL. See kiln_session_run. */
KILN_API int64_t kiln_engine_updated_input(const kiln_engine* engine, size_t output);
/* How many sizes a run finds in its data: those of "nonzero" and its like. The shape of an output that has one is
 * known when the run is over: see kiln_session_output_shapes and kiln_run_options.allocate_output. 0 for NULL. */
KILN_API size_t kiln_engine_num_data_sizes(const kiln_engine* engine);
/* What the loaded program is for: "cpu" and "x86-64-v4"; "" if none is loaded, or for NULL. Owned by
 * the engine. */
KILN_API const char* kiln_engine_target(const kiln_engine* engine);
KILN_API const char* kiln_engine_variant(const kiln_engine* engine);
/* Bytes of weights that kiln_session_options.weight_budget is about, as they lie on a GPU: those of at
 * least 16 KiB. 0 for an engine whose program runs on a CPU, or of which none is loaded, or for NULL. */
KILN_API uint64_t kiln_engine_streamable_bytes(const kiln_engine* engine);
/* A JSON description: inputs, ranges, kernels, memory, programs, hashes. The caller destroys it.
 * KILN_INVALID_ENGINE where the bytes were changed under the engine. */
KILN_API kiln_status kiln_engine_describe(const kiln_engine* engine, kiln_bytes** json);

/* Looks at every byte of an engine, weights included, without loading it. The result is JSON, which
 * the caller destroys:
 * {"sound": bool, "problems": [{"where", "offset", "size", "what"}]}, with offsets into the data
 * and "where" one of "header", "interface", "program cpu:x86-64-v3", "code cpu:x86-64-v3",
 * "weights", "gap". Not sound is not a failure of the call. */
KILN_API kiln_status kiln_engine_verify(const void* data, size_t size, kiln_bytes** json);

/* ---- Sessions: one caller's use of an engine ----
 *
 * One thread at a time per session, many sessions per engine. A session keeps its workspace from run to
 * run, and what it knows about the last 32 sets of input shapes. */

/* Where sessions take memory for temporaries and for copies of strided inputs. Both functions are
 * set. They are called in the thread that creates, runs or destroys the session, never call into the
 * session, and leave by returning: no exceptions, no longjmp. */
typedef struct kiln_allocator {
  size_t struct_size;
  void* user;
  /* `bytes` > 0 on `device` at a multiple of `alignment`, or NULL if there are none: the run is then
   * KILN_OUT_OF_MEMORY. `stream` is that of the run, as in kiln_run_options: work that uses the
   * memory is queued there. */
  void* (*allocate)(void* user, size_t bytes, size_t alignment, kiln_device device, void* stream);
  /* Takes back what allocate gave. Work that uses it may be pending on `stream`: it may be given out
   * again at once for use behind that work, and to others when the work is done. */
  void (*release)(void* user, void* data, size_t bytes, kiln_device device, void* stream);
} kiln_allocator;

typedef struct kiln_session_options {
  size_t struct_size;
  int32_t num_threads; /* threads a run may use, the calling one included; 0: one per CPU that the
                          process may use (kiln_session_num_threads) */
  int32_t device; /* which of the devices that the engine's program can run on; 0 is the first, and
                     the only one of a CPU */
  const kiln_allocator* allocator; /* copied; what `user` points to outlives the session. NULL:
                                      malloc, or what the device has in its place */
  const uint64_t*
      weight_budget; /* copied; NULL: no limit. Bytes of a GPU's memory that those of the
                                    weights may take that can be streamed to it, of which there are
                                    kiln_engine_streamable_bytes. The rest stays in pinned memory of the
                                    host and is copied in every run, ahead of the kernels that use it, to
                                    a ring in the session's workspace; results are the same. Sessions
                                    of one budget share their weights. No effect on a CPU */
} kiln_session_options;

/* A session of a loaded engine, which it keeps alive. options may be NULL. Takes no memory for runs yet.
 * KILN_UNSUPPORTED for an engine that was loaded to be described, or that was stripped of its weights, and for one
 * that needs a kernel (kiln_register_kernel) that the process does not have; KILN_INVALID_ARGUMENT for a device that
 * there is not. */
KILN_API kiln_status kiln_session_create(kiln_engine* engine, const kiln_session_options* options,
                                         kiln_session** session);
/* Gives back the session's memory, in the order of the stream of the last run where there is one. NULL is
 * allowed. A failure of a queued run that no call gave is not told: see kiln_session_synchronize. */
KILN_API void kiln_session_destroy(kiln_session* session);

/* Checks the inputs' shapes and gives the shapes of the outputs: shapes[i] has room for
 * KILN_MAX_RANK dimensions, of which the rank of output i are written. Input data and devices are not
 * looked at. Of an output whose shape depends on the data it gives the largest one: 2^60 and more for a
 * dimension without a bound. KILN_OUT_OF_RANGE for shapes that the engine was not compiled for. */
KILN_API kiln_status kiln_session_output_shapes(kiln_session* session, const kiln_tensor* inputs,
                                                size_t num_inputs, int64_t (*shapes)[KILN_MAX_RANK],
                                                size_t num_outputs);

/* Gives the shapes of the outputs of the last run, in the same form: those that depend on the data are known
 * now. KILN_INVALID_ARGUMENT unless that run succeeded, and was the last thing that the session did. */
KILN_API kiln_status kiln_session_result_shapes(kiln_session* session,
                                                int64_t (*shapes)[KILN_MAX_RANK],
                                                size_t num_outputs);

/* Where the session's inputs and outputs lie. {KILN_CPU, 0} for NULL. */
KILN_API kiln_device kiln_session_device(const kiln_session* session);
/* Threads that a run may use on CPUs, the calling one included: of num_threads 0, the CPUs of the process's affinity and
 * no more than the quota of its container amounts to. 0 for NULL. */
KILN_API int32_t kiln_session_num_threads(const kiln_session* session);

/* An output whose memory the caller is asked for; valid during the call. */
typedef struct kiln_output {
  size_t struct_size; /* of the library's struct: fields behind it are not there */
  size_t index;
  const int64_t* shape; /* `rank` sizes */
  size_t bytes;         /* of all elements, row-major without gaps */
  kiln_device device;   /* where the memory lies */
  kiln_dtype dtype;
  int32_t rank;
} kiln_output;

typedef struct kiln_run_options {
  size_t struct_size;
  /* Where the work is queued: a cudaStream_t for KILN_CUDA, NULL for the default stream. NULL for
   * KILN_CPU, which has none. A session's runs share its workspace: one on another stream than the
   * run before waits for that, so that streams want a session each. The stream lives until
   * kiln_session_synchronize or kiln_session_destroy. */
  void* stream;
  /* NULL, or a number that ends the run as KILN_CANCELLED once it is no longer 0: it is looked at
   * before every kernel, or, where work is queued, before that. Any thread may set it, and a signal
   * handler may; it is read atomically, and one number may serve many runs. It stays valid until
   * the run returns. */
  const volatile int32_t* cancel;
  /* NULL, or what gives memory for outputs, once the shapes of the inputs were found to be right: it
   * is called for each output in turn, in the calling thread, and returns where the output is to be
   * written (anything if `bytes` is 0), or NULL to end the run as KILN_OUT_OF_MEMORY. The memory is
   * the caller's, whatever becomes of the run. kiln_session_run is then given no outputs. For an output
   * whose shape depends on the data it is called in the middle of the run, when that is known. */
  void* (*allocate_output)(void* user, const kiln_output* output);
  void* output_user;
} kiln_run_options;

/* Runs the engine on the caller's buffers, which lie on the session's device. Inputs may be strided
 * (then they are copied). Outputs must be contiguous, of the dtypes and shapes that the engine gives,
 * and must not overlap inputs or each other. options may be NULL.
 * An output whose shape depends on the data is given with the largest shape that it may have
 * (kiln_session_output_shapes); its elements are then the first ones of that memory, without gaps, and
 * kiln_session_result_shapes tells their shape. One without a bound is to be asked for
 * (kiln_run_options.allocate_output).
 * An output that updates an input (kiln_engine_updated_input) may lie in that input's memory, all of it: give
 * the same `data` for both, and the run changes the input in place, which costs what changes. It may also
 * have memory of its own, as other outputs: the input is then copied there first, and stays as it is. State is
 * where the caller keeps it: sessions share none unless they are given the same memory. The memory overlaps
 * no other output; of other inputs in it a copy is made. A run that fails leaves it unspecified.
 * KILN_OUT_OF_RANGE for shapes that the engine was not compiled for, and for a size that the run found in its data
 * and that is out of its range; KILN_INVALID_ARGUMENT for what else
 * is wrong with a tensor, its device included, and for data that an operator has no result for (a singular
 * matrix); KILN_INDEX_ERROR and KILN_DIVISION_BY_ZERO for other things wrong with the data; KILN_KERNEL_FAILED;
 * KILN_CANCELLED. The session serves the next run after any of them.
 *
 * On KILN_CPU the outputs are there when this returns. Where there are streams the work is queued in
 * their order, and this may return before it is done: the tensors stay valid until it is. What then
 * fails in the data is the status of a later run, which does nothing else, or of
 * kiln_session_synchronize. */
KILN_API kiln_status kiln_session_run(kiln_session* session, const kiln_tensor* inputs,
                                      size_t num_inputs, const kiln_tensor* outputs,
                                      size_t num_outputs, const kiln_run_options* options);

/* Waits until the session's runs are done, and gives the first failure of theirs that no call gave.
 * KILN_OK on KILN_CPU. */
KILN_API kiln_status kiln_session_synchronize(kiln_session* session);

/* Switches the timing of kernels on or off for the runs that follow. A run with it is done when it
 * returns, and is slightly slower. */
KILN_API kiln_status kiln_session_enable_profiling(kiln_session* session, int enable);
/* Wall time of each kernel of the last run with profiling, as JSON, which the caller destroys: [{"kernel",
 * "kind", "sources", "tasks", "threads", "nanoseconds", "operations", "bytes", "precision"}]; [] if there was none.
 * The last three are the arithmetic that the kernel has to do, what it has to read and write at least, and the type
 * that it computes in ("" for engines of older versions, which lack the other two). */
KILN_API kiln_status kiln_session_profile(kiln_session* session, kiln_bytes** json);

/* ---- Kernels of the user's own: what computes operators that Kiln does not know ----
 *
 * An operator of a model that was made with torch.library, "mylib::scaled_sine", becomes a part of an engine if the
 * process that compiles has a kernel of that name. The process that runs the engine has one too: the engine has the
 * name, the kernel stays where it is. docs/custom_kernels.md has examples. Kernels run on CPUs. */

/* One call of a kernel; all of it is the library's, valid until the kernel returns. */
typedef struct kiln_kernel_call kiln_kernel_call;
struct kiln_kernel_call {
  size_t struct_size; /* of the library's struct: fields behind it are not there */
  /* The tensors among the operator's arguments, in the order of its schema, those in lists too. They are only
   * read: the first call for each set of sizes is watched, and fails if it changed one. */
  const kiln_tensor* inputs;
  size_t num_inputs;
  /* The operator's results in their order, to be written whole. Like inputs they are row-major without gaps
   * (`strides` is NULL) on KILN_CPU, and `data` may be NULL where there are no elements. No output overlaps
   * anything else; an input may be another one, too. */
  const kiln_tensor* outputs;
  size_t num_outputs;
  /* A JSON object: the arguments that are no tensors, by name, in the order of the schema. Numbers, booleans,
   * strings, null for None, lists of them; dtypes are names ("float32"), infinite numbers and NaN the strings
   * "inf", "-inf" and "nan". Of a list of tensors it has the places among the inputs. An argument that the model
   * leaves at its default may be missing. */
  const char* arguments;
  /* Called by a kernel that fails, in the thread that it was called in, before it returns other than 0: the text for
   * the error of the run, copied. */
  void (*set_error)(const kiln_kernel_call* call, const char* text);
  void* run; /* the library's own */
};

/* Computes the outputs; 0: done. Anything else ends the run as KILN_KERNEL_FAILED: "[mylib::scaled_sine] the
 * kernel failed: it returned 3", or the text of set_error in its place. Called once for each time that the operator
 * runs, in the thread of kiln_session_run, and by any number of sessions at once: it may use threads of its own
 * until it returns. `user` is that of the registration. */
typedef int (*kiln_kernel_function)(void* user, const kiln_kernel_call* call);

/* Gives the process a kernel, for good: `function` and what `user` points to stay valid until it ends. `name` is
 * copied: "mylib::scaled_sine", or with an overload other than "default" "mylib::scaled_sine.out_variant".
 * KILN_INVALID_ARGUMENT for what is no such name, and for a name that has another function or user already; the
 * same again is KILN_OK. */
KILN_API kiln_status kiln_register_kernel(const char* name, kiln_kernel_function function,
                                          void* user);
/* 1 if the process has a kernel of that name, else 0; 0 for NULL. */
KILN_API int kiln_has_kernel(const char* name);

/* What kiln_kernels gives of one kernel; an array of them is walked in steps of `struct_size`, which is the same
 * in all of its elements. As in kiln_register_kernel. */
typedef struct kiln_kernel_entry {
  size_t struct_size; /* sizeof(kiln_kernel_entry) */
  const char* name;
  kiln_kernel_function function;
  void* user;
} kiln_kernel_entry;

/* Loads a shared library, which stays loaded, and registers the kernels that its function
 *   const kiln_kernel_entry* kiln_kernels(size_t* count)
 * gives, all of them or none. It need not be linked with anything of Kiln's. Loading runs its code: load only what you would run as a program. A path without a
 * slash that is no file is searched for as dlopen does. Again for the same library is KILN_OK.
 * KILN_NOT_FOUND for a file that is not there; KILN_INVALID_ARGUMENT for one that is no library or has no such
 * function, and for its kernels as in kiln_register_kernel; KILN_UNSUPPORTED for entries of a newer version. */
KILN_API kiln_status kiln_load_kernels(const char* path);

/* ---- Bytes owned by the library ---- */

/* Where they are, until they are destroyed, and how many. Texts have no NUL at the end. NULL and 0 for
 * NULL. */
KILN_API const void* kiln_bytes_data(const kiln_bytes* bytes);
KILN_API size_t kiln_bytes_size(const kiln_bytes* bytes);
KILN_API void kiln_bytes_destroy(kiln_bytes* bytes);

/* ---- Compiling (libkiln) ---- */

typedef struct kiln_model kiln_model;

/* Opens a torch.export archive (.pt2, schema major 8). Weights are mapped: the file is not changed in
 * place while the model lives. KILN_NOT_FOUND, KILN_IO_ERROR; KILN_INVALID_ARGUMENT for what is no such
 * archive. */
KILN_API kiln_status kiln_model_open_file(const char* path, kiln_model** model);
/* Takes the JSON of torch.export's schema (the text of models/model.json) and the weights and constants
 * by pointer. names[i] is the fully qualified name of tensors[i] in the graph signature
 * ("encoder.layer.0.weight"), or the name of the lifted constant. Tensors are contiguous and in the CPU's
 * memory, which is borrowed, unchanged, until the model is destroyed; the rest is copied. */
KILN_API kiln_status kiln_model_open_memory(const char* json, size_t json_size,
                                            const char* const* names, const kiln_tensor* tensors,
                                            size_t num_tensors, kiln_model** model);
/* Engines that were compiled from it stay. NULL is allowed. */
KILN_API void kiln_model_destroy(kiln_model* model);

/* Says for every node of the model whether it can be compiled, as JSON:
 * {"nodes": [{"name", "target", "supported": bool, "reason": "...", "repeats": bool, "kernels": [names]}]}. A node that
 * repeats becomes a loop whose steps the run counts, and one with kernels calls those of the process
 * (kiln_register_kernel): programs for CPUs have both. The caller destroys it. */
KILN_API kiln_status kiln_model_check(kiln_model* model, kiln_bytes** json);

/* Narrows or sets the range of one dimension of a user input, by the input's name. */
typedef struct kiln_dim_range {
  const char* input;
  int32_t dim;
  int64_t min, opt, max;
} kiln_dim_range;

/* Sets of inputs of a model: contiguous tensors in the CPU's memory. */
typedef struct kiln_samples {
  size_t struct_size;
  size_t num_sets, num_inputs;
  const kiln_tensor*
      tensors; /* num_inputs of each set, one set behind another. A set all of whose tensors have an axis
                                 more in front than the model's inputs is that many sets */
  const char* const*
      names; /* of the inputs, the same in each set; NULL: they are in the model's order */
} kiln_samples;

typedef struct kiln_compile_options {
  size_t struct_size;

  /* What is made. */
  const kiln_dim_range* ranges; /* NULL: the model's own */
  size_t num_ranges;
  const char* targets; /* what to make programs for, comma-separated: "cpu", "cuda", or variants of
                          them, "cpu:x86-64-v3,cuda:sm_90". One engine has the programs of all targets,
                          in the order in which they are named first. NULL: "cpu" */
  const char* disabled_passes; /* comma-separated names of kiln_passes; NULL: none */
  const char* metadata; /* NULL, or text that the engine keeps and kiln_engine_describe shows */
  /* Nonzero: an engine without the contents of weights. It loads, but runs only after kiln_refit. */
  int strip_weights;
  /* Nonzero: no optimisation may look at the values of floating-point parameters and buffers, so
   * that a refit can give them any. Otherwise weights that are the same everywhere (those of a
   * fresh layer norm, say) become part of the code, and refitting with others is refused. */
  int refittable;
  /* Nonzero: every operator's result in f16 or bf16 is rounded, as eager PyTorch does. Otherwise
   * operators that become one kernel may keep it in f32; casts round in any case. */
  int emulate_precision_casts;
  /* Nonzero: an index in the data that is out of range reads the first or last element, and
   * dividing integers by zero, or data that an operator has no result for, gives an unspecified value.
   * Otherwise these end the run with KILN_INDEX_ERROR, KILN_DIVISION_BY_ZERO and KILN_INVALID_ARGUMENT,
   * as PyTorch raises. Memory is safe in either case. */
  int no_bounds_checks;

  /* How the work is done. */
  int32_t num_threads;        /* 0: one per core */
  int verify_passes;          /* nonzero: run the verifier after every pass */
  const char* dump_directory; /* NULL, or where the graph after every pass is written */
  /* NULL, or called with a short text and a fraction of [0, 1] as the compile advances, from the
   * compiling thread only. The text is valid during the call. */
  void (*progress)(void* user, const char* stage, double fraction);
  void* progress_user;
  /* NULL, or called with what did not work although the compile does, one line each time: that the cache
   * could not be used. From the compiling thread only; the text is valid during the call. */
  void (*warning)(void* user, const char* text);
  void* warning_user;

  /* The cache. */
  /* NULL, or the folder of an engine cache: an engine that is in it is not compiled again, and a
   * compiled one is put there. Any number of processes may share a folder. It is made if it is not
   * there, for the user alone; one that others own or may write to is not used. A cache that does
   * not work never makes a compile fail: see cache_result and warning. */
  const char* cache_directory;
  int32_t cache_mode; /* a kiln_cache_mode */
  /* The cache's largest size in bytes, least recently used engines go first; 0: 5 GiB. */
  uint64_t cache_bytes;
  /* NULL, or where a kiln_cache_result is written. */
  int32_t* cache_result;

  /* What is made, once more. */
  /* A sum of kiln_tf32: where operands of f32 may be rounded to TF32, which GPUs multiply several times
   * as fast. 0: nowhere. CPUs and attention never do it. */
  int32_t tf32;

  /* Tuning for a GPU. */
  /* 0: kernels are chosen by a model of the machine, and the same options give the same bytes. Otherwise up
   * to that many ways of each product and convolution are compiled and timed on a GPU of this machine of
   * the target's generation, and the fastest is taken: bytes depend on the measurements. 3 to 8 are
   * sensible. Where there is no such GPU the model chooses, and `warning` is called. */
  int32_t tuning_candidates;
  /* NULL, or a file that keeps the measurements: what is in it is not timed again, so that a second
   * compile is faster and gives the same bytes. Any number of processes may use one. It is made if it is not
   * there; what is no timing cache is left alone. Never makes a compile fail: see warning. */
  const char* timing_cache;

  /* Quantisation. */
  /* NULL, or what is quantised: "int8", inputs of linear layers, of products with a constant matrix and of
   * convolutions as u8 with one scale and zero point each, their weights as i8 with a scale for each output
   * channel; "int8-weights" and "int4-weights", weights of linear layers and products alone. Layers are then
   * computed so on targets that can, and in floats of the same values on others. The engine cannot be refitted. */
  const char* quantize;
  /* How many steps along k of a weight share a scale, a multiple of 8; -1: all; 0: all in 8 bits, 32 in 4
   * bits. Layers whose k is no multiple stay as they are, and `warning` is called. Not of "int8". */
  int64_t group_size;
  /* NULL, or a regular expression (ECMAScript's): layers whose whole name it matches stay as they are. Names are
   * those of the nodes in the model, which kiln_accuracy shows. KILN_INVALID_ARGUMENT if it matches none or all. */
  const char* quantize_exclude;
  /* How "int8" chooses the range of a tensor from its values with the calibration inputs: "mse", with the least
   * mean squared error; "minmax", all of it; "percentile", without 0.001 % at each end. NULL: "percentile". */
  const char* calibration_method;
  /* NULL, or inputs of the model on which it is run, in floats on the CPU, while it compiles: "int8" needs them. The other
   * schemes can do without; with them, biases make up for what weights lose in the mean, as they do in "int8".
   * KILN_INVALID_ARGUMENT for inputs that are not the model's, and for infinite or NaN values in them or in front of a
   * layer. */
  const kiln_samples* calibration;
} kiln_compile_options;

typedef enum kiln_tf32 KILN_INT { KILN_TF32_MATMUL = 1, KILN_TF32_CONVOLUTION = 2 } kiln_tf32;

typedef enum kiln_cache_mode KILN_INT {
  KILN_CACHE_READ_WRITE = 0,
  KILN_CACHE_READ = 1, /* compiled engines are not kept */
  KILN_CACHE_WRITE = 2 /* always compile */
} kiln_cache_mode;

typedef enum kiln_cache_result KILN_INT {
  KILN_CACHE_PROBLEM = -1, /* compiled, but something in the cache did not work: the text goes to
                              `warning` */
  KILN_CACHE_MISS = 0,     /* compiled; or there is no cache */
  KILN_CACHE_HIT = 1,      /* the engine was there */
  KILN_CACHE_CODE_HIT = 2  /* code was there, for other weights: filled with the model's */
} kiln_cache_result;

/* Compiles a model; the result is the bytes of an engine file. Deterministic without tuning: the same model,
 * options and library give the same bytes. options may be NULL. KILN_UNSUPPORTED for an operator that cannot be
 * compiled, and the text names the node; KILN_INVALID_ARGUMENT for options and sizes that do not fit the
 * model. */
KILN_API kiln_status kiln_compile(kiln_model* model, const kiln_compile_options* options,
                                  kiln_bytes** engine);
/* Compiles straight into a file: written to a temporary file in the same folder, then renamed. A
 * file that is replaced keeps its permissions and owner, a symbolic link stays and its target is
 * replaced; devices, pipes and folders are KILN_IO_ERROR. */
KILN_API kiln_status kiln_compile_to_file(kiln_model* model, const kiln_compile_options* options,
                                          const char* path);

/* How far the results of an engine are from those of the model in floats, on the same inputs, on the CPU. `engine` has
 * `size` bytes; of NULL, the engine that the options make. The result is JSON, which the caller destroys: {"sets": the
 * number of sets of inputs, "outputs": [{"name", "relative_error": of the norm, "worst": the largest absolute
 * difference, "cosine", "not_finite": whether one is infinite or NaN and the other is not}], "layers": [the same, and
 * "location"]}, over all sets. With `layers` nonzero, each layer that options->quantize is about is quantised alone,
 * and its row is the difference of all outputs together; otherwise the list is empty. Of an infinite error the field
 * is null. KILN_INVALID_ARGUMENT for inputs that are not the model's, and an engine with other outputs. */
KILN_API kiln_status kiln_accuracy(kiln_model* model, const kiln_compile_options* options,
                                   const void* engine, size_t size, const kiln_samples* samples,
                                   int layers, kiln_bytes** json);

/* The key of a model's engine in a cache: 32 hexadecimal digits, not NUL-terminated. Models and
 * options with equal keys give equal bytes, and whatever decides the bytes decides the key: nodes,
 * their arguments and edges, names, shapes, ranges, the dtype, shape and contents of weights, the
 * options but those of how the work is done and of the cache, and the version of Kiln. Reads all weights. options may be NULL. */
KILN_API kiln_status kiln_compile_key(kiln_model* model, const kiln_compile_options* options,
                                      kiln_bytes** key);

/* Gets an engine from a cache folder, checked byte for byte; KILN_NOT_FOUND if there is none,
 * KILN_INVALID_ENGINE for a damaged one, which is removed; KILN_INVALID_ARGUMENT for a folder that
 * others may write to, and for what is no key: 1 to 128 letters, digits, '-' and '_'. */
KILN_API kiln_status kiln_cache_load(const char* directory, const char* key, kiln_bytes** engine);
/* Puts an engine into a cache folder, which is made if it is not there, and removes the least
 * recently used others until all fit max_bytes (0: 5 GiB). Bytes that are not an engine are
 * KILN_INVALID_ENGINE. */
KILN_API kiln_status kiln_cache_store(const char* directory, uint64_t max_bytes, const char* key,
                                      const void* engine, size_t size);

/* Gives an engine the weights of another model of the same structure, without generating code: the
 * result has the bytes that kiln_compile would give for that model. The engine may be stripped. The
 * ranges, targets, disabled passes, emulate_precision_casts and tf32 are the engine's; of the options,
 * num_threads, strip_weights, verify_passes, dump_directory and progress count. options
 * may be NULL. KILN_INVALID_ARGUMENT where the model's plan is not the engine's: the text says what
 * differs. */
KILN_API kiln_status kiln_refit(const void* engine, size_t size, kiln_model* model,
                                const kiln_compile_options* options, kiln_bytes** result);

/* kiln_refit straight into a file, as kiln_compile_to_file writes one. */
KILN_API kiln_status kiln_refit_to_file(const void* engine, size_t size, kiln_model* model,
                                        const kiln_compile_options* options, const char* path);

/* kiln_engine_verify for a file: an engine, or a saved model (.ep, .ts, .pt2) with engines in it.
 * {"sound": bool, "engines": [{"name", "offset", "size"}], "problems": [...], "unchecked":
 * [names]}, with offsets into the file; "where" begins with the name of the entry in a saved model,
 * whose contents are checked by their checksums too, except compressed ones. The caller destroys it.
 * KILN_NOT_FOUND and KILN_IO_ERROR for a file that cannot be read. */
KILN_API kiln_status kiln_verify_file(const char* path, kiln_bytes** json);

/* The operators that can be compiled, as JSON: {"aten": ["aten.add.Tensor", ...], "ops": [{"name",
 * "summary"}]}. The caller destroys it. */
KILN_API kiln_status kiln_supported_ops(kiln_bytes** json);

/* The compiler's passes, as JSON: {"graph": [{"name", "summary"}], "plan": [...]}, those over graphs
 * and those over plans, each in alphabetical order. They are the names that `disabled_passes` takes
 * and that the files of `dump_directory` have. The caller destroys it. */
KILN_API kiln_status kiln_passes(kiln_bytes** json);

#ifdef __cplusplus
}
#endif

#endif /* KILN_KILN_H_ */
