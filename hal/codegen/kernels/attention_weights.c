/* Rows of scores in place, on a processor: to weights, which are the exponentials over their sum, and zeros where a query
 * does not see a key; and from the gradients of weights to those of scores, where `along` is the sum of result times gradient of each query.
 *
 * Macros: RANK axes of the batch; CAUSAL: a query sees keys up to its own place; MASK (0 none, 1 bool, 2 floats that are
 * added); LANES elements side by side, so that a processor's vectors are used; @V and @M the dtypes of scores and mask.
 */
typedef struct { i64 n[RANK]; i64 m[RANK]; } heads;

#define EACH(line) \
  { \
    i64 k_ = 0; \
    for (; k_ + LANES <= length; k_ += LANES) \
      for (int l = 0; l < LANES; l++) { const i64 k = k_ + l; line } \
    for (; k_ < length; k_++) { const int l = 0; const i64 k = k_; line } \
  }

HAL_KERNEL attention_weights(
    const i64 n, const i64 rows, const i64 keys, const @V scale, const i64 first, const heads batch,
    HAL_GLOBAL const @M *restrict mask, const i64 m_at, const i64 m_row, const i64 m_column,
    HAL_GLOBAL @V *restrict scores) {
  for (i64 i = HAL_INDEX; i < n; i += HAL_TOTAL) {
    const i64 row = first + i % rows, length = CAUSAL && row + 1 < keys ? row + 1 : keys;
    HAL_GLOBAL @V *s = scores + i * keys;
    @V tops[LANES], sums[LANES], top = -INFINITY, sum = 0;
    for (int l = 0; l < LANES; l++) tops[l] = -INFINITY, sums[l] = 0;
#if MASK
    HAL_GLOBAL const @M *m = mask + m_at + row * m_row;
    for (i64 axis = RANK - 1, rest = i / rows; axis >= 0; axis--) {
      m += rest % batch.n[axis] * batch.m[axis];
      rest /= batch.n[axis];
    }
#endif
#if MASK == 1
    EACH(s[k] = @loadM(m, k * m_column) ? s[k] * scale : -INFINITY;)
#elif MASK == 2
    EACH(s[k] = s[k] * scale + @loadM(m, k * m_column);)
#else
    EACH(s[k] *= scale;)
#endif
    EACH(const @V x = s[k]; tops[l] = x > tops[l] || x != x ? x : tops[l];)
    for (int l = 0; l < LANES; l++) top = tops[l] > top || tops[l] != tops[l] ? tops[l] : top;
    if (top == -INFINITY) top = 0; /* it sees nothing: zeros */
    EACH(const @V x = hal_exp_@V(s[k] - top); s[k] = x; sums[l] += x;)
    for (int l = 0; l < LANES; l++) sum += sums[l];
    const @V inverse = sum == 0 ? 0 : 1 / sum;
    EACH(s[k] *= inverse;)
    for (i64 k = length; k < keys; k++) s[k] = 0;
  }
}

HAL_KERNEL attention_slopes(
    const i64 n, const i64 rows, const i64 keys, const @V scale, HAL_GLOBAL const @V *restrict weights,
    HAL_GLOBAL const @V *restrict along, const i64 along_at, const i64 queries, HAL_GLOBAL @V *restrict slopes) {
  for (i64 i = HAL_INDEX; i < n; i += HAL_TOTAL) {
    const i64 length = keys;
    const @V rest = along[along_at + i / rows * queries + i % rows];
    HAL_GLOBAL const @V *w = weights + i * keys;
    HAL_GLOBAL @V *s = slopes + i * keys;
    EACH(s[k] = w[k] * (s[k] - rest) * scale;)
  }
}
