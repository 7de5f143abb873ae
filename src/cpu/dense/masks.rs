//! Masks by the edges of their runs: two reads for a run, whatever its length.
//!
//! Energies are sums in fixed point, up to every pixel of a row; a run is the difference of two of them, exactly. The sums of
//! the rows that neighbouring masks have in common stay in the first-level cache, where doubling tables
//! ([`super::energies`]) do not.

use super::residuals::{ImageShape, PRODUCTS, Residuals};
use crate::cpu::tile::{Pixel, Tile};
use crate::runs::MaskRuns;
use crate::simd::{F32x16, I32x16, Kernel, Vector, VectorI32};

/// Writes to `out` `[mask]` the expanded energies of a probe: `values` are its products divided by `scale`. Needs the tile's
/// squares.
pub(crate) struct EdgeSums<'a, P: Pixel> {
    pub(crate) tile: &'a Tile<P>,
    pub(crate) values: &'a [f32],
    pub(crate) scale: f32,
    pub(crate) shape: ImageShape,
    pub(crate) runs: &'a MaskRuns,
    /// Working space: the sums of a row up to the left edge of every pixel, and to the right edge of the last one.
    pub(crate) sums: &'a mut Vec<I32x16>,
    pub(crate) out: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for EdgeSums<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { tile, values, scale, shape, runs, sums, out } = self;
        let edges = shape.width + 1;
        sums.resize(sums.len().max(shape.height * edges), I32x16::ZERO);
        let sums = &mut sums[..shape.height * edges];
        for (y, row) in sums.chunks_exact_mut(edges).enumerate() {
            let squares = &tile.squares[y * shape.width..][..shape.width];
            match shape.channels {
                3 => sum_row::<V, P, 3>(&Residuals::of_row(tile, values, shape, y), squares, scale, row),
                _ => sum_row::<V, P, 0>(&Residuals::of_row(tile, values, shape, y), squares, scale, row),
            }
        }
        for (k, energy) in out[..runs.count()].iter_mut().enumerate() {
            // Two sums, so that one addition need not wait for the other.
            let zero = V::I32::load(&I32x16::ZERO);
            let (mut up_to_ends, mut up_to_begins) = (zero, zero);
            for &[begin, end] in runs.edges().runs(k) {
                up_to_ends = up_to_ends.add(V::I32::load(&sums[end as usize]));
                up_to_begins = up_to_begins.add(V::I32::load(&sums[begin as usize]));
            }
            V::from_i32(up_to_ends.sub(up_to_begins)).mul(V::splat(scale)).store(energy);
        }
    }
}

/// The sums of a row up to every pixel. They may wrap around: those of runs do not.
#[inline(always)]
fn sum_row<V: Vector, P: Pixel, const CHANNELS: usize>(
    products: &Residuals<'_, P, PRODUCTS, CHANNELS>,
    squares: &[F32x16],
    scale: f32,
    row: &mut [I32x16],
) {
    let Some((first, row)) = row.split_first_mut() else { return };
    *first = I32x16::ZERO;
    let (products, squares) = (products.part(0, row.len()), &squares[..row.len()]);
    let units_per_one = V::splat(1.0 / scale);
    let mut sum = V::I32::load(first);
    for x in 0..row.len() {
        sum = sum.add(V::load(&squares[x]).mul_add(units_per_one, products.at(x)).round());
        sum.store(&mut row[x]);
    }
}

/// Writes to `out` `[pixel]` the sum of the weights of all masks that hold the pixel. Sums go from both ends of a row to its
/// middle, by what begins and ends on the way, so that the rounding of the middle does not reach the border, where masks are
/// few. Masks not `active` count as zero, and their weights are set to it.
pub(crate) struct MaskAdjoint<'a> {
    pub(crate) weights: &'a mut [F32x16],
    pub(crate) active: &'a [bool],
    pub(crate) runs: &'a MaskRuns,
    pub(crate) width: usize,
    pub(crate) out: &'a mut [F32x16],
}

impl Kernel for MaskAdjoint<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { weights, active, runs, width, out } = self;
        for (weights, _) in weights.iter_mut().zip(active).filter(|&(_, &active)| !active) {
            *weights = F32x16::ZERO;
        }
        let edges = runs.edges();
        for (y, row) in out.chunks_exact_mut(width).enumerate() {
            let first = y * (width + 1);
            let (left, right) = row.split_at_mut(width / 2);
            let mut sum = V::splat(0.0);
            for (x, coefficient) in left.iter_mut().enumerate() {
                sum = sum.add(change::<V>(edges.begins(first + x), edges.ends(first + x), weights));
                sum.store(coefficient);
            }
            let mut sum = V::splat(0.0);
            for (from_end, coefficient) in right.iter_mut().rev().enumerate() {
                let edge = first + width - from_end;
                sum = sum.add(change::<V>(edges.ends(edge), edges.begins(edge), weights));
                sum.store(coefficient);
            }
        }
    }
}

/// The weights of the masks that are entered at an edge less those of the masks that are left there.
#[inline(always)]
fn change<V: Vector>(entered: &[u32], left: &[u32], weights: &[F32x16]) -> V {
    let both = entered.len().min(left.len());
    let mut change = V::splat(0.0);
    for i in 0..both {
        change = change.add(V::load(&weights[entered[i] as usize]).sub(V::load(&weights[left[i] as usize])));
    }
    for &mask in &entered[both..] {
        change = change.add(V::load(&weights[mask as usize]));
    }
    for &mask in &left[both..] {
        change = change.sub(V::load(&weights[mask as usize]));
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::components::{Components, Kind};
    use crate::cpu::dense::energies::{MaskSpace, mask_energies};
    use crate::cpu::images::Images;
    use crate::cpu::probe::Probe;
    use crate::simd::{Isa, LANES};
    use ndarray::{Array3, Array4};
    use proptest::prelude::*;

    /// Masks of random pixels, each pixel in one of them at least.
    fn masks() -> impl Strategy<Value = Array3<bool>> {
        (1_usize..6, 1_usize..8, 1_usize..12, 1_u8..4).prop_flat_map(|(count, height, width, density)| {
            proptest::collection::vec(0_u8..4, count * height * width).prop_map(move |values| {
                Array3::from_shape_fn((count, height, width), |(k, y, x)| {
                    values[(k * height + y) * width + x] < density || (y * width + x) % count == k || y * width + x == 0
                })
            })
        })
    }

    proptest! {
        // Small integers, so that every order of addition is exact.
        #[test]
        fn coefficients_are_the_sums_of_the_weights_of_the_masks_that_hold_the_pixel(
            masks in masks(), values in proptest::collection::vec((0_u8..8, any::<bool>()), 6),
        ) {
            let (count, height, width) = masks.dim();
            let components = Components::masks(masks.view()).unwrap();
            let Kind::Masks(runs) = components.kind() else { unreachable!("masks") };
            let active: Vec<bool> = values[..count].iter().map(|&(_, active)| active).collect();
            for isa in Isa::available() {
                // What masks hold that are not active does not count.
                let mut weights: Vec<F32x16> = values[..count].iter().map(|&(value, _)| F32x16::splat(f32::from(value))).collect();
                let mut out = vec![F32x16::splat(7.0); height * width];
                isa.run(MaskAdjoint { weights: &mut weights, active: &active, runs, width, out: &mut out });
                for (p, (y, x)) in ndarray::indices((height, width)).into_iter().enumerate() {
                    let holding = (0..count).filter(|&k| active[k] && masks[[k, y, x]]);
                    prop_assert_eq!(out[p].0[3], holding.map(|k| f32::from(values[k].0)).sum::<f32>());
                }
            }
        }

        #[test]
        fn energies_in_fixed_point_are_those_of_the_masks(masks in masks(), channels in 1_usize..=4, seed in 0_usize..999) {
            let (count, height, width) = masks.dim();
            let shape = (LANES, channels, height, width);
            let images = Array4::from_shape_fn(shape, |(n, c, y, x)| {
                ((n * 89 + c * 57 + y * 31 + x * 17 + seed) * 7919 % 256) as u8
            });
            let z = Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
                ((c * 31 + y * 17 + x * 5 + seed) % 21) as f64 / 7.0 - 1.4
            });
            let bank = Bank::from_u8(images.view()).unwrap();
            let components = Components::masks(masks.view()).unwrap();
            let Kind::Masks(runs) = components.kind() else { unreachable!("masks") };
            let probe = Probe::new(&bank, &components, z.view(), 1.0, 0, false);
            let unit = f64::from(probe.fixed_point_scale.expect("a scale"));
            for isa in Isa::available() {
                let mut tile = Tile::new(channels, height * width);
                tile.load(isa, &Images::side_by_side(images.as_slice().unwrap(), channels * height * width), 127.5);
                tile.square(isa);
                let mut out = vec![F32x16::ZERO; count];
                mask_energies(isa, &components, runs, &tile, &probe, &mut MaskSpace::default(), &mut out);
                for (k, n) in ndarray::indices((count, LANES)) {
                    let (mut exact, mut size, mut values) = (0.0, 0.0, 0.0);
                    for (c, y, x) in ndarray::indices((channels, height, width)) {
                        if masks[[k, y, x]] {
                            let (a, z) = (f64::from(images[[n, c, y, x]]) - 127.5, 127.5 * z[[c, y, x]]);
                            exact += a * a - 2.0 * a * z;
                            size += a * a + (2.0 * a * z).abs();
                            values += 1.0;
                        }
                    }
                    // Every value is rounded in float32 and to a multiple of the unit, the result once more.
                    let bound = 4e-7 * size + 0.5 * unit * values;
                    prop_assert!((f64::from(out[k].0[n]) - exact).abs() <= bound, "{}, exactly {exact}", out[k].0[n]);
                }
            }
        }
    }
}
