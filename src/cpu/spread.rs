//! Spread: from weights per window to coefficients per pixel, the adjoint of the window sums of `energy`.

use super::isa::{Isa, dispatched};
use super::simd::{Lanes, Vector};
use super::slide::{Roll, RowSlider, slide_row};
use crate::runs::Runs;
use crate::windows::{Kind, Windows};

/// Working space of the spread kernels; grows to what a call needs and is kept between calls.
#[derive(Debug, Default)]
pub struct SpreadSpace {
    slider: RowSlider,
    /// One row of weights between zeros, and the tails of its blocks.
    rows: Vec<Lanes>,
    /// Doubling tables of the mask kernels.
    tables: Vec<Lanes>,
}

/// Writes to `out` `[pixel]` the sum of the weights of all windows that hold the pixel; rows not `live` count as zero.
pub fn spread(
    isa: Isa,
    windows: &Windows,
    weights: &[Lanes],
    live: &[bool],
    space: &mut SpreadSpace,
    out: &mut [Lanes],
) {
    match windows.kind() {
        Kind::Full => out.fill(weights[0]),
        Kind::Square { side } => square(isa, weights, live, windows.width(), *side, space, out),
        Kind::Masks(runs) => masks(isa, weights, live, runs, space, out),
    }
}

dispatched! {
    fn square(
        weights: &[Lanes],
        live: &[bool],
        width: usize,
        side: usize,
        space: &mut SpreadSpace,
        out: &mut [Lanes],
    ) = square_body
}

dispatched! {
    fn masks(
        weights: &[Lanes],
        live: &[bool],
        runs: &Runs,
        space: &mut SpreadSpace,
        out: &mut [Lanes],
    ) = masks_body
}

#[inline(always)]
fn square_body<V: Vector>(
    weights: &[Lanes],
    live: &[bool],
    width: usize,
    side: usize,
    space: &mut SpreadSpace,
    out: &mut [Lanes],
) {
    // A sum over the windows that hold a pixel is a sliding sum over the weights with `side - 1` zeros around them.
    let (columns, border) = (width - side + 1, side - 1);
    let padded = width + border;
    space.rows.clear();
    space.rows.resize(2 * padded, Lanes::ZERO);
    let (row, tails) = space.rows.split_at_mut(padded);
    space.slider.start(side, width);
    let mut done = 0;
    for y in 0..live.len() + 2 * border {
        let sums = space.slider.slot();
        match y.checked_sub(border).filter(|&source| source < live.len() && live[source]) {
            None => sums.fill(Lanes::ZERO),
            Some(source) => {
                let weights = &weights[source * columns..(source + 1) * columns];
                match side {
                    1 => short_sums::<V, 1>(weights, sums),
                    2 => short_sums::<V, 2>(weights, sums),
                    3 => short_sums::<V, 3>(weights, sums),
                    4 => short_sums::<V, 4>(weights, sums),
                    _ => {
                        row[border..border + columns].copy_from_slice(weights);
                        slide_row::<V>(row, side, tails, sums);
                    }
                }
            }
        }
        if space.slider.advance::<V>(&mut out[done..]) {
            done += width;
        }
    }
}

/// `sums[x]` = sum of the weights of the up to `SIDE` windows that begin at or before column x and hold it.
#[inline(always)]
fn short_sums<V: Vector, const SIDE: usize>(weights: &[Lanes], sums: &mut [Lanes]) {
    let mut roll = Roll::<V, SIDE>::start();
    for (x, sum) in sums.iter_mut().enumerate() {
        let weight = if x < weights.len() { V::load(&weights[x]) } else { V::splat(0.0) };
        roll.push(weight).store(sum);
    }
}

#[inline(always)]
fn masks_body<V: Vector>(weights: &[Lanes], live: &[bool], runs: &Runs, space: &mut SpreadSpace, out: &mut [Lanes]) {
    let plane = out.len();
    space.tables.clear();
    space.tables.resize(runs.levels() * plane, Lanes::ZERO);
    for k in (0..runs.count()).filter(|&k| live[k]) {
        for piece in runs.pieces(k) {
            let coefficient = &mut space.tables[piece.level as usize * plane + piece.at as usize];
            V::load(coefficient).add(V::load(&weights[k])).store(coefficient);
        }
    }
    for level in (1..runs.levels()).rev() {
        let (lower, upper) = space.tables.split_at_mut(level * plane);
        let half = 1 << (level - 1);
        let lower = &mut lower[(level - 1) * plane..];
        for p in 0..plane - half {
            let both = V::load(&upper[p]);
            both.add(V::load(&lower[p])).store(&mut lower[p]);
            both.add(V::load(&lower[p + half])).store(&mut lower[p + half]);
        }
    }
    out.copy_from_slice(&space.tables[..plane]);
}
