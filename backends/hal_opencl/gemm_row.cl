/* A row times a matrix whose columns lie side by side: limited by how fast the matrix is read, row after row.
 *
 * result[g, j] = bias + sum over k of a[g, k] B[g, k, j]. One work item does `wide` columns, whose sums stay in the first
 * cache while RM rows of B at a time are added to them. Local size 1.
 *
 * Macros: T, V (a vector of VW elements), INDEX, BIAS (0 none, 1 one for all columns, 2 one for each).
 */
#pragma OPENCL FP_CONTRACT ON

typedef V UNALIGNED __attribute__((aligned(sizeof(T))));
#define RM 16
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

INDEX in_batch(INDEX g, INDEX n1, INDEX n2, INDEX s0, INDEX s1, INDEX s2) {
  return (g / (n1 * n2)) * s0 + (g / n2 % n1) * s1 + (g % n2) * s2;
}

__kernel void row(
    __global const T *a, INDEX a_offset, INDEX a_term, INDEX a0, INDEX a1, INDEX a2,
    __global const T *b, INDEX b_offset, INDEX b_row, INDEX b0, INDEX b1, INDEX b2,
    __global const T *bias, INDEX bias_offset, INDEX bias_stride, INDEX bias_batch,
    __global T *out, INDEX out_offset, INDEX out_batch, INDEX columns, INDEX terms, INDEX n1, INDEX n2, INDEX wide) {
  const INDEX g = get_global_id(1), first = get_global_id(0) * wide, count = SMALLER(wide, columns - first);
  a += a_offset + in_batch(g, n1, n2, a0, a1, a2);
  b += b_offset + in_batch(g, n1, n2, b0, b1, b2) + first;
  out += out_offset + g * out_batch + first;
  bias += bias_offset + g % n2 * bias_batch;
  for (INDEX j = 0; j < count; j++)
#if BIAS == 2
    out[j] = bias[(first + j) * bias_stride];
#elif BIAS == 1
    out[j] = bias[0];
#else
    out[j] = 0;
#endif
  INDEX k = 0;
  for (; k + RM <= terms; k += RM, b += RM * b_row) {
    T value[RM];
    #pragma unroll
    for (int r = 0; r < RM; r++) value[r] = a[(k + r) * a_term];
    INDEX j = 0;
    for (; j + VW <= count; j += VW) {
      V sum = *(__global UNALIGNED *)(out + j);
      #pragma unroll
      for (int r = 0; r < RM; r++) sum = (V)(value[r]) * *(__global const UNALIGNED *)(b + r * b_row + j) + sum;
      *(__global UNALIGNED *)(out + j) = sum;
    }
    for (; j < count; j++) {
      T sum = out[j];
      #pragma unroll
      for (int r = 0; r < RM; r++) sum += value[r] * b[r * b_row + j];
      out[j] = sum;
    }
  }
  for (; k < terms; k++, b += b_row)
    for (INDEX j = 0; j < count; j++) out[j] += a[k * a_term] * b[j];
}
