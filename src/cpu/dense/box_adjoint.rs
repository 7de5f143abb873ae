//! From weights per window to coefficients per pixel: the adjoint of the window sums of [`super::energies`].

use super::box_sums::SlidingSum;
use crate::components::Components;
use crate::cpu::chunks::exact_chunks;
use crate::regime::MAX_SHORT_SIDE;
use crate::simd::{F32x16, Isa, Kernel, Vector};

/// From rows of weights of square windows to rows of coefficients, while both are in the first-level cache.
#[derive(Debug, Default)]
pub(crate) struct BoxAdjoint {
    /// The last `side` rows of weights, and the row that leaves.
    ring: Vec<F32x16>,
    /// Which rows of the ring are active: hold any weight.
    active: Vec<bool>,
    /// Long windows: sums down the last rows of weights, with zeros around them.
    down: Vec<F32x16>,
    side: usize,
    /// Windows per row, and rows of windows.
    columns: usize,
    count: usize,
    /// Rows pushed so far.
    seen: usize,
    /// The slot of the next row of weights.
    slot: usize,
    /// Rows of pixels before this one are reached by an active row of weights.
    active_until: usize,
}

impl BoxAdjoint {
    /// Starts over.
    pub(crate) fn start(&mut self, windows: &Components, side: usize) {
        let (count, columns) = windows.grid();
        if (self.side, self.columns) != (side, columns) {
            self.ring.resize((side + 1) * columns, F32x16::ZERO);
            self.down.clear();
            self.down.resize(side + columns + side - 1, F32x16::ZERO);
        }
        (self.side, self.columns, self.count) = (side, columns, count);
        (self.seen, self.slot, self.active_until) = (0, 0, 0);
        self.active.clear();
        self.active.resize(side + 1, false);
    }

    /// The memory of the next row of weights.
    pub(crate) fn next_row(&mut self) -> &mut [F32x16] {
        &mut self.ring[self.slot * self.columns..][..self.columns]
    }

    /// Pushes the row of weights in [`BoxAdjoint::next_row`] if it is `active`, else a row of zeros, as below the last
    /// row of windows. Returns whether the next row of pixels has any weight; if so, `out` holds for each pixel the sum
    /// of the weights of all windows around it.
    pub(crate) fn push_row(&mut self, isa: Isa, active: bool, out: &mut [F32x16]) -> bool {
        let (newest, oldest) = (self.slot, if self.slot == self.side { 0 } else { self.slot + 1 });
        let fresh = self.active_until <= self.seen;
        let step = if self.seen >= self.count {
            Step::Below { suffix: self.slot_of((self.seen + 1).saturating_sub(self.side)) }
        } else if fresh {
            Step::Fresh { newest }
        } else {
            Step::Slide { newest: active.then_some(newest), oldest: self.active[oldest].then_some(oldest) }
        };
        if self.seen == self.count && !fresh && self.side > MAX_SHORT_SIDE {
            isa.run(SuffixSums { rows: &mut *self });
        }
        (self.active[newest], self.active[oldest]) = (active, false);
        if active {
            self.active_until = self.seen + self.side;
        }
        self.seen += 1;
        self.slot = oldest;
        let any = self.active_until >= self.seen;
        if any {
            isa.run(AdjointRow { rows: &mut *self, step, out });
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
    /// The row in a slot is the only active one.
    Fresh { newest: usize },
    /// Active rows enter and leave.
    Slide { newest: Option<usize>, oldest: Option<usize> },
    /// No more rows enter; the sum of all that are left is in a slot.
    Below { suffix: usize },
}

/// Once no more rows enter: every row in the ring becomes the sum of itself and all below it.
struct SuffixSums<'a> {
    rows: &'a mut BoxAdjoint,
}

impl Kernel for SuffixSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { rows } = self;
        let first = rows.count.saturating_sub(rows.side);
        for row in (first + 1..rows.count).rev() {
            let (above, below) = (rows.slot_of(row - 1), rows.slot_of(row));
            if !rows.active[below] {
                continue;
            }
            let [above_row, below_row] = two_of(&mut rows.ring, rows.columns, above, below);
            if rows.active[above] {
                add::<V>(above_row, below_row);
            } else {
                above_row.copy_from_slice(below_row);
                rows.active[above] = true;
            }
        }
    }
}

struct AdjointRow<'a> {
    rows: &'a mut BoxAdjoint,
    step: Step,
    out: &'a mut [F32x16],
}

impl Kernel for AdjointRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { rows, step, out } = self;
        match rows.side {
            1 => short::<V, 0>(rows, out),
            2 => short::<V, 1>(rows, out),
            3 => short::<V, 2>(rows, out),
            MAX_SHORT_SIDE => short::<V, { MAX_SHORT_SIDE - 1 }>(rows, out),
            _ => long::<V>(rows, step, out),
        }
    }
}

/// Windows of `BEFORE + 1` pixels per side: down the rows of weights first, then across in registers.
#[inline(always)]
fn short<V: Vector, const BEFORE: usize>(rows: &mut BoxAdjoint, out: &mut [F32x16]) {
    let ring = exact_chunks(&rows.ring, rows.columns).zip(&rows.active);
    let mut holding = ring.filter_map(|(row, active)| active.then_some(row));
    let Some(first) = holding.next() else { return };
    let mut rest = [first; BEFORE];
    let mut count = 0;
    for (slot, row) in rest.iter_mut().zip(holding) {
        *slot = row;
        count += 1;
    }
    if count == BEFORE {
        across::<V, BEFORE>(rest, first, out);
    } else {
        border::<V, BEFORE>(&rest[..count], first, out);
    }
}

#[inline(always)]
fn across<V: Vector, const BEFORE: usize>(rows: [&[F32x16]; BEFORE], first: &[F32x16], out: &mut [F32x16]) {
    let mut sliding = SlidingSum::<V, BEFORE>::start();
    let columns = first.len();
    let mut rest: [&[F32x16]; BEFORE] = [&[]; BEFORE];
    for i in 0..BEFORE {
        rest[i] = &rows[i][..columns];
    }
    let (out, last) = out.split_at_mut(columns);
    for x in (1..columns).step_by(2) {
        let pair = sliding.push_two(down::<V, BEFORE>(first, &rest, x - 1), down::<V, BEFORE>(first, &rest, x));
        pair[0].store(&mut out[x - 1]);
        pair[1].store(&mut out[x]);
    }
    if columns % 2 == 1 {
        sliding.push(down::<V, BEFORE>(first, &rest, columns - 1)).store(&mut out[columns - 1]);
    }
    for out in last {
        sliding.push(V::splat(0.0)).store(out);
    }
}

/// The sum of rows at column `x`.
#[inline(always)]
fn down<V: Vector, const BEFORE: usize>(first: &[F32x16], rest: &[&[F32x16]; BEFORE], x: usize) -> V {
    let mut down = V::load(&first[x]);
    for i in 0..BEFORE {
        down = down.add(V::load(&rest[i][x]));
    }
    down
}

/// The same where fewer rows of windows hold a row of pixels: near the border, and where some carry no weight.
#[inline(always)]
fn border<V: Vector, const BEFORE: usize>(rows: &[&[F32x16]], first: &[F32x16], out: &mut [F32x16]) {
    let mut sliding = SlidingSum::<V, BEFORE>::start();
    for (x, out) in out.iter_mut().enumerate() {
        let mut down = V::splat(0.0);
        if x < first.len() {
            down = V::load(&first[x]);
            for row in rows {
                down = down.add(V::load(&row[x]));
            }
        }
        sliding.push(down).store(out);
    }
}

/// Running sums, first down the rows, then across: what enters a window is added, what leaves it is subtracted. A running
/// sum keeps the rounding error of the largest coefficient it passed, which is no more than that of any sum while equally
/// many windows hold each pixel. Towards the last columns and rows ever fewer windows do: there sums start at the border.
#[inline(always)]
fn long<V: Vector>(rows: &mut BoxAdjoint, step: Step, out: &mut [F32x16]) {
    let BoxAdjoint { ring, down, side, columns, .. } = rows;
    let row = |slot: usize| &ring[slot * *columns..][..*columns];
    let sums = &mut down[*side..][..*columns];
    match step {
        Step::Fresh { newest: slot } | Step::Below { suffix: slot } => sums.copy_from_slice(row(slot)),
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

/// Two different rows of a ring.
#[inline(always)]
fn two_of(ring: &mut [F32x16], columns: usize, a: usize, b: usize) -> [&mut [F32x16]; 2] {
    let (upper, lower) = ring.split_at_mut(a.max(b) * columns);
    let (upper, lower) = (&mut upper[a.min(b) * columns..][..columns], &mut lower[..columns]);
    if a < b { [upper, lower] } else { [lower, upper] }
}

#[inline(always)]
fn exchange<V: Vector>(sums: &mut [F32x16], new: &[F32x16], old: &[F32x16]) {
    let (new, old) = (&new[..sums.len()], &old[..sums.len()]);
    for x in 0..sums.len() {
        let change = V::load(&new[x]).sub(V::load(&old[x]));
        V::load(&sums[x]).add(change).store(&mut sums[x]);
    }
}

#[inline(always)]
fn add<V: Vector>(sums: &mut [F32x16], new: &[F32x16]) {
    let new = &new[..sums.len()];
    for x in 0..sums.len() {
        V::load(&sums[x]).add(V::load(&new[x])).store(&mut sums[x]);
    }
}

#[inline(always)]
fn subtract<V: Vector>(sums: &mut [F32x16], old: &[F32x16]) {
    let old = &old[..sums.len()];
    for x in 0..sums.len() {
        V::load(&sums[x]).sub(V::load(&old[x])).store(&mut sums[x]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LARGEST: usize = 14;

    proptest! {
        // Small integers, so that every order of addition is exact.
        #[test]
        fn coefficients_are_the_sums_of_the_weights_around_each_pixel(
            (height, width) in (1..=LARGEST, 1..=LARGEST), side in 1_usize..=8,
            values in proptest::collection::vec(0_u8..8, LARGEST * LARGEST),
            active in proptest::collection::vec(any::<bool>(), LARGEST),
        ) {
            prop_assume!(side <= height.min(width));
            let components = Components::square(height, width, side).unwrap();
            let (rows, columns) = components.grid();
            let weight = |row: usize, column: usize| f32::from(values[row * LARGEST + column]);
            let around = |p: usize, windows: usize| (p + 1).saturating_sub(side)..windows.min(p + 1);
            for isa in Isa::available() {
                let mut adjoint = BoxAdjoint::default();
                adjoint.start(&components, side);
                for y in 0..height {
                    // Rows without weight are not written, and what they hold does not count.
                    let active_row = y < rows && active[y];
                    for (x, lanes) in adjoint.next_row().iter_mut().enumerate().filter(|_| active_row) {
                        *lanes = F32x16::splat(weight(y, x));
                    }
                    let mut out = vec![F32x16::splat(7.0); width];
                    let any = adjoint.push_row(isa, active_row, &mut out);
                    for x in 0..width {
                        let rows_around = around(y, rows).filter(|&row| active[row]);
                        let exact: f32 =
                            rows_around.flat_map(|row| around(x, columns).map(move |column| weight(row, column))).sum();
                        prop_assert_eq!(if any { out[x].0[5] } else { 0.0 }, exact);
                    }
                }
            }
        }
    }
}
