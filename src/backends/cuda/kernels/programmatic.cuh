// Programmatic launches (sm_90): a kernel may begin before the one in front of it on the stream has
// ended, as soon as all blocks of that one run. Starting, reading parameters and weights, and setting up
// barriers then cost nothing; what the kernel in front writes must not be touched before
// wait_for_earlier(), which every thread of every kernel passes: so "the one in front has ended" means
// that all earlier ones have.
//
// The compiler knows that `const __restrict__` operands are not written while a kernel runs, and may
// read them before the wait. So operands come out of behind_wait(): nobody can tell where they point
// before it. Constants need not.

DEVICE void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
DEVICE void wait_for_earlier() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

template <class T>
DEVICE T* behind_wait(T* p) {
  unsigned long long address = __cvta_generic_to_global(p);
  asm volatile("" : "+l"(address)::"memory");
  return (T*)__cvta_global_to_generic(address);
}
