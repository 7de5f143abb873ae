// Sums over `side` rows and `side` columns, of four images at once. Nothing is ever subtracted, so that rounding does
// not grow with the side (src/cpu: sliding sums).

// Up to this side the values of a box sum are simply added.
#define MAX_SHORT_SIDE 4

// Sums of the last `side` rows of every column, as rows arrive from the top. Every lane has its own columns.
template <typename Real>
struct ColumnSums {
    X4<Real>* ring;       // the last `side` rows; of finished blocks, the sums from a row to the end of its block
    X4<Real>* block_sum;  // the sum of the current block of `side` rows
    int side;
    int width;
    int seen;
    int slot;

    __device__ ColumnSums(F32x4* memory, int side, int width)
        : ring((X4<Real>*)memory), block_sum(ring + side * width), side(side), width(width), seen(0), slot(0) {}

    __device__ void restart() {
        seen = 0;
        slot = 0;
    }

    // Takes the next value of column x and returns the sum of the last `side` values, or of as many as there are.
    __device__ X4<Real> push(int x, X4<Real> value) {
        ring[slot * width + x] = value;
        if (side <= MAX_SHORT_SIDE) {
            X4<Real> sum = value;
            for (int back = 1; back < side && back <= seen; back++) {
                int other = slot - back;
                sum = ring[(other < 0 ? other + side : other) * width + x] + sum;
            }
            return sum;
        }
        // Block method of van Herk and of Gil & Werman: a window is the end of one block and the start of the next.
        X4<Real> sum = slot == 0 ? value : block_sum[x] + value;
        block_sum[x] = sum;
        if (slot + 1 < side) {
            return seen < side ? sum : ring[(slot + 1) * width + x] + sum;
        }
        X4<Real> suffix_sum = value;
#pragma unroll 1
        for (int row = side - 2; row >= 0; row--) {
            suffix_sum = suffix_sum + ring[row * width + x];
            ring[row * width + x] = suffix_sum;
        }
        return sum;
    }

    // After every column of a row.
    __device__ void next_row() {
        seen++;
        slot = slot + 1 == side ? 0 : slot + 1;
    }
};

// Sums of `side` neighbouring columns of one row, to the right of every column (DIRECTION 1) or to its left (-1), by
// doubling. A row no wider than a warp stays in registers.
template <typename Real, int DIRECTION>
struct RowSums {
    X4<Real>* row;
    X4<Real>* next;
    X4<Real>* total;
    X4<Real> in_register;
    int side;
    int width;

    __device__ RowSums(F32x4* buffers, int side, int width)
        : row((X4<Real>*)buffers), next(row + width), total(row + 2 * width), in_register(splat((Real)0)), side(side),
          width(width) {}

    // Columns beyond the data have to be zero.
    __device__ void put(int x, X4<Real> value) {
        if (NARROW) {
            in_register = value;
        } else {
            row[x] = value;
        }
    }

    // After `put` of every column, before `get`.
    __device__ void sum(int lane) {
        if (NARROW) {
            sum_in_registers(lane);
        } else {
            sum_in_buffers(lane);
        }
    }

    __device__ X4<Real> get(int x) const {
        return NARROW ? in_register : total[x];
    }

    __device__ void sum_in_registers(int lane) {
        X4<Real> all = splat((Real)0);
        int offset = 0;
#pragma unroll 1
        for (int bit = 1; bit <= side; bit <<= 1) {
            if (side & bit) {
                all = all + shifted(in_register, offset, lane);
                offset += bit;
            }
            if (2 * bit <= side) {
                in_register = in_register + shifted(in_register, bit, lane);
            }
        }
        in_register = all;
    }

    __device__ void sum_in_buffers(int lane) {
        __syncwarp();
        int offset = 0;
#pragma unroll 1
        for (int bit = 1; bit <= side; bit <<= 1) {
            bool first = offset == 0;
            if (side & bit) {
#pragma unroll 1
                for (int x = lane; x < width; x += LANES) {
                    X4<Real> part = read(row, x + DIRECTION * offset);
                    total[x] = first ? part : total[x] + part;
                }
                offset += bit;
            }
            if (2 * bit <= side) {
#pragma unroll 1
                for (int x = lane; x < width; x += LANES) {
                    next[x] = row[x] + read(row, x + DIRECTION * bit);
                }
                __syncwarp();
                X4<Real>* swap = row;
                row = next;
                next = swap;
            }
        }
        // The row may be written to again only when every lane has read it.
        __syncwarp();
    }

    __device__ X4<Real> read(const X4<Real>* from, int x) const {
        return x >= 0 && x < width ? from[x] : splat((Real)0);
    }

    __device__ X4<Real> shifted(X4<Real> value, int offset, int lane) const {
        X4<Real> out;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            Real neighbour = DIRECTION > 0 ? __shfl_down_sync(FULL_WARP, value.of[i], offset)
                                           : __shfl_up_sync(FULL_WARP, value.of[i], offset);
            bool inside = DIRECTION > 0 ? lane + offset < LANES : lane >= offset;
            out.of[i] = inside ? neighbour : (Real)0;
        }
        return out;
    }
};
