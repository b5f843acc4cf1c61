/* Attention without its scores in memory: a group of items takes ROWS queries, and goes once over the keys and values.
 *
 * KEYS of them at a time: scores go from products of tiles, which the group shares, to exponentials of what they are
 * below the largest so far; what was summed with another largest is scaled when a larger one comes. Written in the words
 * of the dialects, so that it is OpenCL C and CUDA C.
 *
 * Macros: TX x TY items in a group, each with RM rows and RN keys (and EN columns of the result); D features of queries
 * and keys, E of values; RANK axes of the batch; CAUSAL: a query sees keys up to its own place; MASK (0 none, 1 bool, 2
 * floats that are added); @T and @M the dtypes of tensors and mask, @V what is computed in.
 * Source: Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022.
 */
#define ROWS (TY * RM)
#define KEYS (TX * RN)
#define EP (TX * EN)
#define WIDEST (D + 1 > EP ? D + 1 : EP)

typedef struct { i64 n[RANK]; i64 q[RANK]; i64 k[RANK]; i64 v[RANK]; i64 m[RANK]; } heads;

HAL_KERNEL attention(
    const heads batch, const i64 queries, const i64 keys, const i64 blocks, const @V scale,
    HAL_GLOBAL const @T *restrict q, const i64 q_offset, const i64 q_row, const i64 q_column,
    HAL_GLOBAL const @T *restrict k, const i64 k_offset, const i64 k_row, const i64 k_column,
    HAL_GLOBAL const @T *restrict v, const i64 v_offset, const i64 v_row, const i64 v_column,
    HAL_GLOBAL const @M *restrict mask, const i64 m_offset, const i64 m_row, const i64 m_column,
    HAL_GLOBAL @T *restrict out, const i64 out_offset) {
  HAL_LOCAL @V of_q[ROWS * (D + 1)];
  HAL_LOCAL @V of_k[KEYS * WIDEST]; /* keys, and then the values that belong to them */
  HAL_LOCAL @V weights[ROWS * (KEYS + 1)];
  HAL_LOCAL @V shared[ROWS * (TX + 1)]; /* what each item knows of a row */
  const int tx = HAL_ITEM(0), ty = HAL_ITEM(1), item = ty * TX + tx;
  const i64 group = HAL_GROUP(0), first = (blocks - 1 - group % blocks) * ROWS; /* those with most keys begin */
  const int here = queries - first < ROWS ? (int)(queries - first) : ROWS;
  i64 head = group / blocks, end = keys;
  @V sums[RM][EN], tops[RM], totals[RM];
  q += q_offset + first * q_row, k += k_offset, v += v_offset, mask += m_offset + first * m_row;
  out += out_offset + (head * queries + first) * E;
  for (int axis = RANK - 1; axis >= 0; axis--) {
    const i64 at = head % batch.n[axis];
    head /= batch.n[axis];
    q += at * batch.q[axis], k += at * batch.k[axis], v += at * batch.v[axis], mask += at * batch.m[axis];
  }
  for (int r = 0; r < RM; r++) {
    tops[r] = -INFINITY, totals[r] = 0;
    for (int c = 0; c < EN; c++) sums[r][c] = 0;
  }
  for (int i = item; i < ROWS * D; i += TX * TY) {
    const int row = i / D, c = i % D;
    of_q[row * (D + 1) + c] = row < here ? @loadT(q, row * q_row + c * q_column) * scale : 0;
  }
#if CAUSAL
  end = first + ROWS < end ? first + ROWS : end;
#endif
  for (i64 start = 0; start < end; start += KEYS) {
    const int there = keys - start < KEYS ? (int)(keys - start) : KEYS;
    @V scores[RM][RN];
    HAL_BARRIER; /* the values before these were read */
    for (int i = item; i < KEYS * D; i += TX * TY) {
      const int row = i / D, c = i % D;
      of_k[row * (D + 1) + c] = row < there ? @loadT(k, (start + row) * k_row + c * k_column) : 0;
    }
    HAL_BARRIER;
    for (int r = 0; r < RM; r++)
      for (int j = 0; j < RN; j++) scores[r][j] = 0;
    for (int c = 0; c < D; c++) {
      @V of_row[RM];
      for (int r = 0; r < RM; r++) of_row[r] = of_q[(ty * RM + r) * (D + 1) + c];
      for (int j = 0; j < RN; j++) {
        const @V x = of_k[(tx + TX * j) * (D + 1) + c];
        for (int r = 0; r < RM; r++) scores[r][j] = hal_multiply_add(of_row[r], x, scores[r][j]);
      }
    }
    for (int r = 0; r < RM; r++) {
      const int row = ty * RM + r;
      @V top = -INFINITY;
      for (int j = 0; j < RN; j++) {
        const int key = tx + TX * j;
        int seen = row < here && key < there;
#if CAUSAL
        seen = seen && start + key <= first + row;
#endif
#if MASK == 1
        seen = seen && @loadM(mask, row * m_row + (start + key) * m_column);
#elif MASK == 2
        if (seen) scores[r][j] += @loadM(mask, row * m_row + (start + key) * m_column);
#endif
        scores[r][j] = seen ? scores[r][j] : -INFINITY;
        top = scores[r][j] > top || scores[r][j] != scores[r][j] ? scores[r][j] : top;
      }
      shared[row * (TX + 1) + tx] = top;
    }
    HAL_BARRIER; /* the keys were read, too */
    for (int i = item; i < KEYS * EP; i += TX * TY) {
      const int row = i / EP, c = i % EP;
      of_k[i] = row < there && c < E ? @loadT(v, (start + row) * v_row + c * v_column) : 0;
    }
    for (int r = 0; r < RM; r++) {
      const int row = ty * RM + r;
      @V top = tops[r];
      for (int t = 0; t < TX; t++) {
        const @V other = shared[row * (TX + 1) + t];
        top = other > top || other != other ? other : top;
      }
      const @V factor = tops[r] == -INFINITY ? 0 : hal_exp_@V(tops[r] - top);
      tops[r] = top, totals[r] *= factor;
      for (int c = 0; c < EN; c++) sums[r][c] *= factor;
      for (int j = 0; j < RN; j++) {
        const @V weight = scores[r][j] == -INFINITY ? 0 : hal_exp_@V(scores[r][j] - top);
        totals[r] += weight;
        weights[row * (KEYS + 1) + tx + TX * j] = weight;
      }
    }
    HAL_BARRIER;
    for (int j = 0; j < KEYS; j++) {
      @V of_row[RM];
      for (int r = 0; r < RM; r++) of_row[r] = weights[(ty * RM + r) * (KEYS + 1) + j];
      for (int c = 0; c < EN; c++) {
        const @V x = of_k[j * EP + tx + TX * c];
        for (int r = 0; r < RM; r++) sums[r][c] = hal_multiply_add(of_row[r], x, sums[r][c]);
      }
    }
  }
  HAL_BARRIER;
  for (int r = 0; r < RM; r++) shared[(ty * RM + r) * (TX + 1) + tx] = totals[r];
  HAL_BARRIER;
  for (int r = 0; r < RM; r++) {
    const int row = ty * RM + r;
    @V total = 0;
    for (int t = 0; t < TX; t++) total += shared[row * (TX + 1) + t];
    for (int c = 0; c < EN; c++) {
      const int column = tx + TX * c;
      if (row < here && column < E) { @storeT(out, row * E + column, total == 0 ? 0 : sums[r][c] / total) }
    }
  }
}
