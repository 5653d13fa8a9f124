/* Products of small matrices, whose sums are held in registers. */

/* The left matrix: element (p, segment s, k) lies at data[p * apart + s * segment + k] where it is given by rows, at
 * data[p + s * segment + k * apart] where by columns. */
typedef struct {
    const float *data;
    long apart, segment, segments, length;
} Left;

INLINE Left whole(const float *data, long apart, long length) { return (Left){ data, apart, 0, 1, length }; }

/* rows x (vectors * LANES) numbers of out = start + left * right, held in registers. Rows of `right` lie right_row apart.
 * `start` is NULL, or out itself, or one row that all begin with (start_row 0). */
INLINE void block(const Left *left, long first, const float *right, long right_row, const float *start, long start_row,
                  float *out, long out_row, const int by_columns, const int rows, const int vectors)
{
    const long row = by_columns ? 1 : left->apart, step = by_columns ? left->apart : 1;
    vector sum[8][2];
    UNROLL for (int p = 0; p < rows; p++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[p][v] = start ? load(start + p * start_row + v * LANES) : broadcast(0);
    for (long s = 0; s < left->segments; s++) {
        const float *from = left->data + first * row + s * left->segment;
        for (long k = 0; k < left->length; k++, from += step, right += right_row) {
            vector weights[2];
            UNROLL for (int v = 0; v < vectors; v++) weights[v] = load(right + v * LANES);
            UNROLL for (int p = 0; p < rows; p++) {
                vector value = broadcast(from[p * row]);
                UNROLL for (int v = 0; v < vectors; v++) sum[p][v] += value * weights[v];
            }
        }
    }
    UNROLL for (int p = 0; p < rows; p++)
        UNROLL for (int v = 0; v < vectors; v++) store(out + p * out_row + v * LANES, sum[p][v]);
}

/* out (rows x columns, dense) = start + left * right */
INLINE void multiply(const Left *left, long rows, const float *right, long right_row, long panel, long columns,
                     const float *start, long start_row, float *out, const int by_columns)
{
    for (long c = 0; c < columns; c += PANEL, right += panel) {
        const int vectors = columns - c >= PANEL ? 2 : 1;
        /* As many sums as registers hold, in blocks of nearly equal height: a low block waits for its own sums. */
        const long most = vectors == 2 ? 6 : 8, blocks = (rows + most - 1) / most;
        long p = 0, height;
        for (long b = 0; b < blocks; b++, p += height) {
            height = (rows - p + blocks - b - 1) / (blocks - b);
#define BLOCK(ROWS, VECTORS) \
    case 2 * ROWS + VECTORS: \
        block(left, p, right, by_columns ? right_row : VECTORS * LANES, start ? start + p * start_row + c : NULL, \
              start_row, out + p * columns + c, columns, by_columns, ROWS, VECTORS); \
        break;
            switch (2 * height + vectors) {
                BLOCK(1, 1) BLOCK(2, 1) BLOCK(3, 1) BLOCK(4, 1) BLOCK(5, 1) BLOCK(6, 1) BLOCK(7, 1) BLOCK(8, 1)
                BLOCK(1, 2) BLOCK(2, 2) BLOCK(3, 2) BLOCK(4, 2) BLOCK(5, 2) BLOCK(6, 2)
            }
        }
    }
}

/* The left matrix by rows; the right one in panels of PANEL columns (the last may have LANES), of which each lies
 * close together. `bias`: one row that is added to all, or NULL. */
static void multiply_rows(const Left *left, long rows, const float *panels, long columns, const float *bias, float *out)
{
    multiply(left, rows, panels, 0, PANEL * left->segments * left->length, columns, bias, 0, out, 0);
}

/* out = start + left * right, the left matrix by columns, the right one as it is; `start` is NULL, or out itself. */
static void multiply_columns(const Left *left, long rows, const float *right, long columns, const float *start, float *out)
{
    multiply(left, rows, right, columns, PANEL, columns, start, columns, out, 1);
}
