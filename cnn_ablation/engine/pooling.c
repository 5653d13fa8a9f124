/* 2x2 max pooling with stride 2 and an activation after it, on bfloat16 maps in channels-last order
 * (images, height, width, channels), with the bits that PyTorch's own operations give.
 *
 * PyTorch keeps an int64 index per window and makes passes of their own for pooling and activation. Here one pass does
 * both and keeps an int16 index (0..3). All lanes are 16 bits wide, so that a compiler fills whole vector registers:
 * bfloat16 values are compared as integers with the same order.
 *
 * slope: what the activation multiplies negative values with; 0 is ReLU, 1 no activation.
 */
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef int16_t bf16;

/* An integer with the order of the value: -0 and 0 are equal; NaN is the largest, as PyTorch's pooling passes it on. */
INLINE int16_t key(bf16 value)
{
    int16_t magnitude = value & 0x7fff;
    int16_t ordered = value < 0 ? (int16_t)-magnitude : magnitude;
    return magnitude > 0x7f80 ? 0x7fff : ordered;
}

/* value * slope, rounded to the nearest, ties to even. */
INLINE bf16 scaled(bf16 value, float slope)
{
    union { uint32_t bits; float number; } wide = { .bits = (uint32_t)(uint16_t)value << 16 };
    wide.number *= slope;
    uint32_t rounded = wide.bits + 0x7fff + ((wide.bits >> 16) & 1);
    return (wide.bits & 0x7fffffff) > 0x7f800000 ? value : (bf16)(rounded >> 16);
}

INLINE bf16 sloped(bf16 value, int positive, float slope)
{
    if (slope == 1)
        return value;
    if (slope == 0)
        return positive ? value : 0;
    return positive ? value : scaled(value, slope);
}

/* Some neighbouring channels of one window; `row` is the distance of its two rows. */
INLINE void forward_lanes(const bf16 *restrict in, long row, long channels, bf16 *restrict out, int16_t *restrict index,
                          float slope, long lanes)
{
    for (long lane = 0; lane < lanes; lane++) {
        const bf16 values[4] = { in[lane], in[channels + lane], in[row + lane], in[row + channels + lane] };
        bf16 best = values[0];
        int16_t best_key = key(best), best_index = 0;
        for (int16_t place = 1; place < 4; place++) {
            int16_t next_key = key(values[place]);
            int larger = next_key > best_key || next_key == 0x7fff;
            best_index = larger ? place : best_index;
            best = larger ? values[place] : best;
            best_key = larger ? next_key : best_key;
        }
        index[lane] = best_index;
        out[lane] = sloped(best, best_key > 0, slope);
    }
}

INLINE void backward_lanes(const bf16 *restrict gradient, const bf16 *restrict out, const int16_t *restrict index,
                           bf16 *restrict in_gradient, long row, long channels, float slope, long lanes)
{
    for (long lane = 0; lane < lanes; lane++) {
        bf16 passed = sloped(gradient[lane], out[lane] > 0, slope);
        int16_t place = index[lane];
        in_gradient[lane] = place == 0 ? passed : 0;
        in_gradient[channels + lane] = place == 1 ? passed : 0;
        in_gradient[row + lane] = place == 2 ? passed : 0;
        in_gradient[row + channels + lane] = place == 3 ? passed : 0;
    }
}

/* All channels, in runs of a length that the compiler knows: 32 lanes are one 512-bit register. */
#define FOR_ALL_CHANNELS(CALL) \
    long c = 0; \
    for (; c + 32 <= channels; c += 32) { CALL(32); } \
    for (; c + 8 <= channels; c += 8) { CALL(8); } \
    for (; c < channels; c++) { CALL(1); }

INLINE void forward(const bf16 *in, bf16 *out, int16_t *index, long first, long last, long height, long width,
                    long channels, float slope)
{
    long row = width * channels;
    for (long image = first; image < last; image++)
        for (long i = 0; i < height / 2; i++)
            for (long j = 0; j < width / 2; j++) {
                const bf16 *from = in + (image * height + 2 * i) * row + 2 * j * channels;
                long to = ((image * (height / 2) + i) * (width / 2) + j) * channels;
#define FORWARD(LANES) forward_lanes(from + c, row, channels, out + to + c, index + to + c, slope, LANES)
                FOR_ALL_CHANNELS(FORWARD)
            }
}

INLINE void backward(const bf16 *gradient, const bf16 *out, const int16_t *index, bf16 *in_gradient, long first,
                     long last, long height, long width, long channels, float slope)
{
    long row = width * channels;
    if (height % 2 || width % 2) /* the last row or column belongs to no window */
        memset(in_gradient + first * height * row, 0, sizeof(bf16) * (last - first) * height * row);
    for (long image = first; image < last; image++)
        for (long i = 0; i < height / 2; i++)
            for (long j = 0; j < width / 2; j++) {
                bf16 *to = in_gradient + (image * height + 2 * i) * row + 2 * j * channels;
                long at = ((image * (height / 2) + i) * (width / 2) + j) * channels;
#define BACKWARD(LANES) \
    backward_lanes(gradient + at + c, out + at + c, index + at + c, to + c, row, channels, slope, LANES)
                FOR_ALL_CHANNELS(BACKWARD)
            }
}

/* One copy of the loops per kind of slope: the common ones need no multiplication. */
#define BY_SLOPE(FUNCTION, ...) \
    if (slope == 0) \
        FUNCTION(__VA_ARGS__, 0); \
    else if (slope == 1) \
        FUNCTION(__VA_ARGS__, 1); \
    else \
        FUNCTION(__VA_ARGS__, slope)

/* Images first to last, so that threads can share a batch. */
void max_pool_forward(const bf16 *in, bf16 *out, int16_t *index, long first, long last, long height, long width,
                      long channels, float slope)
{
    BY_SLOPE(forward, in, out, index, first, last, height, width, channels);
}

void max_pool_backward(const bf16 *gradient, const bf16 *out, const int16_t *index, bf16 *in_gradient, long first,
                       long last, long height, long width, long channels, float slope)
{
    BY_SLOPE(backward, gradient, out, index, in_gradient, first, last, height, width, channels);
}
