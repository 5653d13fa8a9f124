/* What the sources of the compiled functions share. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE long least(long a, long b) { return a < b ? a : b; }

/* Of maps in channels-last order (images, height, width, channels) */
typedef struct {
    long height, width, channels;
} Size;

/* One copy of the loops per kind of slope: the common ones need no multiplication. */
#define BY_SLOPE(FUNCTION, ...) \
    if (slope == 0) \
        FUNCTION(__VA_ARGS__, 0); \
    else if (slope == 1) \
        FUNCTION(__VA_ARGS__, 1); \
    else \
        FUNCTION(__VA_ARGS__, slope)
