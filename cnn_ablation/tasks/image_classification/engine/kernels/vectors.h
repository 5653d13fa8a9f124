/* LANES numbers at a time, windows of 2x2 of them, and the sizes of a convolution.
 *
 * LANES is 8 (256 bits: AVX2, and what a compiler makes of it elsewhere) or 16 (512 bits: AVX-512). The numbers of
 * channels and filters are multiples of GRAIN: of 16 lanes the last vector of a row may have GRAIN numbers only.
 */
#include "kernels.h"

#ifndef LANES
#define LANES 8
#endif
#define GRAIN 8
#define PANEL (2 * LANES)
#define LINE 16 /* floats of a line of the cache */

#if LANES == 16
#include <immintrin.h>
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector value) { *(vector *)to = value; }

#if LANES == 16

typedef __mmask16 lanes; /* some of a vector's numbers */

INLINE vector broadcast(float x) { return (vector)_mm512_set1_ps(x); }
INLINE lanes first_lanes(long count) { return (lanes)(0xffff >> (LANES - count)); }
INLINE vector choose(lanes which, vector a, vector b)
{
    return (vector)_mm512_mask_blend_ps(which, (__m512)b, (__m512)a);
}
INLINE integers choose_integers(lanes which, integers a, integers b)
{
    return (integers)_mm512_mask_blend_epi32(which, (__m512i)b, (__m512i)a);
}
INLINE lanes larger(vector a, vector b) /* NaN is the largest */
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) | _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q);
}
INLINE lanes above_zero(vector a) { return _mm512_cmp_ps_mask((__m512)a, _mm512_setzero_ps(), _CMP_NLE_UQ); } /* or NaN */
INLINE lanes equal(integers a, int b) { return _mm512_cmpeq_epi32_mask((__m512i)a, _mm512_set1_epi32(b)); }
INLINE lanes below(integers a, int b) { return _mm512_cmplt_epi32_mask((__m512i)a, _mm512_set1_epi32(b)); }

/* The first `count` numbers only; the others are 0. */
INLINE vector load_first(const float *from, long count)
{
    return count == LANES ? load(from) : (vector)_mm512_maskz_loadu_ps(first_lanes(count), from);
}
INLINE integers load_first_bytes(const int8_t *from, long count)
{
    return (integers)_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_lanes(count), from));
}
INLINE void store_first(float *to, vector value, long count)
{
    if (count == LANES)
        store(to, value);
    else
        _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)value);
}
INLINE void store_first_integers(int32_t *to, integers value, long count)
{
    _mm512_mask_storeu_epi32(to, first_lanes(count), (__m512i)value);
}
INLINE void store_first_bytes(int8_t *to, integers value, long count)
{
    _mm_mask_storeu_epi8(to, first_lanes(count), _mm512_cvtepi32_epi8((__m512i)value));
}

/* Rows of a square of LANES x LANES numbers -> its columns, in place: halves of ever larger squares change places. */
INLINE void transpose(vector *square)
{
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    UNROLL for (int half = 1; half < LANES; half *= 2) {
        const lanes upper = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(half));
        const __m512i above = _mm512_mask_add_epi32(lane, upper, lane, _mm512_set1_epi32(LANES - half));
        const __m512i below = _mm512_add_epi32(lane, _mm512_mask_set1_epi32(_mm512_set1_epi32(half), upper, LANES));
        UNROLL for (int i = 0; i < LANES; i++)
            if (!(i & half)) {
                __m512 a = (__m512)square[i], b = (__m512)square[i + half];
                square[i] = (vector)_mm512_permutex2var_ps(a, above, b);
                square[i + half] = (vector)_mm512_permutex2var_ps(a, below, b);
            }
    }
}

#else

typedef integers lanes; /* -1 where a number is meant, else 0 */

INLINE vector broadcast(float x) { return (vector){ x, x, x, x, x, x, x, x }; }
INLINE vector choose(lanes which, vector a, vector b)
{
    return (vector)((which & (integers)a) | (~which & (integers)b));
}
INLINE integers choose_integers(lanes which, integers a, integers b) { return (which & a) | (~which & b); }
INLINE lanes larger(vector a, vector b) { return (a > b) | (a != a); } /* NaN is the largest */
INLINE lanes above_zero(vector a) { return ~(a <= 0.0f); } /* or NaN */
INLINE lanes equal(integers a, int b) { return a == b; }
INLINE lanes below(integers a, int b) { return a < b; }

/* All numbers: there is no part of a vector. */
INLINE vector load_first(const float *from, long count) { return (void)count, load(from); }
typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
INLINE integers load_first_bytes(const int8_t *from, long count)
{
    return (void)count, __builtin_convertvector(*(const bytes *)from, integers);
}
INLINE void store_first_bytes(int8_t *to, integers value, long count)
{
    (void)count, *(bytes *)to = __builtin_convertvector(value, bytes);
}
INLINE void store_first(float *to, vector value, long count) { (void)count, store(to, value); }
INLINE void store_first_integers(int32_t *to, integers value, long count) { (void)count, *(integers *)to = value; }

#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (integers){ __VA_ARGS__ })
#endif

/* Rows of a square of LANES x LANES numbers -> its columns, in place. */
INLINE void transpose(vector *square)
{
    vector twos[LANES], fours[LANES]; /* numbers of one column that lie next to each other */
    UNROLL for (int i = 0; i < LANES; i += 2) {
        twos[i] = PICK(square[i], square[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        twos[i + 1] = PICK(square[i], square[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (int i = 0; i < LANES; i += 4)
        UNROLL for (int j = 0; j < 2; j++) {
            fours[i + 2 * j] = PICK(twos[i + j], twos[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            fours[i + 2 * j + 1] = PICK(twos[i + j], twos[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    UNROLL for (int i = 0; i < LANES / 2; i++) {
        square[i] = PICK(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        square[i + 4] = PICK(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

#endif

/* Asks for the line of the cache at an address that is read, or written, soon; nothing happens where there is none. */
INLINE void soon_read(const void *address) { __builtin_prefetch(address); }
INLINE void soon_written(const void *address) { __builtin_prefetch(address, 1); }

/* Calls FUNCTION(..., at, count) for every vector of a row of `channels` numbers: LANES but for the last. */
#define BY_VECTORS(channels, FUNCTION, ...) \
    do { \
        long at = 0; \
        for (; at + LANES <= (channels); at += LANES) FUNCTION(__VA_ARGS__, at, LANES); \
        if (LANES > GRAIN && at < (channels)) \
            FUNCTION(__VA_ARGS__, at, (channels) - at); \
    } while (0)

/* Numbers where `positive`, else those times the slope of an activation; see pooling.c. */
INLINE vector sloped(vector value, lanes positive, float slope)
{
    if (slope == 1)
        return value;
    return choose(positive, value, slope == 0 ? broadcast(0) : (vector)(value * slope));
}

/* What is kept of a window of 2x2 for the way back, in a byte: the place of its largest value, 0..3, and whether that was
 * multiplied with the slope. All that the gradient needs, in an eighth of the memory of outputs and places as integers. */
#define SLOPED 4

/* The largest of a window of 2x2, after the activation, and what is kept of it; NaN is the largest. */
INLINE void pool(const vector *window, long row, float *out, int8_t *index, float slope, long count)
{
    vector best = window[0];
    integers best_place = (integers)broadcast(0);
    UNROLL for (int place = 1; place < 4; place++) {
        vector next = window[place / 2 * row + place % 2];
        lanes is_larger = larger(next, best);
        best = choose(is_larger, next, best);
        best_place = choose_integers(is_larger, (integers)broadcast(0) + place, best_place);
    }
    lanes positive = above_zero(best);
    store_first(out, sloped(best, positive, slope), count);
    store_first_bytes(index, choose_integers(positive, best_place, best_place + SLOPED), count);
}

/* What windows pass on to their largest output, and the place of that one. */
INLINE vector passed(const float *gradient, const int8_t *index, float slope, long count, integers *place)
{
    integers kept = load_first_bytes(index, count);
    *place = kept & (SLOPED - 1);
    return sloped(load_first(gradient, count), below(kept, SLOPED), slope);
}

typedef struct {
    long height, width, channels, kernel_height, kernel_width, filters, padding;
} Shape;

INLINE long image_of(const Shape *shape) { return shape->height * shape->width * shape->channels; }
INLINE long out_height(const Shape *shape) { return shape->height + 2 * shape->padding - shape->kernel_height + 1; }
INLINE long out_width(const Shape *shape) { return shape->width + 2 * shape->padding - shape->kernel_width + 1; }
INLINE long windows_of(const Shape *shape) { return out_width(shape) / 2; } /* in a row */
