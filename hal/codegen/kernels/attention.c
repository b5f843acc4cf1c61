/* Attention without its scores in memory: scores go from products of tiles to weights that a group shares, and these are
 * multiplied with the values.
 *
 * Source: Dao et al., "FlashAttention", 2022.
 */
#define WIDEST (DP > EP ? DP : EP)

HAL_KERNEL attention(GIVEN, HAL_GLOBAL @T *restrict out) {
  HAL_LOCAL @V of_q[ROWS * (DP + 1)];
  HAL_LOCAL @V of_k[COLUMNS * (WIDEST + 1)]; /* keys, and then the values that belong to them */
  HAL_LOCAL @V weights[ROWS * (COLUMNS + 1)];
  HAL_LOCAL @V shared[ROWS * (TX + 1)];
  FIND_HEAD
  const i64 first = (blocks - 1 - block) * ROWS; /* those with most keys begin */
  const i64 end = CAUSAL && first + ROWS < keys ? first + ROWS : keys;
  const int here = queries - first < ROWS ? (int)(queries - first) : ROWS;
  @V sums[RM][EN], tops[RM], totals[RM], all[RM];
  out += (head * queries + first) * E;
  for (int r = 0; r < RM; r++) {
    tops[r] = -INFINITY, totals[r] = 0;
    for (int c = 0; c < EN; c++) sums[r][c] = 0;
  }
  FILL(of_q, ROWS, here, D, DP, q, first, q_row, q_column, scale)
  for (i64 start = 0; start < end; start += COLUMNS) {
    const int there = keys - start < COLUMNS ? (int)(keys - start) : COLUMNS;
    @V scores[RM][RN];
    HAL_BARRIER; /* the values before these were read */
    FILL(of_k, COLUMNS, there, D, DP, k, start, k_row, k_column, 1)
    HAL_BARRIER;
    MULTIPLY(scores, of_q, of_k, D, DP)
    SEE_ALL(scores)
    HAL_BARRIER; /* the keys were read, too */
    FILL(of_k, COLUMNS, there, E, EP, v, start, v_row, v_column, 1)
    for (int r = 0; r < RM; r++) {
      RAISE(r, sums, EN)
      for (int j = 0; j < RN; j++) {
        const @V weight = BELOW(scores[r][j], top);
        totals[r] += weight;
        weights[(ty * RM + r) * (COLUMNS + 1) + tx + TX * j] = weight;
      }
    }
    HAL_BARRIER;
    GATHER(sums, weights, of_k, EN, EP)
  }
  HAL_BARRIER;
  SUM_UP(totals, all)
  ALL for (int r = 0; r < RM; r++)
    ALL for (int c = 0; c < EN; c++) {
      const int row = ty * RM + r, column = tx + TX * c;
      if (row < here && column < E) { @storeT(out, row * E + column, all[r] == 0 ? 0 : sums[r][c] / all[r]) }
    }
}
