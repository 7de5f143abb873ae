//! Energies: the squared distance of a probe to sixteen images on windows (less a constant in the expanded form).

use super::isa::{Isa, dispatched};
use super::probe::Probe;
use super::simd::{LANES, Lanes, Vector};
use super::slide::{LONGEST_SHORT, Roll, RowSlider};
use super::tile::{Pixel, Tile};
use super::whole::{Values, WholeSums};
use crate::runs::Runs;
use crate::windows::Windows;

/// The energies of a probe on a tile, row of windows by row of windows, so that whoever uses a row finds it in the
/// first-level cache.
#[derive(Debug, Default)]
pub struct EnergyRows {
    slider: RowSlider,
    /// Windows summed in whole numbers.
    whole: WholeSums,
    /// A row of errors and the tails of its blocks, or the row sums above the current one.
    rows: Vec<Lanes>,
    side: usize,
    /// Rows of pixels taken so far.
    seen: usize,
}

/// Forms of the errors: squares of differences; squares of pixels plus products; products, whose squares are added later.
const DIRECT: u8 = 0;
const EXPANDED: u8 = 1;
const PRODUCTS: u8 = 2;

/// The size of the images.
#[derive(Debug, Clone, Copy)]
struct Shape {
    height: usize,
    width: usize,
}

impl Shape {
    fn of(windows: &Windows) -> Self {
        Self { height: windows.height(), width: windows.width() }
    }
}

impl EnergyRows {
    /// Before the first row of pixels, for square windows.
    pub fn start(&mut self, windows: &Windows, side: usize, probe: &Probe) {
        let (_, columns) = windows.grid();
        (self.side, self.seen) = (side, 0);
        if probe.quantum.is_some() {
            self.whole.start(side, windows.width());
        } else if side > LONGEST_SHORT {
            self.slider.start(side, columns);
            self.rows.resize(self.rows.len().max(2 * windows.width() + 1), Lanes::ZERO);
        } else {
            self.rows.resize(self.rows.len().max(side * columns), Lanes::ZERO);
        }
    }

    /// Takes the next row of pixels. Where a row of windows ends there, its energies are then in `out`; lanes without an
    /// image get `f32::MAX`. The expanded form needs the tile's squares.
    pub fn next<P: Pixel>(&mut self, isa: Isa, windows: &Windows, tile: &Tile<P>, probe: &Probe, out: &mut [Lanes]) {
        square(isa, self, tile, probe, Shape::of(windows), out);
        self.seen += 1;
        mark_missing(tile, out);
    }

    /// Sums the squares of a tile over windows, which the energies of all probes in whole numbers share, in multiples of
    /// `quantum`.
    pub fn sum_squares<P: Pixel>(
        &mut self,
        isa: Isa,
        windows: &Windows,
        side: usize,
        quantum: f32,
        tile: &mut Tile<P>,
    ) {
        let (_, columns) = windows.grid();
        self.whole.start(side, windows.width());
        self.rows.clear();
        self.rows.resize(columns, Lanes::ZERO);
        tile.window_squares.resize(windows.count(), Lanes::ZERO);
        let (shape, zeros) = (Shape::of(windows), &self.rows);
        sum_squares(isa, &mut self.whole, quantum, &tile.squares, shape, zeros, &mut tile.window_squares);
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
    masks(isa, tile, probe, Shape::of(windows), runs, tables, out);
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
        rows: &mut EnergyRows,
        tile: &Tile<P>,
        probe: &Probe,
        shape: Shape,
        out: &mut [Lanes],
    ) = square_body
}

dispatched! {
    fn sum_squares(
        whole: &mut WholeSums,
        quantum: f32,
        squares: &[Lanes],
        shape: Shape,
        zeros: &[Lanes],
        out: &mut [Lanes],
    ) = sum_squares_body
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
    rows: &mut EnergyRows,
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    out: &mut [Lanes],
) {
    let channels = tile.pixels.len() / (shape.height * shape.width);
    if let Some(quantum) = probe.quantum {
        match channels {
            1 => whole_of::<V, P, 1>(rows, tile, probe, quantum, shape, out),
            3 => whole_of::<V, P, 3>(rows, tile, probe, quantum, shape, out),
            _ => whole_of::<V, P, 0>(rows, tile, probe, quantum, shape, out),
        }
        return;
    }
    match (probe.expanded, channels) {
        (true, 1) => square_of::<V, P, EXPANDED, 1>(rows, tile, probe, shape, out),
        (true, 3) => square_of::<V, P, EXPANDED, 3>(rows, tile, probe, shape, out),
        (true, _) => square_of::<V, P, EXPANDED, 0>(rows, tile, probe, shape, out),
        (false, 1) => square_of::<V, P, DIRECT, 1>(rows, tile, probe, shape, out),
        (false, 3) => square_of::<V, P, DIRECT, 3>(rows, tile, probe, shape, out),
        (false, _) => square_of::<V, P, DIRECT, 0>(rows, tile, probe, shape, out),
    }
}

/// The products of the expanded form in whole numbers, to which the squares of each window are added.
#[inline(always)]
fn whole_of<V: Vector, P: Pixel, const CHANNELS: usize>(
    rows: &mut EnergyRows,
    tile: &Tile<P>,
    probe: &Probe,
    quantum: f32,
    shape: Shape,
    out: &mut [Lanes],
) {
    let products = Errors::<P, PRODUCTS, CHANNELS>::of_row(tile, probe, shape, rows.seen);
    let columns = shape.width + 1 - rows.side;
    let squares = &tile.window_squares[(rows.seen + 1).saturating_sub(rows.side) * columns..][..columns];
    rows.whole.take::<V>(&products, quantum, squares, out);
}

#[inline(always)]
fn sum_squares_body<V: Vector>(
    whole: &mut WholeSums,
    quantum: f32,
    squares: &[Lanes],
    shape: Shape,
    zeros: &[Lanes],
    out: &mut [Lanes],
) {
    let (columns, above) = (zeros.len(), shape.width - zeros.len());
    for (y, row) in squares.chunks_exact(shape.width).enumerate() {
        let out = &mut out[y.saturating_sub(above) * columns..][..columns];
        whole.take::<V>(&Squares { row, scale: 1.0 / quantum }, quantum, zeros, out);
    }
}

/// `CHANNELS` is the number of channels, or 0 where it is only known at run time.
#[inline(always)]
fn square_of<V: Vector, P: Pixel, const FORM: u8, const CHANNELS: usize>(
    rows: &mut EnergyRows,
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    out: &mut [Lanes],
) {
    let errors = Errors::<P, FORM, CHANNELS>::of_row(tile, probe, shape, rows.seen);
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
    rows: &mut EnergyRows,
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
    let mut chunks = rows.rows.chunks_exact_mut(columns);
    let mut above: [&mut [Lanes]; BEFORE] = std::array::from_fn(|_| chunks.next().unwrap_or_default());
    if BEFORE > 1 {
        // The oldest first, whose place the new row takes.
        above.rotate_left(rows.seen % BEFORE);
    }
    for i in 0..BEFORE {
        above[i] = &mut std::mem::take(&mut above[i])[..columns];
    }
    let out = &mut out[..columns];
    for x in 0..columns {
        let across = roll.push(errors.at(x));
        let mut sum = across;
        for i in 0..BEFORE {
            sum = sum.add(V::load(&above[i][x]));
        }
        sum.store(&mut out[x]);
        if BEFORE > 0 {
            across.store(&mut above[0][x]);
        }
    }
}

#[inline(always)]
fn long<V: Vector, P: Pixel, const FORM: u8, const CHANNELS: usize>(
    rows: &mut EnergyRows,
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
        match (probe.expanded, tile.pixels.len() / plane) {
            (true, 3) => Errors::<P, EXPANDED, 3>::of_row(tile, probe, shape, y).write::<V>(row),
            (true, _) => Errors::<P, EXPANDED, 0>::of_row(tile, probe, shape, y).write::<V>(row),
            (false, 3) => Errors::<P, DIRECT, 3>::of_row(tile, probe, shape, y).write::<V>(row),
            (false, _) => Errors::<P, DIRECT, 0>::of_row(tile, probe, shape, y).write::<V>(row),
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

/// The squared errors of the pixels of a row, summed over channels, in one of three forms, see [`Probe`]. Rows are cut to one length, so that no access in a
/// loop over columns needs a check of its bounds.
struct Errors<'a, P: Pixel, const FORM: u8, const CHANNELS: usize> {
    pixels: [&'a [P::Lanes]; CHANNELS],
    values: [&'a [f32]; CHANNELS],
    squares: &'a [Lanes],
    /// All pixels and values from the row on, where the number of channels is not known.
    rest: (&'a [P::Lanes], &'a [f32]),
    plane: usize,
    width: usize,
}

impl<'a, P: Pixel, const FORM: u8, const CHANNELS: usize> Errors<'a, P, FORM, CHANNELS> {
    #[inline(always)]
    fn of_row(tile: &'a Tile<P>, probe: &'a Probe, shape: Shape, y: usize) -> Self {
        let (plane, start) = (shape.height * shape.width, y * shape.width);
        let (mut pixels, mut values): ([&[P::Lanes]; CHANNELS], [&[f32]; CHANNELS]) =
            ([&[]; CHANNELS], [&[]; CHANNELS]);
        for c in 0..CHANNELS {
            pixels[c] = &tile.pixels[c * plane + start..][..shape.width];
            values[c] = &probe.values[c * plane + start..][..shape.width];
        }
        let squares: &[Lanes] = if FORM == EXPANDED { &tile.squares[start..][..shape.width] } else { &[] };
        let rest = (&tile.pixels[start..], &probe.values[start..]);
        Self { pixels, values, squares, rest, plane, width: shape.width }
    }

    /// `width` columns of the row, from column `start` on.
    #[inline(always)]
    fn part(&self, start: usize, width: usize) -> Self {
        let mut part = Self { width, ..*self };
        for c in 0..CHANNELS {
            part.pixels[c] = &self.pixels[c][start..][..width];
            part.values[c] = &self.values[c][start..][..width];
        }
        if FORM == EXPANDED {
            part.squares = &self.squares[start..][..width];
        }
        part.rest = (&self.rest.0[start..], &self.rest.1[start..]);
        part
    }

    /// Writes all of the row.
    #[inline(always)]
    fn write<V: Vector>(&self, row: &mut [Lanes]) {
        let row = &mut row[..self.width];
        let errors = self.part(0, row.len());
        for x in 0..row.len() {
            errors.at::<V>(x).store(&mut row[x]);
        }
    }

    #[inline(always)]
    fn at<V: Vector>(&self, x: usize) -> V {
        let mut sum = if FORM == EXPANDED { V::load(&self.squares[x]) } else { V::splat(0.0) };
        for c in 0..CHANNELS {
            let a: V = P::centred(&self.pixels[c][x]);
            sum = if FORM == PRODUCTS && c == 0 {
                a.mul(V::splat(self.values[c][x]))
            } else {
                Self::add(sum, a, self.values[c][x])
            };
        }
        if CHANNELS == 0 {
            let (pixels, values) = self.rest;
            for (pixel, &value) in pixels[x..].iter().step_by(self.plane).zip(values[x..].iter().step_by(self.plane)) {
                sum = Self::add(sum, P::centred(pixel), value);
            }
        }
        sum
    }

    #[inline(always)]
    fn add<V: Vector>(sum: V, a: V, value: f32) -> V {
        let z = V::splat(value);
        if FORM == DIRECT {
            let t = a.sub(z);
            t.mul_add(t, sum)
        } else {
            a.mul_add(z, sum)
        }
    }
}

impl<P: Pixel, const CHANNELS: usize> Values for Errors<'_, P, PRODUCTS, CHANNELS> {
    #[inline(always)]
    fn cut(&self, width: usize) -> Self {
        self.part(0, width)
    }

    #[inline(always)]
    fn at<V: Vector>(&self, x: usize) -> V {
        Errors::at(self, x)
    }
}

/// A row of squares in units of a quantum.
struct Squares<'a> {
    row: &'a [Lanes],
    scale: f32,
}

impl Values for Squares<'_> {
    #[inline(always)]
    fn cut(&self, width: usize) -> Self {
        Self { row: &self.row[..width], scale: self.scale }
    }

    #[inline(always)]
    fn at<V: Vector>(&self, x: usize) -> V {
        V::load(&self.row[x]).mul(V::splat(self.scale))
    }
}
