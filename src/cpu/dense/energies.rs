//! Energies: the squared distance of a probe to sixteen images on windows (less `z^2` in the expanded form).

use super::box_sums::{BlockSums, SlidingSum};
use super::fixed_point::FixedPointSums;
use super::masks::EdgeSums;
use super::residuals::{Beyond, DIRECT, EXPANDED, Grid, ImageShape, Residuals, TANGENT, Terms};
use crate::components::{Components, Kind};
use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::probe::Probe;
use crate::cpu::tile::{Pixel, Tile};
use crate::regime::MAX_SHORT_SIDE;
use crate::runs::MaskRuns;
use crate::simd::{F32x16, I32x16, Isa, Kernel, LANES, Vector};

/// The energies of a probe on a group of tiles under square windows, row by row, so that a row is used while it is in the
/// first-level cache.
#[derive(Debug, Default)]
pub(crate) struct SquareEnergies {
    /// Fixed-point sums of all tiles.
    fixed_point: FixedPointSums,
    /// Sums as floats, per tile.
    tiles: Vec<FloatSums>,
    grid: Grid,
}

/// Window sums of one tile as floats.
#[derive(Debug, Default)]
struct FloatSums {
    sums: BlockSums,
    /// A row of residuals and the tails of its blocks, or the row sums above the current one.
    rows: Vec<F32x16>,
    grid: Grid,
    /// Rows of pixels pushed so far.
    seen: usize,
}

impl SquareEnergies {
    /// Starts over with some tiles.
    ///
    /// Only windows of more than [`MAX_SHORT_SIDE`] pixels per side may reach over the border.
    pub(crate) fn start(&mut self, grid: Grid, terms: Terms<'_>, tiles: usize) {
        self.grid = grid;
        if terms.fixed_point_scale.is_some() {
            self.fixed_point.start(grid, tiles);
        } else {
            self.tiles.resize_with(tiles, FloatSums::default);
            self.tiles.iter_mut().for_each(|rows| rows.start(grid));
        }
    }

    /// Pushes the next row of pixels. Where a row of windows ends there, its energies are then in `out` `[tile][window]`;
    /// lanes without an image get `f32::MAX`. The expanded form needs the tiles' squares.
    pub(crate) fn push_row<P: Pixel>(&mut self, isa: Isa, tiles: &[Tile<P>], terms: Terms<'_>, out: &mut [F32x16]) {
        let columns = self.grid.columns();
        if let Some(scale) = terms.fixed_point_scale {
            self.fixed_point.energies(isa, tiles, (terms.values, scale), out);
        } else {
            let per_tile = tiles.iter().zip(&mut self.tiles).zip(exact_chunks_mut(out, columns));
            for ((tile, rows), out) in per_tile {
                rows.push_row(isa, tile, terms, out);
            }
        }
        tiles.iter().zip(exact_chunks_mut(out, columns)).for_each(|(tile, out)| mark_missing(tile, out));
    }

    /// Sums the squares of a tile over windows, for probes whose energies are summed in fixed point; `max_abs` is
    /// the largest distance of a pixel from the centre of its range. Ends early, in the middle, once the call `is_stopped`.
    pub(crate) fn square<P: Pixel>(
        &mut self,
        isa: Isa,
        grid: Grid,
        max_abs: f64,
        tile: &mut Tile<P>,
        is_stopped: impl Fn() -> bool,
    ) {
        self.fixed_point.square(isa, grid, max_abs, tile, is_stopped);
    }
}

/// Sums of a probe's differences times a direction, on windows, for a group of tiles: the derivatives of its energies.
#[derive(Debug, Default)]
pub(crate) struct Tangents {
    /// Square windows: per tile.
    tiles: Vec<FloatSums>,
    /// Masks: doubling tables.
    tables: Vec<F32x16>,
    /// `[tile][window]`.
    sums: Vec<F32x16>,
}

impl Tangents {
    /// Computes the sums, in the form [`TANGENT`], and hands them to `consume` block by block as energies are: with
    /// the first window, the number of windows, and the sums `[tile][window]`. Lanes without an image hold some number.
    pub(crate) fn sums<P: Pixel>(
        &mut self,
        isa: Isa,
        components: &Components,
        tiles: &[Tile<P>],
        values: &[f32],
        mut consume: impl FnMut(usize, usize, &[F32x16]),
    ) {
        let (terms, shape) =
            (Terms { form: TANGENT, values, fixed_point_scale: None }, ImageShape::of(components, &tiles[0]));
        match components.kind() {
            Kind::Full => unreachable!("the full window has panels in place of tiles"),
            Kind::Masks(runs) => {
                let (count, tables) = (runs.count(), &mut self.tables);
                self.sums.resize(tiles.len() * count, F32x16::ZERO);
                for (tile, out) in tiles.iter().zip(exact_chunks_mut(&mut self.sums, count)) {
                    isa.run(MaskSums { tile, terms, shape, runs, tables, out });
                }
                consume(0, count, &self.sums);
            }
            Kind::Square { side } => {
                let (_, columns) = components.grid();
                self.sums.resize(tiles.len() * columns, F32x16::ZERO);
                self.tiles.resize_with(tiles.len(), FloatSums::default);
                let grid = Grid::of(components, *side, &tiles[0]);
                self.tiles.iter_mut().for_each(|rows| rows.start(grid));
                for y in 0..components.height() {
                    let per_tile = tiles.iter().zip(&mut self.tiles).zip(exact_chunks_mut(&mut self.sums, columns));
                    for ((tile, rows), out) in per_tile {
                        rows.push_row(isa, tile, terms, out);
                    }
                    if let Some(row) = (y + 1).checked_sub(*side) {
                        consume(row * columns, columns, &self.sums);
                    }
                }
            }
        }
    }
}

impl FloatSums {
    /// Pushes the next row of pixels of a tile.
    fn push_row<P: Pixel>(&mut self, isa: Isa, tile: &Tile<P>, terms: Terms<'_>, out: &mut [F32x16]) {
        isa.run(SquareRow { rows: &mut *self, tile, terms, out });
        self.seen += 1;
    }

    fn start(&mut self, grid: Grid) {
        let (side, columns) = (grid.side, grid.columns());
        (self.grid, self.seen) = (grid, 0);
        if side > MAX_SHORT_SIDE {
            self.sums.start(side, columns, F32x16::ZERO);
            self.rows.resize(self.rows.len().max(2 * grid.padded_width() + 1), F32x16::ZERO);
            self.rows[..grid.padded_width()].fill(F32x16::ZERO);
        } else {
            debug_assert!(grid.beyond == Beyond::None, "short windows stay inside");
            self.rows.resize(self.rows.len().max(side * columns), F32x16::ZERO);
        }
    }
}

/// Working space for the energies of masks.
#[derive(Debug, Default)]
pub(crate) struct MaskSpace {
    /// Doubling tables.
    tables: Vec<F32x16>,
    /// Sums in fixed point.
    sums: Vec<I32x16>,
}

/// Writes the energy of every mask to `out`, by the edges of its runs where the probe has a fixed-point scale, otherwise through
/// doubling tables; as [`SquareEnergies::push_row`].
pub(crate) fn mask_energies<P: Pixel>(
    isa: Isa,
    components: &Components,
    runs: &MaskRuns,
    tile: &Tile<P>,
    probe: &Probe,
    MaskSpace { tables, sums }: &mut MaskSpace,
    out: &mut [F32x16],
) {
    let (shape, terms) = (ImageShape::of(components, tile), probe.terms());
    match terms.fixed_point_scale {
        Some(scale) => isa.run(EdgeSums { tile, values: terms.values, scale, shape, runs, sums, out: &mut *out }),
        None => isa.run(MaskSums { tile, terms, shape, runs, tables, out: &mut *out }),
    }
    mark_missing(tile, out);
}

/// Gives lanes without an image the largest energy.
pub(crate) fn mark_missing<P: Pixel>(tile: &Tile<P>, energies: &mut [F32x16]) {
    for energy in if tile.valid < LANES { energies } else { &mut [] } {
        energy.0[tile.valid..].fill(f32::MAX);
    }
}

struct SquareRow<'a, P: Pixel> {
    rows: &'a mut FloatSums,
    tile: &'a Tile<P>,
    terms: Terms<'a>,
    out: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for SquareRow<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { rows, tile, terms: Terms { form, values, .. }, out } = self;
        match (form, rows.grid.shape.channels) {
            (EXPANDED, 1) => square_of::<V, P, EXPANDED, 1>(rows, tile, values, out),
            (EXPANDED, 3) => square_of::<V, P, EXPANDED, 3>(rows, tile, values, out),
            (EXPANDED, _) => square_of::<V, P, EXPANDED, 0>(rows, tile, values, out),
            (TANGENT, 3) => square_of::<V, P, TANGENT, 3>(rows, tile, values, out),
            (TANGENT, _) => square_of::<V, P, TANGENT, 0>(rows, tile, values, out),
            (_, 1) => square_of::<V, P, DIRECT, 1>(rows, tile, values, out),
            (_, 3) => square_of::<V, P, DIRECT, 3>(rows, tile, values, out),
            (_, _) => square_of::<V, P, DIRECT, 0>(rows, tile, values, out),
        }
    }
}

struct MaskSums<'a, P: Pixel> {
    tile: &'a Tile<P>,
    terms: Terms<'a>,
    shape: ImageShape,
    runs: &'a MaskRuns,
    tables: &'a mut Vec<F32x16>,
    out: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for MaskSums<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { tile, terms: Terms { form, values, .. }, shape, runs, tables, out } = self;
        let plane = shape.height * shape.width;
        tables.resize(tables.len().max(runs.levels() * plane), F32x16::ZERO);
        for (y, row) in tables[..plane].chunks_exact_mut(shape.width).enumerate() {
            match (form, shape.channels) {
                (EXPANDED, 3) => Residuals::<P, EXPANDED, 3>::of_row(tile, values, shape, y).write::<V>(row),
                (EXPANDED, _) => Residuals::<P, EXPANDED, 0>::of_row(tile, values, shape, y).write::<V>(row),
                (TANGENT, _) => Residuals::<P, TANGENT, 0>::of_row(tile, values, shape, y).write::<V>(row),
                (_, 3) => Residuals::<P, DIRECT, 3>::of_row(tile, values, shape, y).write::<V>(row),
                (_, _) => Residuals::<P, DIRECT, 0>::of_row(tile, values, shape, y).write::<V>(row),
            }
        }
        for level in 1..runs.levels() {
            let (lower, upper) = tables.split_at_mut(level * plane);
            let half = 1 << (level - 1);
            let lower = &lower[(level - 1) * plane..];
            for p in 0..plane - half {
                V::load(&lower[p]).add(V::load(&lower[p + half])).store(&mut upper[p]);
            }
        }
        let tables = &tables[..runs.levels() * plane];
        for (k, energy) in out[..runs.count()].iter_mut().enumerate() {
            // Two sums, so that one addition need not wait for the other.
            let (mut even, mut odd) = (V::splat(0.0), V::splat(0.0));
            let (pairs, rest) = runs.pieces(k).as_chunks::<2>();
            for [a, b] in pairs {
                even = even.add(V::load(&tables[a.place as usize]));
                odd = odd.add(V::load(&tables[b.place as usize]));
            }
            for a in rest {
                even = even.add(V::load(&tables[a.place as usize]));
            }
            even.add(odd).store(energy);
        }
    }
}

/// `CHANNELS` is the number of channels, or 0 where it is only known at run time.
#[inline(always)]
fn square_of<V: Vector, P: Pixel, const FORM: u8, const CHANNELS: usize>(
    rows: &mut FloatSums,
    tile: &Tile<P>,
    values: &[f32],
    out: &mut [F32x16],
) {
    let y = rows.grid.row(rows.seen);
    let residuals = y.map(|y| Residuals::<P, FORM, CHANNELS>::of_framed_row(tile, values, rows.grid.framed(), y));
    let Some(residuals) = residuals.as_ref().filter(|_| rows.grid.side <= MAX_SHORT_SIDE) else {
        return long::<V, P, FORM, CHANNELS>(rows, residuals.as_ref(), out);
    };
    match rows.grid.side {
        1 => short::<V, P, FORM, CHANNELS, 0>(rows, residuals, out),
        2 => short::<V, P, FORM, CHANNELS, 1>(rows, residuals, out),
        3 => short::<V, P, FORM, CHANNELS, 2>(rows, residuals, out),
        _ => short::<V, P, FORM, CHANNELS, { MAX_SHORT_SIDE - 1 }>(rows, residuals, out),
    }
}

/// Windows of `BEFORE + 1` pixels per side: values are added one by one, across in registers, down from the last rows
/// of sums.
#[inline(always)]
fn short<V: Vector, P: Pixel, const FORM: u8, const CHANNELS: usize, const BEFORE: usize>(
    rows: &mut FloatSums,
    residuals: &Residuals<'_, P, FORM, CHANNELS>,
    out: &mut [F32x16],
) {
    let mut sliding = SlidingSum::<V, BEFORE>::start();
    for x in 0..BEFORE {
        sliding.skip(residuals.at(x));
    }
    let columns = residuals.width - BEFORE;
    let residuals = residuals.part(BEFORE, columns);
    if rows.seen < BEFORE {
        let sums = &mut rows.rows[rows.seen * columns..][..columns];
        for x in 0..columns {
            sliding.push(residuals.at(x)).store(&mut sums[x]);
        }
        return;
    }
    let mut chunks = exact_chunks_mut(&mut rows.rows, columns);
    let mut above: [&mut [F32x16]; BEFORE] = std::array::from_fn(|_| chunks.next().unwrap_or_default());
    if BEFORE > 1 {
        // The oldest first, whose place the new row takes. (A rotation would be a library call.)
        above.swap(0, rows.seen % BEFORE);
    }
    for i in 0..BEFORE {
        above[i] = &mut std::mem::take(&mut above[i])[..columns];
    }
    let out = &mut out[..columns];
    for x in (1..columns).step_by(2) {
        let pair = sliding.push_two(residuals.at(x - 1), residuals.at(x));
        for (across, x) in pair.into_iter().zip([x - 1, x]) {
            down::<V, BEFORE>(across, &mut above, &mut out[x], x);
        }
    }
    if columns % 2 == 1 {
        let x = columns - 1;
        down::<V, BEFORE>(sliding.push(residuals.at(x)), &mut above, &mut out[x], x);
    }
}

/// Adds the sums across of the rows above at column `x`; the new one takes the place of the oldest.
#[inline(always)]
fn down<V: Vector, const BEFORE: usize>(across: V, above: &mut [&mut [F32x16]; BEFORE], out: &mut F32x16, x: usize) {
    let mut sum = across;
    for i in 0..BEFORE {
        sum = sum.add(V::load(&above[i][x]));
    }
    sum.store(out);
    if BEFORE > 0 {
        across.store(&mut above[0][x]);
    }
}

#[inline(always)]
fn long<V: Vector, P: Pixel, const FORM: u8, const CHANNELS: usize>(
    rows: &mut FloatSums,
    residuals: Option<&Residuals<'_, P, FORM, CHANNELS>>,
    out: &mut [F32x16],
) {
    let (grid, width, reach) = (rows.grid, rows.grid.shape.width, rows.grid.reach());
    // `push_across` reads one value more than the row has.
    let (row, tails) = rows.rows.split_at_mut(grid.padded_width() + 1);
    match residuals {
        None => row[reach..reach + width].fill(F32x16::ZERO),
        Some(residuals) => residuals.write::<V>(&mut row[reach..]),
    }
    if grid.beyond == Beyond::Opposite {
        row.copy_within(width..width + reach, 0);
        row.copy_within(reach..2 * reach, reach + width);
    }
    rows.sums.push_across::<V>(row, tails, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::cpu::images::Images;
    use ndarray::{Array3, Array4};
    use proptest::prelude::*;

    /// The energies of all windows, `[row][column]`, by rows of squares.
    fn of_squares(isa: Isa, components: &Components, side: usize, tile: &mut Tile<u8>, probe: &Probe) -> Vec<F32x16> {
        let (_, columns) = components.grid();
        let mut energies = SquareEnergies::default();
        tile.square(isa);
        if probe.fixed_point_scale.is_some() {
            energies.square(isa, Grid::of(components, side, tile), 127.5, tile, || false);
        }
        let tiles = std::slice::from_ref(&*tile);
        energies.start(Grid::of(components, side, &tiles[0]), probe.terms(), 1);
        let (mut row, mut all) = (vec![F32x16::ZERO; columns], Vec::new());
        for y in 0..components.height() {
            energies.push_row(isa, tiles, probe.terms(), &mut row);
            if y + 1 >= side {
                all.extend_from_slice(&row);
            }
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn windows_reach_over_the_border(
            channels in 1_usize..=4, height in 3_usize..9, width in 3_usize..9, reach in 2_usize..4, wraps: bool,
            in_fixed_point: bool, expanded: bool,
        ) {
            let side = 2 * reach + 1;
            prop_assume!(!wraps || side <= height.min(width));
            let image = Array4::from_shape_fn((1, channels, height, width), |(_, c, y, x)| {
                ((c * 57 + y * 31 + x * 17) * 7919 % 256) as u8
            });
            let z = Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
                ((c * 31 + y * 17 + x * 5) % 21) as f64 / 7.0 - 1.4
            });
            let expanded = expanded || in_fixed_point;
            let factor = if expanded { -2.0 } else { 1.0 };
            let scale = in_fixed_point.then_some(2.0_f32.powi(-8));
            let values: Vec<f32> =
                z.iter().map(|z| (127.5 * factor * z) as f32 / scale.unwrap_or(1.0)).collect();
            let form = if expanded { EXPANDED } else { DIRECT };
            let terms = Terms { form, values: &values, fixed_point_scale: scale };
            let beyond = if wraps { Beyond::Opposite } else { Beyond::Nothing };
            let grid = Grid::of_all(ImageShape { channels, height, width }, side, beyond);
            for isa in Isa::available() {
                let mut tile = Tile::<u8>::new(channels, height * width);
                tile.load(isa, &Images::side_by_side(image.as_slice().unwrap(), image.len()), 127.5);
                let mut energies = SquareEnergies::default();
                if in_fixed_point {
                    energies.square(isa, grid, 127.5, &mut tile, || false);
                } else if expanded {
                    tile.square(isa);
                }
                energies.start(grid, terms, 1);
                let mut row = vec![F32x16::ZERO; width];
                for y in 0..grid.padded_height() {
                    energies.push_row(isa, std::slice::from_ref(&tile), terms, &mut row);
                    let Some(middle) = (y + 1).checked_sub(side) else { continue };
                    for (x, energy) in row.iter().enumerate() {
                        let (mut exact, mut size) = (0.0, 0.0);
                        for (c, dy, dx) in ndarray::indices((channels, side, side)) {
                            let (y, x) = (middle + dy, x + dx);
                            let inside = (reach..reach + height).contains(&y) && (reach..reach + width).contains(&x);
                            let at = [c, (y + height - reach) % height, (x + width - reach) % width];
                            if inside || wraps {
                                let (a, z) = (image[[0, at[0], at[1], at[2]]].number(127.5), 127.5 * z[at]);
                                exact += if expanded { a * a - 2.0 * a * z } else { (a - z).powi(2) };
                                size += a * a + z * z;
                            }
                        }
                        prop_assert!((f64::from(energy.0[0]) - exact).abs() <= 2e-6 * size, "{}, exactly {}", energy.0[0], exact);
                    }
                }
            }
        }

        #[test]
        fn energies_are_those_of_the_windows(
            channels in 1_usize..=4, side in 1_usize..=8, more in 0_usize..5, even_more in 1_usize..5, tall: bool,
            count in 1_usize..=LANES, expanded: bool,
        ) {
            let (short, long) = (side + more, side + even_more);
            let (height, width) = if tall { (long, short) } else { (short, long) };
            let images = Array4::from_shape_fn((count, channels, height, width), |(n, c, y, x)| {
                ((n * 89 + c * 57 + y * 31 + x * 17) * 7919 % 256) as u8
            });
            let z = Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
                ((c * 31 + y * 17 + x * 5) % 21) as f64 / 7.0 - 1.4
            });
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
            let [square_probe, mask_probe] = [&squares, &masks]
                .map(|components| Probe::new(&bank, components, z.view(), if expanded { 1.0 } else { 0.2 }, 0, false));
            for isa in Isa::available() {
                let mut tile = Tile::new(channels, height * width);
                tile.load(isa, &Images::side_by_side(images.as_slice().unwrap(), channels * height * width), 127.5);
                let by_rows = of_squares(isa, &squares, side, &mut tile, &square_probe);
                let mut by_masks = vec![F32x16::ZERO; rows * columns];
                mask_energies(isa, &masks, runs, &tile, &mask_probe, &mut MaskSpace::default(), &mut by_masks);
                for (k, (row, column)) in ndarray::indices((rows, columns)).into_iter().enumerate() {
                    for n in 0..LANES {
                        let (mut exact, mut size) = (f64::from(f32::MAX), 0.0);
                        if n < count {
                            exact = 0.0;
                            for (c, i, j) in ndarray::indices((channels, side, side)) {
                                let at = [c, row + i, column + j];
                                let (a, z) = (images[[n, at[0], at[1], at[2]]].number(127.5), 127.5 * z[at]);
                                exact += if expanded { a * a - 2.0 * a * z } else { (a - z).powi(2) };
                                size += a * a + z * z;
                            }
                        }
                        for energy in [by_rows[k].0[n], by_masks[k].0[n]] {
                            prop_assert!((f64::from(energy) - exact).abs() <= 1e-6 * size, "{energy}, exactly {exact}");
                        }
                    }
                }
            }
        }
    }
}
