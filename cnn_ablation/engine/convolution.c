/* Convolutions with stride 1 of float32 maps in channels-last order (images, height, width, channels).
 *
 * Two ways. Directly: a row of outputs is a matrix product that reads the input where it lies. By Winograd's minimal
 * filtering F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308): 36 multiplications for 4x4 outputs of a 3x3 kernel
 * instead of 144; the inputs are cut into tiles of 6x6 and transformed, each of the 36 places in a tile is a matrix
 * product of its own, and the products are transformed back.
 *
 * The number of filters is a multiple of LANES, for Winograd that of channels too. Functions work on images first to
 * last, so that threads can share a batch.
 */
#include "kernels.h"

#define UNROLL _Pragma("GCC unroll 8")
#define LANES 8
#define PANEL (2 * LANES)

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector value) { *(vector *)to = value; }
INLINE vector broadcast(float x) { return (vector){ x, x, x, x, x, x, x, x }; }
INLINE integers load_integers(const int32_t *from) { return *(const integers *)from; }
INLINE void store_integers(int32_t *to, integers value) { *(integers *)to = value; }

/* a where `which` is -1, b where it is 0 */
INLINE vector choose(integers which, vector a, vector b)
{
    return (vector)((which & (integers)a) | (~which & (integers)b));
}

/* Numbers where `positive`, else those times the slope of an activation; see pooling.c. */
INLINE vector sloped(vector value, integers positive, float slope)
{
    if (slope == 1)
        return value;
    return choose(positive, value, slope == 0 ? broadcast(0) : (vector)(value * slope));
}

/* The largest of a window of 2x2, after the activation, and its place; NaN is the largest. */
INLINE void pool(const vector *window, long row, float *out, int32_t *index, float slope)
{
    vector best = window[0];
    integers best_place = (integers)broadcast(0);
    UNROLL for (int place = 1; place < 4; place++) {
        vector next = window[place / 2 * row + place % 2];
        integers larger = (next > best) | (next != next);
        best = choose(larger, next, best);
        best_place = (larger & place) | (~larger & best_place);
    }
    store(out, sloped(best, ~(best <= 0.0f), slope));
    store_integers(index, best_place);
}

typedef struct {
    long height, width, channels, kernel_height, kernel_width, filters, padding;
} Shape;

INLINE long image_of(const Shape *shape) { return shape->height * shape->width * shape->channels; }
INLINE long out_height(const Shape *shape) { return shape->height + 2 * shape->padding - shape->kernel_height + 1; }
INLINE long out_width(const Shape *shape) { return shape->width + 2 * shape->padding - shape->kernel_width + 1; }

/* ---- Matrix products ---- */

/* The left matrix: element (p, segment s, k) lies at data[p * apart + s * segment + k] where it is given by rows, at
 * data[p + s * segment + k * apart] where by columns. */
typedef struct {
    const float *data;
    long apart, segment, segments, length;
} Left;

INLINE Left whole(const float *data, long apart, long length) { return (Left){ data, apart, 0, 1, length }; }

/* rows x (vectors * LANES) numbers of out = start + left * right, held in registers. Rows of `right` lie right_row apart.
 * `start` is NULL, or out itself, or one row that all begin with (start_row 0). */
INLINE void block(const Left *left, long first, const float *right, long right_row, const float *start, long start_row,
                  float *out, long out_row, const int by_columns, const int rows, const int vectors)
{
    const long row = by_columns ? 1 : left->apart, step = by_columns ? left->apart : 1;
    vector sum[8][2];
    UNROLL for (int p = 0; p < rows; p++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[p][v] = start ? load(start + p * start_row + v * LANES) : broadcast(0);
    for (long s = 0; s < left->segments; s++) {
        const float *from = left->data + first * row + s * left->segment;
        for (long k = 0; k < left->length; k++, from += step, right += right_row) {
            vector weights[2];
            UNROLL for (int v = 0; v < vectors; v++) weights[v] = load(right + v * LANES);
            UNROLL for (int p = 0; p < rows; p++) {
                vector value = broadcast(from[p * row]);
                UNROLL for (int v = 0; v < vectors; v++) sum[p][v] += value * weights[v];
            }
        }
    }
    UNROLL for (int p = 0; p < rows; p++)
        UNROLL for (int v = 0; v < vectors; v++) store(out + p * out_row + v * LANES, sum[p][v]);
}

/* out (rows x columns, dense) = start + left * right */
INLINE void multiply(const Left *left, long rows, const float *right, long right_row, long panel, long columns,
                     const float *start, long start_row, float *out, const int by_columns)
{
    for (long c = 0; c < columns; c += PANEL, right += panel) {
        const int vectors = columns - c >= PANEL ? 2 : 1;
        /* As many sums as registers hold, in blocks of nearly equal height: a low block waits for its own sums. */
        const long most = vectors == 2 ? 6 : 8, blocks = (rows + most - 1) / most;
        long p = 0, height;
        for (long b = 0; b < blocks; b++, p += height) {
            height = (rows - p + blocks - b - 1) / (blocks - b);
#define BLOCK(ROWS, VECTORS) \
    case 2 * ROWS + VECTORS: \
        block(left, p, right, by_columns ? right_row : VECTORS * LANES, start ? start + p * start_row + c : NULL, \
              start_row, out + p * columns + c, columns, by_columns, ROWS, VECTORS); \
        break;
            switch (2 * height + vectors) {
                BLOCK(1, 1) BLOCK(2, 1) BLOCK(3, 1) BLOCK(4, 1) BLOCK(5, 1) BLOCK(6, 1) BLOCK(7, 1) BLOCK(8, 1)
                BLOCK(1, 2) BLOCK(2, 2) BLOCK(3, 2) BLOCK(4, 2) BLOCK(5, 2) BLOCK(6, 2)
            }
        }
    }
}

/* The left matrix by rows; the right one in panels of PANEL columns (the last may have LANES), of which each lies
 * close together. `bias`: one row that is added to all, or NULL. */
static void multiply_rows(const Left *left, long rows, const float *panels, long columns, const float *bias, float *out)
{
    multiply(left, rows, panels, 0, PANEL * left->segments * left->length, columns, bias, 0, out, 0);
}

/* out += left * right, the left matrix by columns, the right one as it is */
static void add_by_columns(const Left *left, long rows, const float *right, long columns, float *out)
{
    multiply(left, rows, right, columns, PANEL, columns, out, columns, out, 1);
}

/* ---- Directly; padding, if any, is in the inputs already and 0 in the shape ---- */

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
        add_by_columns(&pixels, span, out_gradient, filters, gradient + k * span * filters);
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
    long row = out_width(shape) * shape->filters, pooled_row = out_width(shape) / 2 * shape->filters;
    const Size pair = { 2, out_width(shape), shape->filters };
    for (long image = first; image < last; image++)
        for (long i = 0; i < out_height(shape) / 2; i++) {
            long at = (image * (out_height(shape) / 2) + i) * pooled_row;
            direct_row(in, weights, bias, rows, image, 2 * i, shape);
            direct_row(in, weights, bias, rows + row, image, 2 * i + 1, shape);
            max_pool_forward_float32(rows, out + at, index + at, 0, 1, &pair, slope);
        }
}

/* What some rows of windows pass on to the outputs before pooling: one value each, and where in the inputs the patch
 * begins that this output was computed from. Both (windows, filters). */
INLINE void passed_on(const float *gradient, const float *out, const int32_t *index, long i, long rows,
                      const Shape *shape, float *value, int32_t *patch, float *bias_gradient, float slope)
{
    long filters = shape->filters, row = shape->width * shape->channels, windows = out_width(shape) / 2;
    for (long window = 0; window < rows * windows; window++) {
        int32_t corner = 2 * (i + window / windows) * row + 2 * (window % windows) * shape->channels;
        for (long f = 0; f < filters; f += LANES) {
            long at = window * filters + f;
            integers place = load_integers(index + at);
            integers down = -(place >> 1) & (int32_t)row, right = -(place & 1) & (int32_t)shape->channels;
            vector passed = sloped(load(gradient + at), ~(load(out + at) <= 0.0f), slope);
            store(value + at, passed);
            store_integers(patch + at, corner + down + right);
            store(bias_gradient + f, load(bias_gradient + f) + passed);
        }
    }
}

/* Adds value x patch of all windows of one filter to rows x (vectors * LANES) numbers of its gradient, held in
 * registers. */
INLINE void passed_block(const float *in, long in_row, const float *value, const int32_t *patch, long windows,
                         long filters, float *gradient, long gradient_row, const int rows, const int vectors)
{
    vector sum[6][2];
    const float *from[6];
    UNROLL for (int r = 0; r < rows; r++) {
        from[r] = in + r * in_row;
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = load(gradient + r * gradient_row + v * LANES);
    }
    for (long window = 0; window < windows; window++) {
        long at = patch[window * filters];
        vector passed = broadcast(value[window * filters]);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < vectors; v++) sum[r][v] += passed * load(from[r] + at + v * LANES);
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) store(gradient + r * gradient_row + v * LANES, sum[r][v]);
}

#define NEAR 2048 /* values and as many places, so that the nearest cache holds them and an image */

INLINE long window_rows(const Shape *shape)
{
    long rows = NEAR / (out_width(shape) / 2 * shape->filters);
    return rows ? rows : 1;
}

INLINE long window_values(const Shape *shape) { return window_rows(shape) * (out_width(shape) / 2) * shape->filters; }

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
    long pooled_height = out_height(shape) / 2, pooled_row = out_width(shape) / 2 * shape->filters;
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
                for (long c = 0; c < row; c += PANEL) {
                    const int vectors = row - c >= PANEL ? 2 : 1;
                    for (long k = 0, height; k < kernel; k += height) {
                        height = least(6, kernel - k);
#define PASSED(ROWS, VECTORS) \
    case 2 * ROWS + VECTORS: \
        passed_block(image_copy + k * shape->width * shape->channels + c, shape->width * shape->channels, value + f, \
                     patch + f, rows * (out_width(shape) / 2), filters, gradient + (f * kernel + k) * row + c, row, \
                     ROWS, VECTORS); \
        break;
                        switch (2 * height + vectors) {
                            PASSED(1, 1) PASSED(2, 1) PASSED(3, 1) PASSED(4, 1) PASSED(5, 1) PASSED(6, 1)
                            PASSED(1, 2) PASSED(2, 2) PASSED(3, 2) PASSED(4, 2) PASSED(5, 2) PASSED(6, 2)
                        }
                    }
                }
        }
    }
}

/* ---- Winograd ---- */

#define EDGE 6 /* of a tile of inputs, of which neighbours share two rows or columns */
#define OUT_EDGE 4 /* of its outputs */
#define PLACES (EDGE * EDGE)
#define TILES 48 /* at a time: few enough for the cache, enough for the products */
#define LINE 16 /* floats of a line of the cache; places a power of two apart would share a part of it */

/* x -> B'x, Lavin and Gray's B' for inputs (6x6); x and y in steps */
INLINE void transform_input(const vector *x, long step, vector *y)
{
    vector x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
    vector a = x4 - 4.0f * x2, b = x3 - 4.0f * x1, c = x4 - x2, d = 2.0f * (x3 - x1);
    y[0] = 4.0f * x0 - 5.0f * x2 + x4;
    y[1] = a + b;
    y[2] = a - b;
    y[3] = c + d;
    y[4] = c - d;
    y[5] = 4.0f * x1 - 5.0f * x3 + x5;
}

/* y -> By: the gradient of the former */
INLINE void transform_input_back(const vector *y, long step, vector *x)
{
    vector y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step], y4 = y[4 * step], y5 = y[5 * step];
    vector a = y1 + y2, b = y2 - y1, c = y3 + y4, d = 2.0f * (y4 - y3);
    x[0] = 4.0f * y0;
    x[1] = 4.0f * (b + y5) + d;
    x[2] = -5.0f * y0 - 4.0f * a - c;
    x[3] = -5.0f * y5 - b - d;
    x[4] = y0 + a + c;
    x[5] = y5;
}

/* x -> Gx, Lavin and Gray's G for kernels (6x3) */
INLINE void transform_kernel(const vector *x, long step, vector *y)
{
    vector x0 = x[0], x1 = x[step], x2 = x[2 * step];
    vector a = (x0 + x2) * (-1 / 6.0f), b = x1 * (1 / 6.0f), c = x0 * (1 / 24.0f) + x2 * (1 / 6.0f), d = x1 * (1 / 12.0f);
    y[0] = x0 * 0.25f;
    y[1] = a - b;
    y[2] = a + b;
    y[3] = c + d;
    y[4] = c - d;
    y[5] = x2;
}

/* y -> G'y: the gradient of the former */
INLINE void transform_kernel_back(const vector *y, long step, vector *x)
{
    vector y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step], y4 = y[4 * step], y5 = y[5 * step];
    vector a = (y1 + y2) * (-1 / 6.0f), b = y3 + y4;
    x[0] = y0 * 0.25f + a + b * (1 / 24.0f);
    x[1] = (y2 - y1) * (1 / 6.0f) + (y3 - y4) * (1 / 12.0f);
    x[2] = a + b * (1 / 6.0f) + y5;
}

/* x -> A'x, Lavin and Gray's A' for outputs (4x6) */
INLINE void transform_output(const vector *x, long step, vector *y)
{
    vector x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
    vector a = x1 + x2, b = x1 - x2, c = x3 + x4, d = x3 - x4;
    y[0] = x0 + a + c;
    y[1] = b + 2.0f * d;
    y[2] = a + 4.0f * c;
    y[3] = b + 8.0f * d + x5;
}

/* y -> Ay: the gradient of the former */
INLINE void transform_output_back(const vector *y, long step, vector *x)
{
    vector y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    vector a = y0 + y2, b = y1 + y3, c = y0 + 4.0f * y2, d = 2.0f * y1 + 8.0f * y3;
    x[0] = y0;
    x[1] = a + b;
    x[2] = a - b;
    x[3] = c + d;
    x[4] = c - d;
    x[5] = y3;
}

/* A transform along both sides of a tile: FROM x FROM -> TO x TO. */
#define TRANSFORM_TILE(TRANSFORM, FROM, TO, in, out) \
    do { \
        vector half[FROM * TO]; \
        UNROLL for (int j = 0; j < FROM; j++) { \
            vector column[TO]; \
            TRANSFORM(in + j, FROM, column); \
            UNROLL for (int i = 0; i < TO; i++) half[i * FROM + j] = column[i]; \
        } \
        UNROLL for (int i = 0; i < TO; i++) TRANSFORM(half + i * FROM, 1, out + i * TO); \
    } while (0)

/* Maps of one size, cut into tiles of edge x edge pixels whose corners lie `step` apart. */
typedef struct {
    long height, width, channels, padding, edge, step, tile_rows, tile_columns;
} Maps;

INLINE Maps cut(const Shape *shape, long height, long width, long channels, long padding, long edge, long step)
{
    long rows = (out_height(shape) + OUT_EDGE - 1) / OUT_EDGE, columns = (out_width(shape) + OUT_EDGE - 1) / OUT_EDGE;
    return (Maps){ height, width, channels, padding, edge, step, rows, columns };
}

INLINE Maps inputs_of(const Shape *shape)
{
    return cut(shape, shape->height, shape->width, shape->channels, shape->padding, EDGE, OUT_EDGE);
}

/* pooled: whether a pixel stands for a window of 2x2 outputs, of which no tile has a part only */
INLINE Maps outputs_of(const Shape *shape, int pooled)
{
    const int by = pooled ? 2 : 1;
    return cut(shape, out_height(shape) / by, out_width(shape) / by, shape->filters, 0, OUT_EDGE / by, OUT_EDGE / by);
}

INLINE long tiles_of(const Maps *maps) { return maps->tile_rows * maps->tile_columns; }
INLINE long place_of(const Maps *maps) { return TILES * maps->channels + LINE; } /* floats from a place to the next */

/* How many of the tiles that are left come next: blocks of nearly equal length. */
INLINE long next_tiles(long left)
{
    long blocks = (left + TILES - 1) / TILES;
    return (left + blocks - 1) / blocks;
}

/* Where each pixel of a tile lies, -1 for one outside its map. */
static void pixels_of(const Maps *maps, long tile, long *pixels)
{
    long image = tile / tiles_of(maps), top = tile / maps->tile_columns % maps->tile_rows * maps->step - maps->padding;
    long left = tile % maps->tile_columns * maps->step - maps->padding;
    for (long i = 0; i < maps->edge; i++)
        for (long j = 0; j < maps->edge; j++) {
            long y = top + i, x = left + j;
            int inside = y >= 0 && y < maps->height && x >= 0 && x < maps->width;
            *pixels++ = inside ? ((image * maps->height + y) * maps->width + x) * maps->channels : -1;
        }
}

/* Where the four windows of a tile of outputs begin. */
static const int WINDOWS[4] = { 0, 2, 2 * OUT_EDGE, 2 * OUT_EDGE + 2 };

INLINE void store_places(float *to, const Maps *maps, const vector *places)
{
    for (int p = 0; p < PLACES; p++) store(to + p * place_of(maps), places[p]);
}

INLINE void load_places(const float *from, const Maps *maps, vector *places)
{
    for (int p = 0; p < PLACES; p++) places[p] = load(from + p * place_of(maps));
}

/* Tiles of the inputs -> their transforms at `to` (PLACES, TILES, channels) with gaps. */
static void gather_inputs(const float *in, const Maps *maps, long first, long tiles, float *to)
{
    for (long t = 0; t < tiles; t++, to += maps->channels) {
        long pixels[PLACES];
        pixels_of(maps, first + t, pixels);
        for (long c = 0; c < maps->channels; c += LANES) {
            vector tile[PLACES], changed[PLACES];
            for (int p = 0; p < PLACES; p++) tile[p] = pixels[p] < 0 ? broadcast(0) : load(in + pixels[p] + c);
            TRANSFORM_TILE(transform_input, EDGE, EDGE, tile, changed);
            store_places(to + c, maps, changed);
        }
    }
}

/* The way back; tiles of inputs overlap. */
static void scatter_in_gradient(const float *from, const Maps *maps, long first, long tiles, float *in_gradient)
{
    for (long t = 0; t < tiles; t++, from += maps->channels) {
        long pixels[PLACES];
        pixels_of(maps, first + t, pixels);
        for (long c = 0; c < maps->channels; c += LANES) {
            vector places[PLACES], tile[PLACES];
            load_places(from + c, maps, places);
            TRANSFORM_TILE(transform_input_back, EDGE, EDGE, places, tile);
            for (int p = 0; p < PLACES; p++)
                if (pixels[p] >= 0) {
                    float *pixel = in_gradient + pixels[p] + c;
                    store(pixel, load(pixel) + tile[p]);
                }
        }
    }
}

/* Transforms of outputs, laid out as those of inputs -> outputs, or what pooling leaves of them where `index` is given. */
INLINE void scatter_outputs(const float *from, const Maps *maps, const float *bias, long first, long tiles, float *out,
                            int32_t *index, float slope)
{
    for (long t = 0; t < tiles; t++, from += maps->channels) {
        long pixels[OUT_EDGE * OUT_EDGE];
        pixels_of(maps, first + t, pixels);
        for (long c = 0; c < maps->channels; c += LANES) {
            vector places[PLACES], tile[OUT_EDGE * OUT_EDGE];
            load_places(from + c, maps, places);
            TRANSFORM_TILE(transform_output, EDGE, OUT_EDGE, places, tile);
            if (bias)
                for (int p = 0; p < OUT_EDGE * OUT_EDGE; p++) tile[p] += load(bias + c);
            if (index) {
                UNROLL for (int w = 0; w < 4; w++)
                    if (pixels[w] >= 0)
                        pool(tile + WINDOWS[w], OUT_EDGE, out + pixels[w] + c, index + pixels[w] + c, slope);
            } else {
                for (int p = 0; p < OUT_EDGE * OUT_EDGE; p++)
                    if (pixels[p] >= 0)
                        store(out + pixels[p] + c, tile[p]);
            }
        }
    }
}

/* The way back. bias_gradient: what these tiles add to it, (filters) */
INLINE void gather_gradient(const float *gradient, const float *out, const int32_t *index, const Maps *maps, long first,
                            long tiles, float *to, float *bias_gradient, float slope)
{
    for (long t = 0; t < tiles; t++, to += maps->channels) {
        long pixels[OUT_EDGE * OUT_EDGE];
        pixels_of(maps, first + t, pixels);
        for (long c = 0; c < maps->channels; c += LANES) {
            vector tile[OUT_EDGE * OUT_EDGE], places[PLACES], sum = load(bias_gradient + c);
            if (index) {
                UNROLL for (int w = 0; w < 4; w++) {
                    vector passed = broadcast(0);
                    integers place = (integers)passed;
                    if (pixels[w] >= 0) {
                        long at = pixels[w] + c;
                        passed = sloped(load(gradient + at), ~(load(out + at) <= 0.0f), slope);
                        place = load_integers(index + at);
                    }
                    UNROLL for (int p = 0; p < 4; p++)
                        tile[WINDOWS[w] + p / 2 * OUT_EDGE + p % 2] = choose(place == p, passed, broadcast(0));
                }
            } else {
                for (int p = 0; p < OUT_EDGE * OUT_EDGE; p++)
                    tile[p] = pixels[p] < 0 ? broadcast(0) : load(gradient + pixels[p] + c);
            }
            for (int p = 0; p < OUT_EDGE * OUT_EDGE; p++) sum += tile[p];
            store(bias_gradient + c, sum);
            TRANSFORM_TILE(transform_output_back, OUT_EDGE, EDGE, tile, places);
            store_places(to + c, maps, places);
        }
    }
}

#define TAPS 9 /* of a 3x3 kernel */

/* Floats from a place to the next among transformed weights. */
INLINE long weights_place_of(const Shape *shape) { return shape->channels * shape->filters + LINE; }

/* Floats of transformed weights. */
long winograd_weights_size(const Shape *shape) { return PLACES * weights_place_of(shape); }

/* Weights (filters, 3, 3, channels) -> for each of PLACES panels of a matrix (channels, filters), or (filters, channels)
 * where that is asked for. */
void winograd_weights(const float *weight, int filters_first, float *to, const Shape *shape)
{
    const long across = filters_first ? shape->channels : shape->filters, place = weights_place_of(shape);
    const long down = filters_first ? shape->filters : shape->channels;
    const long across_step = filters_first ? 1 : TAPS * shape->channels;
    const long down_step = filters_first ? TAPS * shape->channels : 1;
    for (long begin = 0; begin < across; begin += PANEL) {
        const int vectors = across - begin >= PANEL ? 2 : 1;
        for (long d = 0; d < down; d++, to += vectors * LANES) {
            vector changed[2][PLACES];
            for (int v = 0; v < vectors; v++) {
                const float *from = weight + (begin + v * LANES) * across_step + d * down_step;
                vector taps[TAPS];
                for (int k = 0; k < TAPS; k++, from += shape->channels)
                    UNROLL for (int lane = 0; lane < LANES; lane++) taps[k][lane] = from[lane * across_step];
                TRANSFORM_TILE(transform_kernel, 3, EDGE, taps, changed[v]);
            }
            for (int p = 0; p < PLACES; p++)
                for (int v = 0; v < vectors; v++) store(to + p * place + v * LANES, changed[v][p]);
        }
    }
}

/* What parts of a batch add to the gradient of the transformed weights, (parts, PLACES, channels, filters), -> the
 * gradient of the weights, (filters, 3, 3, channels) */
void winograd_weights_back(const float *sums, long parts, float *gradient, const Shape *shape)
{
    const long channels = shape->channels, filters = shape->filters, place = channels * filters;
    for (long c = 0; c < channels; c++)
        for (long f = 0; f < filters; f += LANES) {
            vector places[PLACES], taps[TAPS];
            for (int p = 0; p < PLACES; p++) {
                places[p] = load(sums + p * place + c * filters + f);
                for (long part = 1; part < parts; part++)
                    places[p] += load(sums + (part * PLACES + p) * place + c * filters + f);
            }
            TRANSFORM_TILE(transform_kernel_back, EDGE, 3, places, taps);
            for (int k = 0; k < TAPS; k++)
                UNROLL for (int lane = 0; lane < LANES; lane++)
                    gradient[((f + lane) * TAPS + k) * channels + c] = taps[k][lane];
        }
}

/* Floats that a thread needs at `scratch` below. */
long winograd_scratch(const Shape *shape)
{
    Maps in = inputs_of(shape), out = outputs_of(shape, 0);
    return PLACES * (place_of(&in) + place_of(&out));
}

/* weights: transformed
 * index: NULL without pooling and an activation; else `out` has the outputs after both, see pooling.c */
void winograd_forward(const float *in, const float *weights, const float *bias, float slope, float *out, int32_t *index,
                      float *scratch, long first, long last, const Shape *shape)
{
    const Maps in_maps = inputs_of(shape), out_maps = outputs_of(shape, index != NULL);
    long channels = shape->channels, filters = shape->filters, end = last * tiles_of(&in_maps);
    float *products = scratch + PLACES * place_of(&in_maps);
    for (long tile = first * tiles_of(&in_maps), tiles; tile < end; tile += tiles) {
        tiles = next_tiles(end - tile);
        gather_inputs(in, &in_maps, tile, tiles, scratch);
        for (long p = 0; p < PLACES; p++) {
            Left values = whole(scratch + p * place_of(&in_maps), channels, channels);
            multiply_rows(&values, tiles, weights + p * weights_place_of(shape), filters, NULL,
                          products + p * place_of(&out_maps));
        }
        BY_SLOPE(scatter_outputs, products, &out_maps, bias, tile, tiles, out, index);
    }
}

/* weights: transformed with filters first; NULL where in_gradient is not wanted.
 * out, index: those of winograd_forward, NULL without pooling.
 * gradient: of the transformed weights, dense (PLACES, channels, filters); bias_gradient: (filters); what these images
 * add to them. */
void winograd_backward(const float *in, const float *weights, const float *out_gradient, const float *out,
                       const int32_t *index, float slope, float *in_gradient, float *gradient, float *bias_gradient,
                       float *scratch, long first, long last, const Shape *shape)
{
    const Maps in_maps = inputs_of(shape), out_maps = outputs_of(shape, index != NULL);
    long channels = shape->channels, filters = shape->filters, end = last * tiles_of(&in_maps);
    float *products = scratch + PLACES * place_of(&in_maps);
    memset(gradient, 0, sizeof(float) * PLACES * channels * filters);
    memset(bias_gradient, 0, sizeof(float) * filters);
    if (weights)
        memset(in_gradient + first * image_of(shape), 0, sizeof(float) * (last - first) * image_of(shape));
    for (long tile = first * tiles_of(&in_maps), tiles; tile < end; tile += tiles) {
        tiles = next_tiles(end - tile);
        gather_inputs(in, &in_maps, tile, tiles, scratch);
        BY_SLOPE(gather_gradient, out_gradient, out, index, &out_maps, tile, tiles, products, bias_gradient);
        for (long p = 0; p < PLACES; p++) {
            float *values = scratch + p * place_of(&in_maps), *gradients = products + p * place_of(&out_maps);
            Left transposed = whole(values, channels, tiles), rows = whole(gradients, filters, filters);
            add_by_columns(&transposed, channels, gradients, filters, gradient + p * channels * filters);
            if (weights) /* the inputs' transforms are no longer needed */
                multiply_rows(&rows, tiles, weights + p * weights_place_of(shape), channels, NULL, values);
        }
        if (weights)
            scatter_in_gradient(scratch, &in_maps, tile, tiles, in_gradient);
    }
}

/* ---- Winograd for 5x5 kernels over colours, whose 2x2 outputs are one window of pooling ---- */

#define COLOURS 3
#define SLOT 4 /* floats for the colours of a place; the last means nothing */
#define FEW 3 /* places at a time, so that their sums stay in registers */

INLINE long windows_of(const Shape *shape) { return out_width(shape) / 2; }
INLINE long padded_row(const Shape *shape) { return shape->width * COLOURS + PANEL; }

/* Floats that winograd_pooled_forward needs at `scratch`. */
long winograd_pooled_scratch(const Shape *shape)
{
    return image_of(shape) + PANEL + EDGE * padded_row(shape) + windows_of(shape) * PLACES * SLOT + LANES;
}

/* Inputs of a row of windows, which begin at `in`, -> their transforms (windows, PLACES, SLOT). */
INLINE void transform_window_inputs(const float *in, const Shape *shape, float *rows, float *values)
{
    long in_row = shape->width * COLOURS, row = padded_row(shape);
    for (long x = 0; x < in_row; x += LANES) { /* down the columns, all pixels of a row side by side */
        vector column[EDGE], changed[EDGE];
        UNROLL for (int i = 0; i < EDGE; i++) column[i] = load(in + i * in_row + x);
        transform_input(column, 1, changed);
        UNROLL for (int i = 0; i < EDGE; i++) store(rows + i * row + x, changed[i]);
    }
    for (long window = 0; window < windows_of(shape); window++)
        for (int i = 0; i < EDGE; i++) { /* along the rows; a store is completed by the one after it */
            vector pixels[EDGE], changed[EDGE];
            UNROLL for (int j = 0; j < EDGE; j++)
                pixels[j] = load(rows + i * row + (2 * window + j) * COLOURS);
            transform_input(pixels, 1, changed);
            UNROLL for (int j = 0; j < EDGE; j++) store(values + (window * PLACES + i * EDGE + j) * SLOT, changed[j]);
        }
}

/* Adds FEW of six numbers, from `first` on, to Lavin and Gray's A'x for two outputs. */
INLINE void add_outputs(const vector *x, int first, vector *y)
{
    if (first == 0) {
        y[0] = x[0] + (x[1] + x[2]);
        y[1] = x[1] - x[2];
    } else {
        y[0] += x[0] + x[1];
        y[1] += 2.0f * (x[0] - x[1]) + x[2];
    }
}

/* (vectors * LANES) filters of neighbouring windows. weights: (PLACES, COLOURS, LANES) for each vector */
INLINE void window_block(const float *values, const float *weights, const float *bias, float *out, int32_t *index,
                         long filters, float slope, const int windows, const int vectors)
{
    vector half[2][2][EDGE][2]; /* by vector, window, column */
    for (int j = 0; j < EDGE; j++)
        UNROLL for (int first = 0; first < EDGE; first += FEW) {
            vector sum[2][2][FEW] = { 0 };
            UNROLL for (int c = 0; c < COLOURS; c++)
                UNROLL for (int i = 0; i < FEW; i++) {
                    const int place = (first + i) * EDGE + j;
                    UNROLL for (int v = 0; v < vectors; v++) {
                        vector weight = load(weights + ((v * PLACES + place) * COLOURS + c) * LANES);
                        UNROLL for (int w = 0; w < windows; w++)
                            sum[v][w][i] += weight * broadcast(values[(w * PLACES + place) * SLOT + c]);
                    }
                }
            UNROLL for (int v = 0; v < vectors; v++)
                UNROLL for (int w = 0; w < windows; w++) add_outputs(sum[v][w], first, half[v][w][j]);
        }
    UNROLL for (int v = 0; v < vectors; v++)
        UNROLL for (int w = 0; w < windows; w++) {
            vector window[4];
            UNROLL for (int i = 0; i < 2; i++) {
                vector row[EDGE];
                UNROLL for (int j = 0; j < EDGE; j++) row[j] = half[v][w][j][i];
                UNROLL for (int first = 0; first < EDGE; first += FEW)
                    add_outputs(row + first, first, window + 2 * i);
            }
            if (bias)
                UNROLL for (int place = 0; place < 4; place++) window[place] += load(bias + v * LANES);
            long at = w * filters + v * LANES;
            pool(window, 2, out + at, index + at, slope);
        }
}

/* A row of windows. */
INLINE void window_row(const float *values, const float *weights, const float *bias, float *out, int32_t *index,
                       const Shape *shape, float slope)
{
    long filters = shape->filters;
    for (long f = 0, many; f < filters; f += many * LANES) {
        many = filters - f >= PANEL ? 2 : 1;
        for (long window = 0, next; window < windows_of(shape); window += next) {
            next = windows_of(shape) - window >= 2 ? 2 : 1;
#define WINDOW_BLOCK(WINDOWS, VECTORS) \
    case 2 * WINDOWS + VECTORS: \
        window_block(values + window * PLACES * SLOT, weights + f * PLACES * COLOURS, bias ? bias + f : NULL, \
                     out + window * filters + f, index + window * filters + f, filters, slope, WINDOWS, VECTORS); \
        break;
            switch (2 * next + many) {
                WINDOW_BLOCK(1, 1) WINDOW_BLOCK(1, 2) WINDOW_BLOCK(2, 1) WINDOW_BLOCK(2, 2)
            }
        }
    }
}

/* F(2x2, 5x5) with pooling and an activation. The transform of the inputs is that of F(4x4, 3x3): it depends on the
 * edge of a tile alone.
 *
 * weights: transformed (filters / LANES, PLACES, COLOURS, LANES) */
void winograd_pooled_forward(const float *in, const float *weights, const float *bias, float slope, float *out,
                             int32_t *index, float *scratch, long first, long last, const Shape *shape)
{
    long height = out_height(shape) / 2, pooled_row = windows_of(shape) * shape->filters;
    float *image_copy = scratch, *rows = image_copy + image_of(shape) + PANEL; /* vectors read past the last row */
    float *values = rows + EDGE * padded_row(shape);
    memset(scratch, 0, sizeof(float) * winograd_pooled_scratch(shape));
    for (long image = first; image < last; image++) {
        memcpy(image_copy, in + image * image_of(shape), sizeof(float) * image_of(shape));
        for (long i = 0; i < height; i++) {
            long at = (image * height + i) * pooled_row;
            transform_window_inputs(image_copy + 2 * i * shape->width * COLOURS, shape, rows, values);
            BY_SLOPE(window_row, values, weights, bias, out + at, index + at, shape);
        }
    }
}
