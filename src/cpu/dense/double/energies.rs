//! Energies in float64: of a probe and sixteen images, on a row of square windows or on all masks. An energy is the sum of
//! `(a - p) (a - q)` over the pixels of a window, see [`Probe::factors`](crate::cpu::probe::Probe).

use crate::components::Components;
use crate::cpu::dense::box_sums::{BlockSums, Summand};
use crate::cpu::tile::{Pixel, Tile};
use crate::runs::MaskRuns;
use crate::simd::{F32x16, F64x16, Kernel, LANES, Vector};

/// Window sums of one tile.
#[derive(Debug, Default)]
pub(super) struct RowSums {
    sums: BlockSums<F64x16>,
    /// A row of terms and a value more, then the tails of its blocks.
    row: Vec<F64x16>,
    width: usize,
}

impl RowSums {
    /// Starts over.
    pub(super) fn start(&mut self, components: &Components, side: usize) {
        self.width = components.width();
        self.sums.start(side, components.grid().1, F64x16::ZERO);
        self.row.resize(self.row.len().max(2 * self.width + 1), F64x16::ZERO);
    }
}

/// Pushes row `y` of pixels. Where a row of windows ends there, its energies are then in `out`.
pub(super) struct Row<'a, P: Pixel> {
    pub(super) tile: &'a Tile<P>,
    /// `[channel][pixel]`.
    pub(super) factors: &'a [[f64; 2]],
    pub(super) rows: &'a mut RowSums,
    pub(super) y: usize,
    pub(super) out: &'a mut [F64x16],
}

impl<P: Pixel> Kernel for Row<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { tile, factors, rows, y, out } = self;
        let RowSums { sums, row, width } = rows;
        let (terms, tails) = row.split_at_mut(*width + 1);
        write_terms::<V, P>(tile, factors, y * *width, &mut terms[..*width]);
        sums.push_across::<F64x16>(terms, tails, out);
    }
}

/// Writes the energy of every mask to `out`, through doubling tables.
pub(super) struct MaskEnergies<'a, P: Pixel> {
    pub(super) tile: &'a Tile<P>,
    /// `[channel][pixel]`.
    pub(super) factors: &'a [[f64; 2]],
    pub(super) runs: &'a MaskRuns,
    pub(super) tables: &'a mut Vec<F64x16>,
    pub(super) out: &'a mut [F64x16],
}

impl<P: Pixel> Kernel for MaskEnergies<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { tile, factors, runs, tables, out } = self;
        let plane = factors.len() / tile.channels;
        tables.resize(tables.len().max(runs.levels() * plane), F64x16::ZERO);
        write_terms::<V, P>(tile, factors, 0, &mut tables[..plane]);
        for level in 1..runs.levels() {
            let (lower, upper) = tables.split_at_mut(level * plane);
            let half = 1 << (level - 1);
            let lower = &lower[(level - 1) * plane..];
            for p in 0..plane - half {
                lower[p].plus(lower[p + half]).to_memory(&mut upper[p]);
            }
        }
        for (k, energy) in out[..runs.count()].iter_mut().enumerate() {
            let places = runs.pieces(k).iter().map(|piece| tables[piece.place as usize]);
            *energy = places.fold(F64x16::ZERO, Summand::plus);
        }
    }
}

/// Writes the terms of the pixels from flat position `first` on, summed over channels.
#[inline(always)]
fn write_terms<V: Vector, P: Pixel>(tile: &Tile<P>, factors: &[[f64; 2]], first: usize, out: &mut [F64x16]) {
    let plane = factors.len() / tile.channels;
    for (x, out) in out.iter_mut().enumerate() {
        let mut sum = [0.0; LANES];
        for place in (first + x..factors.len()).step_by(plane) {
            let mut pixels = F32x16::ZERO;
            P::centred::<V>(&tile.pixels[place]).store(&mut pixels);
            let [p, q] = factors[place];
            for i in 0..LANES {
                let a = f64::from(pixels.0[i]);
                sum[i] += (a - p) * (a - q);
            }
        }
        out.0 = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::components::Kind;
    use crate::cpu::images::Images;
    use crate::cpu::probe::Probe;
    use crate::simd::Isa;
    use ndarray::{Array3, Array4};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn energies_are_those_of_the_windows_to_float64(
            channels in 1_usize..=4, side in 1_usize..=8, more in 0_usize..5, even_more in 1_usize..5, tall: bool,
            count in 1_usize..=LANES, far in prop_oneof![Just(1.0), Just(30.0), Just(1e6)], outlier: bool,
        ) {
            let (short, long) = (side + more, side + even_more);
            let (height, width) = if tall { (long, short) } else { (short, long) };
            let images = Array4::from_shape_fn((count, channels, height, width), |(n, c, y, x)| {
                ((n * 89 + c * 57 + y * 31 + x * 17) * 7919 % 256) as u8
            });
            let mut z = Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
                far * (((c * 31 + y * 17 + x * 5) % 21) as f64 / 7.0 - 1.4)
            });
            if outlier {
                z[[0, 0, 0]] = 1e9;
            }
            let bank = Bank::from_u8(images.view()).unwrap();
            let squares = Components::square(height, width, side).unwrap();
            let (rows, columns) = squares.grid();
            let masks = Components::masks(
                Array3::from_shape_fn((rows * columns, height, width), |(k, y, x)| {
                    (k / columns..k / columns + side).contains(&y) && (k % columns..k % columns + side).contains(&x)
                })
                .view(),
            )
            .unwrap();
            let Kind::Masks(runs) = masks.kind() else { unreachable!("masks") };
            let probe = Probe::new(&bank, &squares, z.view(), 1.0, 0, false).into_double();
            let factors = &probe.factors;
            for isa in Isa::available() {
                let mut tile = Tile::new(channels, height * width);
                tile.load(isa, &Images::side_by_side(images.as_slice().unwrap(), channels * height * width), 127.5);
                let (mut sums, mut by_rows) = (RowSums::default(), vec![F64x16::ZERO; rows * columns]);
                sums.start(&squares, side);
                for y in 0..height {
                    let out = &mut by_rows[(y + 1).saturating_sub(side) * columns..][..columns];
                    isa.run(Row { tile: &tile, factors, rows: &mut sums, y, out });
                }
                let mut by_masks = vec![F64x16::ZERO; rows * columns];
                isa.run(MaskEnergies { tile: &tile, factors, runs, tables: &mut Vec::new(), out: &mut by_masks });
                for (k, (row, column)) in ndarray::indices((rows, columns)).into_iter().enumerate() {
                    for n in 0..count {
                        let (mut exact, mut size) = (0.0, 0.0);
                        for (c, i, j) in ndarray::indices((channels, side, side)) {
                            let at = [c, row + i, column + j];
                            let (a, z) = (f64::from(images[[n, at[0], at[1], at[2]]]) - 127.5, 127.5 * z[at]);
                            let is_far = z.abs() > probe.far_from;
                            exact += if is_far { a * a - 2.0 * a * z } else { (a - z).powi(2) };
                            size += a * a + if is_far { (2.0 * a * z).abs() } else { z * z };
                        }
                        for energy in [by_rows[k].0[n], by_masks[k].0[n]] {
                            // The bound is of the window itself: an outlier elsewhere does not touch it.
                            prop_assert!((energy - exact).abs() <= 1e-14 * size, "{energy}, exactly {exact}");
                        }
                    }
                }
            }
        }
    }
}
