// What every kernel shares. No header is included: NVRTC compiles this text as it stands, and the tests compile it with
// a C++ compiler after a header that imitates the few CUDA names used here.
//
// Images lie on the device in groups of four, [group][channel][row][column][image]: one load brings the same pixel of
// four images to a lane. A probe is a query, or the mirror image of one; probe `mirror * queries + query`. Energies,
// weights and sums follow the CPU engine (src/cpu); products are fused only where `fmaf` says so.

// A module is compiled for one kind of pixels and one precision: the lines before this text define PIXEL (unsigned char
// or float), REAL (float or double, the energies of windows) and, for square windows, NARROW (whether an image is no
// wider than a warp); NAMED(name) is the kernel's name in that module.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

#define LANES 32
#define FULL_WARP 0xffffffffu
#define MAX_FLOAT 3.402823466e38f

// The unit of sums that many threads add to is 1 / FIXED_POINT: integers add up to the same bits in any order.
#define FIXED_POINT 1099511627776.0

// Groups of images whose weighted pixels are summed before their sum is added to the total, so that rounding does not
// grow with the shard.
#define GROUPS_PER_SUM 32

typedef unsigned long long u64;

// The same quantity of four images.
template <typename Number>
struct alignas(16) X4 {
    Number of[4];
};

typedef X4<float> F32x4;
typedef X4<double> F64x4;
typedef X4<REAL> RealX4;

// Whether this module is the one for energies in float64.
constexpr bool IS_DOUBLE = sizeof(REAL) == sizeof(double);

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

// How far an energy E of the direct form may be off in float32 at most: offset + root sqrt(E) + slack E. It holds for z
// near the data.
struct ErrorBound {
    float offset;
    float root;
    float slack;
};

// The probes of a batch, all in the same form of the energy (src/regime.rs).
struct Probes {
    const float* values;               // [probe][channel][row][column]: centred z in stored units, times -2 if expanded
    const double* exact;               // [probe][channel][row][column]: centred z
    const double* far_values;          // [probe][channel][row][column]: the nearest pixels where z is far; or null
    const double* logit_scales;        // [query]: energies times this are base-2 logits, sign reversed
    unsigned* marks;                   // [query]: INVALID, IN_DOUBLE
    const unsigned* candidate_counts;  // [query]: candidates found; null where none are looked for
    const double* below;               // [image]: powers of two by which its prior is below the largest; null for none
    const unsigned* left_out;          // [query][word]: a bit per image that does not count; null for none
    int left_out_words;                // per query
    int queries;
    int mirrors;         // probes per query: 2 where flips count
    int expanded;        // whether energies are a^2 - 2 z a instead of (a - z)^2
    int max_candidates;  // a query with more candidates is left to the dense passes
    float cutoff_bits;   // weights below 2^-cutoff_bits of the largest are left out
    float float_bits;    // float32 serves if the logits of the best images are at most so many powers of two
    double far_from;     // a value of z of a larger magnitude is far from all data
    ErrorBound error_bound;
};

// Marks of a query: z holds numbers that are not allowed; its energies have to be float64.
#define INVALID 1u
#define IN_DOUBLE 2u

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

template <typename Number>
__device__ inline X4<Number> splat(Number value) {
    return X4<Number>{{value, value, value, value}};
}

template <typename Number>
__device__ inline X4<Number> operator+(X4<Number> a, X4<Number> b) {
    return X4<Number>{{a.of[0] + b.of[0], a.of[1] + b.of[1], a.of[2] + b.of[2], a.of[3] + b.of[3]}};
}

__device__ inline float lesser(float a, float b) {
    return fminf(a, b);
}

__device__ inline double lesser(double a, double b) {
    return fmin(a, b);
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

// z of a probe as energies of a precision take it.
template <typename Real>
struct ProbeZ;

// In float32, values in the form of the whole batch.
template <>
struct ProbeZ<float> {
    const float* values;

    __device__ ProbeZ(const Probes& probes, size_t start) : values(probes.values + start) {}

    __device__ float operator[](int i) const {
        return values[i];
    }
};

// The residual of a pixel a is (a - p) (a - q).
struct Factors {
    double p;
    double q;
};

// In float64, the direct form, and at pixels that are far from the data what it is above that of a value near them, 0 for
// the expanded form: it lacks the digits of the distance that all images have in common.
template <>
struct ProbeZ<double> {
    const double* exact;
    const double* far_values;
    double far_from;

    __device__ ProbeZ(const Probes& probes, size_t start)
        : exact(probes.exact + start),
          far_values(probes.far_values == nullptr ? nullptr : probes.far_values + start),
          far_from(probes.far_from) {}

    __device__ Factors operator[](int i) const {
        double z = exact[i];
        if (fabs(z) <= far_from) {
            return Factors{z, z};
        }
        double from = far_values == nullptr ? 0.0 : far_values[i];
        return Factors{from, 2.0 * z - from};
    }
};

template <bool EXPANDED>
__device__ inline void add_residual(F32x4 a, Factors z, F64x4&, F64x4& cross) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        cross.of[i] = fma(a.of[i] - z.p, a.of[i] - z.q, cross.of[i]);
    }
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
template <bool EXPANDED, typename Pixels, typename Real>
__device__ inline X4<Real> squared_residuals(const Pixels* pixels, ProbeZ<Real> z, int channels, int plane, int pixel) {
    X4<Real> own = splat((Real)0), cross = splat((Real)0);
    if (channels == 3) {
        // Six loads in flight before the first is needed.
        Pixels red = pixels[pixel], green = pixels[plane + pixel], blue = pixels[2 * plane + pixel];
        auto z_red = z[pixel], z_green = z[plane + pixel], z_blue = z[2 * plane + pixel];
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

// By how much the energy of an image is the larger for its prior; only where there are priors.
template <typename Real>
__device__ inline Real bias_of(const Probes& probes, int query, int image) {
    return (Real)probes.below[image] / (Real)probes.logit_scales[query];
}

// What is added to the energies of the four images of a group for a query.
template <typename Real>
struct Penalties {
    unsigned counted;  // a bit per image: whether there is one and it counts
    bool has_prior;
    X4<Real> bias;  // for the priors; none is negative

    __device__ Penalties() : counted(0), has_prior(false), bias(splat((Real)0)) {}

    // `first` is the first image of the group, within the step.
    __device__ Penalties(const Images& images, const Probes& probes, int query, int first)
        : counted((1u << min(4, images.count - first)) - 1), has_prior(probes.below != nullptr), bias(splat((Real)0)) {
        int image = images.first + first;
        if (probes.left_out != nullptr) {
            counted &= ~(probes.left_out[(size_t)query * probes.left_out_words + image / 32] >> image % 32);
        }
        if (has_prior) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                bias.of[i] = bias_of<Real>(probes, query, image + i);
            }
        }
    }

    // Energies with what is added to them; those of images that do not count become the largest float.
    __device__ X4<Real> on(X4<Real> energies) const {
        if (has_prior) {
            energies = energies + bias;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            energies.of[i] = counted & 1u << i ? energies.of[i] : (Real)MAX_FLOAT;
        }
        return energies;
    }
};

template <typename Real>
__device__ inline Real least_of(X4<Real> energies) {
    return lesser(lesser(energies.of[0], energies.of[1]), lesser(energies.of[2], energies.of[3]));
}

// The ratio of the weights of two images whose energies differ by so much.
template <typename Real>
__device__ inline float weight_ratio(Real difference, Real logit_scale) {
    return exp2_approx((float)(difference * logit_scale));
}

// What pass 1 knows of every window's softmax: the least energy, and the sum of weights relative to it in two parts, so
// that the digits lost by an addition are kept.
template <typename Real>
struct OnlineSoftmax {
    Real* least;
    float* sum;
    float* rest;

    __device__ OnlineSoftmax(F32x4* memory, int count) {
        least = (Real*)memory;
        sum = (float*)(least + count);
        rest = sum + count;
    }

    // Before any image.
    __device__ void start(int k) {
        least[k] = MAX_FLOAT;
        sum[k] = 0.0f;
        rest[k] = 0.0f;
    }

    // Takes in four images.
    __device__ void update(int k, X4<Real> energies, Real logit_scale) {
        Real before = least[k], best = lesser(before, least_of(energies));
        float total = sum[k], lost = rest[k];
        if (best < before) {
            // The first image of all meets an empty sum; every later one shrinks it.
            float share = weight_ratio(best - before, logit_scale);
            total *= share;
            lost *= share;
            least[k] = best;
        }
        float weight[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            weight[i] = weight_ratio(best - energies.of[i], logit_scale);
        }
        float part = (weight[0] + weight[1]) + (weight[2] + weight[3]);
        float next = total + part;
        // What the addition lost, whichever of the two is the larger.
        float kept = next - total;
        lost += (total - (next - kept)) + (part - kept);
        sum[k] = next;
        rest[k] = lost;
    }
};

// Whether some of four images may carry weight, `margin` from the least energy. The margin may be less than the last digit
// of that energy, which itself counts.
template <typename Real>
__device__ inline bool is_near(X4<Real> energies, Real least, Real margin) {
    return least_of(energies) <= least + margin;
}

// What pass 2 needs of every window's softmax, [probe][window].
struct Normaliser {
    const REAL* least;   // the least energy
    const float* scale;  // the reciprocal of the sum of weights
};

// Normalised weights of four images on a window.
template <typename Real>
__device__ inline F32x4 weights(X4<Real> energies, Real least, float scale, Real logit_scale) {
    F32x4 out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.of[i] = weight_ratio(least - energies.of[i], logit_scale) * scale;
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

// Whether a query is computed in float64. A kernel that finds this out may ask while it is marked.
__device__ inline bool is_in_double(Probes probes, int query) {
    return (__ldcg(&probes.marks[query]) & IN_DOUBLE) != 0;
}

// Whether float32 has enough digits for the logits of images near this one, the best of a window.
__device__ inline bool float_serves(Probes probes, int query, float least) {
    return fabsf(least) * (float)probes.logit_scales[query] <= probes.float_bits;
}

// Whether the dense passes of this module pass over a query: it is done already, or computed in the other precision.
__device__ inline bool is_left_out(Probes probes, int query) {
    return is_weighed(probes, query) || is_in_double(probes, query) != IS_DOUBLE;
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

// Energies of the direct form within `margin` of the exact least one are computed below this, where the least one
// computed is `least` (src/cpu/precision.rs: near).
__device__ inline float candidate_bound(float least, float margin, ErrorBound error) {
    // The largest exact energy that may be computed as `least`, then the largest value of the largest that counts.
    float half_root = 0.5f * error.root;
    float root = sqrtf(least * (1.0f + 2.0f * error.slack) + error.offset + half_root * half_root) + half_root;
    float most = root * root + margin;
    return most + error.offset + error.root * sqrtf(most) + error.slack * most;
}

// Lists the images of a group that count and are near the least energy of a window.
__device__ inline void list_candidates(CandidateLists lists, Probes probes, int probe, int window, int first,
                                       F32x4 energies, float bound) {
    int query = probe % probes.queries;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        // A list that is too long already is not counted further: the count could wrap.
        bool near = energies.of[i] < bound && energies.of[i] < MAX_FLOAT;
        if (near && __ldcg(&lists.counts[query]) <= (unsigned)probes.max_candidates) {
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

// The number of window k in a mirror image, or as the query itself has it.
__device__ inline int mirrored_window(int k, int mirror, int mirror_columns) {
    return mirror == 0 ? k : mirror_window(k, mirror_columns);
}

// Calls `visit(at)` for window k of a query in some shards and every mirror image, of arrays [probe][shard][window].
template <typename Visit>
__device__ inline void for_each_in_shards(const Probes& probes, int query, int k, int first_shard, int shards,
                                          int all_shards, int count, int mirror_columns, Visit visit) {
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        size_t row = ((size_t)mirror * probes.queries + query) * all_shards + first_shard;
        for (int shard = 0; shard < shards; shard++) {
            visit((row + shard) * count + mirrored_window(k, mirror, mirror_columns));
        }
    }
}
