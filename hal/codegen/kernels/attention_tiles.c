/* What the kernels of attention share: a group of items keeps ROWS rows of a head, and goes once over the others,
 * COLUMNS of them at a time, in tiles that the group shares. Rows are queries and columns keys, or the other way round.
 *
 * Macros: TX x TY items in a group, each with RM rows and RN columns; D features of queries and keys, E of values, of
 * which an item has DN and EN; RANK axes of the batch; CAUSAL: a query sees keys up to its own place; MASK (0 none, 1
 * bool, 2 floats that are added); GRADIENT: whether result and its gradient are given; @T and @M the dtypes of tensors
 * and mask, @V what is computed in.
 */
#define ROWS (TY * RM)
#define COLUMNS (TX * RN)
#define DP (TX * DN) /* what a row of a tile has: as many as its items, and one so that no two begin in the same bank */
#define EP (TX * EN)
#define ALL _Pragma("unroll") /* or what an item keeps would be no registers */

#if GRADIENT
typedef struct { i64 n[RANK]; i64 q[RANK]; i64 k[RANK]; i64 v[RANK]; i64 m[RANK]; i64 g[RANK]; i64 y[RANK]; } heads;
#define RESULT_GIVEN \
    , HAL_GLOBAL const @T *restrict g, const i64 g_at, const i64 g_row, const i64 g_column, \
    HAL_GLOBAL const @T *restrict y, const i64 y_at, const i64 y_row, const i64 y_column
#define BEGIN_RESULT g += g_at, y += y_at;
#define FIND_RESULT g += at * batch.g[axis], y += at * batch.y[axis];
#else
typedef struct { i64 n[RANK]; i64 q[RANK]; i64 k[RANK]; i64 v[RANK]; i64 m[RANK]; } heads;
#define RESULT_GIVEN
#define BEGIN_RESULT
#define FIND_RESULT
#endif

#define GIVEN \
    const heads batch, const i64 queries, const i64 keys, const i64 blocks, const @V scale, \
    HAL_GLOBAL const @T *restrict q, const i64 q_at, const i64 q_row, const i64 q_column, \
    HAL_GLOBAL const @T *restrict k, const i64 k_at, const i64 k_row, const i64 k_column, \
    HAL_GLOBAL const @T *restrict v, const i64 v_at, const i64 v_row, const i64 v_column, \
    HAL_GLOBAL const @M *restrict m, const i64 m_at, const i64 m_row, const i64 m_column RESULT_GIVEN

/* Which item this is, which head its group has, and where that begins. */
#define FIND_HEAD \
  const int tx = HAL_ITEM(0), ty = HAL_ITEM(1), item = ty * TX + tx; \
  const i64 head = HAL_GROUP(0) / blocks, block = HAL_GROUP(0) % blocks; \
  q += q_at, k += k_at, v += v_at, m += m_at; \
  BEGIN_RESULT \
  for (i64 axis = RANK - 1, rest = head; axis >= 0; axis--) { \
    const i64 at = rest % batch.n[axis]; \
    rest /= batch.n[axis]; \
    q += at * batch.q[axis], k += at * batch.k[axis], v += at * batch.v[axis], m += at * batch.m[axis]; \
    FIND_RESULT \
  }

/* A tile: the rows of p from `first` on, of which `there` are there. */
#define FILL(tile, count, there, width, padded, p, first, p_row, p_column, factor) \
  for (int i = item; i < count * padded; i += TX * TY) { \
    const int row = i / padded, c = i % padded; \
    tile[row * (padded + 1) + c] = \
        row < there && c < width ? @loadT(p, (first + row) * p_row + c * p_column) * factor : 0; \
  }

/* products[r][j] = rows of one tile times rows of another */
#define MULTIPLY(products, left, right, width, padded) \
  for (int r = 0; r < RM; r++) \
    for (int j = 0; j < RN; j++) products[r][j] = 0; \
  for (int c = 0; c < width; c++) { \
    @V of_row[RM]; \
    for (int r = 0; r < RM; r++) of_row[r] = left[(ty * RM + r) * (padded + 1) + c]; \
    for (int j = 0; j < RN; j++) { \
      const @V x = right[(tx + TX * j) * (padded + 1) + c]; \
      for (int r = 0; r < RM; r++) products[r][j] = hal_multiply_add(of_row[r], x, products[r][j]); \
    } \
  }

/* sums[r][c] += weights of the columns times what the columns are */
#define GATHER(sums, weights, right, count, padded) \
  for (int j = 0; j < COLUMNS; j++) { \
    @V of_row[RM]; \
    for (int r = 0; r < RM; r++) of_row[r] = weights[(ty * RM + r) * (COLUMNS + 1) + j]; \
    ALL for (int c = 0; c < count; c++) { \
      const @V x = right[j * (padded + 1) + tx + TX * c]; \
      ALL for (int r = 0; r < RM; r++) sums[r][c] = hal_multiply_add(of_row[r], x, sums[r][c]); \
    } \
  }

/* A score that a mask changes; minus infinity where the query does not see the key. */
#if MASK == 1
#define BY_MASK(score, query, key) seen = seen && @loadM(m, (query) * m_row + (key) * m_column);
#elif MASK == 2
#define BY_MASK(score, query, key) if (seen) score += @loadM(m, (query) * m_row + (key) * m_column);
#else
#define BY_MASK(score, query, key)
#endif
#define SEE(score, there, query, key) \
  { \
    int seen = (there) && (!CAUSAL || (key) <= (query)); \
    BY_MASK(score, query, key) \
    score = seen ? score : -INFINITY; \
  }

/* Rows that are queries: the largest score of each so far, and the sum of exponentials below it. What was summed with
 * another largest is scaled when a larger one comes (Milakov, Gimelshein, "Online normalizer calculation for softmax",
 * 2018). `shared` has what each item knows of a row: first its largest score, in the end its sum. */
#define SEE_ALL(scores) \
  for (int r = 0; r < RM; r++) { \
    const int row = ty * RM + r; \
    @V top = -INFINITY; \
    for (int j = 0; j < RN; j++) { \
      const int column = tx + TX * j; \
      SEE(scores[r][j], row < here && column < there, first + row, start + column) \
      top = scores[r][j] > top || scores[r][j] != scores[r][j] ? scores[r][j] : top; \
    } \
    shared[row * (TX + 1) + tx] = top; \
  }
#define RAISE(r, sums, count) \
  @V top = tops[r]; \
  for (int t = 0; t < TX; t++) { \
    const @V other = shared[(ty * RM + r) * (TX + 1) + t]; \
    top = other > top || other != other ? other : top; \
  } \
  const @V factor = tops[r] == -INFINITY ? 0 : hal_exp_@V(tops[r] - top); \
  tops[r] = top, totals[r] *= factor; \
  for (int c = 0; c < count; c++) sums[r][c] *= factor;
#define BELOW(score, top) (score == -INFINITY ? 0 : hal_exp_@V(score - top))
#define SUM_UP(values, result) \
  for (int r = 0; r < RM; r++) shared[(ty * RM + r) * (TX + 1) + tx] = values[r]; \
  HAL_BARRIER; \
  for (int r = 0; r < RM; r++) { \
    result[r] = 0; \
    for (int t = 0; t < TX; t++) result[r] += shared[(ty * RM + r) * (TX + 1) + t]; \
  }

