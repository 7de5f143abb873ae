// What every kernel shares. No header is included: NVRTC compiles this text as it stands, and the tests compile it with
// a C++ compiler after a header that imitates the few CUDA names used here.
//
// Images lie on the device in groups of four, [group][channel][row][column][image]: one load brings the same pixel of
// four images to a lane. A probe is a query, or the mirror image of one; probe `mirror * queries + query`. Energies,
// weights and sums follow the CPU engine (src/cpu); products are fused only where `fmaf` says so.

// A module is compiled for one kind of pixels: the lines before this text define PIXEL (unsigned char or float) and,
// for square windows, NARROW (whether an image is no wider than a warp); NAMED(name) is the kernel's name for that
// kind.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

#define LANES 32
#define FULL_WARP 0xffffffffu
#define MAX_FLOAT 3.402823466e38f

// The unit of sums that many threads add to is 1 / FIXED_POINT: integers add up to the same bits in any order.
#define FIXED_POINT 1099511627776.0

typedef unsigned long long u64;

// The same quantity of four images.
struct alignas(16) F32x4 {
    float of[4];
};

// How the same pixel of four images lies in memory: in one word if pixels are bytes.
template <typename Pixel>
struct Stored {
    typedef F32x4 PixelX4;
};

template <>
struct Stored<unsigned char> {
    typedef unsigned PixelX4;
};

typedef Stored<PIXEL>::PixelX4 PixelX4;

// The images of one step, and the size of all images.
struct Images {
    const void* pixels;
    int channels;
    int height;
    int width;
    int first;        // index of the step's first image in the data set
    int count;        // images of the step
    int shard_len;    // images per shard, a multiple of four
    int first_shard;  // index of the step's first shard
    int shards;       // shards of the whole data set
};

// The probes of a batch, all in the same form of the energy (src/regime.rs).
struct Probes {
    const float* values;               // [probe][channel][row][column]: centred z in stored units, times -2 if expanded
    const double* exact;               // [probe][channel][row][column]: centred z; null but in the sparse regime
    const double* logit_scales;        // [query]: energies times this are base-2 logits, sign reversed
    const unsigned* candidate_counts;  // [query]: candidates found; null where none are looked for
    int queries;
    int mirrors;         // probes per query: 2 where flips count
    int expanded;        // whether energies are a^2 - 2 z a instead of (a - z)^2
    int max_candidates;  // a query with more candidates is left to the dense passes
    float cutoff_bits;   // weights below 2^-cutoff_bits of the largest are left out
};

// How far below the best so far, in powers of two, an image may be passed over in pass 1: all that is passed over on a
// shard is together at the very worst 2^-22 of the sum, which is at least 1.
__device__ inline float negligible_bits(const Images& images) {
    return 22.0f + log2f((float)images.shard_len);
}

// Part of a warp's or block's workspace: in shared memory, or in its slab of device memory where that is too small.
struct Offset {
    int at;  // in F32x4
    int shared;
};

__device__ inline F32x4 splat(float value) {
    return F32x4{{value, value, value, value}};
}

__device__ inline F32x4 operator+(F32x4 a, F32x4 b) {
    return F32x4{{a.of[0] + b.of[0], a.of[1] + b.of[1], a.of[2] + b.of[2], a.of[3] + b.of[3]}};
}

// 2^x, within 2 units in the last place.
__device__ inline float exp2_approx(float x) {
#ifdef __CUDA_ARCH__
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
#else
    return exp2f(x);
#endif
}

// Four pixels less the centre of their range, 128 for bytes: unlike 127.5, it leaves integers, whose squares add up
// exactly.
__device__ inline F32x4 centred(unsigned bytes) {
    F32x4 out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        // The byte becomes the last digits of 2^23, so that one exact subtraction makes it a centred number.
        out.of[i] = __uint_as_float(__byte_perm(bytes, 0x4b000000u, 0x7440 + i)) - (8388608.0f + 128.0f);
    }
    return out;
}

__device__ inline F32x4 centred(F32x4 pixels) {
    return pixels;
}

__device__ inline float centred(unsigned char pixel) {
    return (float)pixel - 128.0f;
}

__device__ inline float centred(float pixel) {
    return pixel;
}

// Adds the residual of a pixel of one channel: to `own` what does not depend on the probe, to `cross` what does.
template <bool EXPANDED>
__device__ inline void add_residual(F32x4 a, float z, F32x4& own, F32x4& cross) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (EXPANDED) {
            own.of[i] = fmaf(a.of[i], a.of[i], own.of[i]);
            cross.of[i] = fmaf(a.of[i], z, cross.of[i]);
        } else {
            float t = a.of[i] - z;
            cross.of[i] = fmaf(t, t, cross.of[i]);
        }
    }
}

// The squared residuals of four images at one pixel, summed over channels; in the expanded form less z^2. `pixels` are
// those of the group, `z` those of the probe.
template <bool EXPANDED, typename Pixels>
__device__ inline F32x4 squared_residuals(const Pixels* pixels, const float* z, int channels, int plane, int pixel) {
    F32x4 own = splat(0.0f), cross = splat(0.0f);
    if (channels == 3) {
        // Six loads in flight before the first is needed.
        Pixels red = pixels[pixel], green = pixels[plane + pixel], blue = pixels[2 * plane + pixel];
        float z_red = z[pixel], z_green = z[plane + pixel], z_blue = z[2 * plane + pixel];
        add_residual<EXPANDED>(centred(red), z_red, own, cross);
        add_residual<EXPANDED>(centred(green), z_green, own, cross);
        add_residual<EXPANDED>(centred(blue), z_blue, own, cross);
    } else {
#pragma unroll 1
        for (int c = 0; c < channels; c++) {
            add_residual<EXPANDED>(centred(pixels[c * plane + pixel]), z[c * plane + pixel], own, cross);
        }
    }
    return EXPANDED ? own + cross : cross;
}

// Energies of images past the end of the data set become the largest float.
__device__ inline F32x4 mask_missing(F32x4 energies, int present) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        energies.of[i] = i < present ? energies.of[i] : MAX_FLOAT;
    }
    return energies;
}

__device__ inline float least_of(F32x4 energies) {
    return fminf(fminf(energies.of[0], energies.of[1]), fminf(energies.of[2], energies.of[3]));
}

// What pass 1 knows of every window's softmax: the least energy, and the sum of weights relative to it in two parts, so
// that the digits lost by an addition are kept.
struct OnlineSoftmax {
    float* least;
    float* sum;
    float* rest;

    __device__ OnlineSoftmax(F32x4* memory, int count) {
        least = (float*)memory;
        sum = least + count;
        rest = sum + count;
    }

    // Before any image.
    __device__ void start(int k) {
        least[k] = MAX_FLOAT;
        sum[k] = 0.0f;
        rest[k] = 0.0f;
    }

    // Takes in four images.
    __device__ void update(int k, F32x4 energies, float logit_scale) {
        float before = least[k], best = fminf(before, least_of(energies));
        float total = sum[k], lost = rest[k];
        if (best < before) {
            // The first image of all meets an empty sum; every later one shrinks it.
            float share = exp2_approx((best - before) * logit_scale);
            total *= share;
            lost *= share;
            least[k] = best;
        }
        float part =
            (exp2_approx((best - energies.of[0]) * logit_scale) + exp2_approx((best - energies.of[1]) * logit_scale)) +
            (exp2_approx((best - energies.of[2]) * logit_scale) + exp2_approx((best - energies.of[3]) * logit_scale));
        float next = total + part;
        // What the addition lost, whichever of the two is the larger.
        float kept = next - total;
        lost += (total - (next - kept)) + (part - kept);
        sum[k] = next;
        rest[k] = lost;
    }
};

// What pass 2 needs of every window's softmax, [probe][window].
struct Normaliser {
    const float* least;  // the least energy
    const float* scale;  // the reciprocal of the sum of weights
};

// Normalised weights of four images on a window.
__device__ inline F32x4 weights(F32x4 energies, float least, float scale, float logit_scale) {
    F32x4 out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.of[i] = exp2_approx((least - energies.of[i]) * logit_scale) * scale;
    }
    return out;
}

// The part of a pixel's sum that four images bring.
__device__ inline float weighted(F32x4 coefficients, F32x4 a) {
    float even = fmaf(coefficients.of[0], a.of[0], coefficients.of[2] * a.of[2]);
    float odd = fmaf(coefficients.of[1], a.of[1], coefficients.of[3] * a.of[3]);
    return even + odd;
}

// Whether a query is done already: its list holds all of its candidates, and these were weighed.
__device__ inline bool is_weighed(Probes probes, int query) {
    return probes.candidate_counts != nullptr && probes.candidate_counts[query] <= (unsigned)probes.max_candidates;
}

// Lists of candidates: images that can carry weight on a window at small sigma. The order within a list is arbitrary;
// nothing that is computed from it depends on it.
struct CandidateLists {
    unsigned* windows;  // [query][max_candidates], as the probe numbers them
    unsigned* images;   // [query][max_candidates], the index in the data set, and the top bit for the flipped probe
    double* energies;   // [query][max_candidates]
    unsigned* counts;   // [query], beyond the limit where some were not listed
};

#define FLIPPED 0x80000000u

// How far above the least energy a candidate may lie, with room for the rounding of the energies themselves.
__device__ inline float candidate_bound(float least, float margin) {
    return least + (margin + 1e-5f * fabsf(least));
}

// Lists the images of a group that are near the least energy of a window.
__device__ inline void list_candidates(CandidateLists lists, Probes probes, int probe, int window, int first,
                                       F32x4 energies, float bound) {
    int query = probe % probes.queries;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (energies.of[i] < bound) {
            unsigned slot = atomicAdd(&lists.counts[query], 1u);
            if (slot < (unsigned)probes.max_candidates) {
                size_t at = (size_t)query * probes.max_candidates + slot;
                lists.windows[at] = window;
                lists.images[at] = (unsigned)(first + i) | (probe < probes.queries ? 0u : FLIPPED);
            }
        }
    }
}

// Position of a pixel in the mirror image.
__device__ inline int mirror_pixel(int p, int width) {
    int x = p % width;
    return p - x + (width - 1 - x);
}

// The number that window k has in the mirror image: columns of a row in reverse order, or its own where `columns` is 0.
__device__ inline int mirror_window(int k, int columns) {
    return columns == 0 ? k : k - k % columns + (columns - 1 - k % columns);
}
