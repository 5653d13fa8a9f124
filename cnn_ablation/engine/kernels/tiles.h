/* What Winograd's two algorithms share: tiles of 6x6 inputs and their transform, which depends on the edge alone. */

#define EDGE 6 /* of a tile of inputs, of which neighbours share two rows or columns */
#define PLACES (EDGE * EDGE)

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

