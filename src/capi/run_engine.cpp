#include "capi/run_engine.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kiln/kiln.h"

namespace kiln {
namespace {

using Sample = std::vector<ir::Literal>;

template <auto destroy>
struct Destroy {
  void operator()(auto* handle) const { destroy(handle); }
};

void check(kiln_status status, const std::string& where) {
  if (status != KILN_OK)
    throw StatusError({static_cast<StatusCode>(status), where + kiln_last_error()});
}

// An output whose memory is made when its shape is known.
struct Outputs {
  std::vector<ir::Literal> literals;

  static void* allocate(void* user, const kiln_output* output) {
    auto& self = *static_cast<Outputs*>(user);
    std::byte* data = nullptr;
    try {
      self.literals.at(output->index) = ir::Literal::allocate(
          static_cast<DType>(output->dtype), {output->shape, output->shape + output->rank}, &data);
    } catch (const std::exception&) {
      return nullptr;  // the run is then out of memory
    }
    return data;
  }
};

kiln_tensor view_of(const ir::Literal& literal) {
  kiln_tensor tensor{};
  tensor.struct_size = sizeof(tensor);
  tensor.data = const_cast<std::byte*>(literal.bytes.data());
  tensor.dtype = static_cast<kiln_dtype>(literal.dtype);
  tensor.rank = static_cast<int32_t>(literal.shape.size());
  tensor.shape = literal.shape.data();
  return tensor;
}

}  // namespace

RunEngine engine_runner(int threads) {
  return [threads](std::span<const std::byte> bytes, const std::vector<Sample>& samples,
                   const auto& take) {
    kiln_engine* loaded = nullptr;
    check(kiln_engine_load_memory(bytes.data(), bytes.size(), nullptr, &loaded), "");
    const std::unique_ptr<kiln_engine, Destroy<kiln_engine_destroy>> engine(loaded);
    kiln_session_options session_options{};
    session_options.struct_size = sizeof(session_options);
    session_options.num_threads = threads;
    kiln_session* made = nullptr;
    check(kiln_session_create(engine.get(), &session_options, &made), "");
    const std::unique_ptr<kiln_session, Destroy<kiln_session_destroy>> session(made);
    for (size_t i = 0; i < samples.size(); ++i) {
      std::vector<kiln_tensor> inputs;
      for (const ir::Literal& input : samples[i]) inputs.push_back(view_of(input));
      Outputs outputs{std::vector<ir::Literal>(kiln_engine_num_outputs(engine.get()))};
      kiln_run_options run_options{};
      run_options.struct_size = sizeof(run_options);
      run_options.allocate_output = Outputs::allocate;
      run_options.output_user = &outputs;
      check(kiln_session_run(session.get(), inputs.data(), inputs.size(), nullptr, 0, &run_options),
            "set " + std::to_string(i) + ": ");
      take(i, outputs.literals);
    }
  };
}

}  // namespace kiln
