/* Matrix products for GPUs: a group of items computes a tile of the result, through tiles of both factors that it shares.
 *
 * result[g, i, j] = bias + sum over k of A(g, i, k) B(g, k, j), where both factors lie anywhere that offsets for their
 * rows and their columns can tell. Written in the words of the dialects, so that it is OpenCL C and CUDA C.
 *
 * Macros: T, SUM (the type that sums are in), INDEX (int, or a long integer beyond 2^31 elements), TX x TY items in a
 * group, each with RM rows and RN columns of the result, TK terms at a time, BIAS (0 none, 1 each row, 2 each column).
 *   A_TERMS, B_TERMS, B_COLUMNS: the offset of the terms of A or B, or of B's columns, is in a table, not a stride.
 *   PLACES: columns are places of windows over padded images, of which some are no places of the result.
 */
#define TM (TY * RM)
#define TN (TX * RN)

#ifdef A_TERMS
#define TERM_OF_A(k) terms_of_a[k]
#else
#define TERM_OF_A(k) ((k) * terms_of_a)
#endif
#ifdef B_TERMS
#define TERM_OF_B(k) terms_of_b[k]
#else
#define TERM_OF_B(k) ((k) * terms_of_b)
#endif
#ifdef B_COLUMNS
#define COLUMN_OF_B(j) columns_of_b[j]
#else
#define COLUMN_OF_B(j) ((j) * columns_of_b)
#endif

HAL_FUNCTION INDEX in_batch(INDEX g, INDEX n1, INDEX n2, INDEX s0, INDEX s1, INDEX s2) {
  return (g / (n1 * n2)) * s0 + (g / n2 % n1) * s1 + (g % n2) * s2;
}

HAL_KERNEL tiled_product(
    HAL_GLOBAL const T *a, INDEX a_offset, INDEX a_row,
#ifdef A_TERMS
    HAL_GLOBAL const INDEX *terms_of_a,
#else
    INDEX terms_of_a,
#endif
    INDEX a0, INDEX a1, INDEX a2,
    HAL_GLOBAL const T *b, INDEX b_offset,
#ifdef B_TERMS
    HAL_GLOBAL const INDEX *terms_of_b,
#else
    INDEX terms_of_b,
#endif
#ifdef B_COLUMNS
    HAL_GLOBAL const INDEX *columns_of_b,
#else
    INDEX columns_of_b,
#endif
    INDEX b0, INDEX b1, INDEX b2,
    HAL_GLOBAL const T *bias, INDEX bias_offset, INDEX bias_stride, INDEX bias_batch,
    HAL_GLOBAL T *out, INDEX out_offset, INDEX out_row, INDEX out_batch, INDEX out_part,
#ifdef PLACES
    INDEX depth, INDEX height, INDEX width, INDEX all_depth, INDEX all_height, INDEX all_width,
    INDEX image_stride, INDEX z_stride, INDEX y_stride, INDEX x_stride,
#endif
    INDEX rows, INDEX columns, INDEX terms, INDEX n1, INDEX n2, INDEX batch, INDEX part) {
  HAL_LOCAL T of_a[TK * (TM + 1)];
  HAL_LOCAL T of_b[TK * TN];
  const int tx = HAL_ITEM(0), ty = HAL_ITEM(1), item = ty * TX + tx;
  const INDEX g = HAL_GROUP(2) % batch, p = HAL_GROUP(2) / batch;
  const INDEX j0 = (INDEX)HAL_GROUP(0) * TN, i0 = (INDEX)HAL_GROUP(1) * TM;
  const INDEX k_end = (p + 1) * part < terms ? (p + 1) * part : terms;
  SUM sums[RM][RN];
  a += a_offset + in_batch(g, n1, n2, a0, a1, a2);
  b += b_offset + in_batch(g, n1, n2, b0, b1, b2);
  for (int r = 0; r < RM; r++)
    for (int c = 0; c < RN; c++) sums[r][c] = 0;
  for (INDEX k0 = p * part; k0 < k_end; k0 += TK) {
    for (int q = item; q < TK * TM; q += TX * TY) {
      /* Neighbouring items read neighbouring elements, whichever axis those lie along. */
      const int k = a_row == 1 ? q / TM : q % TK, r = a_row == 1 ? q % TM : q / TK;
      of_a[k * (TM + 1) + r] = i0 + r < rows && k0 + k < k_end ? a[(i0 + r) * a_row + TERM_OF_A(k0 + k)] : (T)0;
    }
    for (int q = item; q < TK * TN; q += TX * TY) {
#ifdef B_COLUMNS
      const int k = q % TK, c = q / TK;
#elif defined(B_TERMS)
      const int k = q / TN, c = q % TN;
#else
      const int k = terms_of_b == 1 ? q % TK : q / TN, c = terms_of_b == 1 ? q / TK : q % TN;
#endif
      of_b[k * TN + c] = j0 + c < columns && k0 + k < k_end ? b[TERM_OF_B(k0 + k) + COLUMN_OF_B(j0 + c)] : (T)0;
    }
    HAL_BARRIER;
    for (int k = 0; k < TK; k++) {
      SUM row[RN];
      for (int c = 0; c < RN; c++) row[c] = of_b[k * TN + tx + TX * c];
      for (int r = 0; r < RM; r++) {
        const SUM value = of_a[k * (TM + 1) + ty + TY * r];
        for (int c = 0; c < RN; c++) sums[r][c] = hal_multiply_add(value, row[c], sums[r][c]);
      }
    }
    HAL_BARRIER;
  }
  out += out_offset + g * out_batch + p * out_part;
  for (int c = 0; c < RN; c++) {
    const INDEX j = j0 + tx + TX * c;
    if (j >= columns) continue;
#ifdef PLACES
    const INDEX x = j % all_width, y = j / all_width % all_height, z = j / (all_width * all_height) % all_depth;
    if (x >= width || y >= height || z >= depth) continue;
    const INDEX place = j / (all_width * all_height * all_depth) * image_stride + z * z_stride + y * y_stride + x * x_stride;
#else
    const INDEX place = j;
#endif
    for (int r = 0; r < RM; r++) {
      const INDEX i = i0 + ty + TY * r;
      if (i >= rows) continue;
      SUM sum = sums[r][c];
#if BIAS == 1
      sum += bias[bias_offset + g % n2 * bias_batch + i * bias_stride];
#elif BIAS == 2
      sum += bias[bias_offset + g % n2 * bias_batch + j * bias_stride];
#endif
      out[i * out_row + place] = (T)sum;
    }
  }
}
