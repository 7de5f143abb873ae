//! `Panels`: combinations of the bytes of some images, laid out for sums of products over the images.

use rayon::prelude::*;

use super::combinations::Combinations;
use crate::simd::{I32x16, Isa, Kernel, LANES, Vector};

/// Pairs of images of a slab: two panels of a slab fit the first-level cache, those of two blocks the second-level one.
pub(super) const SLAB_PAIRS: usize = 128;

/// Values of images, `[slab][panel][pair][lane]`: a lane holds a value of the two images of a pair, in sixteen bits each. The last
/// value is 1 for every image; what is padded is 0.
#[derive(Debug)]
pub(super) struct Panels {
    count: usize,
    lanes: Vec<I32x16>,
}

impl Panels {
    /// Panels for so many values of an image, without images.
    pub(super) fn new(size: usize) -> Self {
        Self { count: size.div_ceil(LANES), lanes: Vec::new() }
    }

    /// How many panels there are for a pair of images.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The slabs, each of [`Panels::count`] panels of [`SLAB_PAIRS`].
    pub(super) fn slabs(&self) -> impl Iterator<Item = &[I32x16]> {
        self.lanes.chunks(self.count * SLAB_PAIRS)
    }

    /// Holds these images, of `image_len` bytes each, instead of those before.
    pub(super) fn pack(&mut self, pixels: &[u8], image_len: usize, combinations: Combinations<'_>, isa: Isa) {
        let (images, slab) = (2 * SLAB_PAIRS * image_len, self.count * SLAB_PAIRS);
        self.lanes.clear();
        self.lanes.resize(pixels.len().div_ceil(images) * slab, I32x16::ZERO);
        let pack = |(lanes, pixels)| isa.run(PackSlab { pixels, image_len, combinations, lanes });
        self.lanes.par_chunks_mut(slab).zip(pixels.par_chunks(images)).for_each(pack);
    }
}

/// Packs the images of a slab.
struct PackSlab<'a> {
    pixels: &'a [u8],
    image_len: usize,
    combinations: Combinations<'a>,
    lanes: &'a mut [I32x16],
}

impl Kernel for PackSlab<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { pixels, image_len, combinations, lanes } = self;
        let one = combinations.left.len();
        let padded = lanes.len() / SLAB_PAIRS * LANES;
        let (mut low, mut high) = (vec![0_i16; padded], vec![0_i16; padded]);
        for (pair, images) in pixels.chunks(2 * image_len).enumerate() {
            let (first, second) = images.split_at(image_len);
            combinations.write(first, &mut low);
            low[one] = 1;
            if second.is_empty() {
                high.fill(0);
            } else {
                combinations.write(second, &mut high);
                high[one] = 1;
            }
            let (low, high) = (low.as_chunks::<LANES>().0, high.as_chunks::<LANES>().0);
            for (panel, (low, high)) in lanes.chunks_exact_mut(SLAB_PAIRS).zip(low.iter().zip(high)) {
                for lane in 0..LANES {
                    panel[pair].0[lane] = (i32::from(high[lane]) << 16) | i32::from(low[lane].cast_unsigned());
                }
            }
        }
    }
}
