//! Energies: the squared distance of a probe to sixteen images on windows (less a constant in the expanded form).

use super::errors::{DIRECT, EXPANDED, Errors, Shape};
use super::isa::{Isa, dispatched};
use super::parts::parts_mut;
use super::probe::Probe;
use super::simd::{LANES, Lanes, Vector};
use super::slide::{LONGEST_SHORT, Roll, RowSlider};
use super::tile::{Pixel, Tile};
use super::whole::WholeSums;
use crate::runs::Runs;
use crate::windows::Windows;

/// The energies of a probe on a group of tiles, row of windows by row of windows, so that whoever uses a row finds it in
/// the first-level cache.
#[derive(Debug, Default)]
pub struct EnergyRows {
    /// Sums in whole numbers of all tiles.
    whole: WholeSums,
    /// Sums as floats, one a tile.
    tiles: Vec<TileRows>,
}

/// Sums as floats on a tile.
#[derive(Debug, Default)]
struct TileRows {
    slider: RowSlider,
    /// A row of errors and the tails of its blocks, or the row sums above the current one.
    rows: Vec<Lanes>,
    side: usize,
    /// Rows of pixels taken so far.
    seen: usize,
}

impl EnergyRows {
    /// Before the first row of pixels of some tiles, for square windows.
    pub fn start(&mut self, windows: &Windows, side: usize, probe: &Probe, tiles: usize) {
        if probe.quantum.is_some() {
            self.whole.start(side, windows.width(), tiles);
        } else {
            self.tiles.resize_with(tiles, TileRows::default);
            self.tiles.iter_mut().for_each(|rows| rows.start(windows, side));
        }
    }

    /// Takes the next row of pixels. Where a row of windows ends there, its energies are then in `out` `[tile][window]`;
    /// lanes without an image get `f32::MAX`. The expanded form needs the tiles' squares.
    pub fn next<P: Pixel>(&mut self, isa: Isa, windows: &Windows, tiles: &[Tile<P>], probe: &Probe, out: &mut [Lanes]) {
        let (_, columns) = windows.grid();
        if let Some(quantum) = probe.quantum {
            self.whole.energies(isa, windows, tiles, (&probe.values, quantum), out);
        } else {
            let parts = tiles.iter().zip(&mut self.tiles).zip(parts_mut(out, columns));
            for ((tile, rows), out) in parts {
                square(isa, rows, tile, probe, Shape::of(windows, tile), out);
                rows.seen += 1;
            }
        }
        tiles.iter().zip(parts_mut(out, columns)).for_each(|(tile, out)| mark_missing(tile, out));
    }

    /// Sums the squares of a tile over windows, for probes whose energies are formed in whole numbers; no pixel lies
    /// further than `reach` from the centre of its range.
    pub fn square<P: Pixel>(&mut self, isa: Isa, windows: &Windows, side: usize, reach: f64, tile: &mut Tile<P>) {
        self.whole.square(isa, windows, side, reach, tile);
    }
}

impl TileRows {
    fn start(&mut self, windows: &Windows, side: usize) {
        let (_, columns) = windows.grid();
        (self.side, self.seen) = (side, 0);
        if side > LONGEST_SHORT {
            self.slider.start(side, columns);
            self.rows.resize(self.rows.len().max(2 * windows.width() + 1), Lanes::ZERO);
        } else {
            self.rows.resize(self.rows.len().max(side * columns), Lanes::ZERO);
        }
    }
}

/// Writes the energy of every mask to `out`, through doubling tables; otherwise as [`EnergyRows::next`].
pub fn mask_energies<P: Pixel>(
    isa: Isa,
    windows: &Windows,
    runs: &Runs,
    tile: &Tile<P>,
    probe: &Probe,
    tables: &mut Vec<Lanes>,
    out: &mut [Lanes],
) {
    masks(isa, tile, probe, Shape::of(windows, tile), runs, tables, out);
    mark_missing(tile, out);
}

/// Gives lanes without an image the largest energy.
fn mark_missing<P: Pixel>(tile: &Tile<P>, energies: &mut [Lanes]) {
    for energy in if tile.valid < LANES { energies } else { &mut [] } {
        energy.0[tile.valid..].fill(f32::MAX);
    }
}

dispatched! {
    fn square<P: Pixel>(
        rows: &mut TileRows,
        tile: &Tile<P>,
        probe: &Probe,
        shape: Shape,
        out: &mut [Lanes],
    ) = square_body
}

dispatched! {
    fn masks<P: Pixel>(
        tile: &Tile<P>,
        probe: &Probe,
        shape: Shape,
        runs: &Runs,
        tables: &mut Vec<Lanes>,
        out: &mut [Lanes],
    ) = masks_body
}

#[inline(always)]
fn square_body<V: Vector, P: Pixel>(
    rows: &mut TileRows,
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    out: &mut [Lanes],
) {
    match (probe.expanded, shape.channels) {
        (true, 1) => square_of::<V, P, EXPANDED, 1>(rows, tile, probe, shape, out),
        (true, 3) => square_of::<V, P, EXPANDED, 3>(rows, tile, probe, shape, out),
        (true, _) => square_of::<V, P, EXPANDED, 0>(rows, tile, probe, shape, out),
        (false, 1) => square_of::<V, P, DIRECT, 1>(rows, tile, probe, shape, out),
        (false, 3) => square_of::<V, P, DIRECT, 3>(rows, tile, probe, shape, out),
        (false, _) => square_of::<V, P, DIRECT, 0>(rows, tile, probe, shape, out),
    }
}

/// `CHANNELS` is the number of channels, or 0 where it is only known at run time.
#[inline(always)]
fn square_of<V: Vector, P: Pixel, const FORM: u8, const CHANNELS: usize>(
    rows: &mut TileRows,
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    out: &mut [Lanes],
) {
    let errors = Errors::<P, FORM, CHANNELS>::of_row(tile, &probe.values, shape, rows.seen);
    match rows.side {
        1 => short::<V, P, FORM, CHANNELS, 0>(rows, &errors, out),
        2 => short::<V, P, FORM, CHANNELS, 1>(rows, &errors, out),
        3 => short::<V, P, FORM, CHANNELS, 2>(rows, &errors, out),
        LONGEST_SHORT => short::<V, P, FORM, CHANNELS, 3>(rows, &errors, out),
        _ => long::<V, P, FORM, CHANNELS>(rows, &errors, out),
    }
}

/// Windows of `BEFORE + 1` pixels a side: values are simply added, across in registers, down from the last rows of sums.
#[inline(always)]
fn short<V: Vector, P: Pixel, const FORM: u8, const CHANNELS: usize, const BEFORE: usize>(
    rows: &mut TileRows,
    errors: &Errors<'_, P, FORM, CHANNELS>,
    out: &mut [Lanes],
) {
    let mut roll = Roll::<V, BEFORE>::start();
    for x in 0..BEFORE {
        roll.skip(errors.at(x));
    }
    let columns = errors.width - BEFORE;
    let errors = errors.part(BEFORE, columns);
    if rows.seen < BEFORE {
        let sums = &mut rows.rows[rows.seen * columns..][..columns];
        for x in 0..columns {
            roll.push(errors.at(x)).store(&mut sums[x]);
        }
        return;
    }
    let mut chunks = parts_mut(&mut rows.rows, columns);
    let mut above: [&mut [Lanes]; BEFORE] = std::array::from_fn(|_| chunks.next().unwrap_or_default());
    if BEFORE > 1 {
        // The oldest first, whose place the new row takes. (A rotation would be a library call.)
        above.swap(0, rows.seen % BEFORE);
    }
    for i in 0..BEFORE {
        above[i] = &mut std::mem::take(&mut above[i])[..columns];
    }
    let out = &mut out[..columns];
    for x in (1..columns).step_by(2) {
        let pair = roll.push_two(errors.at(x - 1), errors.at(x));
        for (across, x) in pair.into_iter().zip([x - 1, x]) {
            down::<V, BEFORE>(across, &mut above, &mut out[x], x);
        }
    }
    if columns % 2 == 1 {
        let x = columns - 1;
        down::<V, BEFORE>(roll.push(errors.at(x)), &mut above, &mut out[x], x);
    }
}

/// Adds the sums across of the rows above at column `x`; the new one takes the place of the oldest.
#[inline(always)]
fn down<V: Vector, const BEFORE: usize>(across: V, above: &mut [&mut [Lanes]; BEFORE], out: &mut Lanes, x: usize) {
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
    rows: &mut TileRows,
    errors: &Errors<'_, P, FORM, CHANNELS>,
    out: &mut [Lanes],
) {
    // `take_across` reads one value more than the row has.
    let (row, tails) = rows.rows.split_at_mut(errors.width + 1);
    errors.write::<V>(row);
    rows.slider.take_across::<V>(row, tails, out);
}

#[inline(always)]
fn masks_body<V: Vector, P: Pixel>(
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    runs: &Runs,
    tables: &mut Vec<Lanes>,
    out: &mut [Lanes],
) {
    let plane = shape.height * shape.width;
    tables.resize(tables.len().max(runs.levels() * plane), Lanes::ZERO);
    for (y, row) in tables[..plane].chunks_exact_mut(shape.width).enumerate() {
        match (probe.expanded, shape.channels) {
            (true, 3) => Errors::<P, EXPANDED, 3>::of_row(tile, &probe.values, shape, y).write::<V>(row),
            (true, _) => Errors::<P, EXPANDED, 0>::of_row(tile, &probe.values, shape, y).write::<V>(row),
            (false, 3) => Errors::<P, DIRECT, 3>::of_row(tile, &probe.values, shape, y).write::<V>(row),
            (false, _) => Errors::<P, DIRECT, 0>::of_row(tile, &probe.values, shape, y).write::<V>(row),
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
        let (mut sum, mut other) = (V::splat(0.0), V::splat(0.0));
        let (twos, rest) = runs.pieces(k).as_chunks::<2>();
        for [a, b] in twos {
            sum = sum.add(V::load(&tables[a.place as usize]));
            other = other.add(V::load(&tables[b.place as usize]));
        }
        for a in rest {
            sum = sum.add(V::load(&tables[a.place as usize]));
        }
        sum.add(other).store(energy);
    }
}
