// Small sigma: the few images that carry weight on a window are weighed in float64. The order of the lists is
// arbitrary, and many threads add to one number; least values and integer sums come out the same in any order.
//
// CPU counterpart: the room `sparse` in src/cpu.

// The pixels of every window: rectangles on a grid, or pieces of rows.
struct WindowShapes {
    const int* starts;   // [mask + 1], into the pieces
    const int* levels;   // a piece is 2^level pixels
    const int* plain;    // flat position of a piece's first pixel, as queries see it
    const int* flipped;  // the same, as flipped queries see it
    int rows;            // of a rectangle
    int columns;
    int grid_columns;    // windows per row; 0 for masks
};

// Calls `visit(pixel)` for the pixels of window k of a mirror image that fall to this lane.
template <typename Visit>
__device__ void for_each_pixel(const WindowShapes& shapes, int k, int mirror, int width, int lane, Visit visit) {
    if (shapes.grid_columns > 0) {
        int corner = k / shapes.grid_columns * width + k % shapes.grid_columns;
        for (int i = lane; i < shapes.rows * shapes.columns; i += LANES) {
            visit(corner + i / shapes.columns * width + i % shapes.columns);
        }
    } else {
        const int* pieces = mirror == 0 ? shapes.plain : shapes.flipped;
        for (int piece = shapes.starts[k] + lane; piece < shapes.starts[k + 1]; piece += LANES) {
            for (int i = 0; i < 1 << shapes.levels[piece]; i++) {
                visit(pieces[piece] + i);
            }
        }
    }
}

// Where image `index` of the step begins; its pixels are four apart.
__device__ inline const PIXEL* image_at(const Images& images, int index, size_t image_len) {
    return (const PIXEL*)images.pixels + index / 4 * (4 * image_len) + index % 4;
}

// An entry of a list.
struct Candidate {
    size_t at;
    int window;        // as its probe numbers it
    int joint_window;  // as the unflipped probe numbers it
    int image;         // within the step; negative or beyond its images for those of other steps
    int mirror;

    __device__ Candidate(const CandidateLists& lists, const Probes& probes, const Images& images, int query, int index,
                         int grid_columns) {
        at = (size_t)query * probes.max_candidates + index;
        window = lists.windows[at];
        mirror = lists.images[at] & FLIPPED ? 1 : 0;
        image = (int)(lists.images[at] & ~FLIPPED) - images.first;
        joint_window = mirror == 0 ? window : mirror_window(window, grid_columns);
    }
};

// The number of candidates of a query; none where they are too many.
__device__ inline int candidate_count(const CandidateLists& lists, const Probes& probes, int query) {
    unsigned count = lists.counts[query];
    return count <= (unsigned)probes.max_candidates ? (int)count : 0;
}

// Energies in float64, and the least of every window as its bits, which are in order for numbers that are not negative.
extern "C" __global__ void NAMED(candidate_energies)(Images images, Probes probes, WindowShapes shapes,
                                                     CandidateLists lists, int windows, u64* least) {
    int query = blockIdx.y, lane = threadIdx.x % LANES, warps = blockDim.x / LANES;
    int plane = images.height * images.width;
    size_t image_len = (size_t)images.channels * plane;
    int count = candidate_count(lists, probes, query);
    for (int i = blockIdx.x * warps + threadIdx.x / LANES; i < count; i += gridDim.x * warps) {
        Candidate candidate(lists, probes, images, query, i, shapes.grid_columns);
        if (candidate.image < 0 || candidate.image >= images.count) {
            continue;
        }
        const PIXEL* pixels = image_at(images, candidate.image, image_len);
        const double* z = probes.exact + ((size_t)candidate.mirror * probes.queries + query) * image_len;
        double energy = 0.0;
        for_each_pixel(shapes, candidate.window, candidate.mirror, images.width, lane, [&](int p) {
            for (int c = 0; c < images.channels; c++) {
                double residual = z[c * plane + p] - (double)centred(pixels[4 * (size_t)(c * plane + p)]);
                energy = fma(residual, residual, energy);
            }
        });
        for (int step = LANES / 2; step > 0; step /= 2) {
            energy += __shfl_xor_sync(FULL_WARP, energy, step);
        }
        if (probes.below != nullptr) {
            energy += bias_of<double>(probes, query, images.first + candidate.image);
        }
        if (lane == 0) {
            lists.energies[candidate.at] = energy;
            u64 bits = (u64)__double_as_longlong(energy);
            atomicMin(&least[(size_t)query * windows + candidate.joint_window], bits);
        }
    }
}

// A candidate's weight relative to the best of its window.
__device__ inline double relative_weight(const CandidateLists& lists, const Probes& probes, const Candidate& candidate,
                                         const u64* least, int query, int windows) {
    u64 bits = least[(size_t)query * windows + candidate.joint_window];
    return exp2(probes.logit_scales[query] * (__longlong_as_double((long long)bits) - lists.energies[candidate.at]));
}

// The sum of the relative weights of every window, in fixed point.
extern "C" __global__ void NAMED(candidate_sums)(Images images, Probes probes, WindowShapes shapes,
                                                 CandidateLists lists, int windows, const u64* least,
                                                 u64* weight_sums) {
    int query = blockIdx.y, count = candidate_count(lists, probes, query);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        Candidate candidate(lists, probes, images, query, i, shapes.grid_columns);
        double weight = relative_weight(lists, probes, candidate, least, query, windows);
        atomicAdd(&weight_sums[(size_t)query * windows + candidate.joint_window],
                  (u64)__double2ll_rn(weight * FIXED_POINT));
    }
}

// Adds every candidate's weighted pixels, in fixed point and units of `max_abs`, to the sums [query][channel][pixel].
extern "C" __global__ void NAMED(candidate_composites)(Images images, Probes probes, WindowShapes shapes,
                                                       CandidateLists lists, int windows, const u64* least,
                                                       const u64* weight_sums, double max_abs, u64* pixel_sums) {
    int query = blockIdx.y, lane = threadIdx.x % LANES, warps = blockDim.x / LANES;
    int plane = images.height * images.width;
    size_t image_len = (size_t)images.channels * plane;
    int count = candidate_count(lists, probes, query);
    for (int i = blockIdx.x * warps + threadIdx.x / LANES; i < count; i += gridDim.x * warps) {
        Candidate candidate(lists, probes, images, query, i, shapes.grid_columns);
        if (candidate.image < 0 || candidate.image >= images.count) {
            continue;
        }
        const PIXEL* pixels = image_at(images, candidate.image, image_len);
        double total = (double)weight_sums[(size_t)query * windows + candidate.joint_window];
        double weight = relative_weight(lists, probes, candidate, least, query, windows) *
                        (FIXED_POINT * FIXED_POINT) / (total * max_abs);
        u64* out = pixel_sums + query * image_len;
        for_each_pixel(shapes, candidate.window, candidate.mirror, images.width, lane, [&](int p) {
            int at = candidate.mirror == 0 ? p : mirror_pixel(p, images.width);
            for (int c = 0; c < images.channels; c++) {
                double part = weight * (double)centred(pixels[4 * (size_t)(c * plane + p)]);
                atomicAdd(&out[c * plane + at], (u64)__double2ll_rn(part));
            }
        });
    }
}
