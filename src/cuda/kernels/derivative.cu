// Derivatives over planes: with the product of an image and a direction on a window, less its mean, weights become those
// whose composite is the derivative.
//
// CPU counterpart: `dense/derivative` in src/cpu.

// Adds to [probe][shard][window] the weighted sums of products [window]; a row of blocks is a shard.
extern "C" __global__ void NAMED(plane_means)(Images images, int windows, const F64x4* weights, const F64x4* products,
                                              double* sums) {
    int k = thread_in_row();
    if (k >= windows) {
        return;
    }
    ShardPart part(images, blockIdx.y);
    double* place = sums + ((size_t)blockIdx.z * images.shards + part.shard) * windows + k;
    double sum = part.is_first ? 0.0 : *place;
    size_t first = (size_t)blockIdx.z * groups_of(images) * windows + k;
    for (int group = part.begin; group < part.end; group++) {
        size_t at = first + (size_t)group * windows;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum = fma(weights[at].of[i], products[at].of[i], sum);
        }
    }
    *place = sum;
}

// To [probe][window]: the sums of all shards and mirror images. A row of blocks is a query.
extern "C" __global__ void NAMED(merge_means)(Probes probes, const double* sums, int shards, int windows,
                                              int mirror_columns, double* means) {
    int k = thread_in_row(), query = blockIdx.y;
    if (k >= windows) {
        return;
    }
    double total = 0.0;
    for_each_in_shards(probes, query, k, 0, shards, shards, windows, mirror_columns,
                       [&](size_t at) { total += sums[at]; });
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        size_t probe = (size_t)mirror * probes.queries + query;
        means[probe * windows + mirrored_window(k, mirror, mirror_columns)] = total;
    }
}

// Turns products [window] into weights times what they are above their mean [probe][window].
extern "C" __global__ void NAMED(plane_tilts)(int windows, const F64x4* weights, const double* means,
                                              F64x4* products) {
    int k = thread_in_row();
    if (k >= windows) {
        return;
    }
    F64x4 weight = plane_of_block(weights, windows)[k];
    F64x4* place = plane_of_block(products, windows) + k;
    F64x4 tilted = *place;
    double mean = means[(size_t)blockIdx.z * windows + k];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        tilted.of[i] = weight.of[i] * (tilted.of[i] - mean);
    }
    *place = tilted;
}
