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

/* Maps before pooling never leave the processor's cache. */
void direct_pooled_forward(const float *in, const float *weights, const float *bias, float slope, float *out,
                           int32_t *index, float *rows, long first, long last, const Shape *shape)
{
    long row = out_width(shape) * shape->filters, pooled_row = windows_of(shape) * shape->filters;
    const Size pair = { 2, out_width(shape), shape->filters };
    for (long image = first; image < last; image++)
        for (long i = 0; i < out_height(shape) / 2; i++) {
            long at = (image * (out_height(shape) / 2) + i) * pooled_row;
            direct_row(in, weights, bias, rows, image, 2 * i, shape);
            direct_row(in, weights, bias, rows + row, image, 2 * i + 1, shape);
            max_pool_forward_float32(rows, out + at, index + at, 0, 1, &pair, slope);
        }
}

/* Some filters of a window: what it passes on, and where in the inputs that output's patch begins. */
INLINE void pass_on(const float *gradient, const float *out, const int32_t *index, int32_t corner, const Shape *shape,
                    float *value, int32_t *patch, float *bias_gradient, float slope, long f, long count)
{
    integers place = load_first_integers(index + f, count);
    integers down = -(place >> 1) & (int32_t)(shape->width * shape->channels), right = -(place & 1) & (int32_t)shape->channels;
    vector values = passed(gradient + f, out + f, slope, count);
    store_first(value + f, values, count);
    store_first_integers(patch + f, corner + down + right, count);
    store_first(bias_gradient + f, load_first(bias_gradient + f, count) + values, count);
}

/* What some rows of windows pass on to the outputs before pooling: one value each, and where in the inputs the patch
 * begins that this output was computed from. Both (windows, filters). */
INLINE void passed_on(const float *gradient, const float *out, const int32_t *index, long i, long rows,
                      const Shape *shape, float *value, int32_t *patch, float *bias_gradient, float slope)
{
    long filters = shape->filters, row = shape->width * shape->channels, windows = windows_of(shape);
    for (long window = 0; window < rows * windows; window++) {
        int32_t corner = 2 * (i + window / windows) * row + 2 * (window % windows) * shape->channels;
        long at_window = window * filters;
        BY_VECTORS(filters, pass_on, gradient + at_window, out + at_window, index + at_window, corner, shape,
                   value + at_window, patch + at_window, bias_gradient, slope);
    }
}

#define MOST_ROWS 6 /* of a gradient that registers hold */

/* Adds value x patch of all windows of one filter to rows x (vectors * LANES) numbers of its gradient, held in
 * registers. */
INLINE void passed_block(const float *in, long in_row, const float *value, const int32_t *patch, long windows,
                         long filters, float *gradient, long gradient_row, const int rows, const int vectors)
{
    vector sum[MOST_ROWS][2];
    const float *from[MOST_ROWS];
    UNROLL for (int r = 0; r < rows; r++) {
        from[r] = in + r * in_row;
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = load(gradient + r * gradient_row + v * LANES);
    }
    for (long window = 0; window < windows; window++) {
        long at = patch[window * filters];
        vector factor = broadcast(value[window * filters]);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < vectors; v++) sum[r][v] += factor * load(from[r] + at + v * LANES);
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) store(gradient + r * gradient_row + v * LANES, sum[r][v]);
}

/* Adds value x patch of all windows of one filter to its gradient, in rows `row` apart. */
INLINE void add_to_filter(const float *in, const float *value, const int32_t *patch, long windows, float *gradient,
                          long row, const Shape *shape)
{
    long in_row = shape->width * shape->channels, kernel = shape->kernel_height;
    for (long c = 0; c < row; c += PANEL)
        for (long k = 0, height; k < kernel; k += height) {
            height = least(MOST_ROWS, kernel - k);
#define PASSED(ROWS, VECTORS) \
    case 2 * ROWS + VECTORS: \
        passed_block(in + k * in_row + c, in_row, value, patch, windows, shape->filters, gradient + k * row + c, row, \
                     ROWS, VECTORS); \
        break;
            switch (2 * height + (row - c >= PANEL ? 2 : 1)) { /* rows are whole vectors */
                PASSED(1, 1) PASSED(2, 1) PASSED(3, 1) PASSED(4, 1) PASSED(5, 1) PASSED(6, 1)
                PASSED(1, 2) PASSED(2, 2) PASSED(3, 2) PASSED(4, 2) PASSED(5, 2) PASSED(6, 2)
            }
        }
}

#define NEAR 2048 /* values and as many places, so that the nearest cache holds them and an image */

INLINE long window_rows(const Shape *shape)
{
    long rows = NEAR / (windows_of(shape) * shape->filters);
    return rows ? rows : 1;
}

INLINE long window_values(const Shape *shape) { return window_rows(shape) * windows_of(shape) * shape->filters; }

/* Floats that direct_pooled_weights needs at `scratch`. */
long direct_pooled_weights_scratch(const Shape *shape) { return image_of(shape) + PANEL + 2 * window_values(shape); }

/* Floats from a row of a filter's gradient to the next. */
long direct_pooled_weights_row(const Shape *shape)
{
    return (shape->kernel_width * shape->channels + LANES - 1) / LANES * LANES;
}

/* Of the four outputs of a window one alone has a gradient: a quarter of the multiplications of direct_weights.
 *
 * gradient: (filters, kernel_height, direct_pooled_weights_row), whose rows are filled up to whole vectors with numbers
 * that mean nothing. bias_gradient: (filters). Both: what these images add. */
void direct_pooled_weights(const float *in, const float *out_gradient, const float *out, const int32_t *index,
                           float slope, float *gradient, float *bias_gradient, float *scratch, long first, long last,
                           const Shape *shape)
{
    long pooled_height = out_height(shape) / 2, pooled_row = windows_of(shape) * shape->filters;
    long filters = shape->filters, kernel = shape->kernel_height, row = direct_pooled_weights_row(shape);
    float *image_copy = scratch, *value = scratch + image_of(shape) + PANEL; /* vectors read past the last row */
    int32_t *patch = (int32_t *)(value + window_values(shape));
    memset(gradient, 0, sizeof(float) * filters * kernel * row);
    memset(bias_gradient, 0, sizeof(float) * filters);
    memset(image_copy + image_of(shape), 0, sizeof(float) * PANEL);
    for (long image = first; image < last; image++) {
        memcpy(image_copy, in + image * image_of(shape), sizeof(float) * image_of(shape));
        for (long i = 0; i < pooled_height; i += window_rows(shape)) {
            long rows = least(window_rows(shape), pooled_height - i), at = (image * pooled_height + i) * pooled_row;
            BY_SLOPE(passed_on, out_gradient + at, out + at, index + at, i, rows, shape, value, patch, bias_gradient);
            for (long f = 0; f < filters; f++)
                add_to_filter(image_copy, value + f, patch + f, rows * windows_of(shape), gradient + f * kernel * row, row,
                              shape);
        }
    }
}
