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
    /// One row of pixel errors and the tails of its blocks.
    rows: Vec<Lanes>,
    /// Doubling tables of the mask kernels.
    tables: Vec<Lanes>,
}

/// Writes the energy of every window to `out` `[window]`; lanes without an image get `f32::MAX`.
pub fn energies<P: Pixel>(
    isa: Isa,
    windows: &Windows,
    tile: &Tile<P>,
    probe: &Probe,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    let (height, width) = (windows.height(), windows.width());
    match windows.kind() {
        Kind::Full => full(isa, tile, probe, height, width, out),
        Kind::Square { side } => square(isa, tile, probe, height, width, *side, space, out),
        Kind::Masks(runs) => masks(isa, tile, probe, height, width, runs, space, out),
    }
    if tile.valid < LANES {
        for energy in out {
            energy.0[tile.valid..].fill(f32::MAX);
        }
    }
}

dispatched! {
    fn full<P: Pixel>(tile: &Tile<P>, probe: &Probe, height: usize, width: usize, out: &mut [Lanes]) = full_body
}

dispatched! {
    #[allow(clippy::too_many_arguments, reason = "a kernel's arguments are its inputs")]
    fn square<P: Pixel>(
        tile: &Tile<P>,
        probe: &Probe,
        height: usize,
        width: usize,
        side: usize,
        space: &mut EnergySpace,
        out: &mut [Lanes],
    ) = square_body
}

dispatched! {
    #[allow(clippy::too_many_arguments, reason = "a kernel's arguments are its inputs")]
    fn masks<P: Pixel>(
        tile: &Tile<P>,
        probe: &Probe,
        height: usize,
        width: usize,
        runs: &Runs,
        space: &mut EnergySpace,
        out: &mut [Lanes],
    ) = masks_body
}

#[inline(always)]
fn full_body<V: Vector, P: Pixel>(tile: &Tile<P>, probe: &Probe, height: usize, width: usize, out: &mut [Lanes]) {
    // Rows are summed apart so that rounding grows with the root of the row length and not of the image.
    let mut total = V::splat(0.0);
    for y in 0..height {
        let mut sum = V::splat(0.0);
        errors_of_row::<V, P>(tile, probe, height, width, y, |_, error| sum = sum.add(error));
        total = total.add(sum);
    }
    total.store(&mut out[0]);
}

#[inline(always)]
fn square_body<V: Vector, P: Pixel>(
    tile: &Tile<P>,
    probe: &Probe,
    height: usize,
    width: usize,
    side: usize,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    let columns = width - side + 1;
    space.rows.resize(space.rows.len().max(2 * width), Lanes::ZERO);
    let (errors, tails) = space.rows.split_at_mut(width);
    space.slider.start(side, columns);
    let mut done = 0;
    for y in 0..height {
        let sums = space.slider.slot();
        match side {
            1 => short_sums::<V, P, 1>(tile, probe, height, width, y, sums),
            2 => short_sums::<V, P, 2>(tile, probe, height, width, y, sums),
            3 => short_sums::<V, P, 3>(tile, probe, height, width, y, sums),
            4 => short_sums::<V, P, 4>(tile, probe, height, width, y, sums),
            _ => {
                errors_of_row::<V, P>(tile, probe, height, width, y, |x, error| error.store(&mut errors[x]));
                slide_row::<V>(&errors[..width], side, tails, sums);
            }
        }
        if space.slider.advance::<V>(&mut out[done..]) {
            done += columns;
        }
    }
}

/// Sums of `SIDE` neighbouring errors of row `y`, without a detour through memory.
#[inline(always)]
fn short_sums<V: Vector, P: Pixel, const SIDE: usize>(
    tile: &Tile<P>,
    probe: &Probe,
    height: usize,
    width: usize,
    y: usize,
    sums: &mut [Lanes],
) {
    let mut roll = Roll::<V, SIDE>::start();
    errors_of_row::<V, P>(tile, probe, height, width, y, |x, error| {
        let sum = roll.push(error);
        if x + 1 >= SIDE {
            sum.store(&mut sums[x + 1 - SIDE]);
        }
    });
}

#[inline(always)]
fn masks_body<V: Vector, P: Pixel>(
    tile: &Tile<P>,
    probe: &Probe,
    height: usize,
    width: usize,
    runs: &Runs,
    space: &mut EnergySpace,
    out: &mut [Lanes],
) {
    let plane = height * width;
    space.tables.resize(space.tables.len().max(runs.levels() * plane), Lanes::ZERO);
    for y in 0..height {
        let row = &mut space.tables[y * width..(y + 1) * width];
        errors_of_row::<V, P>(tile, probe, height, width, y, |x, error| error.store(&mut row[x]));
    }
    for level in 1..runs.levels() {
        let (lower, upper) = space.tables.split_at_mut(level * plane);
        let half = 1 << (level - 1);
        let lower = &lower[(level - 1) * plane..];
        for p in 0..plane - half {
            V::load(&lower[p]).add(V::load(&lower[p + half])).store(&mut upper[p]);
        }
    }
    for (k, energy) in out[..runs.count()].iter_mut().enumerate() {
        let mut sum = V::splat(0.0);
        for piece in runs.pieces(k) {
            sum = sum.add(V::load(&space.tables[piece.level as usize * plane + piece.at as usize]));
        }
        sum.store(energy);
    }
}

/// Calls `each(column, error)` with the squared error of every pixel of row `y`, summed over channels.
#[inline(always)]
fn errors_of_row<V: Vector, P: Pixel>(
    tile: &Tile<P>,
    probe: &Probe,
    height: usize,
    width: usize,
    y: usize,
    mut each: impl FnMut(usize, V),
) {
    // One call of `each` for both forms: a closure with two callers may not be inlined, and then its vector
    // instructions become calls.
    for x in 0..width {
        let at = y * width + x;
        let error = if probe.expanded {
            error_of_pixel::<V, P, true>(tile, probe, at, height * width)
        } else {
            error_of_pixel::<V, P, false>(tile, probe, at, height * width)
        };
        each(x, error);
    }
}

#[inline(always)]
fn error_of_pixel<V: Vector, P: Pixel, const EXPANDED: bool>(
    tile: &Tile<P>,
    probe: &Probe,
    at: usize,
    plane: usize,
) -> V {
    let mut error = V::splat(0.0);
    let mut p = at;
    while p < tile.pixels.len() {
        let a = P::load::<V>(&tile.pixels[p]).sub(V::splat(probe.near[p]));
        let t = a.sub(V::splat(probe.far[p]));
        error = t.mul_add(if EXPANDED { a } else { t }, error);
        p += plane;
    }
    error
}
