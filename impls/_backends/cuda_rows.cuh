// ---- a block owns a row: what poly_norm and topk_relu share. cuda_elementwise.cuh stands before this

template <int N>
struct Inputs {  // how many matrices are read
  static constexpr int inputs = N;
};

// The vectors of row r of a block's inputs: K a thread in registers, or read anew each time when K is 0.
template <class T, int N, int Threads, int K>
struct Row {
  const Matrix<T> (&in)[3];
  Index r, n;
  Vectors<Inputs<N>, T> held[K ? K : 1];

  DEVICE Row(const Matrix<T> (&in)[3], Index n) : in(in), r(blockIdx.x), n(n) {
#pragma unroll
    for (int k = 0; k < K; ++k) held[k].load(in, place(threadIdx.x + k * Threads));
  }
  DEVICE Place<T> place(Index v) const {
    Index i = v * T::lanes;
    return {r, i, n - i};
  }
  template <class Visit>
  DEVICE void vectors(Visit visit) {  // visit(vector of each input, its place)
    if constexpr (K > 0) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        for (int j = 0; j < N; ++j) forget(held[k].v[j]);
        visit(held[k], place(threadIdx.x + k * Threads));
      }
    } else {
      for (Index v = threadIdx.x; v * T::lanes < n; v += Threads) {
        held[0].load(in, place(v));
        visit(held[0], place(v));
      }
    }
  }
  // Output j of y(first element's place + lane, elements) for each element.
  template <class F>
  DEVICE void write(const Matrix<T>& out, F f) {
    vectors([&](Vectors<Inputs<N>, T>& v, Place<T> at) {
      float y[T::lanes];
      v.each([&](int lane, const float(&x)[3]) { y[lane] = f(at.i + lane, x); });
      if (at.count > 0) out.store(r, at.i, at.count, y);
    });
  }
};
