//! Spread: from weights per window to coefficients per pixel, the adjoint of the window sums of `energy`.

use super::isa::{Isa, dispatched};
use super::simd::{Lanes, Vector};
use super::slide::{LONGEST_SHORT, Roll, RowSlider, slide_row};
use crate::runs::Runs;
use crate::windows::Windows;

/// From rows of weights of square windows to rows of coefficients, while both are in the first-level cache.
#[derive(Debug, Default)]
pub struct SpreadRows {
    /// Long windows: sums down the rows of weights.
    slider: RowSlider,
    /// Short windows: the last rows of weights.
    ring: Vec<Lanes>,
    /// Long windows: a row of sums down the windows, and the tails of its blocks.
    rows: Vec<Lanes>,
    side: usize,
    columns: usize,
    /// Rows taken so far.
    seen: usize,
    /// Up to which row, exclusively, some row of weights has an effect.
    reach: usize,
    /// Short windows: which rows of the ring are live.
    live: [bool; LONGEST_SHORT],
}

impl SpreadRows {
    /// Before the first row of windows.
    pub fn start(&mut self, windows: &Windows, side: usize) {
        let (_, columns) = windows.grid();
        (self.side, self.columns, self.seen, self.reach) = (side, columns, 0, 0);
        self.live = [false; LONGEST_SHORT];
        if side > LONGEST_SHORT {
            self.slider.start(side, columns);
            self.rows.resize(self.rows.len().max(2 * windows.width() + 1), Lanes::ZERO);
        } else {
            self.ring.resize(self.ring.len().max(side * columns), Lanes::ZERO);
        }
    }

    /// Where the next row of weights belongs.
    pub fn slot(&mut self) -> &mut [Lanes] {
        if self.side > LONGEST_SHORT {
            return self.slider.slot();
        }
        let slot = self.seen % self.side;
        &mut self.ring[slot * self.columns..][..self.columns]
    }

    /// Takes the row of weights in the slot if it is `live`, a row of zeros otherwise, as below the last row of windows.
    /// Returns whether the next row of pixels has any weight; if so, `out` holds for each pixel the sum of the weights of
    /// all windows around it.
    pub fn next(&mut self, isa: Isa, live: bool, out: &mut [Lanes]) -> bool {
        if live {
            self.reach = self.seen + self.side;
        }
        square(isa, self, live, out);
        self.seen += 1;
        self.reach >= self.seen
    }
}

/// Writes to `out` `[pixel]` the sum of the weights of all masks that hold the pixel, through doubling tables. Masks not
/// `live` count as zero.
pub fn spread_masks(
    isa: Isa,
    runs: &Runs,
    weights: &[Lanes],
    live: &[bool],
    tables: &mut Vec<Lanes>,
    out: &mut [Lanes],
) {
    masks(isa, weights, live, runs, tables, out);
}

dispatched! {
    fn square(rows: &mut SpreadRows, live: bool, out: &mut [Lanes]) = square_body
}

dispatched! {
    fn masks(
        weights: &[Lanes],
        live: &[bool],
        runs: &Runs,
        tables: &mut Vec<Lanes>,
        out: &mut [Lanes],
    ) = masks_body
}

#[inline(always)]
fn square_body<V: Vector>(rows: &mut SpreadRows, live: bool, out: &mut [Lanes]) {
    match rows.side {
        1 => short::<V, 0>(rows, live, out),
        2 => short::<V, 1>(rows, live, out),
        3 => short::<V, 2>(rows, live, out),
        LONGEST_SHORT => short::<V, 3>(rows, live, out),
        _ => long::<V>(rows, live, out),
    }
}

/// Windows of `BEFORE + 1` pixels a side: down the rows of weights first, then across in registers.
#[inline(always)]
fn short<V: Vector, const BEFORE: usize>(rows: &mut SpreadRows, live: bool, out: &mut [Lanes]) {
    rows.live[rows.seen % (BEFORE + 1)] = live;
    let ring = rows.ring.chunks_exact(rows.columns).zip(rows.live);
    let mut holding = ring.filter_map(|(row, live)| live.then_some(row));
    let Some(first) = holding.next() else { return };
    let mut others = [first; BEFORE];
    let mut count = 0;
    for (other, row) in others.iter_mut().zip(holding) {
        *other = row;
        count += 1;
    }
    if count == BEFORE {
        across::<V, BEFORE>(others, first, out);
    } else {
        border::<V, BEFORE>(&others[..count], first, out);
    }
}

#[inline(always)]
fn across<V: Vector, const BEFORE: usize>(rows: [&[Lanes]; BEFORE], first: &[Lanes], out: &mut [Lanes]) {
    let mut roll = Roll::<V, BEFORE>::start();
    let columns = first.len();
    let mut others: [&[Lanes]; BEFORE] = [&[]; BEFORE];
    for i in 0..BEFORE {
        others[i] = &rows[i][..columns];
    }
    let (out, last) = out.split_at_mut(columns);
    for x in 0..columns {
        let mut down = V::load(&first[x]);
        for i in 0..BEFORE {
            down = down.add(V::load(&others[i][x]));
        }
        roll.push(down).store(&mut out[x]);
    }
    for out in last {
        roll.push(V::splat(0.0)).store(out);
    }
}

/// The same where fewer rows of windows hold a row of pixels: near the border, and where some carry no weight.
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

/// Down the rows with a slider, to which rows without weight are zero; then across.
#[inline(always)]
fn long<V: Vector>(rows: &mut SpreadRows, live: bool, out: &mut [Lanes]) {
    let (tails, down) = rows.rows.split_at_mut(out.len());
    let down = &mut down[..=rows.columns];
    if live {
        rows.slider.take::<V>(&mut down[..rows.columns]);
    } else {
        rows.slider.take_zeros::<V>(&mut down[..rows.columns]);
    }
    if rows.reach > rows.seen {
        slide_out::<V>(down, rows.side, tails, out);
    }
}

/// `out[x]` = sum of the up to `side` values at and before x, of a row shorter than `out` by `side - 1`, followed by one
/// value that has no effect.
#[inline(always)]
fn slide_out<V: Vector>(padded: &[Lanes], side: usize, tails: &mut [Lanes], out: &mut [Lanes]) {
    let row = &padded[..padded.len() - 1];
    let short = side.min(row.len());
    let mut head = V::splat(0.0);
    for (o, value) in out.iter_mut().zip(&row[..short]) {
        head = head.add(V::load(value));
        head.store(o);
    }
    let (begin, end) = out.split_at_mut(row.len().max(side - 1));
    if row.len() > side {
        slide_row::<V>(padded, side, tails, &mut begin[side - 1..]);
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
fn masks_body<V: Vector>(weights: &[Lanes], live: &[bool], runs: &Runs, tables: &mut Vec<Lanes>, out: &mut [Lanes]) {
    let plane = out.len();
    tables.clear();
    tables.resize(runs.levels() * plane, Lanes::ZERO);
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
