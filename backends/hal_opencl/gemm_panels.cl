/* Matrix products for processors: one work item computes a block of the result with vectors kept in registers.
 *
 * result[g, i, j] = bias + sum over k of A(g, i, k) B(g, k, j). Local size 1: a work item is what a thread runs from
 * beginning to end. The built-ins fma() and vload are calls into a library on PoCL, so that sums are written a * b + c
 * (contracted to one instruction) and vectors are read through a pointer that need not be aligned.
 *
 * Macros: T, V (a vector of VW elements), INDEX (int, or long for more than 2^31 elements), MR rows and NV vectors of
 * one tile in registers, KC terms at a time, MC rows at a time, BIAS (0 none, 1 for each row, 2 for each column).
 *   A_PACKED: A lies in panels of MR rows, made by `pack`; else it is read where it lies, through strides.
 *   A_ROWS: row i of A begins at a_row[i]; else at i * a_row.
 *   B_TABLE: row k of B begins at rows_of_b[k]; else at k * rows_of_b.
 *   B_COLUMNS: column j of B begins at b_column[j]; else at j * b_column.
 *   PLACES: columns are places of windows over padded images, of which some are no places of the result.
 */
#pragma OPENCL FP_CONTRACT ON

typedef V UNALIGNED __attribute__((aligned(sizeof(T))));
#define NR (NV * VW)
#define LOAD(p) (*(__global const UNALIGNED *)(p))
#define STORE(p) (*(__global UNALIGNED *)(p))
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

INDEX in_batch(INDEX g, INDEX n1, INDEX n2, INDEX s0, INDEX s1, INDEX s2) {
  return (g / (n1 * n2)) * s0 + (g / n2 % n1) * s1 + (g % n2) * s2;
}

/* Panel p holds rows p * MR to p * MR + MR, term by term: out[p][k][r], zeros below the last row. */
__kernel void pack(__global const T *a, INDEX offset, INDEX rows, INDEX terms, INDEX row_stride,
#ifdef A_TABLE
                   __global const INDEX *table,
#else
                   INDEX term_stride,
#endif
                   INDEX n1, INDEX n2, INDEX s0, INDEX s1, INDEX s2, __global T *out) {
#ifdef A_TABLE
#define TERM(k) table[k]
#else
#define TERM(k) ((k) * term_stride)
#endif
  const INDEX p = get_global_id(0), g = get_global_id(1);
  const INDEX count = SMALLER(MR, rows - p * MR);
  a += offset + in_batch(g, n1, n2, s0, s1, s2) + p * MR * row_stride;
  out += (g * get_global_size(0) + p) * MR * terms;
  if (count == MR) {
    for (INDEX k = 0; k < terms; k++) {
      const INDEX at = TERM(k);
      #pragma unroll
      for (int r = 0; r < MR; r++) out[k * MR + r] = a[r * row_stride + at];
    }
    return;
  }
  for (INDEX k = 0; k < terms; k++)
    for (int r = 0; r < MR; r++) out[k * MR + r] = r < count ? a[r * row_stride + TERM(k)] : 0;
}

#ifdef A_ROWS
#define ROW_OF_A(i) a_row[i]
#else
#define ROW_OF_A(i) ((i) * a_row)
#endif
#ifdef B_TABLE
#define ROW(k) rows_of_b[k]
#else
#define ROW(k) ((k) * rows_of_b)
#endif

#define NEXT_LINE if (++y == all_height) { y = 0; if (++z == all_depth) { z = 0; image++; } }

__kernel void product(
    __global const T *a, INDEX a_offset,
#ifdef A_ROWS
    __global const INDEX *a_row,
#else
    INDEX a_row,
#endif
    INDEX a_term, INDEX a0, INDEX a1, INDEX a2,
    __global const T *b, INDEX b_offset,
#ifdef B_TABLE
    __global const INDEX *rows_of_b,
#else
    INDEX rows_of_b,
#endif
#ifdef B_COLUMNS
    __global const INDEX *b_column,
#else
    INDEX b_column,
#endif
    INDEX b0, INDEX b1, INDEX b2,
    __global const T *bias, INDEX bias_offset, INDEX bias_stride, INDEX bias_batch,
    __global T *out, INDEX out_offset, INDEX out_row, INDEX out_batch,
#ifdef PLACES
    INDEX depth, INDEX height, INDEX width, INDEX all_depth, INDEX all_height, INDEX all_width,
    INDEX image_stride, INDEX z_stride, INDEX y_stride, INDEX x_stride,
#endif
    INDEX rows, INDEX columns, INDEX terms, INDEX n1, INDEX n2, INDEX wide, INDEX tall, __local T *packed) {
  const INDEX g = get_global_id(2);
  const INDEX j_begin = get_global_id(0) * wide, j_end = SMALLER(j_begin + wide, columns);
  const INDEX i_begin = get_global_id(1) * tall, i_end = SMALLER(i_begin + tall, rows);
#ifdef A_PACKED
  a += in_batch(g, n1, n2, a0, a1, a2) * ((rows + MR - 1) / MR * MR * terms);
#else
  a += a_offset + in_batch(g, n1, n2, a0, a1, a2);
#endif
  b += b_offset + in_batch(g, n1, n2, b0, b1, b2);
  out += out_offset + g * out_batch;
#if BIAS
  bias += bias_offset + g % n2 * bias_batch;
#endif
  for (INDEX k0 = 0; k0 < terms; k0 += KC) {
    const int kc = SMALLER(KC, terms - k0);
    /* Columns that do not lie together, and those of a narrow last panel, are copied into panels first. */
    for (INDEX j = j_begin; j < j_end; j += NR) {
      const int used = SMALLER(NR, j_end - j);
#ifdef B_IN_PLACE
      if (used == NR) continue;
#endif
      __local T *to = packed + (j - j_begin) * KC;
#ifdef B_COLUMNS
      for (int c = 0; c < NR; c++) {
        __global const T *from = b + b_column[SMALLER(j + c, columns - 1)] + ROW(k0);
        for (int k = 0; k < kc; k++) to[k * NR + c] = from[k * ROW(1)];
      }
#else
      __global const T *from = b + j * b_column;
      if (used == NR && b_column == 1) {
        for (int k = 0; k < kc; k++)
          #pragma unroll
          for (int v = 0; v < NV; v++) *(__local V *)(to + k * NR + v * VW) = LOAD(from + ROW(k0 + k) + v * VW);
        continue;
      }
      for (int k = 0; k < kc; k++)
        for (int c = 0; c < NR; c++) to[k * NR + c] = c < used ? from[ROW(k0 + k) + c * b_column] : 0;
#endif
    }
    for (INDEX i0 = i_begin; i0 < i_end; i0 += MC) {
#ifdef PLACES
      INDEX x = j_begin % all_width, y = j_begin / all_width % all_height;
      INDEX z = j_begin / (all_width * all_height) % all_depth, image = j_begin / (all_width * all_height * all_depth);
#endif
      for (INDEX j = j_begin; j < j_end; j += NR) {
        const int used = SMALLER(NR, j_end - j);
        __local const T *panel = packed + (j - j_begin) * KC;
#ifdef PLACES
        /* Where each column goes, or -1, and which vectors go to places that are evenly spaced. */
        INDEX to[NR];
        int whole[NV], any = 0, together = x_stride == 1;
        if (used == NR && x + NR <= all_width) { /* within a line */
          const INDEX first = image * image_stride + z * z_stride + y * y_stride + x * x_stride;
          const INDEX valid = y < height && z < depth ? width - x : 0;
          for (int c = 0; c < NR; c++) to[c] = c < valid ? first + c * x_stride : -1;
          x += NR;
          if (x == all_width) { x = 0; NEXT_LINE }
        } else if (all_height > 2 && 2 * all_width >= NR) { /* over at most two ends of lines, without a branch */
          #pragma unroll
          for (int c = 0; c < NR; c++) {
            const INDEX along = x + c, lines = (along >= all_width) + (along >= 2 * all_width);
            const INDEX at_x = along - lines * all_width, down = y + lines, turned = down >= all_height;
            const INDEX at_y = turned ? down - all_height : down, deep = z + turned, over = deep >= all_depth;
            const INDEX at_z = over ? 0 : deep;
            const INDEX place = (image + over) * image_stride + at_z * z_stride + at_y * y_stride + at_x * x_stride;
            to[c] = (c < used) & (at_x < width) & (at_y < height) & (at_z < depth) ? place : -1;
          }
          x += NR;
          while (x >= all_width) { x -= all_width; NEXT_LINE }
        } else
          for (int c = 0; c < NR; c++) {
            to[c] = c < used && x < width && y < height && z < depth
              ? image * image_stride + z * z_stride + y * y_stride + x * x_stride : -1;
            if (++x == all_width) { x = 0; NEXT_LINE }
          }
        #pragma unroll
        for (int v = 0; v < NV; v++) {
          whole[v] = to[v * VW + VW - 1] == to[v * VW] + (VW - 1) * x_stride;
          #pragma unroll
          for (int q = 0; q < VW; q++) {
            whole[v] &= to[v * VW + q] >= 0;
            any |= to[v * VW + q] >= 0;
          }
          together &= whole[v];
        }
        if (!any) continue;
        together &= to[NR - 1] == to[0] + NR - 1;
#else
        const int together = used == NR;
#endif
        for (INDEX i = i0; i < SMALLER(i0 + MC, i_end); i += MR) {
          const int count = SMALLER(MR, i_end - i);
          V sums[MR][NV];
          __global T *c = out + i * out_row;
          #pragma unroll
          for (int r = 0; r < MR; r++)
            #pragma unroll
            for (int v = 0; v < NV; v++) {
#if BIAS == 1
              sums[r][v] = (V)(k0 ? 0 : bias[SMALLER(i + r, rows - 1) * bias_stride]);
#else
              sums[r][v] = (V)(0);
#endif
            }
#ifdef A_PACKED
          __global const T *pa = a + i * terms + k0 * MR;
#define ADVANCE pa += MR;
#define A(r) pa[r]
#else
          __global const T *pa = a + k0 * a_term;
          INDEX at[MR];
          #pragma unroll
          for (int r = 0; r < MR; r++) at[r] = ROW_OF_A(SMALLER(i + r, rows - 1));
#define ADVANCE pa += a_term;
#define A(r) pa[at[r]]
#endif
#define MULTIPLY(READ) { \
            V row[NV]; \
            _Pragma("unroll") for (int v = 0; v < NV; v++) row[v] = READ; \
            _Pragma("unroll") for (int r = 0; r < MR; r++) { \
              const V value = (V)(A(r)); \
              _Pragma("unroll") for (int v = 0; v < NV; v++) sums[r][v] = value * row[v] + sums[r][v]; } \
            ADVANCE }
#ifdef B_IN_PLACE
          if (used == NR) {
            __global const T *pb = b + j;
            for (int k = 0; k < kc; k++) MULTIPLY(LOAD(pb + ROW(k0 + k) + v * VW))
          } else
#endif
          for (int k = 0; k < kc; k++) MULTIPLY(*(__local const V *)(panel + k * NR + v * VW))
          if (count == MR && together) {
#ifdef PLACES
            __global T *d = c + to[0];
#else
            __global T *d = c + j;
#endif
            #pragma unroll
            for (int r = 0; r < MR; r++)
              #pragma unroll
              for (int v = 0; v < NV; v++) {
                __global T *e = d + r * out_row + v * VW;
                V sum = sums[r][v];
                if (k0) sum += LOAD(e);
#if BIAS == 2
                else if (bias_stride == 1) sum += LOAD(bias + j + v * VW);
                else { T added[VW]; for (int q = 0; q < VW; q++) added[q] = bias[(j + v * VW + q) * bias_stride]; sum += *(UNALIGNED *)added; }
#endif
                STORE(e) = sum;
              }
            continue;
          }
          T rest[MR * NR] __attribute__((aligned(64)));
          #pragma unroll
          for (int r = 0; r < MR; r++)
            #pragma unroll
            for (int v = 0; v < NV; v++) *(V *)(rest + r * NR + v * VW) = sums[r][v];
          for (int r = 0; r < count; r++)
            for (int v = 0; v < NV; v++) {
              __global T *line = c + r * out_row;
              const int q0 = v * VW;
#ifdef PLACES
#define AT(q) to[q]
              if (whole[v] && x_stride != 1) {
                __global T *e = line + to[q0];
                #pragma unroll
                for (int q = 0; q < VW; q++) e[q * x_stride] = rest[r * NR + q0 + q] + (k0 ? e[q * x_stride] : 0);
                continue;
              }
              if (whole[v]) {
#else
#define AT(q) (j + (q))
              if (q0 + VW <= used) {
#endif
                V sum = *(V *)(rest + r * NR + q0);
                if (k0) sum += LOAD(line + AT(q0));
#if BIAS == 2
                else for (int q = 0; q < VW; q++) ((T *)&sum)[q] += bias[(j + q0 + q) * bias_stride];
#endif
                STORE(line + AT(q0)) = sum;
                continue;
              }
              for (int q = q0; q < SMALLER(q0 + VW, used); q++) {
#ifdef PLACES
                if (to[q] < 0) continue;
#endif
                T sum = rest[r * NR + q];
                if (k0) sum += line[AT(q)];
#if BIAS == 2
                else sum += bias[(j + q) * bias_stride];
#endif
                line[AT(q)] = sum;
              }
            }
        }
      }
    }
  }
}
