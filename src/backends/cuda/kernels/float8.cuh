// Numbers of f8e4m3 in registers, four to each.

// As f16, which holds them exactly: the bytes 0 and 1 in halves[0], 2 and 3 in halves[1].
__device__ __forceinline__ void widen_float8(unsigned four, unsigned (&halves)[2]) {
#if __CUDA_ARCH__ >= 890
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, low;\ncvt.rn.f16x2.e4m3x2 %1, high;\n}"
      : "=r"(halves[0]), "=r"(halves[1])
      : "r"(four));
#else
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    // Each byte in the upper half of 16 bits, and its exponent and mantissa where f16 has them: what is
    // missing is a factor of 2^8. NaN is the largest magnitude: times 2^15, it alone leaves f16 with 4096 more.
    const unsigned upper = __byte_perm(four, 0, i == 0 ? 0x1404 : 0x3424);
    const unsigned magnitude = upper >> 1 & 0x3f803f80u, bits = magnitude | (upper & 0x80008000u);
    asm("{\n.reg .b32 nan;\n"
        "fma.rn.f16x2 nan, %1, %3, %4;\n"
        "sub.rn.f16x2 nan, nan, nan;\n"
        "fma.rn.f16x2 %0, %2, %5, nan;\n}"
        : "=r"(halves[i])
        : "r"(magnitude), "r"(bits), "r"(0x78007800u), "r"(0x6c006c00u), "r"(0x5c005c00u));
  }
#endif
}
