/* Images laid out so that every row of a convolution's columns is a piece of contiguous memory.
 *
 * out[c][phase][n][z][y][x] = x[n, c, z * sz + phase_z - pz, ...], zero outside the image: a plane for each remainder of
 * the place by the stride. In it, the element k of the kernel sees place j at j + an offset that depends on k alone, so
 * that a matrix product reads its columns where they lie, and no column is ever copied.
 *
 * Macros: T, INDEX. One work group makes one plane of one channel; its work items share the rows.
 */
HAL_KERNEL spread(HAL_GLOBAL const T *x, INDEX offset, INDEX of_image, INDEX of_channel, INDEX of_z, INDEX of_y, INDEX of_x,
                     INDEX depth, INDEX height, INDEX width, INDEX pz, INDEX py, INDEX px, INDEX sz, INDEX sy, INDEX sx,
                     INDEX phases_z, INDEX phases_y, INDEX phases_x,
                     HAL_GLOBAL T *out, INDEX all_depth, INDEX all_height, INDEX all_width, INDEX plane_stride) {
  const INDEX n = HAL_GROUP(1), plane = HAL_GROUP(2), phases = phases_z * phases_y * phases_x;
  const INDEX phase = plane % phases;
  const INDEX first_z = phase / (phases_y * phases_x) - pz, first_y = phase / phases_x % phases_y - py;
  const INDEX first_x = phase % phases_x - px;
  x += offset + n * of_image + plane / phases * of_channel;
  out += plane * plane_stride + n * all_depth * all_height * all_width;
  /* Places before `begin` lie left of the image, those from `end` on right of it. */
  INDEX begin = first_x < 0 ? (sx - 1 - first_x) / sx : 0, end = (width - first_x + sx - 1) / sx;
  begin = begin < all_width ? begin : all_width;
  end = end < all_width ? (end > begin ? end : begin) : all_width;
  for (INDEX row = HAL_ITEM(0); row < all_depth * all_height; row += HAL_ITEMS(0)) {
    const INDEX z = row / all_height * sz + first_z, y = row % all_height * sy + first_y;
    HAL_GLOBAL T *to = out + row * all_width;
    if (z < 0 || z >= depth || y < 0 || y >= height) {
      for (INDEX i = 0; i < all_width; i++) to[i] = 0;
      continue;
    }
    HAL_GLOBAL const T *from = x + z * of_z + y * of_y + first_x * of_x;
    for (INDEX i = 0; i < begin; i++) to[i] = 0;
    if (sx * of_x == 1)
      for (INDEX i = begin; i < end; i++) to[i] = from[i];
    else
      for (INDEX i = begin; i < end; i++) to[i] = from[i * sx * of_x];
    for (INDEX i = end; i < all_width; i++) to[i] = 0;
  }
}

/* The columns themselves, for kernels that see few places: out[k][n][z][y][x] = what element k sees from that place.
 * One work group makes the row of one element of the kernel for one image. */
HAL_KERNEL columns(HAL_GLOBAL const T *x, INDEX offset, INDEX of_image, INDEX of_channel, INDEX of_z, INDEX of_y, INDEX of_x,
                      INDEX depth, INDEX height, INDEX width, INDEX pz, INDEX py, INDEX px, INDEX sz, INDEX sy, INDEX sx,
                      INDEX dz, INDEX dy, INDEX dx, INDEX kz, INDEX ky, INDEX kx, HAL_GLOBAL T *out,
                      INDEX places_z, INDEX places_y, INDEX places_x) {
  const INDEX n = HAL_GROUP(1), k = HAL_GROUP(2);
  const INDEX first_z = k / (ky * kx) % kz * dz - pz, first_y = k / kx % ky * dy - py, first_x = k % kx * dx - px;
  const INDEX places = places_z * places_y * places_x;
  x += offset + n * of_image + k / (kz * ky * kx) * of_channel;
  out += (k * HAL_GROUPS(1) + n) * places;
  INDEX begin = first_x < 0 ? (sx - 1 - first_x) / sx : 0, end = (width - first_x + sx - 1) / sx;
  begin = begin < places_x ? begin : places_x;
  end = end < places_x ? (end > begin ? end : begin) : places_x;
  for (INDEX row = HAL_ITEM(0); row < places_z * places_y; row += HAL_ITEMS(0)) {
    const INDEX zz = row / places_y * sz + first_z, yy = row % places_y * sy + first_y;
    HAL_GLOBAL T *to = out + row * places_x;
    if (zz < 0 || zz >= depth || yy < 0 || yy >= height) {
      for (INDEX i = 0; i < places_x; i++) to[i] = 0;
      continue;
    }
    HAL_GLOBAL const T *from = x + zz * of_z + yy * of_y + first_x * of_x;
    for (INDEX i = 0; i < begin; i++) to[i] = 0;
    for (INDEX i = begin; i < end; i++) to[i] = from[i * sx * of_x];
    for (INDEX i = end; i < places_x; i++) to[i] = 0;
  }
}

/* Images with all channels of a place side by side: out[n][z][y][x][c], zero beyond the image, BESIDE channels at a time.
 * One work group makes one row of one image. */
#define BESIDE 16
HAL_KERNEL interleave(HAL_GLOBAL const T *x, INDEX offset, INDEX of_image, INDEX of_channel, INDEX of_z, INDEX of_y, INDEX of_x,
                         INDEX depth, INDEX height, INDEX width, INDEX channels,
                         HAL_GLOBAL T *out, INDEX all_depth, INDEX all_height, INDEX all_width) {
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
