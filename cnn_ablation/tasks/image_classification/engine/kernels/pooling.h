/* The loops of pooling.c for one type of number, included once per type with these defined:
 *
 * NAME(function)   name of a function for this type
 * value_t          a value as it lies in memory
 * index_t          an integer of the same width: place of the largest value in its window, 0..3
 * key(value)       something that compares as the values do, with -0 equal to 0
 * IS_NAN(key)      PyTorch's pooling passes NaN on
 * scaled(v, s)     v * s, rounded as PyTorch rounds
 */

INLINE value_t NAME(sloped)(value_t value, int positive, float slope)
{
    if (slope == 1)
        return value;
    if (slope == 0)
        return positive ? value : 0;
    return positive ? value : scaled(value, slope);
}

/* Some neighbouring channels of one window; `row` is the distance of its two rows. */
INLINE void NAME(forward_lanes)(const value_t *restrict in, long row, long channels, value_t *restrict out,
                                index_t *restrict index, float slope, long lanes)
{
    for (long lane = 0; lane < lanes; lane++) {
        const value_t values[4] = { in[lane], in[channels + lane], in[row + lane], in[row + channels + lane] };
        value_t best = values[0];
        value_t best_key = key(best);
        index_t best_index = 0;
        for (index_t place = 1; place < 4; place++) {
            value_t next_key = key(values[place]);
            int larger = next_key > best_key || IS_NAN(next_key);
            best_index = larger ? place : best_index;
            best = larger ? values[place] : best;
            best_key = larger ? next_key : best_key;
        }
        index[lane] = best_index;
        out[lane] = NAME(sloped)(best, !(best_key <= 0), slope);
    }
}

INLINE void NAME(backward_lanes)(const value_t *restrict gradient, const value_t *restrict out,
                                 const index_t *restrict index, value_t *restrict in_gradient, long row, long channels,
                                 float slope, long lanes)
{
    for (long lane = 0; lane < lanes; lane++) {
        value_t passed = NAME(sloped)(gradient[lane], !(out[lane] <= 0), slope);
        index_t place = index[lane];
        in_gradient[lane] = place == 0 ? passed : 0;
        in_gradient[channels + lane] = place == 1 ? passed : 0;
        in_gradient[row + lane] = place == 2 ? passed : 0;
        in_gradient[row + channels + lane] = place == 3 ? passed : 0;
    }
}

INLINE void NAME(forward)(const value_t *in, value_t *out, index_t *index, long first, long last, const Size *size,
                          float slope)
{
    long height = size->height, width = size->width, channels = size->channels, row = width * channels;
    for (long image = first; image < last; image++)
        for (long i = 0; i < height / 2; i++)
            for (long j = 0; j < width / 2; j++) {
                const value_t *from = in + (image * height + 2 * i) * row + 2 * j * channels;
                long to = ((image * (height / 2) + i) * (width / 2) + j) * channels;
#define FORWARD(LANES) NAME(forward_lanes)(from + c, row, channels, out + to + c, index + to + c, slope, LANES)
                FOR_ALL_CHANNELS(FORWARD)
#undef FORWARD
            }
}

INLINE void NAME(backward)(const value_t *gradient, const value_t *out, const index_t *index, value_t *in_gradient,
                           long first, long last, const Size *size, float slope)
{
    long height = size->height, width = size->width, channels = size->channels, row = width * channels;
    if (height % 2 || width % 2) /* the last row or column belongs to no window */
        memset(in_gradient + first * height * row, 0, sizeof(value_t) * (last - first) * height * row);
    for (long image = first; image < last; image++)
        for (long i = 0; i < height / 2; i++)
            for (long j = 0; j < width / 2; j++) {
                value_t *to = in_gradient + (image * height + 2 * i) * row + 2 * j * channels;
                long at = ((image * (height / 2) + i) * (width / 2) + j) * channels;
#define BACKWARD(LANES) \
    NAME(backward_lanes)(gradient + at + c, out + at + c, index + at + c, to + c, row, channels, slope, LANES)
                FOR_ALL_CHANNELS(BACKWARD)
#undef BACKWARD
            }
}

/* Images first to last, so that threads can share a batch. */
void NAME(max_pool_forward)(const value_t *in, value_t *out, index_t *index, long first, long last, const Size *size,
                            float slope)
{
    BY_SLOPE(NAME(forward), in, out, index, first, last, size);
}

void NAME(max_pool_backward)(const value_t *gradient, const value_t *out, const index_t *index, value_t *in_gradient,
                             long first, long last, const Size *size, float slope)
{
    BY_SLOPE(NAME(backward), gradient, out, index, in_gradient, first, last, size);
}
