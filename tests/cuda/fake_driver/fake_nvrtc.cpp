// A library that takes NVRTC's place beside the fake driver: the code of a kernel is its text.
#include <cstring>
#include <string>

namespace {
struct Program {
  std::string text;
};
}  // namespace

#define KILN_FAKE extern "C" __attribute__((visibility("default")))

KILN_FAKE int kiln_fake_nvrtc_compilations;  // so far; tests look it up by its name
int kiln_fake_nvrtc_compilations = 0;

// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's
KILN_FAKE int nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 0;
  return 0;
}
KILN_FAKE const char* nvrtcGetErrorString(int) { return "an error of the fake"; }
KILN_FAKE int nvrtcCreateProgram(Program** program, const char* text, const char*, int,
                                 const char* const*, const char* const*) {
  *program = new Program{text};
  return 0;
}
KILN_FAKE int nvrtcCompileProgram(Program*, int, const char* const*) {
  __atomic_fetch_add(&kiln_fake_nvrtc_compilations, 1, __ATOMIC_RELAXED);
  return 0;
}
KILN_FAKE int nvrtcGetProgramLogSize(Program*, size_t* bytes) {
  *bytes = 0;
  return 0;
}
KILN_FAKE int nvrtcGetProgramLog(Program*, char*) { return 0; }
KILN_FAKE int nvrtcGetCUBINSize(Program* program, size_t* bytes) {
  *bytes = program->text.size();
  return 0;
}
KILN_FAKE int nvrtcGetCUBIN(Program* program, char* bytes) {
  std::memcpy(bytes, program->text.data(), program->text.size());
  return 0;
}
KILN_FAKE int nvrtcGetPTXSize(Program* program, size_t* bytes) {
  *bytes = program->text.size() + 1;
  return 0;
}
KILN_FAKE int nvrtcGetPTX(Program* program, char* text) {
  std::memcpy(text, program->text.c_str(), program->text.size() + 1);
  return 0;
}
KILN_FAKE int nvrtcDestroyProgram(Program** program) {
  delete *program;
  return 0;
}
// NOLINTEND(readability-identifier-naming)
