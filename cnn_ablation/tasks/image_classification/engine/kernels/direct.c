/* Convolutions with stride 1 of float32 maps in channels-last order (images, height, width, channels): a row of outputs
 * is a matrix product that reads the input where it lies. Padding, if any, is in the inputs already and 0 in the shape.
 *
 * Here and in winograd.c the number of filters is a multiple of GRAIN. Functions work on images first to last, so that
 * threads can share a batch.
 */
#include "vectors.h"
#include "products.h"

/* Row i of the outputs of an image. weights: panels of the matrix (kernel_height * kernel_width * channels, filters) */
INLINE void direct_row(const float *in, const float *weights, const float *bias, float *out, long image, long i,
                       const Shape *shape)
{
    long row = shape->width * shape->channels, span = shape->kernel_width * shape->channels;
    Left pixels = { in + (image * shape->height + i) * row, shape->channels, row, shape->kernel_height, span };
    multiply_rows(&pixels, out_width(shape), weights, shape->filters, bias, out);
}

/* What `rows` rows of an image's outputs, from row i on, add to the gradient of the weights. */
INLINE void direct_rows_back(const float *in, const float *out_gradient, float *gradient, long image, long i, long rows,
                             const Shape *shape)
{
    long row = shape->width * shape->channels, span = shape->kernel_width * shape->channels, filters = shape->filters;
    for (long k = 0; k < shape->kernel_height; k++) {
        Left pixels = { in + (image * shape->height + i + k) * row, shape->channels, row, rows, out_width(shape) };
        float *sums = gradient + k * span * filters;
        multiply_columns(&pixels, span, out_gradient, filters, sums, sums);
    }
}

INLINE long weights_of(const Shape *shape)
{
    return shape->kernel_height * shape->kernel_width * shape->channels * shape->filters;
}

#define ROWS 4 /* of outputs at a time, so that their gradient stays near the processor */

void direct_forward(const float *in, const float *weights, const float *bias, float *out, long first, long last,
                    const Shape *shape)
{
    long height = out_height(shape), row = out_width(shape) * shape->filters;
    for (long image = first; image < last; image++)
        for (long i = 0; i < height; i++)
            direct_row(in, weights, bias, out + (image * height + i) * row, image, i, shape);
}

/* gradient: of the weights, dense (kernel_height * kernel_width * channels, filters), what these images add to it */
void direct_weights(const float *in, const float *out_gradient, float *gradient, long first, long last,
                    const Shape *shape)
{
    long height = out_height(shape), row = out_width(shape) * shape->filters;
    memset(gradient, 0, sizeof(float) * weights_of(shape));
    for (long image = first; image < last; image++)
        for (long i = 0; i < height; i += ROWS)
            direct_rows_back(in, out_gradient + (image * height + i) * row, gradient, image, i,
                             least(ROWS, height - i), shape);
}

/* ---- Directly, with 2x2 max pooling and an activation; see pooling.c for `slope` ---- */

/* Floats that direct_pooled_forward needs at `rows`. */
long direct_pooled_scratch(const Shape *shape) { return 2 * out_width(shape) * shape->filters; }

INLINE void pool_filters(const float *in, long row, float *out, int8_t *index, const Shape *shape, float slope, long f,
                         long count)
{
    const float *from = in + f, *below = from + row;
    const long right = shape->filters;
    const vector window[4] = { load_first(from, count), load_first(from + right, count), load_first(below, count),
                               load_first(below + right, count) };
    pool(window, 2, out + f, index + f, slope, count);
}

/* Two rows of outputs -> a row of windows. */
INLINE void pool_rows(const float *rows, float *out, int8_t *index, const Shape *shape, float slope)
{
    const long filters = shape->filters, row = out_width(shape) * filters;
    for (long j = 0; j < windows_of(shape); j++, rows += 2 * filters, out += filters, index += filters)
        BY_VECTORS(filters, pool_filters, rows, row, out, index, shape, slope);
}

/* Maps before pooling never leave the processor's cache. */
void direct_pooled_forward(const float *in, const float *weights, const float *bias, float slope, float *out,
                           int8_t *index, float *rows, long first, long last, const Shape *shape)
{
    long row = out_width(shape) * shape->filters, pooled_row = windows_of(shape) * shape->filters;
    for (long image = first; image < last; image++)
        for (long i = 0; i < out_height(shape) / 2; i++) {
            long at = (image * (out_height(shape) / 2) + i) * pooled_row;
            direct_row(in, weights, bias, rows, image, 2 * i, shape);
            direct_row(in, weights, bias, rows + row, image, 2 * i + 1, shape);
            BY_SLOPE(pool_rows, rows, out + at, index + at, shape);
        }
}

/* ---- The way back. Of the four outputs of a window one alone has a gradient: a quarter of the multiplications of
 * direct_weights. A filter's gradient is the sum of patches of the inputs, each times what a window passes on. */

#define COPIED (LANES == 16) /* rows of patches begin where vectors do; in the inputs 15 of 16 cross a line of the cache */

/* Floats of a row of a patch, and from a row of a filter's gradient to the next: whole vectors. */
long direct_pooled_weights_row(const Shape *shape)
{
    return (shape->kernel_width * shape->channels + LANES - 1) / LANES * LANES;
}

/* Floats from a patch to the one to its right and to the one below it. */
INLINE long patch_right(const Shape *shape) { return COPIED ? direct_pooled_weights_row(shape) : shape->channels; }
INLINE long patch_down(const Shape *shape) { return patch_right(shape) * (COPIED ? out_width(shape) : shape->width); }
INLINE long patches_rows(const Shape *shape, long windows) { return 2 * windows + shape->kernel_height - 1; }

/* What some rows of windows need: patches, and what they pass on (values and as many places). */
INLINE long floats_near(const Shape *shape, long rows)
{
    return patches_rows(shape, rows) * patch_down(shape) + 2 * rows * windows_of(shape) * shape->filters;
}

#define NEAR 8192 /* floats that the nearest cache holds */

/* Rows of windows at a time. */
INLINE long window_rows(const Shape *shape)
{
    long rows = 1;
    while (floats_near(shape, rows + 1) <= NEAR) rows++;
    return rows;
}

/* Floats that direct_pooled_weights needs at `scratch`; a whole number of lines of the cache. */
long direct_pooled_weights_scratch(const Shape *shape)
{
    return (floats_near(shape, window_rows(shape)) + image_of(shape) + PANEL + LINE - 1) / LINE * LINE;
}

/* Rows of an image -> the rows of patches that begin at each of their pixels, (rows, out_width, row). What is past the
 * last channel of a row means nothing. -> patches */
INLINE const float *copy_patches(const float *in, long rows, float *patches, const Shape *shape)
{
    const long row = patch_right(shape);
    float *to = patches;
    for (long i = 0; i < rows; i++, in += shape->width * shape->channels)
        for (long j = 0; j < out_width(shape); j++, to += row)
            for (long c = 0; c < row; c += LANES) store(to + c, load(in + j * shape->channels + c));
    return patches;
}

/* Some filters of a window: what it passes on, and the patch that its largest output was computed from. */
INLINE void pass_on(const float *gradient, const int8_t *index, int32_t corner, int32_t down, int32_t right, float *value,
                    int32_t *patch, float *bias_gradient, float slope, long f, long count)
{
    integers place;
    vector values = passed(gradient + f, index + f, slope, count, &place);
    store_first(value + f, values, count);
    store_first_integers(patch + f, corner + (-(place >> 1) & down) + (-(place & 1) & right), count);
    store_first(bias_gradient + f, load_first(bias_gradient + f, count) + values, count);
}

/* What some rows of windows pass on to the outputs before pooling: one value each, and where the patch begins that this
 * output was computed from. Both (windows, filters). */
INLINE void passed_on(const float *gradient, const int8_t *index, long rows, const Shape *shape, float *value,
                      int32_t *patch, float *bias_gradient, float slope)
{
    const long filters = shape->filters;
    const int32_t down = (int32_t)patch_down(shape), right = (int32_t)patch_right(shape);
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < windows_of(shape); j++) {
            const int32_t corner = (int32_t)(2 * i) * down + (int32_t)(2 * j) * right;
            BY_VECTORS(filters, pass_on, gradient, index, corner, down, right, value, patch, bias_gradient, slope);
            gradient += filters, index += filters, value += filters, patch += filters;
        }
}

#define MOST_ROWS 6 /* of a gradient that registers hold */
#define MOST_FILTERS (LANES == 16 ? 2 : 1) /* at a time: a sum waits for itself, two of them for less */

/* Adds value x patch of all windows of neighbouring filters to rows x (vectors * LANES) numbers of their gradients, held
 * in registers. */
INLINE void passed_block(const float *patches, const float *value, const int32_t *patch, long windows, float *gradient,
                         const Shape *shape, const int rows, const int vectors, const int many)
{
    const long row = direct_pooled_weights_row(shape), filter = shape->kernel_height * row, down = patch_down(shape);
    vector sum[2][MOST_ROWS][2];
    UNROLL for (int f = 0; f < many; f++)
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < vectors; v++) sum[f][r][v] = load(gradient + f * filter + r * row + v * LANES);
    for (long window = 0; window < windows; window++, value += shape->filters, patch += shape->filters)
        UNROLL for (int f = 0; f < many; f++) {
            const float *from = patches + patch[f];
            const vector factor = broadcast(value[f]);
            UNROLL for (int r = 0; r < rows; r++)
                UNROLL for (int v = 0; v < vectors; v++) sum[f][r][v] += factor * load(from + r * down + v * LANES);
        }
    UNROLL for (int f = 0; f < many; f++)
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < vectors; v++) store(gradient + f * filter + r * row + v * LANES, sum[f][r][v]);
}

/* Adds value x patch of all windows of `many` filters to their gradients. */
INLINE void add_to_filters(const float *patches, const float *value, const int32_t *patch, long windows, float *gradient,
                           const Shape *shape, const int many)
{
    const long row = direct_pooled_weights_row(shape), kernel = shape->kernel_height;
    for (long c = 0; c < row; c += PANEL)
        for (long k = 0, height; k < kernel; k += height) {
            height = least(MOST_ROWS, kernel - k);
#define PASSED(ROWS, VECTORS) \
    case 2 * ROWS + VECTORS: \
        passed_block(patches + k * patch_down(shape) + c, value, patch, windows, gradient + k * row + c, shape, ROWS, \
                     VECTORS, many); \
        break;
            switch (2 * height + (row - c >= PANEL ? 2 : 1)) { /* rows are whole vectors */
                PASSED(1, 1) PASSED(2, 1) PASSED(3, 1) PASSED(4, 1) PASSED(5, 1) PASSED(6, 1)
                PASSED(1, 2) PASSED(2, 2) PASSED(3, 2) PASSED(4, 2) PASSED(5, 2) PASSED(6, 2)
            }
        }
}

/* What parts of a batch add to the gradient, (parts, filters, kernel_height, direct_pooled_weights_row), -> the gradient of
 * the weights, (filters, kernel_height, kernel_width, channels) */
void direct_pooled_weights_back(const float *sums, long parts, float *gradient, const Shape *shape)
{
    const long row = direct_pooled_weights_row(shape), span = shape->kernel_width * shape->channels;
    const long rows = shape->filters * shape->kernel_height;
    for (long i = 0; i < rows; i++, sums += row)
        for (long c = 0; c < span; c++) {
            float sum = sums[c];
            for (long part = 1; part < parts; part++) sum += sums[part * rows * row + c];
            *gradient++ = sum;
        }
}

/* gradient: (filters, kernel_height, direct_pooled_weights_row), whose rows are filled up to whole vectors with numbers
 * that mean nothing. bias_gradient: (filters). Both: what these images add. */
void direct_pooled_weights(const float *in, const float *out_gradient, const int8_t *index, float slope, float *gradient,
                           float *bias_gradient, float *scratch, long first, long last, const Shape *shape)
{
    const long height = out_height(shape) / 2, filters = shape->filters, most = window_rows(shape);
    const long filter = shape->kernel_height * direct_pooled_weights_row(shape);
    float *patches = scratch, *value = patches + patches_rows(shape, most) * patch_down(shape);
    int32_t *patch = (int32_t *)(value + most * windows_of(shape) * filters);
    float *image_copy = (float *)(patch + most * windows_of(shape) * filters); /* vectors read past the last row */
    memset(gradient, 0, sizeof(float) * filters * filter);
    memset(bias_gradient, 0, sizeof(float) * filters);
    memset(image_copy + image_of(shape), 0, sizeof(float) * PANEL);
    for (long image = first; image < last; image++) {
        memcpy(image_copy, in + image * image_of(shape), sizeof(float) * image_of(shape));
        for (long i = 0, rows; i < height; i += rows) {
            rows = least(most, height - i);
            const long windows = rows * windows_of(shape), at = (image * height + i) * windows_of(shape) * filters;
            const float *from = image_copy + 2 * i * shape->width * shape->channels;
            if (COPIED)
                from = copy_patches(from, patches_rows(shape, rows), patches, shape);
            BY_SLOPE(passed_on, out_gradient + at, index + at, rows, shape, value, patch, bias_gradient);
            long f = 0;
            for (; f + MOST_FILTERS <= filters; f += MOST_FILTERS)
                add_to_filters(from, value + f, patch + f, windows, gradient + f * filter, shape, MOST_FILTERS);
            for (; f < filters; f++)
                add_to_filters(from, value + f, patch + f, windows, gradient + f * filter, shape, 1);
        }
    }
}
