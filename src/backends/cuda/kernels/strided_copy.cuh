// Copies a strided tensor into a dense row-major one. strided_copy.ptx is made of this by
// `scripts/make_strided_copy.py`: the runtime has no compiler, and a driver compiles PTX itself.
//
// One thread copies one element at a time, threads of neighbouring elements of the result side by
// side. What counts here is that any tensor is taken, not speed: callers with strided inputs that run
// often make them contiguous, or compile for what they have.

struct Strided {
  long long elements;
  long long shape[16];    // the last axis first; axes beyond the rank have 1
  long long strides[16];  // in elements, of the same axes
  int rank;
};

template <typename T>
__device__ void copy(const T* from, T* to, const Strided& tensor) {
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
#pragma unroll 1
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < tensor.elements; i += step) {
    long long rest = i, offset = 0;
#pragma unroll 1
    for (int axis = 0; axis < tensor.rank; ++axis) {
      const long long extent = tensor.shape[axis];
      offset += rest % extent * tensor.strides[axis];
      rest /= extent;
    }
    to[i] = from[offset];
  }
}

extern "C" __global__ void copy1(const char* from, char* to, const __grid_constant__ Strided t) { copy(from, to, t); }
extern "C" __global__ void copy2(const short* from, short* to, const __grid_constant__ Strided t) { copy(from, to, t); }
extern "C" __global__ void copy4(const int* from, int* to, const __grid_constant__ Strided t) { copy(from, to, t); }
extern "C" __global__ void copy8(const long long* from, long long* to, const __grid_constant__ Strided t) { copy(from, to, t); }
