/* Eight numbers at a time, windows of 2x2 of them, and the sizes of a convolution. */
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

/* What windows pass on to their largest output, by the gradient and the outputs after pooling and activation. */
INLINE vector passed(const float *gradient, const float *out, float slope)
{
    return sloped(load(gradient), ~(load(out) <= 0.0f), slope);
}

typedef struct {
    long height, width, channels, kernel_height, kernel_width, filters, padding;
} Shape;

INLINE long image_of(const Shape *shape) { return shape->height * shape->width * shape->channels; }
INLINE long out_height(const Shape *shape) { return shape->height + 2 * shape->padding - shape->kernel_height + 1; }
INLINE long out_width(const Shape *shape) { return shape->width + 2 * shape->padding - shape->kernel_width + 1; }
INLINE long windows_of(const Shape *shape) { return out_width(shape) / 2; } /* in a row */
