// A libcuda that runs the kernels on the CPU: the driver calls that the engine makes, with memory that is malloc's and
// streams that are always done. So everything but the GPU itself is tested: arguments, grids, memory plans, errors.
//
// FAKE_CUDA_MEMORY: bytes of device memory; FAKE_CUDA_FREE: bytes of it that are reported as free;
// FAKE_CUDA_SHARED: bytes of shared memory a block may have; FAKE_CUDA_VERSION: the CUDA version the driver supports;
// FAKE_CUDA_MAJOR and FAKE_CUDA_MINOR: the compute capability; FAKE_CUDA_DEVICES: how many devices;
// FAKE_CUDA_FAIL: a kernel whose launch fails.

#include "emulation.h"

#include <map>
#include <mutex>
#include <string>

// The modules that `src/cuda/sources.rs` builds, for both kinds of pixels.
#define PIXEL unsigned char
#define PIXEL_NAME u8
#include "modules.h"
#undef PIXEL
#undef PIXEL_NAME
#define PIXEL float
#define PIXEL_NAME f32
#include "modules.h"

namespace {

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, NOT_FOUND = 500,
              LAUNCH_FAILED = 719 };

long long setting(const char* name, long long otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::atoll(text);
}

struct Kernel {
    std::string name;
    void (*run)(void* self, void** arguments);
    void* function;
};

struct Launch {
    const Kernel* kernel;
    void** arguments;
};

template <typename... Arguments, size_t... At>
void call(void (*function)(Arguments...), void** arguments, std::index_sequence<At...>) {
    function(*static_cast<Arguments*>(arguments[At])...);
}

template <typename... Arguments>
Kernel kernel(const char* name, void (*function)(Arguments...)) {
    auto run = [](void* self, void** arguments) {
        call(reinterpret_cast<void (*)(Arguments...)>(self), arguments, std::index_sequence_for<Arguments...>());
    };
    return {name, run, reinterpret_cast<void*>(function)};
}

#define ENTRY(space, name) kernel(#name, space::name)
#define DENSE(space, windows) ENTRY(space, windows##_posteriors_##space), ENTRY(space, windows##_composites_##space)
#define SCAN(space, windows) ENTRY(space, windows##_scan_##space)
#define OTHERS(space)                                                                                                  \
    ENTRY(space, full_energies_##space), ENTRY(space, full_bests_##space),                                             \
        ENTRY(space, full_refined_bests_##space), ENTRY(space, full_references_##space),                               \
        ENTRY(space, full_refine_##space), ENTRY(space, full_weights_##space), ENTRY(space, full_means_##space),       \
        ENTRY(space, candidate_energies_##space), ENTRY(space, candidate_sums_##space),                                \
        ENTRY(space, candidate_composites_##space), ENTRY(space, interleave_##space), ENTRY(space, gather_##space),    \
        ENTRY(space, prepare_probes_##space), ENTRY(space, merge_shards_##space),                                      \
        ENTRY(space, merge_double_shards_##space), ENTRY(space, finish_queries_##space)
#define PLANES(space)                                                                                                  \
    ENTRY(space, plane_residuals_##space), ENTRY(space, plane_products_##space), ENTRY(space, plane_sums_##space),     \
        ENTRY(space, plane_pieces_##space), ENTRY(space, plane_doubles_##space), ENTRY(space, plane_members_##space),  \
        ENTRY(space, plane_weights_##space), ENTRY(space, plane_composites_##space),                                   \
        ENTRY(space, plane_totals_##space), ENTRY(space, plane_evidence_##space),                                      \
        ENTRY(space, merge_evidence_##space), ENTRY(space, plane_heaviest_##space),                                    \
        ENTRY(space, plane_attribution_##space), ENTRY(space, plane_means_##space), ENTRY(space, merge_means_##space), \
        ENTRY(space, plane_tilts_##space), ENTRY(space, plane_moments_##space)
#define KERNELS(pixels)                                                                                                \
    DENSE(pixels##_narrow, square), SCAN(pixels##_narrow, square), DENSE(pixels##_narrow_double, square),              \
        DENSE(pixels##_wide, square), SCAN(pixels##_wide, square), DENSE(pixels##_wide_double, square),                \
        DENSE(pixels, mask), SCAN(pixels, mask), DENSE(pixels##_double, mask), OTHERS(pixels), PLANES(pixels)

const Kernel kernels[] = {KERNELS(u8), KERNELS(f32)};

std::mutex lock;
std::map<unsigned long long, size_t> allocated;
long long used = 0;
int context_of_device[8];
thread_local void* current_context = nullptr;

int allocate(unsigned long long* out, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    if (used + (long long)bytes > setting("FAKE_CUDA_MEMORY", 1 << 30)) {
        return OUT_OF_MEMORY;
    }
    void* memory = std::malloc(bytes);
    // Reading memory that was never written shall show.
    std::memset(memory, 0xff, bytes);
    *out = (unsigned long long)memory;
    allocated[*out] = bytes;
    used += bytes;
    return SUCCESS;
}

int release(unsigned long long memory) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = allocated.find(memory);
    if (found == allocated.end()) {
        return INVALID_VALUE;
    }
    used -= found->second;
    allocated.erase(found);
    std::free((void*)memory);
    return SUCCESS;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return setting("FAKE_CUDA_DEVICES", 1) == 0 ? NO_DEVICE : SUCCESS; }

// NVRTC asks for undocumented tables, and does without.
int cuGetExportTable(const void** table, const void*) {
    *table = nullptr;
    return NOT_FOUND;
}

int cuDriverGetVersion(int* version) {
    *version = (int)setting("FAKE_CUDA_VERSION", 13000);
    return SUCCESS;
}

int cuDeviceGetCount(int* count) {
    *count = (int)setting("FAKE_CUDA_DEVICES", 1);
    return SUCCESS;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < setting("FAKE_CUDA_DEVICES", 1) ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char* name, int length, int device) {
    std::snprintf(name, length, "Emulated GPU %d", device);
    return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 75: *value = (int)setting("FAKE_CUDA_MAJOR", 9); break;             // compute capability
        case 76: *value = (int)setting("FAKE_CUDA_MINOR", 0); break;
        case 97: *value = (int)setting("FAKE_CUDA_SHARED", 232448); break;       // shared memory per block, opt-in
        case 115: *value = 1; break;                                             // memory pools
        case 16: *value = 4; break;                                              // multiprocessors
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    *context = &context_of_device[device];
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

int cuCtxSetCurrent(void* context) {
    current_context = context;
    return SUCCESS;
}

int cuCtxGetCurrent(void** context) {
    *context = current_context;
    return SUCCESS;
}

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    std::lock_guard<std::mutex> guard(lock);
    *total = setting("FAKE_CUDA_MEMORY", 1 << 30);
    *free = setting("FAKE_CUDA_FREE", *total - used);
    return SUCCESS;
}

int cuMemAllocAsync(unsigned long long* out, size_t bytes, void*) { return allocate(out, bytes); }
int cuMemAlloc_v2(unsigned long long* out, size_t bytes) { return allocate(out, bytes); }
int cuMemFreeAsync(unsigned long long memory, void*) { return release(memory); }
int cuMemFree_v2(unsigned long long memory) { return release(memory); }

int cuMemsetD8Async(unsigned long long at, unsigned char value, size_t bytes, void*) {
    std::memset((void*)at, value, bytes);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void*) {
    std::memcpy((void*)to, from, bytes);
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void*) {
    std::memcpy(to, (const void*)from, bytes);
    return SUCCESS;
}

int cuStreamSynchronize(void*) { return SUCCESS; }

int cuEventCreate(void** event, unsigned) {
    *event = new char;
    return SUCCESS;
}

int cuEventRecord(void*, void*) { return SUCCESS; }
int cuEventQuery(void*) { return SUCCESS; }

int cuEventDestroy_v2(void* event) {
    delete static_cast<char*>(event);
    return SUCCESS;
}

int cuModuleLoadData(void** module, const void* image) {
    // Only an ELF file can be a CUBIN.
    if (std::memcmp(image, "\177ELF", 4) != 0) {
        return 200;
    }
    *module = const_cast<char*>("module");
    return SUCCESS;
}

int cuModuleUnload(void*) { return SUCCESS; }

int cuModuleGetFunction(const void** function, void*, const char* name) {
    for (const Kernel& one : kernels) {
        if (one.name == name) {
            *function = &one;
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}

int cuFuncSetAttribute(void*, int, int) { return SUCCESS; }

int cuLaunchKernel(const void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, void*, void** arguments, void**) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> guard(one_at_a_time);
    const Kernel* kernel = static_cast<const Kernel*>(function);
    const char* failing = std::getenv("FAKE_CUDA_FAIL");
    if (failing != nullptr && kernel->name.find(failing) == 0) {
        return LAUNCH_FAILED;
    }
    bool fits = grid_x > 0 && grid_y > 0 && grid_z > 0 && grid_y < 65536 && grid_z < 65536 && block_x > 0 &&
                block_x <= 1024 && block_y == 1 && block_z == 1 && shared <= setting("FAKE_CUDA_SHARED", 232448);
    if (!fits) {
        return INVALID_VALUE;
    }
    Launch launch{kernel, arguments};
    auto run = [](void* launch) {
        auto* one = static_cast<Launch*>(launch);
        one->kernel->run(one->kernel->function, one->arguments);
    };
    emulation::run({grid_x, grid_y, grid_z}, {block_x, 1, 1}, shared, run, &launch);
    return SUCCESS;
}

int cuGetErrorName(int error, const char** name) {
    switch (error) {
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: *name = "CUDA_ERROR_OF_SOME_KIND";
    }
    return SUCCESS;
}

int cuGetErrorString(int error, const char** text) {
    *text = error == LAUNCH_FAILED ? "unspecified launch failure" : error == OUT_OF_MEMORY ? "out of memory" : "error";
    return SUCCESS;
}

}
