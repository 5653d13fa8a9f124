/* Products of small matrices, whose sums are held in registers. */

/* The left matrix: element (p, segment s, k) lies at data[p * apart + s * segment + k] where it is given by rows, at
 * data[p + s * segment + k * apart] where by columns. */
typedef struct {
    const float *data;
    long apart, segment, segments, length;
} Left;

INLINE Left whole(const float *data, long apart, long length) { return (Left){ data, apart, 0, 1, length }; }

/* Rows of a block: as many as registers hold sums, beside vectors of the right matrix and a number of the left one. */
#if LANES == 16
#define ROWS_OF_ONE 12
#define ROWS_OF_TWO 12
#define FOR_ROWS(DO, ...) \
    DO(1, __VA_ARGS__) DO(2, __VA_ARGS__) DO(3, __VA_ARGS__) DO(4, __VA_ARGS__) DO(5, __VA_ARGS__) DO(6, __VA_ARGS__) \
    DO(7, __VA_ARGS__) DO(8, __VA_ARGS__) DO(9, __VA_ARGS__) DO(10, __VA_ARGS__) DO(11, __VA_ARGS__) DO(12, __VA_ARGS__)
#define FOR_BLOCKS(DO) FOR_ROWS(DO, 1, 0) FOR_ROWS(DO, 2, 0) FOR_ROWS(DO, 1, 1) FOR_ROWS(DO, 2, 1)
#else
#define ROWS_OF_ONE 8
#define ROWS_OF_TWO 6
#define FOR_BLOCKS(DO) \
    DO(1, 1, 0) DO(2, 1, 0) DO(3, 1, 0) DO(4, 1, 0) DO(5, 1, 0) DO(6, 1, 0) DO(7, 1, 0) DO(8, 1, 0) \
    DO(1, 2, 0) DO(2, 2, 0) DO(3, 2, 0) DO(4, 2, 0) DO(5, 2, 0) DO(6, 2, 0)
#endif

/* rows x (vectors * LANES) numbers of out = start + left * right, held in registers; of the last vector `rest` numbers
 * where it is not whole. Rows of `right` lie right_row apart. `start` is NULL, or out itself, or one row that all begin
 * with (start_row 0). */
INLINE void block(const Left *left, long first, const float *right, long right_row, const float *start, long start_row,
                  float *out, long out_row, long rest, const int by_columns, const int rows, const int vectors,
                  const int partial)
{
    const long row = by_columns ? 1 : left->apart, step = by_columns ? left->apart : 1;
#define COUNT(v) (partial && v == vectors - 1 ? rest : LANES)
    vector sum[ROWS_OF_ONE][2];
    UNROLL for (int p = 0; p < rows; p++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[p][v] = start ? load_first(start + p * start_row + v * LANES, COUNT(v)) : broadcast(0);
    for (long s = 0; s < left->segments; s++) {
        const float *from = left->data + first * row + s * left->segment;
        for (long k = 0; k < left->length; k++, from += step, right += right_row) {
            vector weights[2];
            UNROLL for (int v = 0; v < vectors; v++) weights[v] = load_first(right + v * LANES, COUNT(v));
            UNROLL for (int p = 0; p < rows; p++) {
                vector value = broadcast(from[p * row]);
                UNROLL for (int v = 0; v < vectors; v++) sum[p][v] += value * weights[v];
            }
        }
    }
    UNROLL for (int p = 0; p < rows; p++)
        UNROLL for (int v = 0; v < vectors; v++) store_first(out + p * out_row + v * LANES, sum[p][v], COUNT(v));
#undef COUNT
}

/* out (rows x columns, dense) = start + left * right */
INLINE void multiply(const Left *left, long rows, const float *right, long right_row, long columns, const float *start,
                     long start_row, float *out, const int by_columns)
{
    const long depth = left->segments * left->length;
    for (long c = 0, width; c < columns; c += width, right += by_columns ? PANEL : width * depth) {
        width = least(PANEL, columns - c);
        const int vectors = width > LANES ? 2 : 1;
        const long rest = width - (vectors - 1) * LANES;
        /* In blocks of nearly equal height: a low block waits for its own sums. */
        const long most = vectors == 2 ? ROWS_OF_TWO : ROWS_OF_ONE, blocks = (rows + most - 1) / most;
        long p = 0, height;
        for (long b = 0; b < blocks; b++, p += height) {
            height = (rows - p + blocks - b - 1) / (blocks - b);
#define BLOCK(ROWS, VECTORS, PARTIAL) \
    case 4 * ROWS + 2 * PARTIAL + VECTORS - 1: \
        block(left, p, right, by_columns ? right_row : PARTIAL ? width : VECTORS * LANES, \
              start ? start + p * start_row + c : NULL, start_row, out + p * columns + c, columns, rest, by_columns, ROWS, \
              VECTORS, PARTIAL); \
        break;
            switch (4 * height + 2 * (rest < LANES) + vectors - 1) { FOR_BLOCKS(BLOCK) }
        }
    }
}

/* The left matrix by rows; the right one in panels of PANEL columns (the last may have less), of which each lies close
 * together. `bias`: one row that is added to all, or NULL. */
static void multiply_rows(const Left *left, long rows, const float *panels, long columns, const float *bias, float *out)
{
    multiply(left, rows, panels, 0, columns, bias, 0, out, 0);
}

/* out = start + left * right, the left matrix by columns, the right one as it is; `start` is NULL, or out itself. */
static void multiply_columns(const Left *left, long rows, const float *right, long columns, const float *start, float *out)
{
    multiply(left, rows, right, columns, columns, start, columns, out, 1);
}
