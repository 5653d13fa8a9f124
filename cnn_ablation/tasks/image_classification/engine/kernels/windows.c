/* 5x5 convolutions over three colours with 2x2 max pooling and an activation, by Winograd's F(4x4, 5x5) at the points 0, 1,
 * -1, 2, -2, 1/2, -1/2 and infinity (Lavin and Gray 2015, arXiv:1509.09308): 64 multiplications for a tile of 4x4
 * outputs, which is 2x2 windows of pooling, instead of 400.
 */
#include "vectors.h"

#define COLOURS 3
#define SLOT 4 /* floats for the colours of a place; the last means nothing */
#define EDGE 8 /* of a tile of inputs, of which neighbours share half */
#define PLACES (EDGE * EDGE)
#define OUT_EDGE 4 /* of its outputs */
#define SIDE (OUT_EDGE / 2) /* in windows */
#define KERNEL 5 /* rows and columns of it */

INLINE long tiles_in(long windows) { return (windows + SIDE - 1) / SIDE; }
INLINE long window_rows_of(const Shape *shape) { return out_height(shape) / 2; }
INLINE long tile_columns(const Shape *shape) { return tiles_in(windows_of(shape)); }

/* The rows and columns that tiles read; those beyond the image are 0. */
INLINE long copied_rows(const Shape *shape) { return OUT_EDGE * (tiles_in(window_rows_of(shape)) + 1); }
INLINE long copied_row(const Shape *shape) { return OUT_EDGE * (tile_columns(shape) + 1) * COLOURS; }
INLINE long padded_row(const Shape *shape) { return copied_row(shape) + PANEL; }

/* Floats that winograd_pooled_forward needs at `scratch`. */
long winograd_pooled_scratch(const Shape *shape)
{
    return copied_rows(shape) * copied_row(shape) + PANEL + EDGE * padded_row(shape)
           + tile_columns(shape) * PLACES * SLOT + LANES;
}

typedef float slot __attribute__((vector_size(4 * SLOT), aligned(4), may_alias));

/* x -> B'x for inputs (8x8), of vectors of one kind */
#define TRANSFORM_INPUT(name, vector) \
    INLINE void name(const vector *x, vector *y) \
    { \
        vector a = x[2] - 4.25f * x[4] + x[6], b = x[1] - 4.25f * x[3] + x[5]; \
        vector c = 0.25f * x[2] - 1.25f * x[4] + x[6], d = 0.5f * x[1] - 2.5f * x[3] + 2.0f * x[5]; \
        vector e = 4.0f * x[2] - 5.0f * x[4] + x[6], f = 2.0f * x[1] - 2.5f * x[3] + 0.5f * x[5]; \
        y[0] = x[6] - x[0] + 5.25f * (x[2] - x[4]); \
        y[1] = a + b; \
        y[2] = a - b; \
        y[3] = c + d; \
        y[4] = c - d; \
        y[5] = e + f; \
        y[6] = e - f; \
        y[7] = x[7] - x[1] + 5.25f * (x[3] - x[5]); \
    }

TRANSFORM_INPUT(transform_columns, vector)
TRANSFORM_INPUT(transform_pixels, slot)

/* x -> Gx for kernels (8x5): a row as a polynomial at the points, each with the scale that the other two transforms leave
 * to it */
INLINE void transform_kernel(const vector *x, long step, vector *y)
{
    vector x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step];
    vector a = x0 + x2 + x4, b = x1 + x3, c = x0 + 4.0f * x2 + 16.0f * x4, d = 2.0f * x1 + 8.0f * x3;
    vector e = x0 + 0.25f * x2 + 0.0625f * x4, f = 0.5f * x1 + 0.125f * x3;
    y[0] = -x0;
    y[1] = (a + b) * (-2 / 9.0f);
    y[2] = (a - b) * (-2 / 9.0f);
    y[3] = (c + d) * (1 / 90.0f);
    y[4] = (c - d) * (1 / 90.0f);
    y[5] = (e + f) * (32 / 45.0f);
    y[6] = (e - f) * (32 / 45.0f);
    y[7] = x4;
}

/* Floats of transformed weights. */
long winograd_pooled_weights_size(const Shape *shape)
{
    return (shape->filters + LANES - 1) / LANES * LANES * PLACES * COLOURS;
}

/* Weights (filters, 5, 5, COLOURS) -> (filters / LANES, PLACES, COLOURS, LANES), filled up with zeros */
void winograd_pooled_weights(const float *weight, float *to, const Shape *shape)
{
    for (long f = 0; f < shape->filters; f += LANES, to += PLACES * COLOURS * LANES)
        for (long c = 0; c < COLOURS; c++) {
            vector taps[KERNEL * KERNEL], half[EDGE * KERNEL], changed[EDGE];
            for (long k = 0; k < KERNEL * KERNEL; k++) {
                float filters[LANES] = { 0 };
                for (long n = 0; n < least(LANES, shape->filters - f); n++)
                    filters[n] = weight[((f + n) * KERNEL * KERNEL + k) * COLOURS + c];
                taps[k] = load(filters);
            }
            for (long j = 0; j < KERNEL; j++) {
                transform_kernel(taps + j, KERNEL, changed);
                for (long i = 0; i < EDGE; i++) half[i * KERNEL + j] = changed[i];
            }
            for (long i = 0; i < EDGE; i++) {
                transform_kernel(half + i * KERNEL, 1, changed);
                for (long j = 0; j < EDGE; j++) store(to + ((i * EDGE + j) * COLOURS + c) * LANES, changed[j]);
            }
        }
}

/* Adds places of a row, those of one pair of points at a time so that sums stay in registers, to A'x for outputs (4x8). */
#define GROUPS 3
static const int GROUP_FIRST[GROUPS] = { 0, 3, 5 }, GROUP_SIZE[GROUPS] = { 3, 2, 3 };

INLINE void add_outputs(const vector *x, const int group, vector *y)
{
    if (group == 0) { /* 0, 1 and -1 */
        vector sum = x[1] + x[2], difference = x[1] - x[2];
        y[0] = x[0] + sum;
        y[1] = difference;
        y[2] = sum;
        y[3] = difference;
        return;
    }
    vector sum = x[0] + x[1], difference = x[0] - x[1];
    y[0] += sum;
    if (group == 1) { /* 2 and -2 */
        y[1] += 2.0f * difference;
        y[2] += 4.0f * sum;
        y[3] += 8.0f * difference;
    } else { /* 1/2, -1/2 and infinity */
        y[1] += 0.5f * difference;
        y[2] += 0.25f * sum;
        y[3] += 0.125f * difference + x[2];
    }
}

/* Inputs of a row of tiles, which begin at `in`, -> their transforms (tiles, PLACES, SLOT). */
INLINE void transform_inputs(const float *in, const Shape *shape, float *rows, float *values)
{
    long in_row = copied_row(shape), row = padded_row(shape);
    for (long x = 0; x < in_row; x += LANES) { /* down the columns, all pixels of a row side by side */
        vector column[EDGE], changed[EDGE];
        UNROLL for (int i = 0; i < EDGE; i++) column[i] = load(in + i * in_row + x);
        transform_columns(column, changed);
        UNROLL for (int i = 0; i < EDGE; i++) store(rows + i * row + x, changed[i]);
    }
    for (long tile = 0; tile < tile_columns(shape); tile++)
        for (int i = 0; i < EDGE; i++) { /* along the rows */
            slot pixels[EDGE], *changed = (slot *)(values + (tile * PLACES + i * EDGE) * SLOT);
            UNROLL for (int j = 0; j < EDGE; j++)
                pixels[j] = *(const slot *)(rows + i * row + (OUT_EDGE * tile + j) * COLOURS);
            transform_pixels(pixels, changed);
        }
}

/* How many windows down and across a tile has, and where their outputs lie. */
typedef struct {
    long down, across, row, filters;
} Windows;

/* (vectors * LANES) filters of neighbouring tiles, of the last vector `rest`. weights: (PLACES, COLOURS, LANES) for each
 * vector */
INLINE void tile_block(const float *values, const float *weights, const float *bias, float *out, int8_t *index,
                       const Windows *windows, float slope, long rest, const int tiles, const int vectors)
{
    vector half[2][2][OUT_EDGE][EDGE]; /* by vector, tile, row of outputs, column of places */
    for (int j = 0; j < EDGE; j++)
        UNROLL for (int group = 0; group < GROUPS; group++) {
            vector sum[2][2][3] = { 0 };
            UNROLL for (int c = 0; c < COLOURS; c++)
                UNROLL for (int i = 0; i < GROUP_SIZE[group]; i++) {
                    const int place = (GROUP_FIRST[group] + i) * EDGE + j;
                    UNROLL for (int v = 0; v < vectors; v++) {
                        vector weight = load(weights + ((v * PLACES + place) * COLOURS + c) * LANES);
                        UNROLL for (int t = 0; t < tiles; t++)
                            sum[v][t][i] += weight * broadcast(values[(t * PLACES + place) * SLOT + c]);
                    }
                }
            UNROLL for (int v = 0; v < vectors; v++)
                UNROLL for (int t = 0; t < tiles; t++) {
                    vector y[OUT_EDGE];
                    if (group)
                        UNROLL for (int i = 0; i < OUT_EDGE; i++) y[i] = half[v][t][i][j];
                    add_outputs(sum[v][t], group, y);
                    UNROLL for (int i = 0; i < OUT_EDGE; i++) half[v][t][i][j] = y[i];
                }
        }
    for (int v = 0; v < vectors; v++)
        for (int t = 0; t < tiles; t++)
            for (int down = 0; down < windows->down; down++) {
                const long count = v == vectors - 1 ? rest : LANES;
                vector rows[2][OUT_EDGE], start = bias ? load_first(bias + v * LANES, count) : broadcast(0);
                UNROLL for (int i = 0; i < 2; i++) {
                    const vector *places = half[v][t][2 * down + i];
                    UNROLL for (int group = 0; group < GROUPS; group++)
                        add_outputs(places + GROUP_FIRST[group], group, rows[i]);
                    UNROLL for (int j = 0; j < OUT_EDGE; j++) rows[i][j] += start;
                }
                for (int across = 0; across < least(SIDE, windows->across - SIDE * t); across++) {
                    long at = down * windows->row + (SIDE * t + across) * windows->filters + v * LANES;
                    pool(rows[0] + 2 * across, OUT_EDGE, out + at, index + at, slope, count);
                }
            }
}

/* A row of tiles, of which `down` rows of windows are wanted. */
INLINE void tile_row(const float *values, const float *weights, const float *bias, float *out, int8_t *index,
                     const Shape *shape, long down, float slope)
{
    long filters = shape->filters, row = windows_of(shape) * filters;
    for (long f = 0, many; f < filters; f += many * LANES) {
        many = filters - f > LANES ? 2 : 1;
        for (long tile = 0, next; tile < tile_columns(shape); tile += next) {
            next = tile_columns(shape) - tile >= 2 ? 2 : 1;
            Windows windows = { down, windows_of(shape) - SIDE * tile, row, filters };
            long at = SIDE * tile * filters + f, rest = least(PANEL, filters - f) - (many - 1) * LANES;
#define TILE_BLOCK(TILES, VECTORS) \
    case 2 * TILES + VECTORS: \
        tile_block(values + tile * PLACES * SLOT, weights + f * PLACES * COLOURS, bias ? bias + f : NULL, out + at, \
                   index + at, &windows, slope, rest, TILES, VECTORS); \
        break;
            switch (2 * next + many) {
                TILE_BLOCK(1, 1) TILE_BLOCK(1, 2) TILE_BLOCK(2, 1) TILE_BLOCK(2, 2)
            }
        }
    }
}

/* weights: transformed */
void winograd_pooled_forward(const float *in, const float *weights, const float *bias, float slope, float *out,
                             int8_t *index, float *scratch, long first, long last, const Shape *shape)
{
    long height = window_rows_of(shape), pooled_row = windows_of(shape) * shape->filters, in_row = copied_row(shape);
    long image_row = shape->width * COLOURS, kept = least(in_row, image_row);
    float *image_copy = scratch, *rows = image_copy + copied_rows(shape) * in_row + PANEL; /* the last row's vectors */
    float *values = rows + EDGE * padded_row(shape);
    memset(scratch, 0, sizeof(float) * winograd_pooled_scratch(shape));
    for (long image = first; image < last; image++) {
        for (long i = 0; i < least(copied_rows(shape), shape->height); i++)
            memcpy(image_copy + i * in_row, in + image * image_of(shape) + i * image_row, sizeof(float) * kept);
        for (long i = 0; i < height; i += SIDE) {
            long at = (image * height + i) * pooled_row;
            transform_inputs(image_copy + 2 * i * in_row, shape, rows, values);
            BY_SLOPE(tile_row, values, weights, bias, out + at, index + at, shape, least(SIDE, height - i));
        }
    }
}
