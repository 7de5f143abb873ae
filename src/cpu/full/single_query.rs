//! The full window for one or two probes: images are read in place, since a panel would be written only to be read once.
//!
//! Sums are formed in the order of [`super::image_panel`] and [`super::pixel_panel`], so that the bits do not depend on the
//! rest of a batch.

use super::pixel_panel::{PixelPanel, padded};
use crate::cpu::dense::residuals::{DIRECT, EXPANDED, PRODUCTS};
use crate::cpu::tile::Pixel;
use crate::simd::{F32x16, Kernel, LANES, Vector};

/// Images whose energies are summed together, to hide the latency of the additions.
const ENERGY_IMAGES: usize = 2;

/// Images that share the reading and writing of a sum.
const MEAN_IMAGES: usize = 4;

/// Writes the energies, or inner products, of images with a probe's values `[vector]`.
pub(crate) struct Energies<'a, P: Pixel> {
    pub(crate) images: &'a [&'a [P]],
    pub(crate) centre: f32,
    pub(crate) values: &'a [F32x16],
    pub(crate) form: u8,
    pub(crate) out: &'a mut [f32],
}

impl<P: Pixel> Kernel for Energies<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { images, centre, values, form, out } = self;
        match form {
            EXPANDED => energies_in_form::<V, P, EXPANDED>(images, centre, values, out),
            PRODUCTS => energies_in_form::<V, P, PRODUCTS>(images, centre, values, out),
            _ => energies_in_form::<V, P, DIRECT>(images, centre, values, out),
        }
    }
}

/// Adds to `sums` `[vector]` the images, at most as many as in a panel, times their weights.
pub(crate) struct AddMean<'a, P: Pixel> {
    pub(crate) images: &'a [&'a [P]],
    pub(crate) centre: f32,
    pub(crate) image_len: usize,
    pub(crate) weights: &'a [f32],
    pub(crate) sums: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for AddMean<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { images, centre, image_len, weights, sums } = self;
        for part in PixelPanel::parts(image_len) {
            // The part's sums over these images alone, in the order of a panel.
            let mut lanes = [F32x16::ZERO; PixelPanel::VECTORS];
            let lanes = &mut lanes[..part.len()];
            let (start, end) = (part.start * LANES, image_len.min(part.end * LANES));
            let (fours, rest) = weights.as_chunks::<MEAN_IMAGES>();
            let (image_fours, last) = images.as_chunks::<MEAN_IMAGES>();
            for (images, weights) in image_fours.iter().zip(fours) {
                let mut rows: [&[P]; MEAN_IMAGES] = [&[]; MEAN_IMAGES];
                for i in 0..MEAN_IMAGES {
                    rows[i] = &images[i][start..end];
                }
                add_rows::<V, P, MEAN_IMAGES>(rows, centre, weights, lanes);
            }
            for (image, weight) in last.iter().zip(rest) {
                add_rows::<V, P, 1>([&image[start..end]], centre, std::array::from_ref(weight), lanes);
            }
            for (sum, lanes) in sums[part].iter_mut().zip(lanes) {
                V::load(sum).add(V::load(lanes)).store(sum);
            }
        }
    }
}

#[inline(always)]
fn energies_in_form<V: Vector, P: Pixel, const FORM: u8>(
    images: &[&[P]],
    centre: f32,
    values: &[F32x16],
    energies: &mut [f32],
) {
    let (twos, rest) = energies.as_chunks_mut::<ENERGY_IMAGES>();
    let (image_twos, last) = images.as_chunks::<ENERGY_IMAGES>();
    for (images, energies) in image_twos.iter().zip(twos) {
        *energies = energies_of::<V, P, FORM, ENERGY_IMAGES>(*images, centre, values);
    }
    for (image, energy) in last.iter().zip(rest) {
        [*energy] = energies_of::<V, P, FORM, 1>([*image], centre, values);
    }
}

#[inline(always)]
fn energies_of<V: Vector, P: Pixel, const FORM: u8, const I: usize>(
    images: [&[P]; I],
    centre: f32,
    values: &[F32x16],
) -> [f32; I] {
    let image_len = images[0].len();
    let mut energies = [0.0; I];
    for part in PixelPanel::parts(image_len) {
        let (start, end) = (part.start * LANES, image_len.min(part.end * LANES));
        let full = (end - start) / LANES;
        let mut rows: [&[[P; LANES]]; I] = [&[]; I];
        for i in 0..I {
            rows[i] = &images[i][start..end].as_chunks::<LANES>().0[..full];
        }
        let values = &values[part];
        let (mut sums, mut squares) = ([V::splat(0.0); I], [V::splat(0.0); I]);
        for (v, z) in values[..full].iter().enumerate() {
            for i in 0..I {
                add::<V, FORM>(P::centred_row(&rows[i][v], centre), V::load(z), &mut sums[i], &mut squares[i]);
            }
        }
        for z in &values[full..] {
            for i in 0..I {
                let a = V::load(&padded(&images[i][start + full * LANES..end], centre));
                add::<V, FORM>(a, V::load(z), &mut sums[i], &mut squares[i]);
            }
        }
        for i in 0..I {
            energies[i] += sums[i].add(squares[i]).sum();
        }
    }
    energies
}

#[inline(always)]
fn add<V: Vector, const FORM: u8>(a: V, z: V, sum: &mut V, squares: &mut V) {
    if FORM == DIRECT {
        let residual = a.sub(z);
        *sum = residual.mul_add(residual, *sum);
    } else {
        *sum = a.mul_add(z, *sum);
    }
    if FORM == EXPANDED {
        *squares = a.mul_add(a, *squares);
    }
}

#[inline(always)]
fn add_rows<V: Vector, P: Pixel, const I: usize>(
    rows: [&[P]; I],
    centre: f32,
    weights: &[f32; I],
    lanes: &mut [F32x16],
) {
    let full = rows[0].len() / LANES;
    let mut blocks: [&[[P; LANES]]; I] = [&[]; I];
    for i in 0..I {
        blocks[i] = &rows[i].as_chunks::<LANES>().0[..full];
    }
    let (lanes, last) = lanes.split_at_mut(full);
    for (v, lanes) in lanes.iter_mut().enumerate() {
        let mut sum = V::load(lanes);
        for i in 0..I {
            sum = P::centred_row::<V>(&blocks[i][v], centre).mul_add(V::splat(weights[i]), sum);
        }
        sum.store(lanes);
    }
    for lanes in last {
        let mut sum = V::load(lanes);
        for i in 0..I {
            sum = V::load(&padded(&rows[i][full * LANES..], centre)).mul_add(V::splat(weights[i]), sum);
        }
        sum.store(lanes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::full::pixel_panel::{AddMeans, IMAGES, vectors};
    use crate::cpu::images::Images;
    use crate::simd::Isa;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn means_are_those_of_a_panel(image_len in 1_usize..2200, images in 1_usize..=IMAGES) {
            let bytes: Vec<u8> = (0..images * image_len).map(|i| (i * 37 % 251) as u8).collect();
            let weights: [f32; IMAGES] = std::array::from_fn(|n| if n < images { (n * 7 % 11) as f32 / 3.0 } else { 0.0 });
            for isa in Isa::available() {
                let mut means = [vec![F32x16::ZERO; vectors(image_len)]];
                let mut panel = PixelPanel::default();
                for part in PixelPanel::parts(image_len) {
                    panel.load(isa, &Images::side_by_side(&bytes, image_len), 127.5, image_len, part);
                    isa.run(AddMeans { panel: &panel, weights: &[weights], fresh: true, sums: &mut means });
                }
                let mut sums = vec![F32x16::ZERO; vectors(image_len)];
                let rows = &Images::side_by_side(&bytes, image_len)[..];
                isa.run(AddMean { images: rows, centre: 127.5, image_len, weights: &weights[..images], sums: &mut sums });
                prop_assert_eq!(&sums, &means[0]);
            }
        }
    }
}
