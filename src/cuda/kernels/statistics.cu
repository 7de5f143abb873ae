// What weights over planes say about images: the heaviest ones of every window, and their sums per image.
//
// CPU counterpart: `statistics` in src/cpu.

// Keeps in [probe][window][place] the `top` heaviest images so far, heaviest first, of equal ones the first; those lighter
// than 2^-cutoff_bits are passed over. A row of blocks is a probe.
extern "C" __global__ void NAMED(plane_heaviest)(Images images, Probes probes, int windows, const F64x4* weights,
                                                 int top, double* heaviest, int* positions) {
    int k = thread_in_row();
    if (k >= windows) {
        return;
    }
    size_t first_place = ((size_t)blockIdx.y * windows + k) * top;
    double* places = heaviest + first_place;
    double least = fmax(places[top - 1], exp2(-(double)probes.cutoff_bits));
    const F64x4* of_group = weights + (size_t)blockIdx.y * groups_of(images) * windows + k;
    for (int image = 0; image < images.count; image++) {
        double weight = of_group[(size_t)(image / 4) * windows].of[image % 4];
        if (weight <= least) {
            continue;
        }
        int place = top - 1;
        for (; place > 0 && places[place - 1] < weight; place--) {
            places[place] = places[place - 1];
            positions[first_place + place] = positions[first_place + place - 1];
        }
        places[place] = weight;
        positions[first_place + place] = images.first + image;
        least = fmax(least, places[top - 1]);
    }
}

// To [probe][image]: the sum of an image's weights over the windows. A warp per group; a row of blocks is a probe.
extern "C" __global__ void NAMED(plane_attribution)(Images images, int windows, const F64x4* weights, int all_images,
                                                    double* sums) {
    int group = blockIdx.x, lane = threadIdx.x;
    const F64x4* of_group = weights + ((size_t)blockIdx.y * groups_of(images) + group) * windows;
    F64x4 sum = splat(0.0);
    for (int k = lane; k < windows; k += LANES) {
        sum = sum + of_group[k];
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        for (int step = LANES / 2; step > 0; step /= 2) {
            sum.of[i] += __shfl_xor_sync(FULL_WARP, sum.of[i], step);
        }
        int image = 4 * group + i;
        if (lane == 0 && image < images.count) {
            sums[(size_t)blockIdx.y * all_images + images.first + image] = sum.of[i];
        }
    }
}
