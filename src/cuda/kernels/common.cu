// What every kernel shares. No header is included: NVRTC compiles this text as it stands, and the tests compile it with
// a C++ compiler after a header that imitates the few CUDA names used here.
//
// Images lie on the device in fours, [group][channel][row][column][4]: one load brings the same pixel of four images to a
// lane. A probe is a query, or the mirror image of one; probe `view * queries + query`. Energies, weights and sums follow
// the CPU engine (src/cpu); products are fused only where `fmaf` says so.

// A module is compiled for one kind of pixels: the lines before this text define PIXEL (unsigned char or float) and, for
// square windows, NARROW (whether an image is no wider than a warp); NAMED(name) is the kernel's name for that kind.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

#define LANES 32
#define EVERY_LANE 0xffffffffu
#define LARGEST 3.402823466e38f

// Beyond this many powers of two below the best so far, an image cannot change a float32 sum that is at least 1.
#define INVISIBLE 25.0f

// Fixed point of sums that many threads add to: integers add up to the same bits in any order.
#define FIXED 1099511627776.0

typedef unsigned long long u64;

// The same quantity of four images.
struct alignas(16) Four {
    float of[4];
};

// How the same pixel of four images lies in memory.
template <typename Pixel>
struct Stored {
    typedef Four Fours;
};

template <>
struct Stored<unsigned char> {
    typedef unsigned Fours;
};

typedef Stored<PIXEL>::Fours Fours;

// The tile of the data set that lies on the device, and the size of its images.
struct Images {
    const void* pixels;
    int channels;
    int height;
    int width;
    int first;        // index of the tile's first image in the data set
    int count;        // images of the tile
    int shard;        // images a shard, a multiple of four
    int first_shard;  // index of the tile's first shard
    int shards;       // shards of the whole data set
};

// The probes of a batch, all in the same form of the energy (src/cpu/probe.rs).
struct Probes {
    const float* values;   // [probe][channel][row][column]: z, or -2 z in the expanded form, centred stored units
    const double* exact;   // the same in float64, z in either form; small sigma only
    const double* rates;   // [query]: energies times this are base-2 logits, sign reversed
    const unsigned* few;   // [query]: candidates listed, or null where none are looked for
    int queries;
    int views;             // 2 where flips count
    int expanded;
    int limit;             // a query with more candidates than this is left to the dense passes
    float cutoff;          // weights below 2^-cutoff of the largest are left out
};

// Part of a warp's or block's working space: in shared memory, or in its slab of device memory where that is too small.
struct Place {
    int at;  // in units of Four
    int shared;
};

__device__ inline Four four(float value) {
    return Four{{value, value, value, value}};
}

__device__ inline Four operator+(Four a, Four b) {
    return Four{{a.of[0] + b.of[0], a.of[1] + b.of[1], a.of[2] + b.of[2], a.of[3] + b.of[3]}};
}

// 2^x, within 2 units in the last place.
__device__ inline float power(float x) {
#ifdef __CUDA_ARCH__
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
#else
    return exp2f(x);
#endif
}

// Four pixels less the centre of their range, 128 for bytes: unlike 127.5, it leaves whole numbers, whose squares add up
// exactly.
__device__ inline Four centred(unsigned bytes) {
    Four out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        // The byte becomes the last digits of 2^23, so that one exact subtraction makes it a centred number.
        out.of[i] = __uint_as_float(__byte_perm(bytes, 0x4b000000u, 0x7440 + i)) - (8388608.0f + 128.0f);
    }
    return out;
}

__device__ inline Four centred(Four pixels) {
    return pixels;
}

__device__ inline float centred(unsigned char pixel) {
    return (float)pixel - 128.0f;
}

__device__ inline float centred(float pixel) {
    return pixel;
}

// Adds the errors of a pixel of one channel: to `own` what does not depend on the probe, to `cross` what does.
template <bool EXPANDED>
__device__ inline void add_error(Four a, float z, Four& own, Four& cross) {
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

// The squared errors of four images at one pixel, summed over channels. `fours` are those of the group, `z` those of the
// probe.
template <bool EXPANDED, typename Fours>
__device__ inline Four errors(const Fours* fours, const float* z, int channels, int plane, int pixel) {
    Four own = four(0.0f), cross = four(0.0f);
    if (channels == 3) {
        // Six loads in flight before the first is needed.
        Fours red = fours[pixel], green = fours[plane + pixel], blue = fours[2 * plane + pixel];
        float z_red = z[pixel], z_green = z[plane + pixel], z_blue = z[2 * plane + pixel];
        add_error<EXPANDED>(centred(red), z_red, own, cross);
        add_error<EXPANDED>(centred(green), z_green, own, cross);
        add_error<EXPANDED>(centred(blue), z_blue, own, cross);
    } else {
#pragma unroll 1
        for (int c = 0; c < channels; c++) {
            add_error<EXPANDED>(centred(fours[c * plane + pixel]), z[c * plane + pixel], own, cross);
        }
    }
    return EXPANDED ? own + cross : cross;
}

// The energies of images past the end of the data set are infinite.
__device__ inline Four only_images(Four energies, int count) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        energies.of[i] = i < count ? energies.of[i] : LARGEST;
    }
    return energies;
}

__device__ inline float least_of(Four energies) {
    return fminf(fminf(energies.of[0], energies.of[1]), fminf(energies.of[2], energies.of[3]));
}

// What pass 1 knows of a window's softmax: the least energy, and the sum of weights relative to it in two parts, so that
// the digits lost by an addition are kept.
struct State {
    float* least;
    float* sum;
    float* rest;

    __device__ State(Four* place, int count) {
        least = (float*)place;
        sum = least + count;
        rest = sum + count;
    }

    // Before any image.
    __device__ void start(int k) {
        least[k] = LARGEST;
        sum[k] = 0.0f;
        rest[k] = 0.0f;
    }

    // Takes in four images.
    __device__ void absorb(int k, Four energies, float rate) {
        float before = least[k], best = fminf(before, least_of(energies));
        float total = sum[k], lost = rest[k];
        if (best < before) {
            // The first image of all meets an empty sum; every later one shrinks it.
            float share = power((best - before) * rate);
            total *= share;
            lost *= share;
            least[k] = best;
        }
        float part = (power((best - energies.of[0]) * rate) + power((best - energies.of[1]) * rate)) +
                     (power((best - energies.of[2]) * rate) + power((best - energies.of[3]) * rate));
        float next = total + part;
        // What the addition lost, whichever of the two is the larger.
        float kept = next - total;
        lost += (total - (next - kept)) + (part - kept);
        sum[k] = next;
        rest[k] = lost;
    }
};

// What pass 2 needs of a window: its least energy and the reciprocal of its sum, [probe][window].
struct Normaliser {
    const float* least;
    const float* scale;
};

// Normalised weights of four images on a window.
__device__ inline Four weights(Four energies, float least, float scale, float rate) {
    Four out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.of[i] = power((least - energies.of[i]) * rate) * scale;
    }
    return out;
}

// The part of a pixel's sum that four images bring.
__device__ inline float weighted(Four coefficients, Four a) {
    float even = fmaf(coefficients.of[0], a.of[0], coefficients.of[2] * a.of[2]);
    float odd = fmaf(coefficients.of[1], a.of[1], coefficients.of[3] * a.of[3]);
    return even + odd;
}

// Whether a query is done already, by its list of candidates.
__device__ inline bool listed(Probes probes, int query) {
    return probes.few != nullptr && probes.few[query] <= (unsigned)probes.limit;
}

// Lists of candidates: images that can carry weight on a window at small sigma. Their order is left to chance; nothing
// that is computed from them depends on it.
struct Candidates {
    unsigned* windows;  // [query][limit], as the probe sees them
    unsigned* images;   // [query][limit], the index in the data set, and the top bit for the flipped probe
    double* energies;   // [query][limit]
    unsigned* counts;   // [query], beyond the limit where some were not listed
};

#define FLIPPED 0x80000000u

// How far above the least energy a candidate may lie, with room for the rounding of the energies themselves.
__device__ inline float candidate_bound(float least, float margin) {
    return least + (margin + 1e-5f * fabsf(least));
}

// Lists the images of a group that are near the least energy of a window.
__device__ inline void list_candidates(
    Candidates list, Probes probes, int probe, int window, int first, Four energies, float bound
) {
    int query = probe % probes.queries;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (energies.of[i] < bound) {
            unsigned slot = atomicAdd(&list.counts[query], 1u);
            if (slot < (unsigned)probes.limit) {
                size_t at = (size_t)query * probes.limit + slot;
                list.windows[at] = window;
                list.images[at] = (unsigned)(first + i) | (probe < probes.queries ? 0u : FLIPPED);
            }
        }
    }
}
