// The full window: one energy a probe and image, few enough to keep, so that the second pass is a weighted mean.
//
// CPU counterpart: src/cpu/full.rs.

// Probes that share the pixels of an image: their sums stay in registers.
#define TOGETHER 8

// Images whose weights lie in shared memory at a time.
#define STAGED 64

// Energies [probe][image] of a group of images and up to TOGETHER probes, by one warp: lanes are pixels.
template <bool EXPANDED>
__device__ void energies_of_group(const Images& images, const Probes& probes, int group, int first_probe,
                                  float* energies, int all_images) {
    int lane = threadIdx.x % LANES;
    int image_len = images.channels * images.height * images.width;
    int last_probe = probes.queries * probes.views - 1;
    const Fours* fours = (const Fours*)images.pixels + (size_t)group * image_len;
    Four total[TOGETHER], own_total = four(0.0f);
#pragma unroll
    for (int q = 0; q < TOGETHER; q++) {
        total[q] = four(0.0f);
    }
    // Sums of a few terms are summed again, so that rounding does not grow with the size of the image.
    for (int start = lane; start < image_len; start += 64 * LANES) {
        Four sum[TOGETHER], own = four(0.0f);
#pragma unroll
        for (int q = 0; q < TOGETHER; q++) {
            sum[q] = four(0.0f);
        }
        int end = min(image_len, start + 64 * LANES);
        for (int p = start; p < end; p += LANES) {
            Four a = centred(fours[p]);
            if (EXPANDED) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    own.of[i] = fmaf(a.of[i], a.of[i], own.of[i]);
                }
            }
#pragma unroll
            for (int q = 0; q < TOGETHER; q++) {
                // Probes past the last one repeat it; their sums are dropped below.
                float z = probes.values[(size_t)min(first_probe + q, last_probe) * image_len + p];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float t = EXPANDED ? z : a.of[i] - z;
                    sum[q].of[i] = fmaf(EXPANDED ? a.of[i] : t, t, sum[q].of[i]);
                }
            }
        }
        own_total = own_total + own;
#pragma unroll
        for (int q = 0; q < TOGETHER; q++) {
            total[q] = total[q] + sum[q];
        }
    }
#pragma unroll
    for (int q = 0; q < TOGETHER; q++) {
        Four energy = EXPANDED ? own_total + total[q] : total[q];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            for (int step = LANES / 2; step > 0; step /= 2) {
                energy.of[i] += __shfl_xor_sync(EVERY_LANE, energy.of[i], step);
            }
            if (lane == i && first_probe + q <= last_probe && 4 * group + i < images.count) {
                energies[(size_t)(first_probe + q) * all_images + images.first + 4 * group + i] = energy.of[i];
            }
        }
    }
}

extern "C" __global__ void NAMED(full_energies)(Images images, Probes probes, float* energies, int all_images) {
    int group = blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES;
    if (4 * group >= images.count) {
        return;
    }
    int first_probe = blockIdx.y * TOGETHER;
    if (probes.expanded) {
        energies_of_group<true>(images, probes, group, first_probe, energies, all_images);
    } else {
        energies_of_group<false>(images, probes, group, first_probe, energies, all_images);
    }
}

// Turns the energies of a query's probes into weights that sum to one, in place; lists candidates first, where they are
// looked for. One block a query.
extern "C" __global__ void NAMED(full_weights)(Probes probes, float* energies, int images, Candidates list) {
    __shared__ float least[256];
    __shared__ double sum[256];
    int query = blockIdx.x, t = threadIdx.x, threads = blockDim.x;
    float best = LARGEST;
    for (int view = 0; view < probes.views; view++) {
        const float* mine = energies + ((size_t)view * probes.queries + query) * images;
        for (int i = t; i < images; i += threads) {
            best = fminf(best, mine[i]);
        }
    }
    least[t] = best;
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            least[t] = fminf(least[t], least[t + half]);
        }
    }
    __syncthreads();
    best = least[0];
    float rate = (float)probes.rates[query];
    if (list.counts != nullptr) {
        float bound = candidate_bound(best, (float)(probes.cutoff / probes.rates[query]));
        for (int view = 0; view < probes.views; view++) {
            int probe = view * probes.queries + query;
            for (int i = t; i < images; i += threads) {
                Four one = four(LARGEST);
                one.of[0] = energies[(size_t)probe * images + i];
                list_candidates(list, probes, probe, 0, i, one, bound);
            }
        }
    }
    double total = 0.0;
    for (int view = 0; view < probes.views; view++) {
        const float* mine = energies + ((size_t)view * probes.queries + query) * images;
        for (int i = t; i < images; i += threads) {
            total += power((best - mine[i]) * rate);
        }
    }
    sum[t] = total;
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            sum[t] += sum[t + half];
        }
    }
    __syncthreads();
    float scale = (float)(1.0 / sum[0]);
    for (int view = 0; view < probes.views; view++) {
        float* mine = energies + ((size_t)view * probes.queries + query) * images;
        for (int i = t; i < images; i += threads) {
            float bits = (best - mine[i]) * rate;
            // Far below the cutoff a weight is zero, so that groups of such images are skipped.
            mine[i] = bits < -probes.cutoff - 40.0f ? 0.0f : power(bits) * scale;
        }
    }
}

// Weighted sums of a shard's images for up to TOGETHER probes, [probe][shard][pixel]. Threads are pixels.
extern "C" __global__ void NAMED(full_means)(Images images, Probes probes, const float* weights, int all_images, float* partial) {
    __shared__ float staged[TOGETHER][STAGED];
    int image_len = images.channels * images.height * images.width;
    int p = blockIdx.x * blockDim.x + threadIdx.x;
    int start = blockIdx.y * images.shard, end = min(images.count, start + images.shard);
    int first_probe = blockIdx.z * TOGETHER, all_probes = probes.queries * probes.views;
    float sum[TOGETHER];
#pragma unroll
    for (int q = 0; q < TOGETHER; q++) {
        sum[q] = 0.0f;
    }
    for (int first = start; first < end; first += STAGED) {
        int some = 0;
        for (int i = threadIdx.x; i < TOGETHER * STAGED; i += blockDim.x) {
            int probe = first_probe + i / STAGED, image = first + i % STAGED;
            bool real = probe < all_probes && image < end && !listed(probes, probe % probes.queries);
            float weight = real ? weights[(size_t)probe * all_images + images.first + image] : 0.0f;
            staged[i / STAGED][i % STAGED] = weight;
            some |= weight != 0.0f;
        }
        if (__syncthreads_or(some) && p < image_len) {
            int groups = (min(end, first + STAGED) - first + 3) / 4;
            const Fours* fours = (const Fours*)images.pixels + (size_t)(first / 4) * image_len + p;
            for (int g = 0; g < groups; g++) {
                Four a = centred(fours[(size_t)g * image_len]);
#pragma unroll
                for (int q = 0; q < TOGETHER; q++) {
                    const float* w = &staged[q][4 * g];
                    sum[q] = fmaf(w[0], a.of[0], fmaf(w[1], a.of[1], fmaf(w[2], a.of[2], fmaf(w[3], a.of[3], sum[q]))));
                }
            }
        }
        // The weights are written anew for the next images.
        __syncthreads();
    }
    if (p < image_len) {
#pragma unroll
        for (int q = 0; q < TOGETHER; q++) {
            if (first_probe + q < all_probes) {
                size_t row = (size_t)(first_probe + q) * images.shards + images.first_shard + blockIdx.y;
                partial[row * image_len + p] = sum[q];
            }
        }
    }
}
