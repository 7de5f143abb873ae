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
    /// A row of sums down the windows, and the tails of its blocks.
    rows: Vec<Lanes>,
    /// Doubling tables of the mask kernels.
    tables: Vec<Lanes>,
}

/// Writes to `out` `[pixel]` the sum of the weights of all windows that hold the pixel. Rows not `live` hold zeros, or
/// count as zero where every mask is a row.
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
    match side {
        1 => short::<V, 0>(weights, live, width, out),
        2 => short::<V, 1>(weights, live, width, out),
        3 => short::<V, 2>(weights, live, width, out),
        4 => short::<V, 3>(weights, live, width, out),
        _ => long::<V>(weights, live, width, side, space, out),
    }
}

/// Windows of `BEFORE + 1` pixels a side: down the rows of weights first, then across in registers.
#[inline(always)]
fn short<V: Vector, const BEFORE: usize>(weights: &[Lanes], live: &[bool], width: usize, out: &mut [Lanes]) {
    let columns = width - BEFORE;
    let row = |y: usize| &weights[y * columns..][..columns];
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let holding = y.saturating_sub(BEFORE)..live.len().min(y + 1);
        if !live[holding.clone()].contains(&true) {
            out.fill(Lanes::ZERO);
        } else if holding.len() == BEFORE + 1 {
            let first = holding.start;
            across::<V, BEFORE>(std::array::from_fn(|i| row(first + i + 1)), row(first), out);
        } else {
            // Near the border fewer rows of windows hold a row of pixels.
            let mut rows = [row(holding.start); BEFORE];
            let mut count = 0;
            for y in holding.clone().skip(1) {
                rows[count] = row(y);
                count += 1;
            }
            border::<V, BEFORE>(&rows[..count], row(holding.start), out);
        }
    }
}

#[inline(always)]
fn across<V: Vector, const BEFORE: usize>(rows: [&[Lanes]; BEFORE], first: &[Lanes], out: &mut [Lanes]) {
    let mut roll = Roll::<V, BEFORE>::start();
    let (out, last) = out.split_at_mut(first.len());
    for x in 0..first.len() {
        let mut down = V::load(&first[x]);
        for row in rows {
            down = down.add(V::load(&row[x]));
        }
        roll.push(down).store(&mut out[x]);
    }
    for out in last {
        roll.push(V::splat(0.0)).store(out);
    }
}

/// The same for any number of rows.
#[inline(always)]
fn border<V: Vector, const BEFORE: usize>(rows: &[&[Lanes]], first: &[Lanes], out: &mut [Lanes]) {
    let mut roll = Roll::<V, BEFORE>::start();
    for (x, out) in out.iter_mut().enumerate() {
        let mut down = V::splat(0.0);
        if x < first.len() {
            down = V::load(&first[x]);
            for row in rows {
                down = down.add(V::load(&row[x]));
            }
        }
        roll.push(down).store(out);
    }
}

/// Down the rows with a slider, to which rows beyond the border are zero; then across.
#[inline(always)]
fn long<V: Vector>(
    weights: &[Lanes],
    live: &[bool],
    width: usize,
    side: usize,
    space: &mut SpreadSpace,
    out: &mut [Lanes],
) {
    let columns = width - side + 1;
    space.rows.resize(space.rows.len().max(2 * width), Lanes::ZERO);
    let (tails, down) = space.rows.split_at_mut(width);
    let down = &mut down[..columns];
    space.slider.start(side, columns);
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        if y < live.len() && live[y] {
            space.slider.slot().copy_from_slice(&weights[y * columns..][..columns]);
            space.slider.advance_partly::<V>(down);
        } else {
            space.slider.advance_empty::<V>(down);
        }
        slide_out::<V>(down, side, tails, out);
    }
}

/// `out[x]` = sum of the up to `side` values at and before x, of a row shorter than `out` by `side - 1`.
#[inline(always)]
fn slide_out<V: Vector>(row: &[Lanes], side: usize, tails: &mut [Lanes], out: &mut [Lanes]) {
    let short = side.min(row.len());
    let mut head = V::splat(0.0);
    for (o, value) in out.iter_mut().zip(&row[..short]) {
        head = head.add(V::load(value));
        head.store(o);
    }
    let (begin, end) = out.split_at_mut(row.len().max(side - 1));
    if row.len() > side {
        slide_row::<V>(row, side, tails, &mut begin[side - 1..]);
    } else {
        // Every window reaches the middle.
        let total = begin[short - 1];
        begin[short..].fill(total);
    }
    let mut tail = V::splat(0.0);
    for (o, value) in end.iter_mut().rev().zip(row.iter().rev()) {
        tail = tail.add(V::load(value));
        tail.store(o);
    }
}

#[inline(always)]
fn masks_body<V: Vector>(weights: &[Lanes], live: &[bool], runs: &Runs, space: &mut SpreadSpace, out: &mut [Lanes]) {
    let plane = out.len();
    space.tables.clear();
    space.tables.resize(runs.levels() * plane, Lanes::ZERO);
    let tables = &mut space.tables[..];
    for k in (0..runs.count()).filter(|&k| live[k]) {
        let weight = V::load(&weights[k]);
        for piece in runs.pieces(k) {
            let coefficient = &mut tables[piece.place as usize];
            V::load(coefficient).add(weight).store(coefficient);
        }
    }
    for level in (1..runs.levels()).rev() {
        let (lower, upper) = tables.split_at_mut(level * plane);
        let (lower, upper) = (&mut lower[(level - 1) * plane..], &upper[..plane]);
        let half = 1 << (level - 1);
        for p in 0..half.min(plane) {
            V::load(&lower[p]).add(V::load(&upper[p])).store(&mut lower[p]);
        }
        for p in half..plane {
            V::load(&lower[p]).add(V::load(&upper[p])).add(V::load(&upper[p - half])).store(&mut lower[p]);
        }
    }
    out.copy_from_slice(&tables[..plane]);
}
