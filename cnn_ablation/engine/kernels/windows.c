/* 5x5 convolutions over three colours with 2x2 max pooling and an activation, by Winograd's F(2x2, 5x5): the outputs of a
 * tile are one window of pooling. 36 multiplications instead of 100.
 */
#include "vectors.h"
#include "tiles.h"

#define COLOURS 3
#define SLOT 4 /* floats for the colours of a place; the last means nothing */
#define FEW 3 /* places at a time, so that their sums stay in registers */

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
