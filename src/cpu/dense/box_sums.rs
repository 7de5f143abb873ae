//! Sums of every `side` neighbouring values, along a row and down the rows, in float32 or float64, without any subtraction.
//!
//! Long windows use the block method of van Herk and Gil & Werman: cut the line into blocks of `side`; every window is
//! the end of one block plus the start of the next, so three additions per window suffice, whatever the side. A running sum
//! with a subtraction would cost two, but it keeps its absolute error, which is divided by 2 sigma^2 later.

use crate::simd::{F32x16, F64x16, LANES, Vector};

/// What is summed: sixteen values in registers, in float32 or float64.
pub(crate) trait Summand: Copy {
    /// The same in memory.
    type Memory: Copy + Send + Sync + std::fmt::Debug;

    /// Zero in memory.
    const ZERO: Self::Memory;

    /// Zero.
    fn zero() -> Self;

    /// From memory.
    fn from_memory(memory: &Self::Memory) -> Self;

    /// To memory.
    fn to_memory(self, memory: &mut Self::Memory);

    /// Lane by lane sum.
    #[must_use]
    fn plus(self, other: Self) -> Self;
}

impl<V: Vector> Summand for V {
    type Memory = F32x16;

    const ZERO: F32x16 = F32x16::ZERO;

    #[inline(always)]
    fn zero() -> Self {
        V::splat(0.0)
    }

    #[inline(always)]
    fn from_memory(memory: &F32x16) -> Self {
        V::load(memory)
    }

    #[inline(always)]
    fn to_memory(self, memory: &mut F32x16) {
        self.store(memory);
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.add(other)
    }
}

impl Summand for F64x16 {
    type Memory = Self;

    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn zero() -> Self {
        Self::ZERO
    }

    #[inline(always)]
    fn from_memory(memory: &Self) -> Self {
        *memory
    }

    #[inline(always)]
    fn to_memory(self, memory: &mut Self) {
        *memory = self;
    }

    #[inline(always)]
    fn plus(mut self, other: Self) -> Self {
        for i in 0..LANES {
            self.0[i] += other.0[i];
        }
        self
    }
}

/// The last `BEFORE` values of a line, in registers.
#[derive(Clone, Copy)]
pub(crate) struct SlidingSum<V, const BEFORE: usize>([V; BEFORE]);

impl<V: Vector, const BEFORE: usize> SlidingSum<V, BEFORE> {
    /// Before the first value; missing values count as zero.
    #[inline(always)]
    #[must_use]
    pub(crate) fn start() -> Self {
        Self([V::splat(0.0); BEFORE])
    }

    /// Takes the next value and returns its sum with the `BEFORE` values before it.
    #[inline(always)]
    pub(crate) fn push(&mut self, value: V) -> V {
        let sum = self.sum(value);
        self.skip(value);
        sum
    }

    /// Takes the next two values and returns the sum of each with the `BEFORE` values before it; the terms that both sums
    /// have in common are added once.
    #[inline(always)]
    pub(crate) fn push_two(&mut self, first: V, second: V) -> [V; 2] {
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
    pub(crate) fn skip(&mut self, value: V) {
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
fn across_block<'a, S: Summand>(
    row: &'a [S::Memory],
    side: usize,
    tails: &'a mut [S::Memory],
    count: usize,
) -> (&'a [S::Memory], &'a [S::Memory]) {
    let tails = &mut tails[..side];
    let (block, next) = row.split_at(side);
    let mut tail = S::zero();
    for i in (0..side).rev() {
        tail = tail.plus(S::from_memory(&block[i]));
        tail.to_memory(&mut tails[i]);
    }
    (&tails[..count], &next[..count])
}

/// Sums of the last `side` rows, or of all while there are fewer, as rows arrive from the top.
#[derive(Debug)]
pub(crate) struct BlockSums<M = F32x16> {
    /// `side` rows: those of the current block so far, then the tails of the block before; and a row of zeros, the tail
    /// where there is no block before.
    ring: Vec<M>,
    /// Sum of the rows of the current block.
    head: Vec<M>,
    side: usize,
    columns: usize,
    seen: usize,
}

impl<M> Default for BlockSums<M> {
    fn default() -> Self {
        Self { ring: Vec::new(), head: Vec::new(), side: 0, columns: 0, seen: 0 }
    }
}

/// The memory that the next row is written to, and what it is added to.
struct Down<'a, M> {
    row: &'a mut [M],
    head: &'a mut [M],
    tails: &'a [M],
    out: &'a mut [M],
}

impl<M: Copy> BlockSums<M> {
    /// Starts over with windows of `side` rows of `columns` values.
    pub(crate) fn start(&mut self, side: usize, columns: usize, zero: M) {
        (self.side, self.columns, self.seen) = (side, columns, 0);
        self.ring.resize((side + 1) * columns, zero);
        self.ring[side * columns..].fill(zero);
        self.head.resize(columns, zero);
        self.head.fill(zero);
    }

    /// Pushes the sums of every `side` neighbouring values of `row`. The row has one value more than they need: it has no
    /// effect, but loops without a special last step are shorter.
    #[inline(always)]
    pub(crate) fn push_across<S: Summand<Memory = M>>(&mut self, row: &[M], tails: &mut [M], out: &mut [M]) {
        let side = self.side;
        for (block, out) in out[..self.columns].chunks_mut(side).enumerate() {
            let (across, next) = across_block::<S>(&row[block * side..], side, tails, out.len());
            let Down { row, head, tails, out } = self.down(block * side, out);
            let mut begin = S::zero();
            for i in 0..out.len() {
                let value = S::from_memory(&across[i]).plus(begin);
                value.to_memory(&mut row[i]);
                let sum = S::from_memory(&head[i]).plus(value);
                sum.to_memory(&mut head[i]);
                sum.plus(S::from_memory(&tails[i])).to_memory(&mut out[i]);
                begin = begin.plus(S::from_memory(&next[i]));
            }
        }
        self.count::<S>();
    }

    /// The memory for as many values of the next row as `out` has, the first of which is value `start`.
    #[inline(always)]
    fn down<'a>(&'a mut self, start: usize, out: &'a mut [M]) -> Down<'a, M> {
        let (columns, slot) = (self.columns, self.seen % self.side);
        let (rows, zeros) = self.ring.split_at_mut(self.side * columns);
        let (row, tails) = rows[slot * columns..].split_at_mut(columns);
        // The first block has none before it, and the last row of a block needs none.
        let tails = if self.seen < self.side || tails.is_empty() { zeros } else { tails };
        let count = out.len();
        let head = &mut self.head[start..][..count];
        Down { row: &mut row[start..][..count], head, tails: &tails[start..][..count], out }
    }

    /// Counts the row; at the end of a block its rows become tails.
    #[inline(always)]
    fn count<S: Summand<Memory = M>>(&mut self) {
        self.seen += 1;
        if !self.seen.is_multiple_of(self.side) {
            return;
        }
        self.head.fill(S::ZERO);
        for slot in (0..self.side - 1).rev() {
            let (upper, lower) = self.ring.split_at_mut((slot + 1) * self.columns);
            let (upper, lower) = (&mut upper[slot * self.columns..], &lower[..self.columns]);
            for x in 0..lower.len() {
                S::from_memory(&upper[x]).plus(S::from_memory(&lower[x])).to_memory(&mut upper[x]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;
    use proptest::prelude::*;

    fn lanes(values: &[f32]) -> Vec<F32x16> {
        values.iter().map(|&v| F32x16::splat(v)).collect()
    }

    fn padded(values: &[f32]) -> Vec<F32x16> {
        [lanes(values), vec![F32x16::splat(1e9)]].concat()
    }

    proptest! {
        // Small integers, so that every order of addition is exact.
        #[test]
        fn sliding_sums_are_those_of_the_last_values(values in proptest::collection::vec(-8_i8..8, 1..70), alone in 0_usize..4) {
            let values: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
            let mut sliding = SlidingSum::<Portable<false>, 2>::start();
            let mut sums = Vec::new();
            let (some, twos) = values.split_at(alone.min(values.len()));
            sums.extend(some.iter().map(|&v| sliding.push(Portable::splat(v))));
            for two in twos.chunks(2) {
                match *two {
                    [a, b] => sums.extend(sliding.push_two(Portable::splat(a), Portable::splat(b))),
                    [a] => sums.push(sliding.push(Portable::splat(a))),
                    _ => unreachable!("chunks of one or two"),
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                let mut rolled = F32x16::ZERO;
                sum.store(&mut rolled);
                prop_assert_eq!(rolled.0[3], values[i.saturating_sub(2)..=i].iter().sum::<f32>());
            }
        }

        #[test]
        fn block_sums_are_those_of_the_windows(
            rows in proptest::collection::vec(proptest::collection::vec(-8_i8..8, 13), 1..30),
            side in 1_usize..=13,
        ) {
            let (mut sums, columns) = (BlockSums::default(), 14 - side);
            let (mut tails, mut out) = (vec![F32x16::ZERO; 13], vec![F32x16::ZERO; columns]);
            sums.start(side, columns, F32x16::ZERO);
            for y in 0..rows.len() {
                let row: Vec<f32> = rows[y].iter().map(|&v| f32::from(v)).collect();
                sums.push_across::<Portable<false>>(&padded(&row), &mut tails, &mut out);
                for x in 0..columns {
                    let last = &rows[(y + 1).saturating_sub(side)..=y];
                    let exact = last.iter().flat_map(|row| &row[x..x + side]).map(|&v| f32::from(v)).sum::<f32>();
                    prop_assert_eq!(out[x].0[9], exact);
                }
            }
        }
    }
}
