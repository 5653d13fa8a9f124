/* 3x3 convolutions with stride 1 of float32 maps in channels-last order (images, height, width, channels), by Winograd's
 * minimal filtering F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308): 36 multiplications for 4x4 outputs instead of
 * 144. The inputs are cut into tiles of 6x6 and transformed, each of the 36 places in a tile is a matrix product of its
 * own, and the products are transformed back. The numbers of filters and of channels are multiples of GRAIN.
 */
#include "vectors.h"
#include "products.h"

#define EDGE 6 /* of a tile of inputs, of which neighbours share two rows or columns */
#define PLACES (EDGE * EDGE)
#define OUT_EDGE 4 /* of its outputs */
#define UNROLL_PLACES _Pragma("GCC unroll 36")
#define TILES 48 /* at a time: few enough for the cache, enough for the products */
#define MORE_TILES 96 /* backward where weights are large: a block of tiles goes through all of them and their gradient */
#define LARGE (64 * 128) /* channels x filters whose transforms, 1.2 MB, have no room in the second cache */

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
    long height, width, channels, padding, edge, step, tile_rows, tile_columns, most; /* tiles at a time */
} Maps;

/* How many of the tiles that are left come next: blocks of nearly equal length, of at most so many. */
INLINE long next_tiles(long most, long left)
{
    long blocks = (left + most - 1) / most;
    return (left + blocks - 1) / blocks;
}

INLINE long tiles_backward(const Shape *shape) { return shape->channels * shape->filters >= LARGE ? MORE_TILES : TILES; }

INLINE long tile_rows(const Shape *shape) { return (out_height(shape) + OUT_EDGE - 1) / OUT_EDGE; }
INLINE long tile_columns(const Shape *shape) { return (out_width(shape) + OUT_EDGE - 1) / OUT_EDGE; }
INLINE long tiles_of(const Shape *shape) { return tile_rows(shape) * tile_columns(shape); } /* of an image */

INLINE Maps cut(const Shape *shape, long most, long height, long width, long channels, long padding, long edge, long step)
{
    return (Maps){ height, width, channels, padding, edge, step, tile_rows(shape), tile_columns(shape), most };
}

INLINE Maps inputs_of(const Shape *shape, long most)
{
    return cut(shape, most, shape->height, shape->width, shape->channels, shape->padding, EDGE, OUT_EDGE);
}

/* pooled: whether a pixel stands for a window of 2x2 outputs, of which no tile has a part only */
INLINE Maps outputs_of(const Shape *shape, long most, int pooled)
{
    const int by = pooled ? 2 : 1;
    return cut(shape, most, out_height(shape) / by, out_width(shape) / by, shape->filters, 0, OUT_EDGE / by, OUT_EDGE / by);
}


/* Floats from a place to the next: a power of two apart they would share a part of the cache. */
INLINE long place_of(const Maps *maps) { return maps->most * maps->channels + LINE; }

/* Where each pixel of a tile lies, -1 for one outside its map. */
static void pixels_of(const Maps *maps, long tile, long *pixels)
{
    long image = tile / (maps->tile_rows * maps->tile_columns), top = tile / maps->tile_columns % maps->tile_rows * maps->step - maps->padding;
    long left = tile % maps->tile_columns * maps->step - maps->padding;
    for (long i = 0; i < maps->edge; i++)
        for (long j = 0; j < maps->edge; j++) {
            long y = top + i, x = left + j;
            int inside = y >= 0 && y < maps->height && x >= 0 && x < maps->width;
            *pixels++ = inside ? ((image * maps->height + y) * maps->width + x) * maps->channels : -1;
        }
}

/* The pixels of a tile and of the next one, whose lines are asked for while this one is computed: tiles cross the lines
 * of the cache in ways that no processor foresees. */
typedef struct {
    long now[PLACES], next[PLACES];
} Pixels;

INLINE void first_pixels(const Maps *maps, long tile, Pixels *pixels) { pixels_of(maps, tile, pixels->next); }

INLINE void next_pixels(const Maps *maps, long tile, long end, Pixels *pixels)
{
    memcpy(pixels->now, pixels->next, sizeof(pixels->now));
    if (tile + 1 < end)
        pixels_of(maps, tile + 1, pixels->next);
}

/* Where the four windows of a tile of outputs begin. */
static const int WINDOWS[4] = { 0, 2, 2 * OUT_EDGE, 2 * OUT_EDGE + 2 };

/* `place`: floats from a place to the next */
INLINE void store_places(float *to, long place, const vector *places, long count)
{
    UNROLL_PLACES for (int p = 0; p < PLACES; p++) store_first(to + p * place, places[p], count);
}

INLINE void load_places(const float *from, long place, vector *places, long count)
{
    UNROLL_PLACES for (int p = 0; p < PLACES; p++) places[p] = load_first(from + p * place, count);
}

/* Some channels of a tile of the inputs -> their transforms. */
INLINE void gather_input(const float *in, long place, const Pixels *pixels, float *to, long c, long count)
{
    vector tile[PLACES], changed[PLACES];
    UNROLL_PLACES for (int p = 0; p < PLACES; p++) {
        soon_read(in + pixels->next[p] + c);
        tile[p] = pixels->now[p] < 0 ? broadcast(0) : load_first(in + pixels->now[p] + c, count);
    }
    TRANSFORM_TILE(transform_input, EDGE, EDGE, tile, changed);
    store_places(to + c, place, changed, count);
}

/* Tiles of the inputs -> their transforms at `to` (PLACES, maps->most, channels) with gaps. */
static void gather_inputs(const float *in, const Maps *maps, long first, long tiles, float *to)
{
    const long place = place_of(maps), channels = maps->channels;
    Pixels pixels;
    first_pixels(maps, first, &pixels);
    for (long t = first; t < first + tiles; t++, to += channels) {
        next_pixels(maps, t, first + tiles, &pixels);
        BY_VECTORS(channels, gather_input, in, place, &pixels, to);
    }
}

INLINE void scatter_gradient(const float *from, long place, const Pixels *pixels, float *in_gradient, long c, long count)
{
    vector places[PLACES], tile[PLACES];
    UNROLL_PLACES for (int p = 0; p < PLACES; p++) soon_written(in_gradient + pixels->next[p] + c);
    load_places(from + c, place, places, count);
    TRANSFORM_TILE(transform_input_back, EDGE, EDGE, places, tile);
    UNROLL_PLACES for (int p = 0; p < PLACES; p++)
        if (pixels->now[p] >= 0) {
            float *pixel = in_gradient + pixels->now[p] + c;
            store_first(pixel, load_first(pixel, count) + tile[p], count);
        }
}

/* The way back; tiles of inputs overlap. */
static void scatter_in_gradient(const float *from, const Maps *maps, long first, long tiles, float *in_gradient)
{
    const long place = place_of(maps), channels = maps->channels;
    Pixels pixels;
    first_pixels(maps, first, &pixels);
    for (long t = first; t < first + tiles; t++, from += channels) {
        next_pixels(maps, t, first + tiles, &pixels);
        BY_VECTORS(channels, scatter_gradient, from, place, &pixels, in_gradient);
    }
}

/* Some filters of a tile: transforms of outputs -> outputs, or what pooling leaves of them where `index` is given. */
INLINE void scatter_output(const float *from, long place, const float *bias, const Pixels *pixels, float *out,
                           int8_t *index, float slope, long c, long count)
{
    const int num_pixels = index ? 4 : OUT_EDGE * OUT_EDGE;
    for (int p = 0; p < num_pixels; p++) {
        soon_written(out + pixels->next[p] + c);
        if (index)
            soon_written(index + pixels->next[p] + c);
    }
    vector places[PLACES], tile[OUT_EDGE * OUT_EDGE];
    load_places(from + c, place, places, count);
    TRANSFORM_TILE(transform_output, EDGE, OUT_EDGE, places, tile);
    if (bias)
        for (int p = 0; p < OUT_EDGE * OUT_EDGE; p++) tile[p] += load_first(bias + c, count);
    if (index) {
        UNROLL for (int w = 0; w < 4; w++)
            if (pixels->now[w] >= 0)
                pool(tile + WINDOWS[w], OUT_EDGE, out + pixels->now[w] + c, index + pixels->now[w] + c, slope, count);
    } else {
        UNROLL for (int p = 0; p < OUT_EDGE * OUT_EDGE; p++)
            if (pixels->now[p] >= 0)
                store_first(out + pixels->now[p] + c, tile[p], count);
    }
}

/* Transforms of outputs, laid out as those of inputs -> outputs. */
INLINE void scatter_outputs(const float *from, const Maps *maps, const float *bias, long first, long tiles, float *out,
                            int8_t *index, float slope)
{
    const long place = place_of(maps), channels = maps->channels;
    Pixels pixels;
    first_pixels(maps, first, &pixels);
    for (long t = first; t < first + tiles; t++, from += channels) {
        next_pixels(maps, t, first + tiles, &pixels);
        BY_VECTORS(channels, scatter_output, from, place, bias, &pixels, out, index, slope);
    }
}

/* The way back for some filters of a tile. */
INLINE void gather_output(const float *gradient, const int8_t *index, long place, const Pixels *pixels, float *to, float *bias_gradient, float slope, long c, long count)
{
    const int num_pixels = index ? 4 : OUT_EDGE * OUT_EDGE;
    for (int p = 0; p < num_pixels; p++) {
        const long next = pixels->next[p] + c;
        soon_read(gradient + next);
        if (index)
            soon_read(index + next);
    }
    vector tile[OUT_EDGE * OUT_EDGE], places[PLACES], sum = load_first(bias_gradient + c, count);
    if (index) {
        UNROLL for (int w = 0; w < 4; w++) {
            vector values = broadcast(0);
            integers largest = (integers)values;
            if (pixels->now[w] >= 0) {
                long at = pixels->now[w] + c;
                values = passed(gradient + at, index + at, slope, count, &largest);
            }
            UNROLL for (int p = 0; p < 4; p++)
                tile[WINDOWS[w] + p / 2 * OUT_EDGE + p % 2] = choose(equal(largest, p), values, broadcast(0));
        }
    } else {
        UNROLL for (int p = 0; p < OUT_EDGE * OUT_EDGE; p++)
            tile[p] = pixels->now[p] < 0 ? broadcast(0) : load_first(gradient + pixels->now[p] + c, count);
    }
    for (int p = 0; p < OUT_EDGE * OUT_EDGE; p++) sum += tile[p];
    store_first(bias_gradient + c, sum, count);
    TRANSFORM_TILE(transform_output_back, OUT_EDGE, EDGE, tile, places);
    store_places(to + c, place, places, count);
}

/* The way back. bias_gradient: what these tiles add to it, (filters) */
INLINE void gather_gradient(const float *gradient, const int8_t *index, const Maps *maps, long first, long tiles,
                            float *to, float *bias_gradient, float slope)
{
    const long place = place_of(maps), channels = maps->channels;
    Pixels pixels;
    first_pixels(maps, first, &pixels);
    for (long t = first; t < first + tiles; t++, to += channels) {
        next_pixels(maps, t, first + tiles, &pixels);
        BY_VECTORS(channels, gather_output, gradient, index, place, &pixels, to, bias_gradient, slope);
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
    const long down = filters_first ? shape->filters : shape->channels, filter = TAPS * shape->channels;
    for (long begin = 0; begin < across; begin += PANEL) {
        const long panel = least(PANEL, across - begin);
        for (long d = 0, deep; d < down; d += LANES, to += deep * panel) {
            deep = least(LANES, down - d);
            for (long a = 0; a < panel; a += LANES) {
                const long f = filters_first ? d : begin + a, c = filters_first ? begin + a : d;
                const long wide = least(LANES, panel - a), many = filters_first ? deep : wide;
                vector taps[LANES][TAPS], changed[PLACES];
                for (int k = 0; k < TAPS; k++) {
                    vector square[LANES]; /* filters by channels; what there is not of a square means nothing */
                    UNROLL for (int n = 0; n < LANES; n++)
                        square[n] = n < many ? load_first(weight + (f + n) * filter + k * shape->channels + c,
                                                          filters_first ? wide : deep)
                                             : broadcast(0);
                    if (!filters_first)
                        transpose(square);
                    UNROLL for (int n = 0; n < LANES; n++) taps[n][k] = square[n];
                }
                for (int n = 0; n < deep; n++) {
                    float *row = to + n * panel + a;
                    UNROLL_PLACES for (int p = 0; p < PLACES; p++) soon_written(row + p * place + 2 * panel);
                    TRANSFORM_TILE(transform_kernel, 3, EDGE, taps[n], changed);
                    UNROLL_PLACES for (int p = 0; p < PLACES; p++) store_first(row + p * place, changed[p], wide);
                }
            }
        }
    }
}

/* What parts of a batch add to the gradient of the transformed weights, (parts, PLACES, channels, filters) with gaps, ->
 * the gradient of the weights, (filters, 3, 3, channels) */
void winograd_weights_back(const float *sums, long parts, float *gradient, const Shape *shape)
{
    const long channels = shape->channels, filters = shape->filters, place = weights_place_of(shape);
    for (long c = 0; c < channels; c += LANES)
        for (long f = 0; f < filters; f += LANES) {
            const long deep = least(LANES, channels - c), wide = least(LANES, filters - f);
            vector taps[LANES][TAPS];
            for (int n = 0; n < deep; n++) {
                const float *from = sums + (c + n) * filters + f;
                vector places[PLACES];
                UNROLL_PLACES for (int p = 0; p < PLACES; p++) {
                    soon_read(from + p * place + 2 * filters);
                    places[p] = load_first(from + p * place, wide);
                    for (long part = 1; part < parts; part++)
                        places[p] += load_first(from + (part * PLACES + p) * place, wide);
                }
                TRANSFORM_TILE(transform_kernel_back, EDGE, 3, places, taps[n]);
            }
            for (int k = 0; k < TAPS; k++) {
                vector square[LANES]; /* channels by filters; what there is not of a square means nothing */
                UNROLL for (int n = 0; n < LANES; n++) square[n] = n < deep ? taps[n][k] : broadcast(0);
                transpose(square);
                UNROLL for (int n = 0; n < LANES; n++)
                    if (n < wide)
                        store_first(gradient + ((f + n) * TAPS + k) * channels + c, square[n], deep);
            }
        }
}

/* Floats that a thread needs at `scratch` below. */
long winograd_scratch(const Shape *shape)
{
    const long most = tiles_backward(shape);
    Maps in = inputs_of(shape, most), out = outputs_of(shape, most, 0);
    return PLACES * (place_of(&in) + place_of(&out));
}

/* weights: transformed
 * index: NULL without pooling and an activation; else `out` has the outputs after both */
void winograd_forward(const float *in, const float *weights, const float *bias, float slope, float *out, int8_t *index,
                      float *scratch, long first, long last, const Shape *shape)
{
    const long begin = first * tiles_of(shape), end = last * tiles_of(shape), most = next_tiles(TILES, end - begin);
    const Maps in_maps = inputs_of(shape, most), out_maps = outputs_of(shape, most, index != NULL);
    const long channels = shape->channels, filters = shape->filters;
    float *products = scratch + PLACES * place_of(&in_maps);
    for (long tile = begin, tiles; tile < end; tile += tiles) {
        tiles = next_tiles(most, end - tile);
        gather_inputs(in, &in_maps, tile, tiles, scratch);
        for (long p = 0; p < PLACES; p++) {
            Left values = whole(scratch + p * place_of(&in_maps), channels, channels);
            multiply_rows(&values, tiles, weights + p * weights_place_of(shape), filters, NULL,
                          products + p * place_of(&out_maps));
        }
        BY_SLOPE(scatter_outputs, products, &out_maps, bias, tile, tiles, out, index);
    }
}

/* Of the images first to last; just before something is added to them, so that they are still near. -> last */
INLINE long zero_images(float *images, long first, long last, const Shape *shape)
{
    memset(images + first * image_of(shape), 0, sizeof(float) * (last - first) * image_of(shape));
    return last;
}

/* weights: transformed with filters first; NULL where in_gradient is not wanted.
 * index: that of winograd_forward, NULL without pooling.
 * gradient: of the transformed weights, (PLACES, channels, filters) with gaps; bias_gradient: (filters); what these images
 * add to them. */
void winograd_backward(const float *in, const float *weights, const float *out_gradient, const int8_t *index, float slope,
                       float *in_gradient, float *gradient, float *bias_gradient, float *scratch, long first, long last,
                       const Shape *shape)
{
    const long begin = first * tiles_of(shape), end = last * tiles_of(shape);
    const long most = next_tiles(tiles_backward(shape), end - begin);
    const Maps in_maps = inputs_of(shape, most), out_maps = outputs_of(shape, most, index != NULL);
    const long channels = shape->channels, filters = shape->filters;
    long zeros = first;
    float *products = scratch + PLACES * place_of(&in_maps);
    memset(bias_gradient, 0, sizeof(float) * filters);
    for (long tile = begin, tiles; tile < end; tile += tiles) {
        tiles = next_tiles(most, end - tile);
        gather_inputs(in, &in_maps, tile, tiles, scratch);
        BY_SLOPE(gather_gradient, out_gradient, index, &out_maps, tile, tiles, products, bias_gradient);
        for (long p = 0; p < PLACES; p++) {
            float *values = scratch + p * place_of(&in_maps), *gradients = products + p * place_of(&out_maps);
            Left transposed = whole(values, channels, tiles), rows = whole(gradients, filters, filters);
            float *sums = gradient + p * weights_place_of(shape);
            multiply_columns(&transposed, channels, gradients, filters, tile > begin ? sums : NULL, sums);
            if (weights) /* the inputs' transforms are no longer needed */
                multiply_rows(&rows, tiles, weights + p * weights_place_of(shape), channels, NULL, values);
        }
        if (weights) {
            zeros = zero_images(in_gradient, zeros, (tile + tiles - 1) / tiles_of(shape) + 1, shape);
            scatter_in_gradient(scratch, &in_maps, tile, tiles, in_gradient);
        }
    }
}
