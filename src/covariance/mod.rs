//! Mean and covariance of images of bytes, exact: sums of products of integers, rounded once at the end. So the bits depend
//! neither on the instruction set nor on the threads.
//!
//! What is measured are combinations of two bytes each ([`Combinations`]): the covariance of a data set with its flips is that of
//! the sums of a pixel and its mirror pixel, and that of their differences, which do not vary together.

mod combinations;
mod panels;
mod products;

use ndarray::{Array1, Array2, ArrayView4};
use rayon::prelude::*;

use combinations::CENTRE;
pub use combinations::Combinations;
use panels::Panels;
use products::{BLOCK_PANELS, BlockProducts};

use crate::bank::Bank;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::simd::{Isa, LANES};
use crate::threads;

/// Values of a block of products.
const BLOCK: usize = BLOCK_PANELS * LANES;

/// Most bytes of the images that are packed at once.
const MAX_PACKED_BYTES: usize = 32 << 20;

/// Most images that are packed at once: sums of so many products of numbers up to 256 fit 31 bits.
const MAX_PACKED_IMAGES: usize = 4096;

/// Blocks per thread between two calls of the monitor: a hundredth of a second with AVX-512, a third without vectors.
const BLOCKS_PER_ROUND: usize = 16;

/// Means `[k]` and biased covariances `[k, k]` of combinations of bytes of the images `[n, channels, height, width]`, each rounded
/// once.
pub fn of_bytes(
    images: ArrayView4<'_, u8>,
    combinations: Combinations<'_>,
    monitor: &mut Monitor<'_>,
) -> Result<(Array1<f64>, Array2<f64>)> {
    let bank = Bank::from_u8(images)?;
    let (len, isa) = (bank.image_len(), Isa::best()?);
    combinations.check(len)?;
    let pixels = images.to_slice().unwrap_or_default();
    // One value more, which is 1 in every image: products with it are the sums of the others.
    let size = combinations.left.len() + 1;
    let mut blocks = blocks(size)?;
    let pool = threads::pool()?;
    let packed = (MAX_PACKED_BYTES / (size_of::<i16>() * size)).clamp(2, MAX_PACKED_IMAGES);
    let mut panels = Panels::new(size);
    for (index, part) in pixels.chunks(packed * len).enumerate() {
        pool.install(|| panels.pack(part, len, combinations, isa));
        for round in blocks.chunks_mut(BLOCKS_PER_ROUND * pool.current_num_threads()) {
            pool.install(|| {
                let add = |block: &mut Block| block.add(&panels, isa);
                round.par_iter_mut().with_max_len(1).for_each(add);
            });
            monitor((index * packed) as u64, bank.len() as u64)?;
        }
    }
    monitor(bank.len() as u64, bank.len() as u64)?;
    moments(&blocks, size, bank.len(), combinations.is_difference)
}

/// The sums of products of two blocks of values.
#[derive(Debug)]
struct Block {
    /// The first panels of its rows and of its columns.
    panels: [usize; 2],
    sums: Vec<i64>,
}

impl Block {
    fn add(&mut self, panels: &Panels, isa: Isa) {
        isa.run(BlockProducts { panels, of: self.panels, sums: &mut self.sums });
    }
}

/// The blocks of a symmetric matrix on and above its diagonal.
fn blocks(size: usize) -> Result<Vec<Block>> {
    let ends = || (0..size.div_ceil(LANES)).step_by(BLOCK_PANELS);
    let refused = |reason: String| Error::Memory { needed: (2 * size_of::<i64>() * size * size) >> 20, reason };
    let block = |row: usize, column: usize| {
        let mut sums = Vec::new();
        sums.try_reserve_exact(BLOCK * BLOCK).map_err(|error| refused(error.to_string()))?;
        sums.resize(BLOCK * BLOCK, 0);
        Ok(Block { panels: [row, column], sums })
    };
    ends().flat_map(|row| ends().filter(move |&column| column >= row).map(move |column| block(row, column))).collect()
}

/// Means and covariances from the sums of products, of which the last row and column are the sums of the values.
fn moments(blocks: &[Block], size: usize, images: usize, is_difference: bool) -> Result<(Array1<f64>, Array2<f64>)> {
    let count = size - 1;
    let mut covariance = Vec::new();
    covariance.try_reserve_exact(count * count).map_err(|error| Error::Memory {
        needed: (size_of::<f64>() * count * count) >> 20,
        reason: error.to_string(),
    })?;
    covariance.resize(count * count, 0.0);
    let across = size.div_ceil(BLOCK);
    // Blocks of a row of blocks come one after the other, from the one on the diagonal.
    let sum = |row: usize, column: usize| {
        let ([i, j], [y, x]) = ([row / BLOCK, column / BLOCK], [row % BLOCK, column % BLOCK]);
        blocks[i * across - i * (i + 1) / 2 + j].sums[y * BLOCK + x]
    };
    let sums: Vec<i64> = (0..count).map(|row| if is_difference { 0 } else { sum(row, count) }).collect();
    // N^2 as a product of floats is exact up to 2^26 images, and then rounded.
    let squared = images as f64 * images as f64;
    for row in 0..count {
        for column in row..count {
            let exact =
                images as i128 * i128::from(sum(row, column)) - i128::from(sums[row]) * i128::from(sums[column]);
            let value = exact as f64 / squared;
            covariance[row * count + column] = value;
            covariance[column * count + row] = value;
        }
    }
    let centre = if is_difference { 0.0 } else { f64::from(CENTRE) };
    let means = sums.iter().map(|&sum| sum as f64 / images as f64 + centre).collect();
    let covariance = Array2::from_shape_vec((count, count), covariance).expect("as many values as a square has");
    Ok((means, covariance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array4;
    use proptest::prelude::*;

    fn images(count: usize, width: usize, seed: u64) -> Array4<u8> {
        let mut state = seed;
        Array4::from_shape_simple_fn((count, 2, 3, width), || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Extremes too, of which all products are largest.
            match state >> 60 {
                0..3 => 0,
                3..6 => 255,
                _ => (state >> 33) as u8,
            }
        })
    }

    /// By the definition, in float64.
    fn expected(images: &Array4<u8>, combinations: Combinations<'_>) -> (Vec<f64>, Vec<f64>) {
        let (count, rows) = (images.dim().0, images.to_shape((images.dim().0, 6 * images.dim().3)).unwrap());
        let value = |image: usize, index: usize| {
            let [left, right] =
                [combinations.left, combinations.right].map(|at| f64::from(rows[[image, at[index] as usize]]));
            if combinations.is_difference { left - right } else { left + right }
        };
        let size = combinations.left.len();
        let sum = |index: usize| (0..count).map(|image| value(image, index)).sum::<f64>();
        let mean = |index: usize| if combinations.is_difference { 0.0 } else { sum(index) / count as f64 };
        let means: Vec<f64> = (0..size).map(mean).collect();
        let product = |image: usize, i: usize, j: usize| (value(image, i) - means[i]) * (value(image, j) - means[j]);
        let covariance =
            |at: usize| (0..count).map(|image| product(image, at / size, at % size)).sum::<f64>() / count as f64;
        (means.clone(), (0..size * size).map(covariance).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn covariances_are_those_of_the_definition(
            count in prop_oneof![1_usize..9, 250_usize..530],
            width in 1_usize..30,
            is_difference: bool,
            seed: u64,
        ) {
            let images = images(count, width, seed);
            let left: Vec<u32> = (0..6 * width as u32).collect();
            let right: Vec<u32> = left.iter().map(|&at| (at * 7 + seed as u32 % 5) % (6 * width as u32)).collect();
            let combinations = Combinations { left: &left, right: &right, is_difference };
            let (means, covariances) = expected(&images, combinations);
            let found = of_bytes(images.view(), combinations, &mut |_, _| Ok(())).unwrap();
            for (found, exact) in found.0.iter().zip(means).chain(found.1.iter().zip(covariances)) {
                prop_assert!((found - exact).abs() < 1e-8, "{found} {exact}");
            }
        }
    }

    #[test]
    fn every_instruction_set_has_the_same_sums() {
        let images = images(333, 29, 1);
        let left: Vec<u32> = (0..174).collect();
        let combinations = Combinations { left: &left, right: &left, is_difference: false };
        let mut sums = Isa::available().into_iter().map(|isa| {
            let mut panels = Panels::new(left.len() + 1);
            panels.pack(images.as_slice().unwrap(), 174, combinations, isa);
            let mut blocks = blocks(left.len() + 1).unwrap();
            assert_eq!(blocks.len(), 3);
            for block in &mut blocks {
                block.add(&panels, isa);
            }
            blocks.into_iter().map(|block| block.sums).collect::<Vec<_>>()
        });
        let first = sums.next().unwrap();
        assert!(sums.all(|sums| sums == first));
    }

    #[test]
    fn sums_of_as_many_images_as_are_packed_do_not_overflow() {
        let black = Array4::<u8>::zeros((2 * MAX_PACKED_IMAGES + 1, 1, 1, 2));
        let combinations = Combinations { left: &[0, 1], right: &[1, 0], is_difference: false };
        let (means, covariances) = of_bytes(black.view(), combinations, &mut |_, _| Ok(())).unwrap();
        assert_eq!((means.to_vec(), covariances.into_raw_vec_and_offset().0), (vec![0.0; 2], vec![0.0; 4]));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_a_call_can_be_stopped() {
        let images = images(3, 1, 0);
        let of = |left: &[u32], right: &[u32], asked: Result<()>| {
            of_bytes(images.view(), Combinations { left, right, is_difference: false }, &mut |_, _| asked.clone())
                .map(|_| ())
        };
        assert!(matches!(of(&[], &[], Ok(())), Err(Error::Shape { .. })));
        assert!(matches!(of(&[0, 1], &[0], Ok(())), Err(Error::Shape { .. })));
        assert!(matches!(of(&[0], &[6], Ok(())), Err(Error::Shape { .. })));
        assert_eq!(of(&[0], &[5], Ok(())), Ok(()));
        assert_eq!(of(&[0], &[5], Err(Error::Stopped)), Err(Error::Stopped));
    }
}
