//! The full window for one probe: images are read where they lie, since a panel would be written for a single reading.
//!
//! Sums are taken in the order of `stack` and `panel`, so that the bits do not depend on who else is in a batch.

use super::isa::dispatched;
use super::panel::{Panel, padded};
use super::simd::{LANES, Lanes, Vector};
use super::tile::Pixel;

/// Images whose energies are summed together, to hide the latency of the additions.
const TWO: usize = 2;

/// Images that share the reading and writing of a sum.
const FOUR: usize = 4;

dispatched! {
    /// Writes the energies of images laid one after the other for a probe's values `[vector]`.
    pub fn energies<P: Pixel>(images: &[P], image_len: usize, values: &[Lanes], expanded: bool, energies: &mut [f32]) =
        energies_body
}

dispatched! {
    /// Adds to `sums` `[vector]` no more images than a panel has, times their weights.
    pub fn add_mean<P: Pixel>(images: &[P], image_len: usize, weights: &[f32], sums: &mut [Lanes]) = add_mean_body
}

#[inline(always)]
fn energies_body<V: Vector, P: Pixel>(
    images: &[P],
    image_len: usize,
    values: &[Lanes],
    expanded: bool,
    energies: &mut [f32],
) {
    if expanded {
        energies_in_form::<V, P, true>(images, image_len, values, energies);
    } else {
        energies_in_form::<V, P, false>(images, image_len, values, energies);
    }
}

#[inline(always)]
fn energies_in_form<V: Vector, P: Pixel, const EXPANDED: bool>(
    images: &[P],
    image_len: usize,
    values: &[Lanes],
    energies: &mut [f32],
) {
    let (twos, rest) = energies.as_chunks_mut::<TWO>();
    let (images, last) = images.split_at(twos.len() * TWO * image_len);
    for (images, energies) in images.chunks_exact(TWO * image_len).zip(twos) {
        let (a, b) = images.split_at(image_len);
        *energies = energies_of::<V, P, EXPANDED, TWO>([a, b], values);
    }
    for energy in rest {
        [*energy] = energies_of::<V, P, EXPANDED, 1>([last], values);
    }
}

#[inline(always)]
fn energies_of<V: Vector, P: Pixel, const EXPANDED: bool, const I: usize>(
    images: [&[P]; I],
    values: &[Lanes],
) -> [f32; I] {
    let image_len = images[0].len();
    let mut energies = [0.0; I];
    for part in Panel::parts(image_len) {
        let (start, end) = (part.start * LANES, image_len.min(part.end * LANES));
        let whole = (end - start) / LANES;
        let mut rows: [&[[P; LANES]]; I] = [&[]; I];
        for i in 0..I {
            rows[i] = &images[i][start..end].as_chunks::<LANES>().0[..whole];
        }
        let values = &values[part];
        let (mut sums, mut squares) = ([V::splat(0.0); I], [V::splat(0.0); I]);
        for (v, z) in values[..whole].iter().enumerate() {
            for i in 0..I {
                add::<V, EXPANDED>(P::centred_row(&rows[i][v]), V::load(z), &mut sums[i], &mut squares[i]);
            }
        }
        for z in &values[whole..] {
            for i in 0..I {
                let a = V::load(&padded(&images[i][start + whole * LANES..end]));
                add::<V, EXPANDED>(a, V::load(z), &mut sums[i], &mut squares[i]);
            }
        }
        for i in 0..I {
            energies[i] += sums[i].add(squares[i]).sum();
        }
    }
    energies
}

#[inline(always)]
fn add<V: Vector, const EXPANDED: bool>(a: V, z: V, sum: &mut V, squares: &mut V) {
    if EXPANDED {
        *sum = a.mul_add(z, *sum);
        *squares = a.mul_add(a, *squares);
    } else {
        let error = a.sub(z);
        *sum = error.mul_add(error, *sum);
    }
}

#[inline(always)]
fn add_mean_body<V: Vector, P: Pixel>(images: &[P], image_len: usize, weights: &[f32], sums: &mut [Lanes]) {
    for part in Panel::parts(image_len) {
        // The part's sums over these images alone, as the panel takes them.
        let mut lanes = [Lanes::ZERO; Panel::VECTORS];
        let lanes = &mut lanes[..part.len()];
        let (start, end) = (part.start * LANES, image_len.min(part.end * LANES));
        let (fours, rest) = weights.as_chunks::<FOUR>();
        let (some, last) = images.split_at(fours.len() * FOUR * image_len);
        for (images, weights) in some.chunks_exact(FOUR * image_len).zip(fours) {
            let mut rows: [&[P]; FOUR] = [&[]; FOUR];
            for i in 0..FOUR {
                rows[i] = &images[i * image_len..][start..end];
            }
            add_rows::<V, P, FOUR>(rows, weights, lanes);
        }
        for (image, weight) in last.chunks_exact(image_len).zip(rest) {
            add_rows::<V, P, 1>([&image[start..end]], std::array::from_ref(weight), lanes);
        }
        for (sum, lanes) in sums[part].iter_mut().zip(lanes) {
            V::load(sum).add(V::load(lanes)).store(sum);
        }
    }
}

#[inline(always)]
fn add_rows<V: Vector, P: Pixel, const I: usize>(rows: [&[P]; I], weights: &[f32; I], lanes: &mut [Lanes]) {
    let whole = rows[0].len() / LANES;
    let mut blocks: [&[[P; LANES]]; I] = [&[]; I];
    for i in 0..I {
        blocks[i] = &rows[i].as_chunks::<LANES>().0[..whole];
    }
    let (lanes, last) = lanes.split_at_mut(whole);
    for (v, lanes) in lanes.iter_mut().enumerate() {
        let mut sum = V::load(lanes);
        for i in 0..I {
            sum = P::centred_row::<V>(&blocks[i][v]).mul_add(V::splat(weights[i]), sum);
        }
        sum.store(lanes);
    }
    for lanes in last {
        let mut sum = V::load(lanes);
        for i in 0..I {
            sum = V::load(&padded(&rows[i][whole * LANES..])).mul_add(V::splat(weights[i]), sum);
        }
        sum.store(lanes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use crate::cpu::panel::{IMAGES, add_means, vectors};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn means_are_those_of_a_panel(image_len in 1_usize..2200, images in 1_usize..=IMAGES) {
            let bytes: Vec<u8> = (0..images * image_len).map(|i| (i * 37 % 251) as u8).collect();
            let weights: [f32; IMAGES] = std::array::from_fn(|n| if n < images { (n * 7 % 11) as f32 / 3.0 } else { 0.0 });
            for isa in Isa::available() {
                let mut means = [vec![Lanes::ZERO; vectors(image_len)]];
                let mut panel = Panel::default();
                for part in Panel::parts(image_len) {
                    panel.load(isa, &bytes, image_len, part);
                    add_means(isa, &panel, &[weights], true, &mut means);
                }
                let mut sums = vec![Lanes::ZERO; vectors(image_len)];
                add_mean(isa, &bytes, image_len, &weights[..images], &mut sums);
                prop_assert_eq!(&sums, &means[0]);
            }
        }
    }
}
