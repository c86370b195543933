// Sorting a row, by all threads of a block.
//
// Runs of 1, 2, 4, ... keys are merged from one half of the scratch to the other. Every key finds its own
// place in the merged run: its place in its run, and the number of keys of the other run that stand in
// front of it, by bisection. Of equal keys those of the left run stand in front, which keeps their order.

// Not-a-number is the greatest.
template <bool kDescending, class K>
DEVICE bool stands_before(K a, K b) {
  return kDescending ? b == b && !(b >= a) : a == a && !(a >= b);
}

// Sorts n keys and their numbers; `other_keys` and `other_numbers` have room for as many. The pointers are
// swapped so that the sorted ones are in the first pair.
template <bool kDescending, class K, class I>
DEVICE void sort_row(K*& keys, K*& other_keys, I*& numbers, I*& other_numbers, long long n) {
  __syncthreads();
  for (long long width = 1; width < n; width *= 2) {
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
      const long long run = i / width;
      const bool is_left = run % 2 == 0;
      const long long first = index_min<long long>((is_left ? run + 1 : run - 1) * width, n);
      long long low = first, high = index_min<long long>(first + width, n);
      const K key = keys[i];
      while (low < high) {
        const long long middle = (low + high) / 2;
        const K theirs = keys[middle];
        const bool in_front = is_left ? stands_before<kDescending>(theirs, key)
                                      : !stands_before<kDescending>(key, theirs);
        if (in_front)
          low = middle + 1;
        else
          high = middle;
      }
      const long long place = i - (is_left ? 0 : width) + (low - first);
      other_keys[place] = key;
      other_numbers[place] = numbers[i];
    }
    __syncthreads();
    K* const swapped_keys = keys;
    keys = other_keys;
    other_keys = swapped_keys;
    I* const swapped_numbers = numbers;
    numbers = other_numbers;
    other_numbers = swapped_numbers;
  }
}
