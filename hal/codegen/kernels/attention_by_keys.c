/* The gradients of attention by its keys and values: sums over queries of slopes times the query, and of weights times g.
 *
 * Runs after that by queries, from which it knows the largest score of each, the inverse sum, and g . result. No item
 * adds to what another writes: the sums are the same every time. @K, @X: the dtypes of the gradients.
 * Source: Dao, "FlashAttention-2", 2023.
 */
HAL_KERNEL attention_by_keys(
    GIVEN, HAL_GLOBAL const @V *restrict known, HAL_GLOBAL @K *restrict by_key, HAL_GLOBAL @X *restrict by_value) {
  HAL_LOCAL @V of_k[ROWS * (DP + 1)], of_v[ROWS * (EP + 1)];
  HAL_LOCAL @V of_q[COLUMNS * (DP + 1)], of_g[COLUMNS * (EP + 1)];
  HAL_LOCAL @V weights[ROWS * (COLUMNS + 1)], slopes[ROWS * (COLUMNS + 1)];
  HAL_LOCAL @V of_query[COLUMNS * 3]; /* what is known of each */
  FIND_HEAD
  const i64 first = block * ROWS; /* those with most queries begin */
  const int here = keys - first < ROWS ? (int)(keys - first) : ROWS;
  @V by_k[RM][DN], by_v[RM][EN];
  known += head * queries * 3, by_key += (head * keys + first) * D, by_value += (head * keys + first) * E;
  FILL(of_k, ROWS, here, D, DP, k, first, k_row, k_column, 1)
  FILL(of_v, ROWS, here, E, EP, v, first, v_row, v_column, 1)
  for (int r = 0; r < RM; r++) {
    for (int c = 0; c < DN; c++) by_k[r][c] = 0;
    for (int c = 0; c < EN; c++) by_v[r][c] = 0;
  }
  for (i64 start = CAUSAL ? first : 0; start < queries; start += COLUMNS) {
    const int there = queries - start < COLUMNS ? (int)(queries - start) : COLUMNS;
    @V scores[RM][RN], steps[RM][RN];
    HAL_BARRIER; /* the tiles before these were read */
    FILL(of_q, COLUMNS, there, D, DP, q, start, q_row, q_column, scale)
    FILL(of_g, COLUMNS, there, E, EP, g, start, g_row, g_column, 1)
    for (int i = item; i < there * 3; i += TX * TY) of_query[i] = known[start * 3 + i];
    HAL_BARRIER;
    MULTIPLY(scores, of_k, of_q, D, DP)
    MULTIPLY(steps, of_v, of_g, E, EP)
    for (int r = 0; r < RM; r++)
      for (int j = 0; j < RN; j++) {
        const int row = ty * RM + r, column = tx + TX * j;
        @V weight = 0;
        SEE(scores[r][j], row < here && column < there, start + column, first + row)
        if (scores[r][j] != -INFINITY)
          weight = hal_exp_@V(scores[r][j] - of_query[column * 3]) * of_query[column * 3 + 1];
        weights[row * (COLUMNS + 1) + column] = weight;
        slopes[row * (COLUMNS + 1) + column] = weight == 0 ? 0 : weight * (steps[r][j] - of_query[column * 3 + 2]);
      }
    HAL_BARRIER;
    GATHER(by_k, slopes, of_q, DN, DP)
    GATHER(by_v, weights, of_g, EN, EP)
  }
  ALL for (int r = 0; r < RM; r++) {
    const int row = ty * RM + r;
    ALL for (int c = 0; c < DN; c++) {
      const int column = tx + TX * c;
      if (row < here && column < D) { @storeK(by_key, row * D + column, by_k[r][c]) }
    }
    ALL for (int c = 0; c < EN; c++) {
      const int column = tx + TX * c;
      if (row < here && column < E) { @storeX(by_value, row * E + column, by_v[r][c]) }
    }
  }
}
