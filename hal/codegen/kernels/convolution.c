/* Images laid out so that every row of a convolution's columns is a piece of contiguous memory.
 *
 * out[c][phase][n][z][y][x] = x[n, c, z * sz + phase_z - pz, ...], zero outside the image: a plane for each remainder of
 * the place by the stride. In it, the element k of the kernel sees place j at j + an offset that depends on k alone, so
 * that a matrix product reads its columns where they lie, and none is copied (but by `columns`).
 *
 * Macros: T, INDEX. One work group makes all planes of one channel of one image, which stays in the cache meanwhile; its
 * work items share the rows.
 */
#define PIECE(n, at) { T piece[n]; for (int q = 0; q < n; q++) piece[q] = from[(at) + q]; \
                       for (int q = 0; q < n; q++) to[(at) + q] = piece[q]; }

/* Copy elements that lie side by side, in pieces that are one vector each: the last may cover part of the one before. */
HAL_FUNCTION void copy_row(HAL_GLOBAL const T *restrict from, HAL_GLOBAL T *restrict to, INDEX n) {
  INDEX i = 0;
  for (; i + 8 <= n; i += 8) PIECE(8, i)
  if (i < n && n >= 8) PIECE(8, n - 8)
  else if (n >= 4 && n < 8) { PIECE(4, 0) PIECE(4, n - 4) }
  else for (; i < n; i++) to[i] = from[i];
}

HAL_KERNEL spread(HAL_GLOBAL const T *restrict x, INDEX offset, INDEX of_image, INDEX of_channel, INDEX of_z, INDEX of_y,
                  INDEX of_x, INDEX depth, INDEX height, INDEX width, INDEX pz, INDEX py, INDEX px,
                  INDEX sz, INDEX sy, INDEX sx, INDEX phases_z, INDEX phases_y, INDEX phases_x,
                  HAL_GLOBAL T *restrict out, INDEX all_depth, INDEX all_height, INDEX all_width, INDEX plane_stride) {
  const INDEX n = HAL_GROUP(1), c = HAL_GROUP(2), phases = phases_z * phases_y * phases_x, apart = sx * of_x;
  x += offset + n * of_image + c * of_channel;
  out += c * phases * plane_stride + n * all_depth * all_height * all_width;
  for (INDEX phase = 0; phase < phases; phase++, out += plane_stride) {
    const INDEX first_z = phase / (phases_y * phases_x) - pz, first_y = phase / phases_x % phases_y - py;
    const INDEX first_x = phase % phases_x - px;
    /* Places before `begin` lie left of the image, those from `end` on right of it. */
    INDEX begin = first_x < 0 ? (sx - 1 - first_x) / sx : 0, end = (width - first_x + sx - 1) / sx;
    begin = begin < all_width ? begin : all_width;
    end = end < all_width ? (end > begin ? end : begin) : all_width;
    for (INDEX j = 0; j < all_depth; j++)
      for (INDEX i = HAL_ITEM(0); i < all_height; i += HAL_ITEMS(0)) {
        const INDEX z = j * sz + first_z, y = i * sy + first_y;
        HAL_GLOBAL T *restrict to = out + (j * all_height + i) * all_width;
        if (z < 0 || z >= depth || y < 0 || y >= height) {
          for (INDEX q = 0; q < all_width; q++) to[q] = 0;
          continue;
        }
        HAL_GLOBAL const T *restrict from = x + z * of_z + y * of_y + first_x * of_x;
        if (all_width >= 8 && begin <= 8 && end >= all_width - 8) { /* zeros that are one vector, then written over */
          for (int q = 0; q < 8; q++) to[q] = 0;
          for (int q = 0; q < 8; q++) to[all_width - 8 + q] = 0;
        } else {
          for (INDEX q = 0; q < begin; q++) to[q] = 0;
          for (INDEX q = end; q < all_width; q++) to[q] = 0;
        }
        if (apart == 1) copy_row(from + begin, to + begin, end - begin);
        else if (apart == 2)
          HAL_INDEPENDENT_SHORT
          for (i64 q = begin; q < end; q++) to[q] = from[q * 2];
        else
          for (INDEX q = begin; q < end; q++) to[q] = from[q * apart];
      }
  }
}

/* The columns themselves, for kernels that see few places: out[k][n][z][y][x] = what element k sees from that place, in
 * planes where it begins to see at rows[k]. One work group makes the row of one element of the kernel for one image. */
HAL_KERNEL columns(HAL_GLOBAL const T *restrict planes, HAL_GLOBAL const INDEX *restrict rows,
                   INDEX all_depth, INDEX all_height, INDEX all_width,
                   HAL_GLOBAL T *restrict out, INDEX depth, INDEX height, INDEX width) {
  const INDEX n = HAL_GROUP(1), k = HAL_GROUP(2);
  planes += rows[k] + n * all_depth * all_height * all_width;
  out += (k * HAL_GROUPS(1) + n) * depth * height * width;
  for (INDEX z = 0; z < depth; z++)
    for (INDEX y = HAL_ITEM(0); y < height; y += HAL_ITEMS(0))
      copy_row(planes + (z * all_height + y) * all_width, out + (z * height + y) * width, width);
}

/* Images with all channels of a place side by side: out[n][z][y][x][c], zero beyond the image, BESIDE channels at a time.
 * One work group makes one row of one image. */
#define BESIDE 16
HAL_KERNEL interleave(HAL_GLOBAL const T *restrict x, INDEX offset, INDEX of_image, INDEX of_channel, INDEX of_z, INDEX of_y,
                      INDEX of_x, INDEX depth, INDEX height, INDEX width, INDEX channels,
                      HAL_GLOBAL T *restrict out, INDEX all_depth, INDEX all_height, INDEX all_width) {
  const INDEX n = HAL_GROUP(1), z = HAL_GROUP(2);
  x += offset + n * of_image + z * of_z;
  out += (n * all_depth + z) * all_height * all_width * channels;
  for (INDEX y = HAL_ITEM(0); y < all_height; y += HAL_ITEMS(0)) {
    HAL_GLOBAL T *to = out + y * all_width * channels;
    const INDEX inside = z < depth && y < height ? width : 0;
    for (INDEX c = 0; c < channels; c += BESIDE) {
      HAL_GLOBAL const T *from = x + y * of_y + c * of_channel;
      const int some = channels - c < BESIDE ? (int)(channels - c) : BESIDE;
      if (some == BESIDE)
        for (INDEX i = 0; i < inside; i++)
          for (int q = 0; q < BESIDE; q++) to[i * channels + c + q] = from[q * of_channel + i * of_x];
      else
        for (INDEX i = 0; i < inside; i++)
          for (int q = 0; q < some; q++) to[i * channels + c + q] = from[q * of_channel + i * of_x];
    }
    for (INDEX i = inside * channels; i < all_width * channels; i++) to[i] = 0;
  }
}
