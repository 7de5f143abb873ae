// The modules for one kind of pixels, PIXEL, a namespace each; PIXEL_NAME begins their names.

#define JOIN_NAMES(a, b) a##b
#define JOIN(a, b) JOIN_NAMES(a, b)

#define REAL float
#define NARROW true
#define MODULE JOIN(PIXEL_NAME, _narrow)
#define NAMED(name) JOIN(name##_, MODULE)
namespace MODULE {
#include "common.cu"
#include "box_sums.cu"
#include "dense_square.cu"
#include "scan_square.cu"
}
#undef NARROW
#undef MODULE
#define NARROW false
#define MODULE JOIN(PIXEL_NAME, _wide)
namespace MODULE {
#include "common.cu"
#include "box_sums.cu"
#include "dense_square.cu"
#include "scan_square.cu"
}
#undef MODULE
#define MODULE PIXEL_NAME
namespace MODULE {
#include "common.cu"
#include "masks.cu"
#include "dense_masks.cu"
#include "scan_masks.cu"
#include "full.cu"
#include "sparse.cu"
#include "posterior.cu"
#include "planes.cu"
#include "evidence.cu"
#include "statistics.cu"
#include "derivative.cu"
#include "variance.cu"
}
#undef REAL
#undef NARROW
#undef MODULE

#define REAL double
#define NARROW true
#define MODULE JOIN(PIXEL_NAME, _narrow_double)
namespace MODULE {
#include "common.cu"
#include "box_sums.cu"
#include "dense_square.cu"
}
#undef NARROW
#undef MODULE
#define NARROW false
#define MODULE JOIN(PIXEL_NAME, _wide_double)
namespace MODULE {
#include "common.cu"
#include "box_sums.cu"
#include "dense_square.cu"
}
#undef MODULE
#define MODULE JOIN(PIXEL_NAME, _double)
namespace MODULE {
#include "common.cu"
#include "masks.cu"
#include "dense_masks.cu"
}
#undef REAL
#undef NARROW
#undef MODULE
#undef NAMED
#undef JOIN
#undef JOIN_NAMES
