/* Matrix products of operands whose terms lie side by side: A @ B.T, products with a vector, gradients of weights.
 *
 * result[g, i, j] = bias[j] + sum over k of A[g, i, k] B[g, j, k], the last axis of both contiguous, so that nothing is
 * packed: DM x DN sums of vectors are kept in registers, and folded at the end. One work item does a block of rows and
 * a block of columns, and part of the terms; the parts are added up by `add_parts`, in their order. Local size 1.
 *
 * Macros: T, V (VW elements), INDEX, DM, DN, KC terms at a time (whose sums are folded together), BIAS (0 or 2),
 *   B_TABLE: row j of B begins at rows_of_b[j]; else at j * rows_of_b.
 */
#pragma OPENCL FP_CONTRACT ON

typedef V UNALIGNED __attribute__((aligned(sizeof(T))));
#define LOAD(p) (*(__global const UNALIGNED *)(p))
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

INDEX in_batch(INDEX g, INDEX n1, INDEX n2, INDEX s0, INDEX s1, INDEX s2) {
  return (g / (n1 * n2)) * s0 + (g / n2 % n1) * s1 + (g % n2) * s2;
}

#if VW == 16
#define FOLDED(v) FOLDED_8((v).lo + (v).hi)
#elif VW == 8
#define FOLDED(v) FOLDED_8(v)
#elif VW == 4
#define FOLDED(v) FOLDED_4(v)
#else
#define FOLDED(v) FOLDED_2(v)
#endif
#define FOLDED_8(v) FOLDED_4((v).lo + (v).hi)
#define FOLDED_4(v) FOLDED_2((v).lo + (v).hi)
#define FOLDED_2(v) ((v).x + (v).y)

#ifdef B_TABLE
#define ROW_OF_B(j) rows_of_b[j]
#else
#define ROW_OF_B(j) ((j) * rows_of_b)
#endif

__kernel void dots(
    __global const T *a, INDEX a_offset, INDEX a_row, INDEX a0, INDEX a1, INDEX a2,
    __global const T *b, INDEX b_offset,
#ifdef B_TABLE
    __global const INDEX *rows_of_b,
#else
    INDEX rows_of_b,
#endif
    INDEX b0, INDEX b1, INDEX b2,
    __global const T *bias, INDEX bias_offset, INDEX bias_stride,
    __global T *out, INDEX out_offset, INDEX out_row, INDEX out_batch, INDEX out_part,
    INDEX rows, INDEX columns, INDEX terms, INDEX n1, INDEX n2, INDEX wide, INDEX tall, INDEX batch, INDEX part) {
  const INDEX g = get_global_id(2) % batch, p = get_global_id(2) / batch;
  const INDEX j_begin = get_global_id(0) * wide, j_end = SMALLER(j_begin + wide, columns);
  const INDEX i_begin = get_global_id(1) * tall, i_end = SMALLER(i_begin + tall, rows);
  const INDEX k_begin = p * part, k_end = SMALLER(k_begin + part, terms);
  a += a_offset + in_batch(g, n1, n2, a0, a1, a2);
  b += b_offset + in_batch(g, n1, n2, b0, b1, b2);
  out += out_offset + g * out_batch + p * out_part;
  for (INDEX k0 = k_begin; k0 < k_end; k0 += KC) {
    const INDEX k1 = SMALLER(k0 + KC, k_end), whole = k0 + (k1 - k0) / VW * VW;
    for (INDEX j = j_begin; j < j_end; j += DN)
      for (INDEX i = i_begin; i < i_end; i += DM) {
        __global const T *pa[DM], *pb[DN];
        V sums[DM][DN];
        #pragma unroll
        for (int r = 0; r < DM; r++) pa[r] = a + SMALLER(i + r, rows - 1) * a_row;
        #pragma unroll
        for (int c = 0; c < DN; c++) pb[c] = b + ROW_OF_B(SMALLER(j + c, columns - 1));
        #pragma unroll
        for (int r = 0; r < DM; r++)
          #pragma unroll
          for (int c = 0; c < DN; c++) sums[r][c] = (V)(0);
        for (INDEX k = k0; k < whole; k += VW) {
          V of_b[DN];
          #pragma unroll
          for (int c = 0; c < DN; c++) of_b[c] = LOAD(pb[c] + k);
          #pragma unroll
          for (int r = 0; r < DM; r++) {
            const V of_a = LOAD(pa[r] + k);
            #pragma unroll
            for (int c = 0; c < DN; c++) sums[r][c] = of_a * of_b[c] + sums[r][c];
          }
        }
        #pragma unroll
        for (int r = 0; r < DM; r++)
          #pragma unroll
          for (int c = 0; c < DN; c++) {
            T sum = FOLDED(sums[r][c]);
            for (INDEX k = whole; k < k1; k++) sum += pa[r][k] * pb[c][k];
            if (i + r < i_end && j + c < j_end) {
              __global T *to = out + (i + r) * out_row + j + c;
              if (k0 > k_begin) sum += *to;
#if BIAS == 2
              else sum += bias[bias_offset + (j + c) * bias_stride];
#endif
              *to = sum;
            }
          }
      }
  }
}
