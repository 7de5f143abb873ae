// Small sigma: the few images that carry weight on a window, weighed in float64. Lists come in an order left to chance, and
// many threads add to one number; least values and sums in fixed point come out the same in any order.
//
// CPU counterpart: src/cpu/sparse.rs.

// The pixels of every window: rectangles on a grid, or runs of pixels.
struct Shapes {
    const int* starts;    // [mask + 1], into the pieces
    const int* levels;    // a piece is 2^level pixels
    const int* plain;     // flat position of a piece's first pixel, as queries see it
    const int* mirrored;  // and as flipped queries do
    int rows;             // of a rectangle
    int columns;
    int grid;             // windows a row; 0 for masks
};

// Calls `visit(pixel)` for the pixels of window k of a view that fall to this lane.
template <typename Visit>
__device__ void each_pixel(const Shapes& shapes, int k, int view, int width, int lane, Visit visit) {
    if (shapes.grid > 0) {
        int corner = k / shapes.grid * width + k % shapes.grid;
        for (int i = lane; i < shapes.rows * shapes.columns; i += LANES) {
            visit(corner + i / shapes.columns * width + i % shapes.columns);
        }
    } else {
        const int* pieces = view == 0 ? shapes.plain : shapes.mirrored;
        for (int piece = shapes.starts[k] + lane; piece < shapes.starts[k + 1]; piece += LANES) {
            for (int i = 0; i < 1 << shapes.levels[piece]; i++) {
                visit(pieces[piece] + i);
            }
        }
    }
}

// Where image `index` of the tile begins, and how far apart its pixels are.
__device__ inline const PIXEL* image_at(const Images& images, int index, size_t image_len) {
    return (const PIXEL*)images.pixels + index / 4 * (4 * image_len) + index % 4;
}

// One candidate and its window as the unflipped probe numbers it.
struct Candidate {
    size_t at;
    int window;
    int joint;
    int image;  // within the tile, negative or beyond it for images of another tile
    int view;

    __device__ Candidate(const Candidates& list, const Probes& probes, const Images& images, int query, int index,
                         int grid) {
        at = (size_t)query * probes.limit + index;
        window = list.windows[at];
        view = list.images[at] & FLIPPED ? 1 : 0;
        image = (int)(list.images[at] & ~FLIPPED) - images.first;
        joint = view == 0 || grid == 0 ? window : window - window % grid + (grid - 1 - window % grid);
    }
};

// The number of candidates of a query; none where they are too many.
__device__ inline int candidates_of(const Candidates& list, const Probes& probes, int query) {
    unsigned count = list.counts[query];
    return count <= (unsigned)probes.limit ? (int)count : 0;
}

// Energies in float64, and the least of every window as its bits, which are in order for numbers that are not negative.
extern "C" __global__ void NAMED(candidate_energies)(Images images, Probes probes, Shapes shapes, Candidates list, int count, u64* best) {
    int query = blockIdx.y, lane = threadIdx.x % LANES, warps = blockDim.x / LANES;
    int plane = images.height * images.width;
    size_t image_len = (size_t)images.channels * plane;
    int many = candidates_of(list, probes, query);
    for (int i = blockIdx.x * warps + threadIdx.x / LANES; i < many; i += gridDim.x * warps) {
        Candidate one(list, probes, images, query, i, shapes.grid);
        if (one.image < 0 || one.image >= images.count) {
            continue;
        }
        const PIXEL* pixels = image_at(images, one.image, image_len);
        const double* z = probes.exact + ((size_t)one.view * probes.queries + query) * image_len;
        double energy = 0.0;
        each_pixel(shapes, one.window, one.view, images.width, lane, [&](int p) {
            for (int c = 0; c < images.channels; c++) {
                double error = z[c * plane + p] - (double)centred(pixels[4 * (size_t)(c * plane + p)]);
                energy = fma(error, error, energy);
            }
        });
        for (int step = LANES / 2; step > 0; step /= 2) {
            energy += __shfl_xor_sync(EVERY_LANE, energy, step);
        }
        if (lane == 0) {
            list.energies[one.at] = energy;
            atomicMin(&best[(size_t)query * count + one.joint], (u64)__double_as_longlong(energy));
        }
    }
}

// A candidate's weight relative to the best of its window.
__device__ inline double share(const Candidates& list, const Probes& probes, const Candidate& one, const u64* best,
                               int query, int count) {
    double least = __longlong_as_double((long long)best[(size_t)query * count + one.joint]);
    return exp2(probes.rates[query] * (least - list.energies[one.at]));
}

// The sum of the shares of every window, in fixed point.
extern "C" __global__ void NAMED(candidate_sums)(Images images, Probes probes, Shapes shapes, Candidates list, int count,
                                          const u64* best, u64* sums) {
    int query = blockIdx.y, many = candidates_of(list, probes, query);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < many; i += gridDim.x * blockDim.x) {
        Candidate one(list, probes, images, query, i, shapes.grid);
        double part = share(list, probes, one, best, query, count);
        atomicAdd(&sums[(size_t)query * count + one.joint], (u64)__double2ll_rn(part * FIXED));
    }
}

// Adds every candidate's weighted pixels, in fixed point and units of `reach`, to the sums [query][channel][pixel].
extern "C" __global__ void NAMED(candidate_composites)(Images images, Probes probes, Shapes shapes, Candidates list, int count,
                                     const u64* best, const u64* sums, double reach, u64* fixed) {
    int query = blockIdx.y, lane = threadIdx.x % LANES, warps = blockDim.x / LANES;
    int plane = images.height * images.width;
    size_t image_len = (size_t)images.channels * plane;
    int many = candidates_of(list, probes, query);
    for (int i = blockIdx.x * warps + threadIdx.x / LANES; i < many; i += gridDim.x * warps) {
        Candidate one(list, probes, images, query, i, shapes.grid);
        if (one.image < 0 || one.image >= images.count) {
            continue;
        }
        const PIXEL* pixels = image_at(images, one.image, image_len);
        double total = (double)sums[(size_t)query * count + one.joint];
        double weight = share(list, probes, one, best, query, count) * (FIXED * FIXED) / (total * reach);
        u64* out = fixed + query * image_len;
        each_pixel(shapes, one.window, one.view, images.width, lane, [&](int p) {
            int x = p % images.width;
            int at = one.view == 0 ? p : p - x + (images.width - 1 - x);
            for (int c = 0; c < images.channels; c++) {
                double part = weight * (double)centred(pixels[4 * (size_t)(c * plane + p)]);
                atomicAdd(&out[c * plane + at], (u64)__double2ll_rn(part));
            }
        });
    }
}
