//! Energies: the squared distance of a probe to sixteen images on every window (less a constant in the expanded form).

use super::isa::{Isa, dispatched};
use super::probe::Probe;
use super::simd::{LANES, Lanes, Vector};
use super::slide::{Roll, RowSlider, slide_row};
use super::tile::{Pixel, Tile};
use crate::runs::Runs;
use crate::windows::{Kind, Windows};

/// Working space of the energy kernels; grows to what a call needs and is kept between calls.
#[derive(Debug, Default)]
pub struct EnergySpace {
    slider: RowSlider,
    /// A row of errors and the tails of its blocks, or the row sums above the current one.
    rows: Vec<Lanes>,
    /// Doubling tables of the mask kernels.
    tables: Vec<Lanes>,
}

/// The size of the images.
#[derive(Debug, Clone, Copy)]
struct Shape {
    height: usize,
    width: usize,
}

/// Writes the energy of every window to `out`; lanes without an image get `f32::MAX`. The expanded form needs the tile's
/// squares. The full window is not for tiles, see [`super::panel`].
pub fn energies<P: Pixel>(
    isa: Isa,
    windows: &Windows,
    tile: &Tile<P>,
    probe: &Probe,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    let shape = Shape { height: windows.height(), width: windows.width() };
    match windows.kind() {
        Kind::Full => unreachable!("the full window has panels in place of tiles"),
        Kind::Square { side } => square(isa, tile, probe, shape, *side, space, out),
        Kind::Masks(runs) => masks(isa, tile, probe, shape, runs, space, out),
    }
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
        tile: &Tile<P>,
        probe: &Probe,
        shape: Shape,
        side: usize,
        space: &mut EnergySpace,
        out: &mut [Lanes],
    ) = square_body
}

dispatched! {
    fn masks<P: Pixel>(
        tile: &Tile<P>,
        probe: &Probe,
        shape: Shape,
        runs: &Runs,
        space: &mut EnergySpace,
        out: &mut [Lanes],
    ) = masks_body
}

#[inline(always)]
fn square_body<V: Vector, P: Pixel>(
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    side: usize,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    let channels = tile.pixels.len() / (shape.height * shape.width);
    match (probe.expanded, channels) {
        (true, 1) => square_of::<V, P, true, 1>(tile, probe, shape, side, space, out),
        (true, 3) => square_of::<V, P, true, 3>(tile, probe, shape, side, space, out),
        (true, _) => square_of::<V, P, true, 0>(tile, probe, shape, side, space, out),
        (false, 1) => square_of::<V, P, false, 1>(tile, probe, shape, side, space, out),
        (false, 3) => square_of::<V, P, false, 3>(tile, probe, shape, side, space, out),
        (false, _) => square_of::<V, P, false, 0>(tile, probe, shape, side, space, out),
    }
}

/// `CHANNELS` is the number of channels, or 0 where it is only known at run time.
#[inline(always)]
fn square_of<V: Vector, P: Pixel, const EXPANDED: bool, const CHANNELS: usize>(
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    side: usize,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    match side {
        1 => short::<V, P, EXPANDED, CHANNELS, 0>(tile, probe, shape, space, out),
        2 => short::<V, P, EXPANDED, CHANNELS, 1>(tile, probe, shape, space, out),
        3 => short::<V, P, EXPANDED, CHANNELS, 2>(tile, probe, shape, space, out),
        4 => short::<V, P, EXPANDED, CHANNELS, 3>(tile, probe, shape, space, out),
        _ => long::<V, P, EXPANDED, CHANNELS>(tile, probe, shape, side, space, out),
    }
}

/// Windows of `BEFORE + 1` pixels a side: values are simply added, across in registers, down from the last rows of sums.
#[inline(always)]
fn short<V: Vector, P: Pixel, const EXPANDED: bool, const CHANNELS: usize, const BEFORE: usize>(
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    let columns = shape.width - BEFORE;
    space.rows.resize(space.rows.len().max(BEFORE.max(1) * columns), Lanes::ZERO);
    let mut above = space.rows.chunks_exact_mut(columns);
    let mut above: [&mut [Lanes]; BEFORE] = std::array::from_fn(|_| above.next().unwrap_or_default());
    let mut out = out.chunks_exact_mut(columns);
    for y in 0..shape.height {
        let errors = Errors::<P, EXPANDED, CHANNELS>::of_row(tile, probe, shape, y);
        let mut roll = Roll::<V, BEFORE>::start();
        for x in 0..BEFORE {
            roll.skip(errors.at(x));
        }
        if y < BEFORE {
            for (x, sum) in above[y].iter_mut().enumerate() {
                roll.push(errors.at(x + BEFORE)).store(sum);
            }
            continue;
        }
        let Some(out) = out.next() else { break };
        for x in 0..columns {
            let across = roll.push(errors.at(x + BEFORE));
            let mut sum = across;
            for rows in (0..BEFORE).rev() {
                sum = sum.add(V::load(&above[rows][x]));
            }
            sum.store(&mut out[x]);
            if BEFORE > 0 {
                across.store(&mut above[0][x]);
            }
        }
        if BEFORE > 1 {
            above.rotate_left(1);
        }
    }
}

#[inline(always)]
fn long<V: Vector, P: Pixel, const EXPANDED: bool, const CHANNELS: usize>(
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    side: usize,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    let (width, columns) = (shape.width, shape.width - side + 1);
    space.rows.resize(space.rows.len().max(2 * width), Lanes::ZERO);
    let (row, tails) = space.rows.split_at_mut(width);
    space.slider.start(side, columns);
    let mut done = 0;
    for y in 0..shape.height {
        let errors = Errors::<P, EXPANDED, CHANNELS>::of_row(tile, probe, shape, y);
        for (x, error) in row.iter_mut().enumerate() {
            errors.at::<V>(x).store(error);
        }
        slide_row::<V>(row, side, tails, space.slider.slot());
        if space.slider.advance::<V>(&mut out[done..]) {
            done += columns;
        }
    }
}

#[inline(always)]
fn masks_body<V: Vector, P: Pixel>(
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    runs: &Runs,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    let plane = shape.height * shape.width;
    space.tables.resize(space.tables.len().max(runs.levels() * plane), Lanes::ZERO);
    for (y, row) in space.tables[..plane].chunks_exact_mut(shape.width).enumerate() {
        match (probe.expanded, tile.pixels.len() / plane) {
            (true, 3) => row_of::<V, P, true, 3>(tile, probe, shape, y, row),
            (true, _) => row_of::<V, P, true, 0>(tile, probe, shape, y, row),
            (false, 3) => row_of::<V, P, false, 3>(tile, probe, shape, y, row),
            (false, _) => row_of::<V, P, false, 0>(tile, probe, shape, y, row),
        }
    }
    for level in 1..runs.levels() {
        let (lower, upper) = space.tables.split_at_mut(level * plane);
        let half = 1 << (level - 1);
        let lower = &lower[(level - 1) * plane..];
        for p in 0..plane - half {
            V::load(&lower[p]).add(V::load(&lower[p + half])).store(&mut upper[p]);
        }
    }
    let tables = &space.tables[..runs.levels() * plane];
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

#[inline(always)]
fn row_of<V: Vector, P: Pixel, const EXPANDED: bool, const CHANNELS: usize>(
    tile: &Tile<P>,
    probe: &Probe,
    shape: Shape,
    y: usize,
    row: &mut [Lanes],
) {
    let errors = Errors::<P, EXPANDED, CHANNELS>::of_row(tile, probe, shape, y);
    for (x, error) in row.iter_mut().enumerate() {
        errors.at::<V>(x).store(error);
    }
}

/// The squared errors of the pixels of a row, summed over channels. Rows are cut to one length, so that no access in a
/// loop over columns needs a check of its bounds.
struct Errors<'a, P: Pixel, const EXPANDED: bool, const CHANNELS: usize> {
    pixels: [&'a [P::Lanes]; CHANNELS],
    values: [&'a [f32]; CHANNELS],
    squares: &'a [Lanes],
    /// All pixels and values from the row on, where the number of channels is not known.
    rest: (&'a [P::Lanes], &'a [f32]),
    plane: usize,
}

impl<'a, P: Pixel, const EXPANDED: bool, const CHANNELS: usize> Errors<'a, P, EXPANDED, CHANNELS> {
    #[inline(always)]
    fn of_row(tile: &'a Tile<P>, probe: &'a Probe, shape: Shape, y: usize) -> Self {
        let (plane, start) = (shape.height * shape.width, y * shape.width);
        Self {
            pixels: std::array::from_fn(|c| &tile.pixels[c * plane + start..][..shape.width]),
            values: std::array::from_fn(|c| &probe.values[c * plane + start..][..shape.width]),
            squares: if EXPANDED { &tile.squares[start..][..shape.width] } else { &[] },
            rest: (&tile.pixels[start..], &probe.values[start..]),
            plane,
        }
    }

    #[inline(always)]
    fn at<V: Vector>(&self, x: usize) -> V {
        let mut sum = if EXPANDED { V::load(&self.squares[x]) } else { V::splat(0.0) };
        for c in 0..CHANNELS {
            sum = Self::add(sum, P::centred(&self.pixels[c][x]), self.values[c][x]);
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
        if EXPANDED {
            a.mul_add(z, sum)
        } else {
            let t = a.sub(z);
            t.mul_add(t, sum)
        }
    }
}
