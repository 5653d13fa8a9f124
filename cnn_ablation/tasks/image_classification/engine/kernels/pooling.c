/* 2x2 max pooling with stride 2 and an activation after it, on maps in channels-last order (images, height, width,
 * channels), with the bits that PyTorch's own operations give.
 *
 * PyTorch keeps an int64 index per window and makes passes of their own for pooling and activation. Here one pass does
 * both and keeps an index as wide as a value: all lanes have one width, so that a compiler fills whole vector registers.
 * bfloat16 values are compared as integers with the same order.
 *
 * slope: what the activation multiplies negative values with; 0 is ReLU, 1 no activation.
 */
#include "kernels.h"

/* All channels, in runs of a length that the compiler knows: 32 lanes of bfloat16 are one 512-bit register. */
#define FOR_ALL_CHANNELS(CALL) \
    long c = 0; \
    for (; c + 32 <= channels; c += 32) { CALL(32); } \
    for (; c + 8 <= channels; c += 8) { CALL(8); } \
    for (; c < channels; c++) { CALL(1); }

/* An integer with the order of the value: -0 and 0 are equal; NaN is the largest. */
INLINE int16_t bfloat16_key(int16_t value)
{
    int16_t magnitude = value & 0x7fff;
    int16_t ordered = value < 0 ? (int16_t)-magnitude : magnitude;
    return magnitude > 0x7f80 ? 0x7fff : ordered;
}

/* value * slope, rounded to the nearest, ties to even. */
INLINE int16_t bfloat16_scaled(int16_t value, float slope)
{
    union { uint32_t bits; float number; } wide = { .bits = (uint32_t)(uint16_t)value << 16 };
    wide.number *= slope;
    uint32_t rounded = wide.bits + 0x7fff + ((wide.bits >> 16) & 1);
    return (wide.bits & 0x7fffffff) > 0x7f800000 ? value : (int16_t)(rounded >> 16);
}

#define NAME(function) function##_bfloat16
#define value_t int16_t
#define index_t int16_t
#define key bfloat16_key
#define IS_NAN(KEY) ((KEY) == 0x7fff)
#define scaled bfloat16_scaled
#include "pooling.h"
#undef NAME
#undef value_t
#undef index_t
#undef key
#undef IS_NAN
#undef scaled

#define NAME(function) function##_float32
#define value_t float
#define index_t int32_t
#define key(VALUE) (VALUE)
#define IS_NAN(KEY) ((KEY) != (KEY))
#define scaled(VALUE, SLOPE) ((VALUE) * (SLOPE))
#include "pooling.h"
