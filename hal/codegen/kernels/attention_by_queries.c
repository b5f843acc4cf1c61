/* The gradient of attention by its queries, and what that by keys and values needs to know of each query.
 *
 * With weight = exp(score - largest) / sum and slope = weight (g . value - g . result), it is the sum of slopes times
 * keys. The largest score and the sum come out in passing, as in attention itself: which therefore need not keep them.
 * @Q: the dtype of the gradient.
 * Source: Dao, "FlashAttention-2", 2023.
 */
HAL_KERNEL attention_by_queries(GIVEN, HAL_GLOBAL @V *restrict known, HAL_GLOBAL @Q *restrict out) {
  HAL_LOCAL @V of_q[ROWS * (DP + 1)], of_g[ROWS * (EP + 1)];
  HAL_LOCAL @V of_k[COLUMNS * (DP + 1)], of_v[COLUMNS * (EP + 1)];
  HAL_LOCAL @V slopes[ROWS * (COLUMNS + 1)];
  HAL_LOCAL @V shared[ROWS * (TX + 1)];
  FIND_HEAD
  const i64 first = (blocks - 1 - block) * ROWS; /* those with most keys begin */
  const i64 end = CAUSAL && first + ROWS < keys ? first + ROWS : keys;
  const int here = queries - first < ROWS ? (int)(queries - first) : ROWS;
  @V sums[RM][DN], tops[RM], totals[RM], along[RM], all[RM];
  out += (head * queries + first) * D, known += (head * queries + first) * 3;
  FILL(of_q, ROWS, here, D, DP, q, first, q_row, q_column, scale)
  FILL(of_g, ROWS, here, E, EP, g, first, g_row, g_column, 1)
  HAL_BARRIER;
  for (int r = 0; r < RM; r++) {
    const int row = ty * RM + r;
    tops[r] = -INFINITY, totals[r] = 0, all[r] = 0;
    for (int c = 0; c < DN; c++) sums[r][c] = 0;
    for (int c = tx; c < E && row < here; c += TX)
      all[r] = hal_multiply_add(of_g[row * (EP + 1) + c], (@V)@loadT(y, (first + row) * y_row + c * y_column), all[r]);
  }
  SUM_UP(all, along)
  for (i64 start = 0; start < end; start += COLUMNS) {
    const int there = keys - start < COLUMNS ? (int)(keys - start) : COLUMNS;
    @V scores[RM][RN], steps[RM][RN];
    HAL_BARRIER; /* the tiles before these were read */
    FILL(of_k, COLUMNS, there, D, DP, k, start, k_row, k_column, 1)
    FILL(of_v, COLUMNS, there, E, EP, v, start, v_row, v_column, 1)
    HAL_BARRIER;
    MULTIPLY(scores, of_q, of_k, D, DP)
    MULTIPLY(steps, of_g, of_v, E, EP)
    SEE_ALL(scores)
    HAL_BARRIER;
    for (int r = 0; r < RM; r++) {
      RAISE(r, sums, DN)
      for (int j = 0; j < RN; j++) {
        const @V weight = BELOW(scores[r][j], top);
        totals[r] += weight;
        slopes[(ty * RM + r) * (COLUMNS + 1) + tx + TX * j] = weight == 0 ? 0 : weight * (steps[r][j] - along[r]);
      }
    }
    HAL_BARRIER;
    GATHER(sums, slopes, of_k, DN, DP)
  }
  HAL_BARRIER;
  SUM_UP(totals, all)
  ALL for (int r = 0; r < RM; r++) {
    const int row = ty * RM + r;
    const @V inverse = all[r] == 0 ? 0 : 1 / all[r];
    if (row < here && tx == 0) known[row * 3] = tops[r], known[row * 3 + 1] = inverse, known[row * 3 + 2] = along[r];
    ALL for (int c = 0; c < DN; c++) {
      const int column = tx + TX * c;
      if (row < here && column < D) { @storeQ(out, row * D + column, sums[r][c] * inverse * scale) }
    }
  }
}
