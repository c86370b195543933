// Copies a strided tensor into a dense row-major one. strided_copy.ptx is made of this by
// `scripts/make_strided_copy.py`: the runtime has no compiler, and a driver compiles PTX itself.
//
// One thread copies one element at a time, threads of neighbouring elements of the result side by
// side. Any tensor is taken; positions are 32-bit numbers where they fit, since divisions are what
// takes the time.

struct Strided {
  long long elements;
  long long shape[16];    // the last axis first; axes beyond the rank have 1
  long long strides[16];  // in elements, of the same axes
  int rank;               // at least 1
};

template <typename Index, typename T>
__device__ void copy_by(const T* from, T* to, const Strided& tensor) {
  const Index elements = static_cast<Index>(tensor.elements);
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
#pragma unroll 1
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < elements; i += step) {
    Index rest = i;
    long long offset = 0;
#pragma unroll 1
    for (int axis = 0; axis + 1 < tensor.rank; ++axis) {
      const Index extent = static_cast<Index>(tensor.shape[axis]), quotient = rest / extent;
      offset += static_cast<long long>(rest - quotient * extent) * tensor.strides[axis];
      rest = quotient;
    }
    to[i] = from[offset + static_cast<long long>(rest) * tensor.strides[tensor.rank - 1]];
  }
}

template <typename T>
__device__ void copy(const T* from, T* to, const Strided& tensor) {
  // Positions go up to a grid beyond the last element.
  if (tensor.elements < (1ll << 31)) {
    copy_by<unsigned>(from, to, tensor);
  } else {
    copy_by<unsigned long long>(from, to, tensor);
  }
}

extern "C" __global__ void copy1(const char* from, char* to, const __grid_constant__ Strided t) { copy(from, to, t); }
extern "C" __global__ void copy2(const short* from, short* to, const __grid_constant__ Strided t) { copy(from, to, t); }
extern "C" __global__ void copy4(const int* from, int* to, const __grid_constant__ Strided t) { copy(from, to, t); }
extern "C" __global__ void copy8(const long long* from, long long* to, const __grid_constant__ Strided t) { copy(from, to, t); }
