// The fused multiply-add of the type of sums.

__device__ __forceinline__ float fma_sum(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fma_sum(double a, double b, double c) { return fma(a, b, c); }
__device__ __forceinline__ int fma_sum(int a, int b, int c) { return a * b + c; }
