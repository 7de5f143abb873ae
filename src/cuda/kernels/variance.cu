// Moments of pixels over planes, on every window by itself.
//
// CPU counterpart: `dense/moments` in src/cpu.

// Pixels of windows, [mirror][entry], as the query and its mirror image number them.
struct WindowPixels {
    const int* windows;
    const int* pixels;
    int count;
};

// Adds to [probe][channel][entry] the weighted sums of what pixels are above z, or of its squares. A row of blocks is a
// channel, a layer a probe.
extern "C" __global__ void NAMED(plane_moments)(Images images, Probes probes, int windows, const F64x4* weights,
                                                WindowPixels entries, int squares, double* sums) {
    int entry = thread_in_row();
    if (entry >= entries.count) {
        return;
    }
    int plane = images.height * images.width;
    size_t image_len = (size_t)images.channels * plane;
    size_t listed = (size_t)(blockIdx.z / probes.queries) * entries.count + entry;
    const F64x4* of_group = weights + (size_t)blockIdx.z * groups_of(images) * windows + entries.windows[listed];
    size_t value = (size_t)blockIdx.y * plane + entries.pixels[listed];
    const PixelX4* pixels = (const PixelX4*)images.pixels + value;
    double z = near_z(probes, blockIdx.z * image_len + value);
    double* place = sums + ((size_t)blockIdx.z * images.channels + blockIdx.y) * entries.count + entry;
    double sum = *place;
    for (int group = 0; group < groups_of(images); group++) {
        F64x4 weight = of_group[(size_t)group * windows];
        F32x4 a = centred(pixels[group * image_len]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            double pixel = a.of[i] - z;
            sum = fma(weight.of[i], squares ? pixel * pixel : pixel, sum);
        }
    }
    *place = sum;
}
