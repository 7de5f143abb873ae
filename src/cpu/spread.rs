//! Spread: from weights per window to coefficients per pixel, the adjoint of the window sums of `energy`.

use super::isa::{Isa, dispatched};
use super::parts::parts;
use super::simd::{Lanes, Vector};
use super::slide::{LONGEST_SHORT, Roll};
use crate::runs::Runs;
use crate::windows::Windows;

/// From rows of weights of square windows to rows of coefficients, while both are in the first-level cache.
#[derive(Debug, Default)]
pub struct SpreadRows {
    /// The last `side` rows of weights, and the one that leaves.
    ring: Vec<Lanes>,
    /// Which rows of the ring are live.
    live: Vec<bool>,
    /// Long windows: sums down the last rows of weights, with zeros around them.
    down: Vec<Lanes>,
    side: usize,
    /// Windows a row, and rows of windows.
    columns: usize,
    count: usize,
    /// Rows taken so far.
    seen: usize,
    /// The slot of the next row of weights.
    slot: usize,
    /// Up to which row, exclusively, some row of weights has an effect.
    reach: usize,
}

impl SpreadRows {
    /// Before the first row of windows.
    pub fn start(&mut self, windows: &Windows, side: usize) {
        let (count, columns) = windows.grid();
        if (self.side, self.columns) != (side, columns) {
            self.ring.resize((side + 1) * columns, Lanes::ZERO);
            self.down.clear();
            self.down.resize(side + columns + side - 1, Lanes::ZERO);
        }
        (self.side, self.columns, self.count) = (side, columns, count);
        (self.seen, self.slot, self.reach) = (0, 0, 0);
        self.live.clear();
        self.live.resize(side + 1, false);
    }

    /// Where the next row of weights belongs.
    pub fn slot(&mut self) -> &mut [Lanes] {
        &mut self.ring[self.slot * self.columns..][..self.columns]
    }

    /// Takes the row of weights in the slot if it is `live`, a row of zeros otherwise, as below the last row of windows.
    /// Returns whether the next row of pixels has any weight; if so, `out` holds for each pixel the sum of the weights of
    /// all windows around it.
    pub fn next(&mut self, isa: Isa, live: bool, out: &mut [Lanes]) -> bool {
        let (newest, oldest) = (self.slot, if self.slot == self.side { 0 } else { self.slot + 1 });
        let fresh = self.reach <= self.seen;
        let step = if self.seen >= self.count {
            Step::Below { settled: self.slot_of((self.seen + 1).saturating_sub(self.side)) }
        } else if fresh {
            Step::Fresh { newest }
        } else {
            Step::Slide { newest: live.then_some(newest), oldest: self.live[oldest].then_some(oldest) }
        };
        if self.seen == self.count && !fresh && self.side > LONGEST_SHORT {
            settle(isa, self);
        }
        (self.live[newest], self.live[oldest]) = (live, false);
        if live {
            self.reach = self.seen + self.side;
        }
        self.seen += 1;
        self.slot = oldest;
        let any = self.reach >= self.seen;
        if any {
            square(isa, self, step, out);
        }
        any
    }

    /// The slot of a row.
    fn slot_of(&self, row: usize) -> usize {
        row % (self.side + 1)
    }
}

/// How the rows of weights around a row of pixels differ from those around the row above.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The row in a slot is the only live one.
    Fresh { newest: usize },
    /// Live rows enter and leave.
    Slide { newest: Option<usize>, oldest: Option<usize> },
    /// No more rows enter; the sum of all that are left is in a slot.
    Below { settled: usize },
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
    fn settle(rows: &mut SpreadRows) = settle_body
}

dispatched! {
    fn square(rows: &mut SpreadRows, step: Step, out: &mut [Lanes]) = square_body
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
fn square_body<V: Vector>(rows: &mut SpreadRows, step: Step, out: &mut [Lanes]) {
    match rows.side {
        1 => short::<V, 0>(rows, out),
        2 => short::<V, 1>(rows, out),
        3 => short::<V, 2>(rows, out),
        LONGEST_SHORT => short::<V, 3>(rows, out),
        _ => long::<V>(rows, step, out),
    }
}

/// Windows of `BEFORE + 1` pixels a side: down the rows of weights first, then across in registers.
#[inline(always)]
fn short<V: Vector, const BEFORE: usize>(rows: &mut SpreadRows, out: &mut [Lanes]) {
    let ring = parts(&rows.ring, rows.columns).zip(&rows.live);
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
    for x in (1..columns).step_by(2) {
        let pair = roll.push_two(down::<V, BEFORE>(first, &others, x - 1), down::<V, BEFORE>(first, &others, x));
        pair[0].store(&mut out[x - 1]);
        pair[1].store(&mut out[x]);
    }
    if columns % 2 == 1 {
        roll.push(down::<V, BEFORE>(first, &others, columns - 1)).store(&mut out[columns - 1]);
    }
    for out in last {
        roll.push(V::splat(0.0)).store(out);
    }
}

/// The sum of rows at column `x`.
#[inline(always)]
fn down<V: Vector, const BEFORE: usize>(first: &[Lanes], others: &[&[Lanes]; BEFORE], x: usize) -> V {
    let mut down = V::load(&first[x]);
    for i in 0..BEFORE {
        down = down.add(V::load(&others[i][x]));
    }
    down
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

/// Running sums, first down the rows, then across: what enters a window is added, what leaves it taken away. That leaves
/// behind a rounding error of the image's largest coefficient nearby, which is no more than that of any sum while as many
/// windows hold a pixel. Towards the last columns and rows they are ever fewer: there sums are taken from the border.
#[inline(always)]
fn long<V: Vector>(rows: &mut SpreadRows, step: Step, out: &mut [Lanes]) {
    let SpreadRows { ring, down, side, columns, .. } = rows;
    let row = |slot: usize| &ring[slot * *columns..][..*columns];
    let sums = &mut down[*side..][..*columns];
    match step {
        Step::Fresh { newest: slot } | Step::Below { settled: slot } => sums.copy_from_slice(row(slot)),
        Step::Slide { newest: Some(new), oldest: Some(old) } => exchange::<V>(sums, row(new), row(old)),
        Step::Slide { newest: Some(new), oldest: None } => add::<V>(sums, row(new)),
        Step::Slide { newest: None, oldest: Some(old) } => subtract::<V>(sums, row(old)),
        Step::Slide { newest: None, oldest: None } => {}
    }
    let (out, border) = out.split_at_mut((*columns).max(*side));
    let (leaving, entering) = (&down[..out.len()], &down[*side..][..out.len()]);
    let mut run = V::splat(0.0);
    for x in 0..out.len() {
        run = run.add(V::load(&entering[x]).sub(V::load(&leaving[x])));
        run.store(&mut out[x]);
    }
    let last = &down[*side + *columns - border.len()..][..border.len()];
    let mut run = V::splat(0.0);
    for x in (0..last.len()).rev() {
        run = run.add(V::load(&last[x]));
        run.store(&mut border[x]);
    }
}

/// Once no more rows enter: every row in the ring becomes the sum of itself and all below it.
#[inline(always)]
fn settle_body<V: Vector>(rows: &mut SpreadRows) {
    let first = rows.count.saturating_sub(rows.side);
    for row in (first + 1..rows.count).rev() {
        let (above, below) = (rows.slot_of(row - 1), rows.slot_of(row));
        if !rows.live[below] {
            continue;
        }
        let [above_row, below_row] = two_of(&mut rows.ring, rows.columns, above, below);
        if rows.live[above] {
            add::<V>(above_row, below_row);
        } else {
            above_row.copy_from_slice(below_row);
            rows.live[above] = true;
        }
    }
}

/// Two rows of a ring, not the same.
#[inline(always)]
fn two_of(ring: &mut [Lanes], columns: usize, one: usize, other: usize) -> [&mut [Lanes]; 2] {
    let (upper, lower) = ring.split_at_mut(one.max(other) * columns);
    let (upper, lower) = (&mut upper[one.min(other) * columns..][..columns], &mut lower[..columns]);
    if one < other { [upper, lower] } else { [lower, upper] }
}

#[inline(always)]
fn exchange<V: Vector>(sums: &mut [Lanes], new: &[Lanes], old: &[Lanes]) {
    let (new, old) = (&new[..sums.len()], &old[..sums.len()]);
    for x in 0..sums.len() {
        let change = V::load(&new[x]).sub(V::load(&old[x]));
        V::load(&sums[x]).add(change).store(&mut sums[x]);
    }
}

#[inline(always)]
fn add<V: Vector>(sums: &mut [Lanes], new: &[Lanes]) {
    let new = &new[..sums.len()];
    for x in 0..sums.len() {
        V::load(&sums[x]).add(V::load(&new[x])).store(&mut sums[x]);
    }
}

#[inline(always)]
fn subtract<V: Vector>(sums: &mut [Lanes], old: &[Lanes]) {
    let old = &old[..sums.len()];
    for x in 0..sums.len() {
        V::load(&sums[x]).sub(V::load(&old[x])).store(&mut sums[x]);
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
