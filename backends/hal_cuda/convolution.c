/* Images as the columns of a matrix product, and back: every item makes one element, neighbours make neighbours.
 *
 * Macros: T (in memory), VALUE (computed in), LOAD(p, i), STORE(p, i, v), INDEX.
 */

/* out[image][k][place] = what element k = (c, kz, ky, kx) of the kernel sees from a place; rows of places, as far apart as
 * `of_image_out` and `of_row_out` say. */
HAL_KERNEL columns(const INDEX n, HAL_GLOBAL const T *restrict x, const INDEX offset,
                   const INDEX of_image, const INDEX of_channel, const INDEX of_z, const INDEX of_y, const INDEX of_x,
                   const INDEX depth, const INDEX height, const INDEX width, const INDEX pz, const INDEX py, const INDEX px,
                   const INDEX sz, const INDEX sy, const INDEX sx, const INDEX dz, const INDEX dy, const INDEX dx,
                   const INDEX kz, const INDEX ky, const INDEX kx, const INDEX rows,
                   HAL_GLOBAL T *restrict out, const INDEX of_image_out, const INDEX of_row_out,
                   const INDEX places_z, const INDEX places_y, const INDEX places_x) {
  const INDEX places = places_z * places_y * places_x;
  for (INDEX i = (INDEX)HAL_INDEX; i < n; i += (INDEX)HAL_TOTAL) {
    const INDEX row = i / places, place = i - row * places;
    const INDEX image = row / rows, k = row - image * rows;
    const INDEX plane = place / places_x, line = k / kx;
    const INDEX xx = (place - plane * places_x) * sx + (k - line * kx) * dx - px;
    const INDEX yy = plane % places_y * sy + line % ky * dy - py;
    const INDEX zz = plane / places_y * sz + line / ky % kz * dz - pz;
    const INDEX channel = k / (kz * ky * kx);
    T value = 0;
    if (xx >= 0 && xx < width && yy >= 0 && yy < height && zz >= 0 && zz < depth)
      value = x[offset + image * of_image + channel * of_channel + zz * of_z + yy * of_y + xx * of_x];
    out[image * of_image_out + k * of_row_out + place] = value;
  }
}

/* out[image][channel][z][y][x] = bias + the sum of all elements of columns that see that place: the reverse. Columns are
 * not rounded to T, so that the sum is rounded once. */
HAL_KERNEL images(const INDEX n, HAL_GLOBAL const VALUE *restrict columns, const INDEX of_image, const INDEX of_row,
                  const INDEX places_z, const INDEX places_y, const INDEX places_x,
                  const INDEX pz, const INDEX py, const INDEX px, const INDEX sz, const INDEX sy, const INDEX sx,
                  const INDEX dz, const INDEX dy, const INDEX dx, const INDEX kz, const INDEX ky, const INDEX kx,
                  HAL_GLOBAL const T *restrict bias, const INDEX bias_offset, const INDEX bias_stride, const INDEX has_bias,
                  HAL_GLOBAL T *restrict out, const INDEX offset, const INDEX channels,
                  const INDEX depth, const INDEX height, const INDEX width) {
  for (INDEX i = (INDEX)HAL_INDEX; i < n; i += (INDEX)HAL_TOTAL) {
    const INDEX line = i / width, x = i - line * width;
    const INDEX plane = line / height, y = line - plane * height;
    const INDEX stack = plane / depth, z = plane - stack * depth;
    const INDEX image = stack / channels, c = stack - image * channels;
    VALUE sum = 0;
    for (INDEX a = 0; a < kz; a++) {
      const INDEX zz = z + pz - a * dz;
      if (zz < 0 || zz % sz != 0 || zz / sz >= places_z) continue;
      for (INDEX b = 0; b < ky; b++) {
        const INDEX yy = y + py - b * dy;
        if (yy < 0 || yy % sy != 0 || yy / sy >= places_y) continue;
        for (INDEX d = 0; d < kx; d++) {
          const INDEX xx = x + px - d * dx;
          if (xx < 0 || xx % sx != 0 || xx / sx >= places_x) continue;
          const INDEX row = ((c * kz + a) * ky + b) * kx + d;
          const INDEX place = (zz / sz * places_y + yy / sy) * places_x + xx / sx;
          sum += columns[image * of_image + row * of_row + place];
        }
      }
    }
    if (has_bias) sum += LOAD(bias, bias_offset + c * bias_stride);
    STORE(out, offset + i, sum);
  }
}
