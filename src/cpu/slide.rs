//! Sums of every `side` neighbouring values, along a row and down the rows, as floats without any subtraction.
//!
//! Long windows use the block method of van Herk and Gil & Werman: cut the line into blocks of `side`; every window is
//! the end of one block plus the start of the next, so three additions a window do, whatever the side. A running
//! add-and-subtract would cost two, but its absolute error is divided by 2 sigma^2 later.

use super::simd::{Lanes, Vector};

/// Up to this side, adding the values one by one is no dearer than the block method.
pub const LONGEST_SHORT: usize = 4;

/// The last `BEFORE` values of a line, in registers.
#[derive(Clone, Copy)]
pub struct Roll<V, const BEFORE: usize>([V; BEFORE]);

impl<V: Vector, const BEFORE: usize> Roll<V, BEFORE> {
    /// Before the first value; missing values count as zero.
    #[inline(always)]
    #[must_use]
    pub fn start() -> Self {
        Self([V::splat(0.0); BEFORE])
    }

    /// Takes the next value and returns its sum with the `BEFORE` values before it.
    #[inline(always)]
    pub fn push(&mut self, value: V) -> V {
        let sum = self.sum(value);
        self.skip(value);
        sum
    }

    /// Takes the next two values and returns each one's sum with the `BEFORE` values before it; what both sums have in
    /// common is added once.
    #[inline(always)]
    pub fn push_two(&mut self, first: V, second: V) -> [V; 2] {
        let sums = if BEFORE == 0 {
            [first, second]
        } else {
            let mut common = first;
            for i in 1..BEFORE {
                common = common.add(self.0[i]);
            }
            [common.add(self.0[0]), common.add(second)]
        };
        self.skip(first);
        self.skip(second);
        sums
    }

    /// Takes the next value where no sum is wanted.
    #[inline(always)]
    pub fn skip(&mut self, value: V) {
        for i in 1..BEFORE {
            self.0[i - 1] = self.0[i];
        }
        if BEFORE > 0 {
            self.0[BEFORE - 1] = value;
        }
    }

    #[inline(always)]
    fn sum(&self, value: V) -> V {
        if BEFORE == 0 {
            return value;
        }
        let mut sum = self.0[0];
        for i in 1..BEFORE {
            sum = sum.add(self.0[i]);
        }
        sum.add(value)
    }
}

/// Prepares the `count` windows that start in the first `side` values of `row`: the tails of this block, and the values
/// that follow it.
#[inline(always)]
fn across_block<'a, V: Vector>(
    row: &'a [Lanes],
    side: usize,
    tails: &'a mut [Lanes],
    count: usize,
) -> (&'a [Lanes], &'a [Lanes]) {
    let tails = &mut tails[..side];
    let (block, next) = row.split_at(side);
    let mut tail = V::splat(0.0);
    for i in (0..side).rev() {
        tail = tail.add(V::load(&block[i]));
        tail.store(&mut tails[i]);
    }
    (&tails[..count], &next[..count])
}

/// Sums of the last `side` rows, or of all while there are fewer, as rows arrive from the top.
#[derive(Debug, Default)]
pub struct RowSlider {
    /// The rows of the block being filled, behind them the block tails of the block before, and a row of zeros, the tail
    /// of nothing.
    ring: Vec<Lanes>,
    /// Sum of the rows of the current block.
    head: Vec<Lanes>,
    side: usize,
    columns: usize,
    seen: usize,
}

/// A row on its way into a slider.
struct Down<'a> {
    row: &'a mut [Lanes],
    head: &'a mut [Lanes],
    tails: &'a [Lanes],
    out: &'a mut [Lanes],
}

impl RowSlider {
    /// Starts over with windows of `side` rows of `columns` values.
    pub fn start(&mut self, side: usize, columns: usize) {
        (self.side, self.columns, self.seen) = (side, columns, 0);
        self.ring.resize((side + 1) * columns, Lanes::ZERO);
        self.ring[side * columns..].fill(Lanes::ZERO);
        self.head.resize(columns, Lanes::ZERO);
        self.head.fill(Lanes::ZERO);
    }

    /// Takes the sums of every `side` neighbouring values of `row`, which has one value more than they need; it has no
    /// effect, but loops without a last, different step are shorter.
    #[inline(always)]
    pub fn take_across<V: Vector>(&mut self, row: &[Lanes], tails: &mut [Lanes], out: &mut [Lanes]) {
        let side = self.side;
        for (block, out) in out[..self.columns].chunks_mut(side).enumerate() {
            let (across, next) = across_block::<V>(&row[block * side..], side, tails, out.len());
            let Down { row, head, tails, out } = self.down(block * side, out);
            let mut begin = V::splat(0.0);
            for i in 0..out.len() {
                let value = V::load(&across[i]).add(begin);
                value.store(&mut row[i]);
                let sum = V::load(&head[i]).add(value);
                sum.store(&mut head[i]);
                sum.add(V::load(&tails[i])).store(&mut out[i]);
                begin = begin.add(V::load(&next[i]));
            }
        }
        self.count::<V>();
    }

    /// As many values of the next row as `out` has, from value `start` on.
    #[inline(always)]
    fn down<'a>(&'a mut self, start: usize, out: &'a mut [Lanes]) -> Down<'a> {
        let (columns, slot) = (self.columns, self.seen % self.side);
        let (rows, zeros) = self.ring.split_at_mut(self.side * columns);
        let (row, tails) = rows[slot * columns..].split_at_mut(columns);
        // The first block has none before it, and the last row of a block needs none.
        let tails = if self.seen < self.side || tails.is_empty() { zeros } else { tails };
        let count = out.len();
        let head = &mut self.head[start..][..count];
        Down { row: &mut row[start..][..count], head, tails: &tails[start..][..count], out }
    }

    /// Counts a row; at the end of a block its rows become tails.
    #[inline(always)]
    fn count<V: Vector>(&mut self) {
        self.seen += 1;
        if !self.seen.is_multiple_of(self.side) {
            return;
        }
        self.head.fill(Lanes::ZERO);
        for slot in (0..self.side - 1).rev() {
            let (upper, lower) = self.ring.split_at_mut((slot + 1) * self.columns);
            let (upper, lower) = (&mut upper[slot * self.columns..], &lower[..self.columns]);
            for x in 0..lower.len() {
                V::load(&upper[x]).add(V::load(&lower[x])).store(&mut upper[x]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Portable;
    use proptest::prelude::*;

    fn lanes(values: &[f32]) -> Vec<Lanes> {
        values.iter().map(|&v| Lanes::splat(v)).collect()
    }

    fn padded(values: &[f32]) -> Vec<Lanes> {
        [lanes(values), vec![Lanes::splat(1e9)]].concat()
    }

    proptest! {
        // Small integers, so that every order of addition is exact.
        #[test]
        fn values_roll(values in proptest::collection::vec(-8_i8..8, 1..70), alone in 0_usize..4) {
            let values: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
            let mut roll = Roll::<Portable<false>, 2>::start();
            let mut sums = Vec::new();
            let (some, twos) = values.split_at(alone.min(values.len()));
            sums.extend(some.iter().map(|&v| roll.push(Portable::splat(v))));
            for two in twos.chunks(2) {
                match *two {
                    [a, b] => sums.extend(roll.push_two(Portable::splat(a), Portable::splat(b))),
                    [a] => sums.push(roll.push(Portable::splat(a))),
                    _ => unreachable!("chunks of one or two"),
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                let mut rolled = Lanes::ZERO;
                sum.store(&mut rolled);
                prop_assert_eq!(rolled.0[3], values[i.saturating_sub(2)..=i].iter().sum::<f32>());
            }
        }

        #[test]
        fn boxes_slide(
            rows in proptest::collection::vec(proptest::collection::vec(-8_i8..8, 13), 1..30),
            side in 1_usize..=13,
        ) {
            let (mut slider, columns) = (RowSlider::default(), 14 - side);
            let (mut tails, mut out) = (vec![Lanes::ZERO; 13], vec![Lanes::ZERO; columns]);
            slider.start(side, columns);
            for y in 0..rows.len() {
                let row: Vec<f32> = rows[y].iter().map(|&v| f32::from(v)).collect();
                slider.take_across::<Portable<false>>(&padded(&row), &mut tails, &mut out);
                for x in 0..columns {
                    let last = &rows[(y + 1).saturating_sub(side)..=y];
                    let exact = last.iter().flat_map(|row| &row[x..x + side]).map(|&v| f32::from(v)).sum::<f32>();
                    prop_assert_eq!(out[x].0[9], exact);
                }
            }
        }
    }
}
