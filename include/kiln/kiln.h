/* Kiln's C API: the only ABI promised. C99. Every function is thread-safe unless it says otherwise.
 *
 * Two libraries implement it. libkiln_runtime loads and runs engines: the kiln_engine_* and
 * kiln_session_* functions. libkiln compiles: the kiln_compile* and kiln_model_* functions; it
 * needs libkiln_runtime.
 *
 * Errors: functions return a kiln_status. On anything but KILN_OK, kiln_last_error() gives the text
 * for the calling thread, until its next failing call. Out-parameters are untouched on failure.
 * Strings are UTF-8, NUL-terminated. Sizes are bytes unless named otherwise. Dimensions are counted
 * in elements.
 *
 * An engine is native code, whatever the container: whoever made the file runs code as you when you
 * load it. Load only what you would run as a program; the checks of the format find damage and no
 * ill will.
 */
#ifndef KILN_KILN_H_
#define KILN_KILN_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KILN_API __attribute__((visibility("default")))
#define KILN_VERSION_MAJOR 0
#define KILN_VERSION_MINOR 1
#define KILN_VERSION_PATCH 0

typedef enum kiln_status {
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
  KILN_CANCELLED = 11 /* kiln_run_options.cancel was set; the outputs are unspecified, the session
                         serves the next run */
} kiln_status;

typedef enum kiln_dtype {
  KILN_F32 = 0,
  KILN_F64 = 1,
  KILN_F16 = 2,
  KILN_BF16 = 3,
  KILN_I8 = 4,
  KILN_U8 = 5,
  KILN_I16 = 6,
  KILN_I32 = 7,
  KILN_I64 = 8,
  KILN_BOOL = 9 /* one byte, 0 or 1 */
} kiln_dtype;

#define KILN_MAX_RANK 16

/* Kinds of devices whose memory tensors lie in. The values are those of PyTorch, so that a struct of
 * zeros means memory of this process; DLPack counts from one. */
typedef enum kiln_device_type {
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

/* "0.1.0"; static. Since 0.1. */
KILN_API const char* kiln_version(void);
/* Text of the calling thread's last failure, "" if none. Valid until its next failing call. Since
 * 0.1. */
KILN_API const char* kiln_last_error(void);
/* Name of a status: "out of range"; static. Since 0.1. */
KILN_API const char* kiln_status_name(kiln_status status);

/* ---- Engines: immutable, shared by any number of sessions and threads ---- */

typedef struct kiln_load_options {
  size_t struct_size;      /* sizeof(kiln_load_options): lets later versions add fields */
  const char* cpu_variant; /* NULL: the best this CPU can run; or "x86-64-v3", "x86-64-v4" */
  int verify_weights;      /* nonzero: check the hash of the weights too, which reads all of them */
  int describe_only; /* nonzero: load no code. The engine can be described, on any machine, and
                              not run: a session of it is KILN_UNSUPPORTED */
} kiln_load_options;

/* Maps an engine file and validates it. Weights are mapped, not copied. options may be NULL. Since
 * 0.1. */
KILN_API kiln_status kiln_engine_load_file(const char* path, const kiln_load_options* options,
                                           kiln_engine** engine);
/* Loads from memory. `data` is borrowed (not copied) and must stay valid and unchanged until the
 * engine and its sessions are destroyed; 64-byte alignment is required for zero-copy weights, any
 * other alignment copies them. Since 0.1. */
KILN_API kiln_status kiln_engine_load_memory(const void* data, size_t size,
                                             const kiln_load_options* options,
                                             kiln_engine** engine);
/* Releases the caller's reference; sessions keep the engine alive. NULL is allowed. Since 0.1. */
KILN_API void kiln_engine_destroy(kiln_engine* engine);

/* One dimension of an input or output. Static: min == opt == max. */
typedef struct kiln_dim {
  int64_t min, opt, max;
} kiln_dim;

typedef struct kiln_tensor_info {
  const char* name; /* owned by the engine */
  kiln_dtype dtype;
  int32_t rank;
  const kiln_dim* dims; /* owned by the engine; rank entries */
} kiln_tensor_info;

/* Numbers of inputs and outputs. Since 0.1. */
KILN_API size_t kiln_engine_num_inputs(const kiln_engine* engine);
KILN_API size_t kiln_engine_num_outputs(const kiln_engine* engine);
/* Describes an input or output; KILN_NOT_FOUND past the end. Since 0.1. */
KILN_API kiln_status kiln_engine_input(const kiln_engine* engine, size_t index,
                                       kiln_tensor_info* info);
KILN_API kiln_status kiln_engine_output(const kiln_engine* engine, size_t index,
                                        kiln_tensor_info* info);
/* The code variant in use, "x86-64-v4", or "" if none is; owned by the engine. Since 0.1. */
KILN_API const char* kiln_engine_cpu_variant(const kiln_engine* engine);
/* A JSON description: inputs, ranges, kernels, memory, programs, hashes. Free with
 * kiln_bytes_destroy. Since 0.1. */
KILN_API kiln_status kiln_engine_describe(const kiln_engine* engine, kiln_bytes** json);

/* Looks at every byte of an engine, weights included, without loading it. The result is JSON:
 * {"sound": bool, "problems": [{"where", "offset", "size", "what"}]}, with offsets into the data
 * and "where" one of "header", "interface", "program cpu x86-64-v3", "code cpu x86-64-v3",
 * "weights", "gap". Not sound is not a failure of the call. Free with kiln_bytes_destroy.
 * Since 0.1. */
KILN_API kiln_status kiln_engine_verify(const void* data, size_t size, kiln_bytes** json);

/* ---- Sessions: one caller's workspace. One thread at a time per session; many sessions per engine
 * ---- */

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
  int32_t num_threads; /* threads a run may use, the calling one included; 0: one per core */
  int32_t device; /* which of the devices that the engine's program can run on; 0 is the first, and
                     the only one of a CPU */
  const kiln_allocator* allocator; /* copied; what `user` points to outlives the session. NULL:
                                      malloc, or what the device has in its place */
} kiln_session_options;

KILN_API kiln_status kiln_session_create(kiln_engine* engine, const kiln_session_options* options,
                                         kiln_session** session);
KILN_API void kiln_session_destroy(kiln_session* session);

/* Checks the inputs' shapes and gives the shapes of the outputs: shapes[i] has room for
 * KILN_MAX_RANK dimensions, of which the rank of output i are written. Input data pointers are not
 * read. Since 0.1. */
KILN_API kiln_status kiln_session_output_shapes(kiln_session* session, const kiln_tensor* inputs,
                                                size_t num_inputs, int64_t (*shapes)[KILN_MAX_RANK],
                                                size_t num_outputs);

/* Where the session's inputs and outputs lie. {KILN_CPU, 0} for NULL. Since 0.1. */
KILN_API kiln_device kiln_session_device(const kiln_session* session);

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
} kiln_run_options;

/* Runs the engine on the caller's buffers, which lie on the session's device. Inputs may be strided
 * (then they are copied). Outputs must be contiguous, of the dtypes and shapes that the engine gives,
 * and must not overlap inputs or each other. options may be NULL.
 *
 * On KILN_CPU the outputs are there when this returns. Where there are streams the work is queued in
 * their order, and this may return before it is done: the tensors stay valid until it is. What then
 * fails in the data (KILN_INDEX_ERROR, KILN_DIVISION_BY_ZERO) is the status of a later run, which does
 * nothing else, or of kiln_session_synchronize. Since 0.1. */
KILN_API kiln_status kiln_session_run(kiln_session* session, const kiln_tensor* inputs,
                                      size_t num_inputs, const kiln_tensor* outputs,
                                      size_t num_outputs, const kiln_run_options* options);

/* Waits until the session's runs are done, and gives the first failure of theirs that no call gave.
 * KILN_OK on KILN_CPU. Since 0.1. */
KILN_API kiln_status kiln_session_synchronize(kiln_session* session);

/* Wall time of each kernel of the last run, as JSON; profiling is switched on by the first call
 * with enable != 0 and slows runs down slightly. Free with kiln_bytes_destroy. Since 0.1. */
KILN_API kiln_status kiln_session_enable_profiling(kiln_session* session, int enable);
KILN_API kiln_status kiln_session_profile(kiln_session* session, kiln_bytes** json);

/* ---- Bytes owned by the library ---- */

KILN_API const void* kiln_bytes_data(const kiln_bytes* bytes);
KILN_API size_t kiln_bytes_size(const kiln_bytes* bytes);
KILN_API void kiln_bytes_destroy(kiln_bytes* bytes);

/* ---- Compiling (libkiln) ---- */

typedef struct kiln_model kiln_model;

/* A weight or constant of a model in memory: `name` is its fully qualified name in the graph
 * signature ("encoder.layer.0.weight"), or the name of the lifted constant. Contiguous data,
 * borrowed until the model is destroyed. */
typedef struct kiln_named_tensor {
  const char* name;
  kiln_tensor tensor;
} kiln_named_tensor;

/* Opens a torch.export archive (.pt2, schema major 8). Weights are mapped. Since 0.1. */
KILN_API kiln_status kiln_model_open_file(const char* path, kiln_model** model);
/* Takes the JSON of torch.export's schema (the text of models/model.json) and the weights by
 * pointer. The JSON is copied, the weights are borrowed. Since 0.1. */
KILN_API kiln_status kiln_model_open_memory(const char* json, size_t json_size,
                                            const kiln_named_tensor* tensors, size_t num_tensors,
                                            kiln_model** model);
KILN_API void kiln_model_destroy(kiln_model* model);

/* Says for every node of the model whether it can be compiled, as JSON:
 * {"nodes": [{"name", "target", "supported": bool, "reason": "..."}]}. Since 0.1. */
KILN_API kiln_status kiln_model_check(kiln_model* model, kiln_bytes** json);

/* Narrows or sets the range of one dimension of a user input, by the input's name. Since 0.1. */
typedef struct kiln_dim_range {
  const char* input;
  int32_t dim;
  int64_t min, opt, max;
} kiln_dim_range;

typedef struct kiln_compile_options {
  size_t struct_size;
  const kiln_dim_range* ranges; /* NULL: the model's own */
  size_t num_ranges;
  const char* cpu_variants;    /* comma-separated; NULL: "x86-64-v3,x86-64-v4" */
  int32_t num_threads;         /* for compiling; 0: one per core */
  const char* disabled_passes; /* comma-separated names; NULL: none */
  int verify_passes;           /* nonzero: run the verifier after every pass */
  const char* dump_directory;  /* NULL, or where the graph after every pass is written */
  /* Called with a short text and a fraction of [0, 1] as the compile advances; may be NULL. Called
   * from the compiling thread only. */
  void (*progress)(void* user, const char* stage, double fraction);
  void* progress_user;

  /* Since 0.1, behind a larger struct_size. */
  /* NULL, or the folder of an engine cache: an engine that is in it is not compiled again, and a
   * compiled one is put there. Any number of processes may share a folder. It is made if it is not
   * there, for the user alone; one that others own or may write to is not used. A cache that does
   * not work never makes a compile fail: see cache_result. */
  const char* cache_directory;
  /* The cache's largest size in bytes, least recently used engines go first; 0: 5 GiB. */
  uint64_t cache_bytes;
  int32_t cache_mode; /* a kiln_cache_mode */
  /* NULL, or where a kiln_cache_result is written. */
  int32_t* cache_result;
  /* Nonzero: an engine without the contents of weights. It loads, but runs only after kiln_refit.
   */
  int strip_weights;
  /* Nonzero: no optimisation may look at the values of floating-point parameters and buffers, so
   * that a refit can give them any. Otherwise weights that are the same everywhere (those of a
   * fresh layer norm, say) become part of the code, and refitting with others is refused. */
  int refittable;
  /* NULL, or text that the engine keeps as it is and kiln_engine_describe shows. */
  const char* metadata;
  /* Nonzero: every operator's result in f16 or bf16 is rounded, as eager PyTorch does. Otherwise
   * operators that become one kernel may keep it in f32; casts round in any case. */
  int emulate_precision_casts;
  /* Nonzero: an index in the data that is out of range reads the first or last element, and
   * dividing integers by zero gives an unspecified value. Otherwise both end the run with
   * KILN_INDEX_ERROR and KILN_DIVISION_BY_ZERO, as in PyTorch. Memory is safe in either case. */
  int no_bounds_checks;
} kiln_compile_options;

typedef enum kiln_cache_mode {
  KILN_CACHE_READ_WRITE = 0,
  KILN_CACHE_READ = 1, /* compiled engines are not kept */
  KILN_CACHE_WRITE = 2 /* always compile */
} kiln_cache_mode;

typedef enum kiln_cache_result {
  KILN_CACHE_PROBLEM =
      -1,                 /* compiled, but something in the cache did not work: kiln_last_error() */
  KILN_CACHE_MISS = 0,    /* compiled; or there is no cache */
  KILN_CACHE_HIT = 1,     /* the engine was there */
  KILN_CACHE_CODE_HIT = 2 /* code was there, for other weights: filled with the model's */
} kiln_cache_result;

/* Compiles a model; the result is the bytes of an engine file. Deterministic. options may be NULL.
 * Since 0.1. */
KILN_API kiln_status kiln_compile(kiln_model* model, const kiln_compile_options* options,
                                  kiln_bytes** engine);
/* Compiles straight into a file: written to a temporary file in the same folder, then renamed. A
 * file that is replaced keeps its permissions and owner, a symbolic link stays and its target is
 * replaced; devices, pipes and folders are KILN_IO_ERROR. Since 0.1. */
KILN_API kiln_status kiln_compile_to_file(kiln_model* model, const kiln_compile_options* options,
                                          const char* path);

/* The key of a model's engine in a cache: 32 hexadecimal digits, not NUL-terminated. Models and
 * options with equal keys give equal bytes, and whatever decides the bytes decides the key: nodes,
 * their arguments and edges, names, shapes, ranges, the dtype, shape and contents of weights, the
 * options but num_threads, verify_passes, dump_directory, progress and those of the cache, and the
 * version of Kiln. Reads all weights. options may be NULL. Since 0.1. */
KILN_API kiln_status kiln_compile_key(kiln_model* model, const kiln_compile_options* options,
                                      kiln_bytes** key);

/* Gets an engine from a cache folder, checked byte for byte; KILN_NOT_FOUND if there is none,
 * KILN_INVALID_ENGINE for a damaged one, which is removed. A key is 1 to 128 letters, digits, '-'
 * and '_'. Since 0.1. */
KILN_API kiln_status kiln_cache_load(const char* directory, const char* key, kiln_bytes** engine);
/* Puts an engine into a cache folder, which is made if it is not there, and removes the least
 * recently used others until all fit max_bytes (0: 5 GiB). Bytes that are not an engine are
 * KILN_INVALID_ENGINE. Since 0.1. */
KILN_API kiln_status kiln_cache_store(const char* directory, uint64_t max_bytes, const char* key,
                                      const void* engine, size_t size);

/* Gives an engine the weights of another model of the same structure, without generating code: the
 * result has the bytes that kiln_compile would give for that model. The engine may be stripped. The
 * ranges, disabled passes, code variants and emulate_precision_casts are the engine's; of the
 * options, num_threads, strip_weights, verify_passes, dump_directory and progress count. options
 * may be NULL. KILN_INVALID_ARGUMENT where the model's plan is not the engine's: the text says what
 * differs. Since 0.1. */
KILN_API kiln_status kiln_refit(const void* engine, size_t size, kiln_model* model,
                                const kiln_compile_options* options, kiln_bytes** result);

/* kiln_refit straight into a file, as kiln_compile_to_file writes one. Since 0.1. */
KILN_API kiln_status kiln_refit_to_file(const void* engine, size_t size, kiln_model* model,
                                        const kiln_compile_options* options, const char* path);

/* kiln_engine_verify for a file: an engine, or a saved model (.ep, .ts, .pt2) with engines in it.
 * {"sound": bool, "engines": [{"name", "offset", "size"}], "problems": [...], "unchecked":
 * [names]}, with offsets into the file; "where" begins with the name of the entry in a saved model,
 * whose contents are checked by their checksums too, except compressed ones. Since 0.1. */
KILN_API kiln_status kiln_verify_file(const char* path, kiln_bytes** json);

/* The operators that can be compiled, as JSON: {"aten": ["aten.add.Tensor", ...], "ops": [{"name",
 * "summary"}]}. Since 0.1. */
KILN_API kiln_status kiln_supported_ops(kiln_bytes** json);

/* The compiler's passes, as JSON: {"graph": [{"name", "summary"}], "plan": [...]}, those over graphs
 * and those over plans, each in alphabetical order. They are the names that `disabled_passes` takes
 * and that the files of `dump_directory` have. Since 0.1. */
KILN_API kiln_status kiln_passes(kiln_bytes** json);

#ifdef __cplusplus
}
#endif

#endif /* KILN_KILN_H_ */
